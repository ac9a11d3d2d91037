"""exec: a program in the sandbox, as the model sees it."""

import errno
import os
import signal

from expert_runner.skills.base.capture import Capture
from expert_runner.skills.base.definitions import ExecArgs
from expert_runner.skills.base.failures import ToolError, explain_os_error
from expert_runner.skills.base.legible import brief, is_system_text
from expert_runner.skills.base.processes import Ended, run_program
from expert_runner.skills.base.tool import Outcome, Surroundings

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def exec_program(surroundings: Surroundings, args: ExecArgs) -> Outcome:
    """It gets a minimal environment and what the Expert's skills and the call add; the runner keeps its own."""
    _check_texts(args)
    # A program can go wherever its user can; its folder is checked to catch mistakes.
    cwd = surroundings.workspace.folder_path(args.cwd)
    minimal = {"PATH": os.environ.get("PATH", DEFAULT_PATH), "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 - the sandbox's own
    try:
        ended = await run_program(
            [args.command, *args.args],
            env={**minimal, **surroundings.env, **args.env},
            cwd=cwd,
            streams=[name for name in ("stdout", "stderr") if getattr(args, name)],
            timeout_s=args.timeout / 1000,
            mark=surroundings.mark.next_call(),
        )
    except OSError as error:
        raise ToolError(_why_not_started(args, error)) from error
    return _outcome(ended, args)


def _check_texts(args: ExecArgs) -> None:
    for where, texts in {"command": [args.command], "args": args.args, "env": [*args.env, *args.env.values()]}.items():
        if not all(map(is_system_text, texts)):
            raise ToolError(f"{where} must not hold NUL characters or halves of surrogate pairs.")
    for name in args.env:
        if not name or "=" in name:
            raise ToolError(f"env: {brief(name)} cannot be the name of a variable.")


def _why_not_started(args: ExecArgs, error: OSError) -> str:
    command = brief(args.command)
    match error.errno:
        case errno.ENOENT if any(character in " |&;<>*$()" for character in args.command):
            return (
                f"There is no program {command}: `command` is one program, not a shell line. Give its arguments in "
                '`args`, or run `bash` with args ["-c", "…"].'
            )
        case errno.ENOENT if "/" in args.command:
            return f"There is no program {command} in {brief(args.cwd)}, or no interpreter that its first line names."
        case errno.ENOENT | errno.ENOTDIR:
            return f"There is no program {command} in this sandbox."
        case errno.EACCES:
            return f"{command} is not executable: make it so with chmod, or run it with its interpreter."
        case errno.ENOEXEC:
            return f"{command} is no program for this machine, or a script without `#!`: run it with its interpreter."
        case errno.E2BIG:
            return "args and env are too large together: put the data in a file."
        case errno.EAGAIN:
            return (
                f"{command} cannot be started: the sandbox has as many processes as it may. "
                "Try again in a few seconds, when those that ended are cleared away."
            )
        case _:
            return f"{command} cannot be started: it {explain_os_error(error)}."


def _outcome(ended: Ended, args: ExecArgs) -> Outcome:
    lines = [_status(ended, args)]
    if ended.was_held:
        lines.append("Something it had started in the background still held its output; it gets no more of it.")
    for name, capture in ended.output.items():
        lines += _stream(name, capture)
    if ended.output and len(lines) == 1:
        lines.append("No output.")
    text = "\n".join(lines)
    return Outcome.error(text) if ended.timed_out else Outcome.text(text)


def _status(ended: Ended, args: ExecArgs) -> str:
    if ended.timed_out:
        gone = "was killed with all it started" if ended.code is not None else "was told to die but has not yet"
        return f"Timed out: it ran longer than {args.timeout:,} ms and {gone}. What it wrote until then follows."
    if ended.code is not None and ended.code < 0:
        return f"Killed by signal {_signal_name(-ended.code)}."
    return f"Exit code {ended.code}."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)  # the real-time signals between the first and the last have no name


def _stream(name: str, capture: Capture) -> list[str]:
    text, notes = capture.text()
    if not text:
        return []
    remark = f" ({' '.join(notes)})" if notes else ""
    return [f"\n{name}{remark}:", text]
