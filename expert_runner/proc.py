"""The processes there are, as /proc tells."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class ProcessEntry(NamedTuple):
    """One process. `has_ended` means that only its number is left, until its parent collects it."""

    pid: int
    parent: int
    group: int
    has_ended: bool


def processes(proc: Path = PROC) -> Iterator[ProcessEntry]:
    """All processes; none where there is no procfs (macOS)."""
    for entry in proc.glob("[0-9]*"):
        try:
            # pid (name) state ppid pgrp …; the name may itself hold spaces and parentheses.
            state, parent, group = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            found = ProcessEntry(int(entry.name), int(parent), int(group), state in (b"Z", b"X"))
        except (OSError, ValueError):
            continue  # it ended meanwhile
        yield found
