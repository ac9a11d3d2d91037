"""Which process this is, in a form that another process can later prove to be dead."""

import os
import sys
from pathlib import Path


def process_identity() -> str:
    """`boot:pid-namespace:pid:start-time`, for a label.

    A process id alone proves nothing: ids are used again, start over after a boot, and mean something else in another
    container. Where the system does not tell a part it is `-`, and nobody can prove the process dead.
    """
    return f"{_boot_id()}:{_pid_namespace()}:{os.getpid()}:{_start_time()}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "-"


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "-"


def _start_time() -> str:
    """Clock ticks since the boot; field 22 of proc(5)'s `stat`, counted behind the name, which may hold anything."""
    if sys.platform != "linux":
        return "-"
    try:
        return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "-"
