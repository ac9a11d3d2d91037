"""Sandboxes by themselves, as a Job starts them: same backend, image, policy and bus, and no Job."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from expert_runner.version import RUNTIME_VERSION
from orchestrator.bus import Bus, Peer
from orchestrator.sandbox.backend import Sandbox, SandboxSpec
from orchestrator.sandbox.docker import DockerBackend
from orchestrator.sandbox.policy import SandboxPolicy

IMAGE = f"perstack-expert:{RUNTIME_VERSION}"
START_S = 120.0
"""Seconds that starting sandboxes may take."""


@dataclass(slots=True)
class Greeted:
    """A sandbox whose runner has said hello. Times are of `time.monotonic()`."""

    sandbox: Sandbox
    peer: Peer
    began_at: float
    started_at: float
    greeted_at: float


class Sandboxes:
    """What :func:`opened` gives."""

    def __init__(self, backend: DockerBackend, bus: Bus, job_id: str) -> None:
        self.backend = backend
        self._bus = bus
        self._job_id = job_id

    async def start(self, number: int) -> list[Greeted]:
        """`number` sandboxes at once; returns when all of their runners have been accepted."""
        async with asyncio.timeout(START_S):
            return await asyncio.gather(*(self._start() for _ in range(number)))

    async def _start(self) -> Greeted:
        began_at = time.monotonic()
        run_id = secrets.token_hex(8)
        peer = self._bus.add(run_id)
        sandbox = await self.backend.start(SandboxSpec(self._job_id, run_id, "bench", peer.folder, SandboxPolicy()))
        started_at = time.monotonic()
        await peer.greeted
        return Greeted(sandbox, peer, began_at, started_at, time.monotonic())

    async def stop(self, greeted: list[Greeted]) -> None:
        await asyncio.gather(*(self.backend.stop(each.sandbox) for each in greeted))
        for each in greeted:
            each.peer.close()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Sandboxes]:
    """Sandboxes whose workspace and sockets are in `folder`; all are removed at the end."""
    job_id = f"bench-{secrets.token_hex(4)}"
    runtime_folder = folder / "r"
    runtime_folder.mkdir()
    backend = DockerBackend(
        job_id,
        folder / "workspace",
        lease=job_id,
        history=folder / "history",
        hidden=(),
        image=IMAGE,
        runtime_folder=runtime_folder,
    )
    try:
        transport = await backend.open()
        async with Bus(transport, backend.owner, runtime_folder, backend.bus_path) as bus:
            yield Sandboxes(backend, bus, job_id)
    finally:
        await backend.close()
