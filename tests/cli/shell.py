"""The `perstack` command as users run it: a folder with a configuration, a process, its output, what it leaves."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from orchestrator.scripted_model import Script, ScriptedModel
from tests.jobs.stage import KEY

CONFIG = """
model = "gpt-4o"
[provider]
providerName = "openai"
[experts."boss"]
instruction = "Be the boss."
delegates = ["aide"]
[experts."aide"]
instruction = "Be the aide."
"""


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every line of stdout has to be an event."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


class Shell:
    """A folder with a configuration, in which `perstack run` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(self.temporary),
            "OPENAI_API_KEY": KEY,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        if "DOCKER_HOST" in os.environ:
            self.environment["DOCKER_HOST"] = os.environ["DOCKER_HOST"]
        (folder / "perstack.toml").write_text(CONFIG)

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator.cli.main", *arguments),
            cwd=self.folder,
            env=self.environment | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )

    async def run(self, *arguments: str, **environment: str) -> Ended:
        process = await self.start("run", *arguments, **environment)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    def nothing_started(self) -> bool:
        return not list(self.temporary.iterdir()) and not (self.folder / "perstack").exists()


@asynccontextmanager
async def model_of(shell: Shell, *conversations: dict[str, Any]) -> AsyncIterator[ScriptedModel]:
    script = Script.model_validate({"conversations": list(conversations)})
    async with ScriptedModel(script, keep_bodies=True) as model:
        shell.environment["OPENAI_BASE_URL"] = model.url
        yield model


def leftovers(job_id: str) -> list[str]:
    """What is still in Docker of a Job."""
    client = docker.from_env()
    mine: dict[str, Any] = {"label": f"perstack.job={job_id}"}
    try:
        containers = [str(c.name) for c in client.containers.list(all=True, filters=mine)]
        return [*containers, *(str(n.name) for n in client.networks.list(filters=mine))]
    finally:
        client.close()


def volumes() -> set[str]:
    client = docker.from_env()
    try:
        return {str(volume.id) for volume in client.volumes.list()}
    finally:
        client.close()


def mounts_under(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
