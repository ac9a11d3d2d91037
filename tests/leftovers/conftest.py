"""Orchestrators that are killed, and whatever they leave, removed in the end by hand if not by what is tested."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest

from orchestrator.gc import Collection, Leftover, collect
from orchestrator.sandbox.idmap import detach, is_mounted
from tests.leftovers.orchestrator import Made, Order
from tests.sandbox.conftest import engine, probe_image

__all__ = ["engine", "probe_image"]

ROOT = Path(__file__).parents[2]
NEW_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")


@dataclass
class Site:
    """A folder with a workspace, a history and a place for temporary files of its own."""

    folder: Path
    job_id: str = field(default_factory=lambda: uuid4().hex)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    @property
    def history(self) -> Path:
        return self.folder / "history"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def order(self) -> Order:
        return Order(str(self.folder), self.job_id)

    def start(self, order: Order, *, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.leftovers.orchestrator"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.temporary), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        self.orders.append(order)
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(order)))
        process.stdin.close()
        process.stdin = None
        return process

    def made(self, process: subprocess.Popen[str]) -> Made:
        assert process.stdout is not None
        return Made(**json.loads(process.stdout.readline()))

    def started(self, order: Order, *, prefix: tuple[str, ...] = (), **environment: str) -> Made:
        return self.made(self.start(order, prefix=prefix, **environment))

    def killed(self, order: Order, *, prefix: tuple[str, ...] = (), **environment: str) -> Made:
        """What an orchestrator made that was killed then."""
        process = self.start(order, prefix=prefix, **environment)
        made = self.made(process)
        process.kill()
        process.wait()
        return made

    def stop(self, made: Made) -> None:
        os.kill(made.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, made.pid, os.WSTOPPED)

    async def collect(self, *, dry_run: bool = False, engine: bool = True) -> list[Leftover]:
        return self.mine(await collect(self.history, dry_run=dry_run, engine=engine))

    def mine(self, collection: Collection) -> list[Leftover]:
        """Others may leave things on the same machine."""
        jobs = {order.job_id for order in self.orders}
        return [leftover for leftover in collection.leftovers if leftover.job_id in jobs]

    def another_job(self) -> Order:
        return replace(self.order, job_id=uuid4().hex)


@pytest.fixture
def site(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(short_path)
    (site.folder / "workspace").mkdir()
    site.temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(site.temporary))
    yield site
    for process in site.processes:
        process.kill()
        process.communicate()
    jobs = {order.job_id for order in site.orders if order.image}
    if jobs:
        _clear_engine(jobs)
    for mount_point in site.temporary.glob("perstack-*/workspace"):
        if sys.platform == "linux" and is_mounted(mount_point):
            detach(mount_point)
    # The folder is deleted next, with all that is mounted in it.
    assert str(site.folder) not in (Path("/proc/self/mountinfo").read_text() if sys.platform == "linux" else "")


def _clear_engine(jobs: set[str]) -> None:
    client = docker.from_env()
    try:
        for job_id in jobs:
            label: dict[str, Any] = {"label": f"perstack.job={job_id}"}
            for container in client.containers.list(all=True, filters=label):
                container.remove(force=True)
            for network in client.networks.list(filters=label):
                network.remove()
    finally:
        client.close()
