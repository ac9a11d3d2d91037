"""Running the programs that do the work, and talking to whoever waits."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

TAIL_LINES = 30
STOP_SECONDS = 10.0


class SetupError(Exception):
    """Something the set-up cannot get past. Its text tells the reader what to do."""


def say(line: str) -> None:
    """One line of progress."""
    print(f"setup: {line}", flush=True)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The end of a program's output, indented so that it stands apart from our own words."""
    kept = text.rstrip().splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in kept)


def run(
    command: Sequence[str | Path],
    failure: str,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
) -> None:
    """Run a program quietly, for `timeout` seconds at most.

    Its output goes to a file, not a pipe: a daemon that a package starts inherits it, and a pipe would stay open as
    long as the daemon lives.

    Raises:
        SetupError: the program failed or took too long; says `failure` and the end of what it printed.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=stdin or subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(f"{failure}\n    {command[0]}: {error.strerror}") from error
        try:
            code = process.wait(timeout)
            reason = f"exit code {code}"
        except subprocess.TimeoutExpired:
            stop_group(process)
            code, reason = 1, f"no end after {timeout:.0f} s"
        except BaseException:
            stop_group(process)
            raise
        if code != 0:
            output.seek(0)
            printed = tail(output.read().decode(errors="replace"))
            raise SetupError(f"{failure} ({reason})" + (f"\n{printed}" if printed else ""))


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a program of its own session with all it started: politely first, so that it can clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
