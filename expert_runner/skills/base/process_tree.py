"""Finding and killing everything a command started, also what left its process group.

A command's processes are those of its group, their descendants, and those that carry its mark in their environment: the
last finds daemons, whose parent is gone. Not found is what leaves the group, loses its parent and drops its
environment, or forks faster than /proc can be read: it ends with its sandbox.
"""

import itertools
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

from expert_runner.proc import PROC, ProcessEntry, processes

VARIABLE = "PERSTACK_CALL"

MAX_ROUNDS = 50
"""Scans for what was started while others were killed. The sandbox's process limit makes that many more than enough."""


class Mark:
    """What a Run's commands carry in their environment. `next_call` gives each of them its own."""

    def __init__(self) -> None:
        # What it was itself started with comes first: whoever looks for the runner's processes finds its commands too.
        self.value = f"{os.environ.get(VARIABLE, '')}{secrets.token_hex(8)}."
        self._numbers = itertools.count(1)

    def next_call(self) -> str:
        return f"{self.value}{next(self._numbers)}."


def kill_group(leader: int) -> None:
    """Kill the process group that `leader` led, if there is anyone left in it."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # PermissionError: only zombies are left (macOS)


def kill_tree(mark: str, leader: int | None = None, proc: Path = PROC) -> None:
    """Kill every process that carries `mark`, and the group and descendants of `leader`.

    Does not wait for anything, so that a cancelled task can do it. A process that ends between being seen and being
    killed could in theory have its number taken by another; numbers are handed out in turn, so that takes a full round
    of them within microseconds.
    """
    killed: set[int] = set()
    for _ in range(MAX_ROUNDS):
        found = _members(mark.encode(), leader, proc) - killed
        if not found:
            break
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        killed |= found
    if leader is not None:
        kill_group(leader)


def group_runs(leader: int, proc: Path = PROC) -> bool:
    """Whether the process group that `leader` led still has somebody alive in it."""
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # Zombies answer too, and an orphan may stay one for a while.
    return not proc.exists() or any(process.group == leader for process in _running(proc))


def _running(proc: Path) -> Iterator[ProcessEntry]:
    return (process for process in processes(proc) if not process.has_ended)


def _members(mark: bytes, leader: int | None, proc: Path) -> set[int]:
    children: dict[int, list[int]] = {}
    to_visit: list[int] = []
    for process in _running(proc):
        children.setdefault(process.parent, []).append(process.pid)
        if process.group == leader or _carries(proc / str(process.pid), mark):
            to_visit.append(process.pid)
    found: set[int] = set()
    while to_visit:
        pid = to_visit.pop()
        if pid not in found:
            found.add(pid)
            to_visit += children.get(pid, [])
    return found


def _carries(process: Path, mark: bytes) -> bool:
    try:
        return b"%s=%s" % (VARIABLE.encode(), mark) in (process / "environ").read_bytes()
    except OSError:
        return False  # another user's, or it hides
