"""The memory of a runner that waits for its model, beside what Python and its two libraries take by themselves."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from benchmarks.figures import BenchmarkError, Figure
from benchmarks.sandboxes import IMAGE
from benchmarks.scripted import ModelProcess
from benchmarks.stage import COORDINATOR, Stage, temporary_folder
from orchestrator.sandbox.labels import LABEL_JOB

LIMIT_MB = 45.0
SETTLE_S = 3.0
"""Seconds an idle process is given before its memory is read: some heartbeats, and what was freed is given back."""

_LIBRARIES_ALONE = "import asyncio, pydantic, zmq, zmq.asyncio, time; print('ready', flush=True); time.sleep(600)"

_KIB = 1024 / 1e6


def measure() -> list[Figure]:
    try:
        client = docker.from_env()
    except DockerException as error:
        raise BenchmarkError(f"no Docker Engine answers: {error}") from error
    try:
        with _libraries_alone(client) as container:
            floor = _memory(container)
        with _idle_runner(client) as container:
            value = _memory(container)
    except DockerException as error:
        raise BenchmarkError(str(error)) from error
    finally:
        client.close()
    names = {
        "rss": "idle, resident (floor: Python, pydantic, pyzmq)",
        "pss": "idle, its share of what is mapped (PSS)",
        "anonymous": "idle, with no file behind it",
        "cgroup": "idle, as the engine counts",
    }
    # Where /proc/PID/smaps_rollup cannot be read, what the engine counts is the nearest there is.
    decisive = "rss" if "rss" in value else "cgroup"
    return [
        Figure(name, value[key], "MB", floor.get(key), LIMIT_MB if key == decisive else None)
        for key, name in names.items()
        if key in value
    ]


@contextlib.contextmanager
def _idle_runner(client: Any) -> Iterator[Any]:
    """The container of a Run whose model never answers."""
    conversation = {"expert": COORDINATOR, "turns": [{"faults": [{"kind": "hang"}]}]}
    with temporary_folder() as folder, ModelProcess(folder, conversation) as model:
        (folder / "stage").mkdir()
        stage = Stage(folder / "stage", model.url, {COORDINATOR: {"instruction": "Be quick."}})
        job_id = f"bench-{folder.name}"
        job = stage.start(["--job-id", job_id])
        try:
            model.wait_for(1)
            time.sleep(SETTLE_S)
            (container,) = client.containers.list(filters={"label": f"{LABEL_JOB}={job_id}"})
            yield container
        finally:
            job.cancel()


@contextlib.contextmanager
def _libraries_alone(client: Any) -> Iterator[Any]:
    container = client.containers.run(
        IMAGE, ["-c", _LIBRARIES_ALONE], entrypoint="python3", network_mode="none", detach=True
    )
    try:
        # Its first line says that everything is imported.
        for _ in container.logs(stream=True, stdout=True):
            break
        time.sleep(SETTLE_S)
        container.reload()
        if container.status != "running":
            raise BenchmarkError(f"Python alone does not run in {IMAGE}: {container.logs().decode()[-500:]}")
        yield container
    finally:
        container.remove(force=True)


def _memory(container: Any) -> dict[str, float]:
    """Megabytes: of the container's process 1, if the kernel lets us see; of all of it, as the engine counts."""
    container.reload()
    stats = container.stats(stream=False)["memory_stats"]
    inactive = stats["stats"].get("inactive_file") or stats["stats"].get("total_inactive_file") or 0
    return {**_rollup(container.attrs["State"]["Pid"]), "cgroup": (stats["usage"] - inactive) / 1e6}


def _rollup(pid: int) -> dict[str, float]:
    """What the kernel says of process `pid`; nothing where it is on another machine or not ours to look at."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in text.splitlines()[1:])}
    return {"rss": sizes["Rss"] * _KIB, "pss": sizes["Pss"] * _KIB, "anonymous": sizes["Anonymous"] * _KIB}
