"""The processes of the `local` backend: how those of a Run are told from all others, found and killed.

A runner carries its marks as arguments, because it hides its environment. Its commands carry them in their environment,
as every command carries its caller's. Where there is no procfs nothing is found: a runner that loses its orchestrator
ends by itself.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expert_runner.proc import PROC, processes
from expert_runner.skills.base.process_tree import VARIABLE, kill_tree
from orchestrator.errors import SandboxError
from orchestrator.sandbox.labels import LABEL_JOB, LABEL_LEASE, LABEL_OWNER, LABEL_RUN, Marks
from orchestrator.sandbox.process_identity import procfs_is_ours

MODULE = "expert_runner"

_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class FoundRun:
    """The processes of one Run of one orchestrator: `runners` and `commands` are their ids."""

    marks: Marks
    runners: tuple[int, ...]
    commands: tuple[int, ...]


def arguments(marks: Marks) -> list[str]:
    """What follows the module's name on a runner's command line; the runner does not look at it."""
    labels = {
        LABEL_JOB: marks.job_id,
        LABEL_RUN: marks.run_id,
        LABEL_LEASE: marks.lease,
        LABEL_OWNER: marks.owner,
    }
    return [f"{name}={value}" for name, value in labels.items()]


def run_mark(marks: Marks) -> str:
    """What the environment of a Run's processes holds in `VARIABLE`, or begins with there. No part has a dot in it."""
    return f"{marks.owner}.{marks.lease}.{marks.job_id}.{marks.run_id}."


def find_runs() -> list[FoundRun]:
    """What runs for this user, of whichever orchestrator. Reads all of procfs: some 50 µs a process."""
    runners: dict[Marks, list[int]] = {}
    commands: dict[Marks, list[int]] = {}
    for pid, folder in _own_processes():
        if (marks := _runner_marks(folder)) is not None:
            runners.setdefault(marks, []).append(pid)
        elif (marks := _command_marks(folder)) is not None:
            commands.setdefault(marks, []).append(pid)
    return [
        FoundRun(marks, tuple(runners.get(marks, ())), tuple(commands.get(marks, ())))
        for marks in {**runners, **commands}
    ]


def end_run(marks: Marks) -> None:
    """Kill all processes of the Run, and what its runners started, and wait until they are gone. Blocks.

    Raises:
        SandboxError: one does not end (it waits for a broken disk, for example).
    """
    deadline = time.monotonic() + _KILL_SECONDS
    # Looked for again each time: process ids are used again.
    while (left := next((run for run in find_runs() if run.marks == marks), None)) is not None:
        if time.monotonic() > deadline:
            pids = ", ".join(map(str, left.runners + left.commands))
            raise SandboxError(f"processes of Run {marks.run_id} do not end: {pids}")
        for leader in left.runners or (None,):
            kill_tree(run_mark(marks), leader)
        time.sleep(_POLL_SECONDS)


def _own_processes() -> Iterator[tuple[int, Path]]:
    if not procfs_is_ours():
        return  # ids that are found there would be killed here
    for process in processes():
        folder = PROC / str(process.pid)
        try:
            # Of the folder, also where the process hides what is in it.
            is_own = folder.stat().st_uid == os.geteuid()
        except OSError:
            continue  # it ended meanwhile
        if is_own and not process.has_ended:
            yield process.pid, folder


def _runner_marks(process: Path) -> Marks | None:
    words = _words(process / "cmdline")
    marks = Marks.read(dict(word.partition("=")[::2] for word in words))
    return marks if words[-5:] == [MODULE, *arguments(marks)] else None


def _command_marks(process: Path) -> Marks | None:
    for word in _words(process / "environ"):
        name, _, value = word.partition("=")
        if name == VARIABLE and value.count(".") > 3:
            return Marks(*value.split(".")[:4])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []  # it ended meanwhile, or hides
