"""Take set-user-ID and set-group-ID bits from what a Job's sandboxes left in the workspace.

In a sandbox such a bit has no effect (no-new-privileges, and the mount ignores it), but the file belongs to the
invoking user
on the host: there, whoever starts it becomes that user. The bits are taken away when the Job's last sandbox is gone.
What
remains: while the Job runs, another user of the host who may enter the workspace can start such a file. Keep workspaces
out of other users' reach where that matters (`chmod 700`).
"""

import os
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 10.0
_CLOCK_SLACK_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stripped:
    """`changed`: files that lost a bit. `complete` is False when not all of the tree could be seen in time."""

    changed: int
    complete: bool


def strip_set_id_bits(workspace: Path, since_ns: int, skip: Collection[Path], seconds: float = _SECONDS) -> Stripped:
    """Take the bits from regular files below `workspace` that changed at `since_ns` (Unix time) or later.

    A file that had the bit before and did not change keeps it. Blocks for about 3 µs a file, at most `seconds`: a
    sandbox can make a tree larger than anyone would wait for, so the caller has to say when `complete` is False.

    Args:
        skip: folders no sandbox could reach.
    """
    deadline = time.monotonic() + seconds
    oldest = since_ns - _CLOCK_SLACK_NS
    pending, changed, complete = [str(workspace)], 0, True
    skipped = {str(path) for path in skip}
    while pending:
        folder = pending.pop()
        if time.monotonic() > deadline:
            return Stripped(changed, False)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in skipped:
                            pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        if _gives_identity(status.st_mode) and status.st_ctime_ns >= oldest:
                            changed += _strip(entry.path, oldest)
        except FileNotFoundError:
            continue
        except OSError:
            complete = False
    return Stripped(changed, complete)


def _gives_identity(mode: int) -> bool:
    return stat.S_ISREG(mode) and bool(mode & (stat.S_ISUID | stat.S_ISGID))


def _strip(path: str, oldest: int) -> bool:
    """Look again through a descriptor: a path that another Job exchanges for a link meanwhile changes nothing else."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not _gives_identity(status.st_mode) or status.st_ctime_ns < oldest:
            return False
        Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
        return True
    finally:
        os.close(descriptor)
