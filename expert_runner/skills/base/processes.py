"""Running one program to its end, its time limit or its cancellation: output bounded, nothing left of it."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import IO

from expert_runner.skills.base.capture import Capture
from expert_runner.skills.base.process_tree import VARIABLE, group_runs, kill_group, kill_tree

CHUNK = 64 * 1024

GRACE_S = 0.5
"""Seconds that what a program left in the background may still write, end, or move to a session of its own."""

POLL_S = 0.01
"""Seconds between two looks at whether anything is left in the background: nothing announces that."""

KILL_GRACE_S = 2.0
"""Seconds a killed program may take to be gone; one that waits for a broken disk takes longer."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code, or minus the signal that ended it; None if it could not be ended in time.
        timed_out: it was killed at its time limit.
        was_held: something it started held its output open after it ended.
        output: what it wrote to the streams that were asked for, by name.
    """

    code: int | None
    timed_out: bool
    was_held: bool
    output: dict[str, Capture]


async def run_program(
    argv: list[str], *, env: Mapping[str, str], cwd: str, streams: Collection[str], timeout_s: float, mark: str
) -> Ended:
    """Run `argv` in a session of its own, with `env` and its `mark` as the whole environment and nothing on stdin.

    Args:
        streams: which of `stdout` and `stderr` to capture; the others are discarded.

    Raises:
        OSError: it could not be started.
        ValueError: a text among the arguments is not possible there.
    """
    process = _Process(argv, {**env, VARIABLE: mark}, cwd, streams)
    ended_itself = False
    try:
        process.watch()
        await asyncio.wait({process.exited}, timeout=timeout_s)
        ended_itself = process.exited.done()
        if not ended_itself:
            kill_tree(mark, process.pid)
            await asyncio.wait({process.exited}, timeout=KILL_GRACE_S)
        await process.settle(GRACE_S)
        return Ended(
            code=process.exited.result() if process.exited.done() else None,
            timed_out=not ended_itself,
            was_held=process.is_held,
            output=process.output,
        )
    except asyncio.CancelledError:
        ended_itself = False
        raise
    finally:
        # No await from here on: this also runs when the task is being cancelled.
        if ended_itself:
            kill_group(process.pid)
        else:
            kill_tree(mark, process.pid)
        process.close()


class _Process:
    """A started program and its pipes. The caller kills it; `close` lets go of the pipes."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: str, streams: Collection[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.output = {name: Capture() for name in ("stdout", "stderr") if name in streams}
        self._popen = subprocess.Popen(
            argv,
            bufsize=0,
            cwd=cwd,
            env=env,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if "stdout" in streams else subprocess.DEVNULL,
            stderr=subprocess.PIPE if "stderr" in streams else subprocess.DEVNULL,
        )
        self.pid = self._popen.pid
        self._pipes = {name: pipe for name in self.output if (pipe := getattr(self._popen, name))}
        self._ended: dict[str, asyncio.Future[None]] = {name: self._loop.create_future() for name in self._pipes}

    def watch(self) -> None:
        """Begin to read, and to wait for the end."""
        for name, pipe in self._pipes.items():
            os.set_blocking(pipe.fileno(), False)
            self._loop.add_reader(pipe.fileno(), self._read, name, pipe)
        # A thread collects the exit code the moment there is one, however busy the loop is: nobody else has reason to.
        threading.Thread(target=self._collect, name=f"wait-{self.pid}", daemon=True).start()

    @property
    def is_held(self) -> bool:
        return not all(ended.done() for ended in self._ended.values())

    async def settle(self, grace_s: float) -> None:
        """Wait until all output has come and the group is empty, at most `grace_s` seconds."""
        end = self._loop.time() + grace_s
        if self._ended:
            await asyncio.wait(self._ended.values(), timeout=grace_s)
        while self._loop.time() < end and group_runs(self.pid):  # noqa: ASYNC110 - see POLL_S
            await asyncio.sleep(POLL_S)

    def close(self) -> None:
        for name in list(self._pipes):
            self._close_pipe(name)

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        try:
            data = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            return
        if data:
            self.output[name].feed(data)
            return
        self._close_pipe(name)
        self._ended[name].set_result(None)

    def _close_pipe(self, name: str) -> None:
        pipe = self._pipes.pop(name)
        self._loop.remove_reader(pipe.fileno())
        pipe.close()

    def _collect(self) -> None:
        code = self._popen.wait()
        try:
            self._loop.call_soon_threadsafe(self._set_exited, code)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _set_exited(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)
