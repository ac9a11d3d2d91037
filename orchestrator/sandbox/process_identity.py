"""Which process this is, in a form that another process can later prove to be dead."""

import os
from collections.abc import Callable
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path

UNKNOWN = "-"

_INITIAL_PID_NAMESPACE = "4026531836"
"""The number the kernel gives to the first one of every boot (its `PROC_PID_INIT_INO`)."""


class Life(StrEnum):
    """What can be said about a process by its identity. Whoever removes what it left needs DEAD."""

    DEAD = "dead"
    ALIVE = "alive"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The parts of an identity; `UNKNOWN` where the system does not tell."""

    machine: str
    boot: str
    namespace: str
    pid: str
    started: str

    def __str__(self) -> str:
        return ":".join(astuple(self))

    @classmethod
    def parse(cls, text: str) -> "ProcessIdentity | None":
        """None if `text` is no identity."""
        parts = text.split(":")
        if len(parts) != 5 or not all(parts) or not (parts[3].isascii() and parts[3].isdecimal()):
            return None
        return cls(*parts)


def process_identity() -> str:
    """`machine:boot:pid-namespace:pid:start-time` of this process, for a label.

    A process id alone proves nothing: ids are used again, start over after a boot, and mean something else in another
    container or on another machine.
    """
    return str(_this_process())


def is_provably_dead(identity: str) -> bool:
    """Whether the process that `identity` names has certainly ended. What is not known is no proof."""
    return life_of(identity) is Life.DEAD


def life_of(identity: str) -> Life:
    """Whether the process that `identity` names lives, as far as this process can tell."""
    theirs = ProcessIdentity.parse(identity)
    return Life.UNKNOWN if theirs is None else judge(theirs, _this_process(), _start_time)


def judge(theirs: ProcessIdentity, ours: ProcessIdentity, start_time: Callable[[int], str | None]) -> Life:
    """:func:`life_of`, given who asks.

    A boot's id is random, so the same boot is the same machine. Another boot is a later one only on the same machine.

    Args:
        start_time: of the process with this id in our own namespace; None if there is none, `UNKNOWN` if the system
            does not tell.
    """
    if UNKNOWN in (theirs.boot, ours.boot):
        return Life.UNKNOWN
    if theirs.boot != ours.boot:
        is_this_machine = theirs.machine == ours.machine != UNKNOWN
        return Life.DEAD if is_this_machine else Life.UNKNOWN
    if theirs.machine != ours.machine and UNKNOWN not in (theirs.machine, ours.machine):
        return Life.UNKNOWN
    if theirs.namespace != ours.namespace or UNKNOWN in (theirs.namespace, theirs.started):
        return Life.UNKNOWN
    started = start_time(int(theirs.pid))
    if started == UNKNOWN:
        return Life.UNKNOWN
    return Life.ALIVE if started == theirs.started else Life.DEAD


def procfs_is_ours() -> bool:
    """Whether the ids in /proc are those of this process's namespace; also False where there is no procfs.

    A container can have its own processes and the /proc of its host, where their ids are those of others.
    """
    try:
        return Path("/proc/self").readlink() == Path(str(os.getpid()))
    except OSError:
        return False


def _this_process() -> ProcessIdentity:
    namespace = _pid_namespace()
    return ProcessIdentity(_machine(namespace), _boot(), namespace, str(os.getpid()), _read_start("self") or UNKNOWN)


def _machine(namespace: str) -> str:
    """In a container the file is its image's, the same on all machines, where it is there at all."""
    return _read("/etc/machine-id") if namespace == _INITIAL_PID_NAMESPACE else UNKNOWN


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return UNKNOWN


def _start_time(pid: int) -> str | None:
    """As `judge` wants it."""
    try:
        # /proc may hide the processes of others (hidepid); this sees them.
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass
    return _read_start(str(pid)) if procfs_is_ours() else UNKNOWN


def _read_start(process: str) -> str | None:
    """Clock ticks since the boot; None if only its number is left, until its parent collects it."""
    try:
        # Fields 3 and 22 of proc(5)'s `stat`, counted behind the name, which may hold anything.
        fields = Path("/proc", process, "stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return UNKNOWN


def _read(path: str) -> str:
    """A file with one word; `UNKNOWN` for any other."""
    try:
        words = Path(path).read_text(errors="replace").split()
    except OSError:
        return UNKNOWN
    return words[0] if len(words) == 1 and ":" not in words[0] else UNKNOWN
