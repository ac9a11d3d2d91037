"""What a runner does to its own process: hide its memory, reap orphans, tell how it ended."""

import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from expert_runner.proc import PROC, processes

PR_SET_DUMPABLE = 4

REAP_INTERVAL_S = 1.0


class ExitCode(IntEnum):
    """How a runner ends; the orchestrator reads it from the container."""

    ENDED = 0
    FAILED = 70
    NO_IDENTITY = 71
    REJECTED = 72
    LEASE_LOST = 73


def hide() -> None:
    """Make this process not dumpable: processes of the same user can no longer read its memory, environment or files.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_DUMPABLE): {os.strerror(code)}")


def withstand_signals() -> None:
    """Drop Python's own handler of SIGINT.

    The kernel keeps from process 1 every signal of its own container that it has no handler for, so that handler would
    be the one way for a tool to end the runner. The default is also what commands are to inherit.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def zombies_of(parent: int, proc: Path = PROC) -> set[int]:
    """The ended, not yet collected children of process `parent`."""
    return {process.pid for process in processes(proc) if process.has_ended and process.parent == parent}


async def reap_forever() -> None:
    """Collect orphans that the kernel gives to process 1.

    A child this process started itself is collected at once by whoever started it, so only what is still there one
    scan later is an orphan. Until then it costs one entry of the sandbox's process limit.
    """
    seen: set[int] = set()
    while True:
        await asyncio.sleep(REAP_INTERVAL_S)
        now = zombies_of(os.getpid())
        for pid in now & seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (does not wait)
        seen = now


def say(message: str) -> None:
    """One line on stderr: the runner's log, which the orchestrator shows when a sandbox failed."""
    sys.stderr.write(f"expert_runner: {message}\n")
    sys.stderr.flush()
