"""What a sandbox may do, as one value that each backend renders in its own terms."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """The limits of one sandbox. Everything not named here is denied: network, capabilities, new privileges, devices.

    Attributes:
        memory_bytes: memory, with no swap on top.
        cpus: cores' worth of CPU time.
        pids: processes and threads.
        open_files: file descriptors a process may hold.
        tmpfs_bytes: size of `/tmp`, the only writable place besides the workspace.
        log_bytes: what the runner may write to its own stderr before older output is dropped.
    """

    memory_bytes: int = 512 * MIB
    cpus: float = 1.0
    pids: int = 256
    open_files: int = 1024
    tmpfs_bytes: int = 64 * MIB
    log_bytes: int = 1 * MIB
