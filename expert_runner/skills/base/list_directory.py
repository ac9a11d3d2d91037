"""listDirectory: one level of a folder, sorted."""

import heapq
import os
import stat

from expert_runner.skills.base.allowance import Allowance, work_on_files
from expert_runner.skills.base.definitions import MAX_ENTRIES, ListDirectoryArgs
from expert_runner.skills.base.failures import about
from expert_runner.skills.base.legible import brief
from expert_runner.skills.base.tool import Outcome, Surroundings


async def list_directory(surroundings: Surroundings, args: ListDirectoryArgs) -> Outcome:
    return await work_on_files(lambda allowance: _list(surroundings, args.path, allowance))


def _list(surroundings: Surroundings, path: str, allowance: Allowance) -> Outcome:
    with surroundings.workspace.folder(path) as folder, about(path):
        names, count = _first_names(folder, allowance)
        lines = [_line(folder, name) for name in names]
    if not count:
        return Outcome.text(f"{brief(path)} is empty.")
    left_out = count - len(names)
    note = f"{left_out:,} more entries are not shown. See them with exec (ls, find)." if left_out else ""
    return Outcome.text("\n".join(lines), note)


def _first_names(folder: int, allowance: Allowance) -> tuple[list[str], int]:
    """The first :data:`MAX_ENTRIES` names in order, and how many there are, in memory that does not grow with them."""
    kept: list[str] = []
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            allowance.check()
            count += 1
            kept.append(entry.name)
            if len(kept) == 2 * MAX_ENTRIES:
                kept = heapq.nsmallest(MAX_ENTRIES, kept)
    return sorted(kept)[:MAX_ENTRIES], count


def _line(folder: int, name: str) -> str:
    """Type, name and size of an entry."""
    shown = brief(name, quoted=False)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return f"link       {shown} -> {brief(os.readlink(name, dir_fd=folder), quoted=False)}"
    except OSError:
        return f"other      {shown}"  # it went meanwhile, or may not be looked at
    if stat.S_ISDIR(status.st_mode):
        return f"directory  {shown}/"
    if stat.S_ISREG(status.st_mode):
        return f"file       {shown} ({status.st_size:,} bytes)"
    return f"other      {shown}"
