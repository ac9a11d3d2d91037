"""healthCheck: how the sandbox is."""

import os
import time
from pathlib import Path

from expert_runner.skills.base.definitions import NoArgs
from expert_runner.skills.base.tool import Outcome, Surroundings
from expert_runner.version import RUNTIME_VERSION

CGROUP = Path("/sys/fs/cgroup")

MEMORY_FILES = (
    ("memory.current", "memory.max"),
    ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"),
)
"""Where control groups tell what is used and what is allowed, in bytes: version 2 and version 1."""

NO_LIMIT = 2**60
"""Version 1 says "no limit" as a number of about this size."""


async def health_check(surroundings: Surroundings, _: NoArgs) -> Outcome:
    root = surroundings.workspace.root
    lines = [
        f"runtime version: {RUNTIME_VERSION}",
        f"uptime: {time.monotonic() - surroundings.started_at:.1f} s",
        f"workspace: {root}, {'writable' if os.access(root, os.W_OK | os.X_OK) else 'NOT writable'}, {_free(root)}",
        f"memory: {_memory(CGROUP)}",
    ]
    return Outcome.text("\n".join(lines))


def _free(folder: Path) -> str:
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    return f"{_mib(status.f_bavail * status.f_frsize)} free"


def _memory(cgroup: Path) -> str:
    """Of the whole sandbox, where the system tells."""
    for used_in, limit_in in MEMORY_FILES:
        try:
            used = int((cgroup / used_in).read_text())
            limit = (cgroup / limit_in).read_text().strip()
        except (OSError, ValueError):
            continue
        is_limited = limit != "max" and int(limit) < NO_LIMIT
        return f"{_mib(used)} used, {f'limit {_mib(int(limit))}' if is_limited else 'no limit'}"
    return "unknown"


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
