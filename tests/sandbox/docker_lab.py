"""A workspace, a real engine, and backends on it that are closed and searched for leftovers when the test ends."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
from docker.models.containers import Container

from orchestrator.sandbox.backend import Sandbox, SandboxSpec
from orchestrator.sandbox.docker import DockerBackend
from orchestrator.sandbox.policy import SandboxPolicy

FOREVER = "import signal; signal.pause()"


@dataclass(frozen=True)
class Said:
    """What a program that ran in a sandbox said. `text` is its stdout and stderr."""

    exit_code: int
    text: str


@dataclass
class Lab:
    """
    Attributes:
        folder: the test's own; holds `workspace`, `history` and the runtime folders.
        image: its process 1 runs the Python code in the variable PROBE.
    """

    folder: Path
    image: str
    engine: docker.DockerClient
    job_id: str = field(default_factory=lambda: uuid4().hex)
    lease: str = field(default_factory=lambda: uuid4().hex)
    backends: list[DockerBackend] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def runtime_folder(self) -> Path:
        return self.folder / "run"

    def backend(
        self,
        *,
        workspace: Path | None = None,
        history: Path | None = None,
        hidden: Sequence[Path] = (),
        image: str | None = None,
    ) -> DockerBackend:
        backend = DockerBackend(
            self.job_id,
            workspace or self.workspace,
            lease=self.lease,
            history=history or self.folder / "history",
            hidden=hidden,
            image=image or self.image,
            runtime_folder=self.runtime_folder,
        )
        self.backends.append(backend)
        return backend

    async def opened(self, **kwargs: Any) -> DockerBackend:
        backend = self.backend(**kwargs)
        await backend.open()
        return backend

    def spec(
        self, probe: str = FOREVER, *, policy: SandboxPolicy | None = None, env: dict[str, str] | None = None
    ) -> SandboxSpec:
        run_id = uuid4().hex
        bus_folder = self.folder / "bus" / run_id
        bus_folder.mkdir(parents=True)
        return SandboxSpec(
            self.job_id,
            run_id,
            "@test/expert",
            bus_folder,
            policy or SandboxPolicy(),
            {"PROBE": probe, **(env or {})},
        )

    async def inside(self, sandbox: Sandbox, code: str) -> Said:
        """Run Python code in the sandbox, as the sandbox's own user."""
        result = await asyncio.to_thread(self.engine.containers.get(sandbox.id).exec_run, ["python3", "-c", code])
        assert result.exit_code is not None
        assert isinstance(result.output, bytes)
        return Said(result.exit_code, result.output.decode())

    def containers(self) -> list[Container]:
        """All of the Job's, whatever their state."""
        return self.engine.containers.list(all=True, filters={"label": f"perstack.job={self.job_id}"})

    def leftovers(self) -> list[str]:
        """What the engine and the system still hold of the Job."""
        label = {"label": f"perstack.job={self.job_id}"}
        containers = [str(found.name) for found in self.containers()]
        networks = [str(found.name) for found in self.engine.networks.list(filters=label)]
        mountinfo = Path("/proc/self/mountinfo")
        mounts = mountinfo.read_text().splitlines() if mountinfo.exists() else []
        folders = [str(path) for path in self.runtime_folder.iterdir()]
        return containers + networks + folders + [line for line in mounts if str(self.folder) in line]
