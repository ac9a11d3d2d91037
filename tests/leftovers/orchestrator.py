"""An orchestrator that can be killed: `orchestrator.py`, with its :class:`Order` as JSON on standard input.

It holds a Job as a real one does, starts its sandboxes, says what it made and waits to be killed.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from orchestrator.bus import Bus
from orchestrator.runtime_folder import RuntimeFolder
from orchestrator.sandbox.backend import SandboxBackend, SandboxSpec
from orchestrator.sandbox.docker import DockerBackend
from orchestrator.sandbox.local import LocalBackend
from orchestrator.sandbox.policy import SandboxPolicy
from orchestrator.store.layout import Store
from orchestrator.store.lease import JobLease

FOREVER = "import signal; signal.pause()"


@dataclass(frozen=True)
class Order:
    """
    Attributes:
        image: whose process 1 runs the Python code in the variable PROBE; empty: `--runtime local`.
        sandboxes: how many; all but the first are parked.
        is_continued: what earlier ones left is removed first.
    """

    folder: str
    job_id: str
    image: str = ""
    sandboxes: int = 2
    is_continued: bool = False


@dataclass(frozen=True)
class Made:
    """What an orchestrator has made. `sandboxes` are containers or processes."""

    pid: int
    lease: str
    runtime_folder: str
    sandboxes: list[str]


async def main(order: Order) -> None:
    folder = Path(order.folder)
    job_folder = Store(folder / "history").job_folder(order.job_id)
    job_folder.mkdir(parents=True, exist_ok=True)
    lease = JobLease.take(job_folder)
    async with RuntimeFolder(order.job_id, lease.token) as runtime_folder:
        lease.announce(runtime_folder)
        backend = _backend(order, folder, runtime_folder, lease.token)
        transport = await backend.open()
        if order.is_continued:
            await backend.remove_earlier(since_ms=0)
        async with Bus(transport, backend.owner, runtime_folder, backend.bus_path) as bus:
            sandboxes = []
            for _ in range(order.sandboxes):
                run_id = uuid4().hex
                peer = bus.add(run_id)
                env = {"PROBE": FOREVER} if order.image else {}
                spec = SandboxSpec(order.job_id, run_id, "@test/expert", peer.folder, SandboxPolicy(), env)
                sandboxes.append(await backend.start(spec))
                if not order.image:
                    await peer.greeted
            for sandbox in sandboxes[1:]:
                await backend.park(sandbox)
            made = Made(os.getpid(), lease.token, str(runtime_folder), [sandbox.id for sandbox in sandboxes])
            print(json.dumps(asdict(made)), flush=True)
            await asyncio.Event().wait()


def _backend(order: Order, folder: Path, runtime_folder: Path, lease: str) -> SandboxBackend:
    workspace = folder / "workspace"
    if not order.image:
        return LocalBackend(workspace, lease=lease)
    return DockerBackend(
        order.job_id,
        workspace,
        lease=lease,
        history=folder / "history",
        hidden=(),
        image=order.image,
        runtime_folder=runtime_folder,
    )


if __name__ == "__main__":
    asyncio.run(main(Order(**json.load(sys.stdin))))
