"""What a sandbox backend is: a few asynchronous calls, and nothing about Jobs, models or the bus's contents.

One backend object serves one Job. The life of a sandbox: `start` → (`park` → `unpark`)* → `wait` or `stop`. A sandbox
is never used again after its Run.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from orchestrator.sandbox.policy import SandboxPolicy


class ExitCause(StrEnum):
    """Why a sandbox ended: a closed list, read from the backend before anything is removed. `silent` is not the
    backend's to tell: the runner gave no sign of life, so its sandbox was given up.
    """

    EXITED = "exited"
    OUT_OF_MEMORY = "outOfMemory"
    KILLED = "killed"
    STOPPED = "stopped"
    GONE = "gone"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a sandbox ended. `evidence` is what the backend said; `log` the tail of the runner's stderr (at most 8
    KiB).
    """

    cause: ExitCause
    exit_code: int | None
    evidence: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class Transport:
    """How sandboxes reach the bus.

    Attributes:
        scheme: `ipc`: a socket in each Run's own folder, which the sandbox sees at `bus_path`; `tcp`: one port for all.
        bind_host: for `tcp`, the address the bus listens on.
        advertised_host: for `tcp`, the name or address by which sandboxes reach it.
    """

    scheme: str
    bind_host: str = ""
    advertised_host: str = ""


@dataclass(frozen=True, slots=True)
class SandboxOwner:
    """Whom files that a sandbox is to read must belong to."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """One sandbox to start.

    Attributes:
        job_id, run_id, expert_key: whose it is; they become labels and names, nothing a runner is told.
        bus_folder: the folder that holds this Run's `identity` file and, for ipc, its socket; mounted read-only.
        policy: what it may do.
        env: variables of its environment (already checked to hold no provider key).
    """

    job_id: str
    run_id: str
    expert_key: str
    bus_folder: Path
    policy: SandboxPolicy
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that was started. `id` is the backend's own name for it (a container's id, a process's)."""

    id: str
    spec: SandboxSpec


class SandboxBackend(Protocol):
    """One Job's sandboxes.

    Attributes:
        name: as in `--runtime`.
        workspace_path: where the workspace is as a runner sees it.
        bus_path: where `SandboxSpec.bus_folder` is as a runner sees it; None: at its own path.
        isolates: whether it confines what runs in it; False is announced loudly.
    """

    name: str
    workspace_path: str
    bus_path: str | None
    isolates: bool

    async def open(self) -> Transport:
        """Check that sandboxes can be started and make what all of the Job's sandboxes share.

        Raises:
            SandboxError: the engine does not answer, the image is missing, the workspace cannot be mounted or written.
        """
        ...

    async def remove_earlier(self, since_ms: int) -> None:
        """Remove what earlier orchestrators of the same Job left: sandboxes, also frozen ones, and networks.

        For a Job that is continued, after `open` and before the first `start`: no tool of an earlier life goes on in
        the workspace once this returns. The caller holds the Job's lease, so whoever started these things is gone.

        Args:
            since_ms: when the Job began, in Unix milliseconds: nothing of it in the workspace is older.

        Raises:
            SandboxError: something of it could not be removed, or still runs.
        """
        ...

    @property
    def owner(self) -> SandboxOwner:
        """Valid after `open`."""
        ...

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Create and start a sandbox; returns as soon as it was started, not when its runner answers.

        Raises:
            SandboxError: the backend refused; nothing of it is left.
        """
        ...

    async def wait(self, sandbox: Sandbox) -> Exit:
        """Wait until the sandbox has ended by itself or from outside, and tell why. It is not removed."""
        ...

    async def stop(self, sandbox: Sandbox) -> None:
        """End the sandbox with everything in it and remove it. Never fails because it is already gone.

        Raises:
            SandboxError: the backend could not remove it.
        """
        ...

    async def park(self, sandbox: Sandbox) -> None:
        """Freeze everything in the sandbox until `unpark`. A sandbox that is gone is not an error."""
        ...

    async def unpark(self, sandbox: Sandbox) -> None:
        """Let a parked sandbox go on. A sandbox that is gone is not an error: `wait` tells."""
        ...

    async def close(self) -> None:
        """Remove what `open` made. All sandboxes have been stopped before."""
        ...
