"""From SIGINT to `perstack run` until its process and all of its containers are gone, while delegates are in a tool
that heeds no signal, beside having the engine remove as many such containers at once.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from benchmarks.figures import BenchmarkError, Figure, median
from benchmarks.sandboxes import START_S, opened
from benchmarks.scripted import ModelProcess, call
from benchmarks.stage import COORDINATOR, RUN_S, Stage, temporary_folder
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import State
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.sandbox.labels import LABEL_JOB

DELEGATES = 16
REPEATS = 3
LIMIT_S = 3.0

_MARK = "in-the-tool."
_STUBBORN = {
    "command": "bash",
    "args": ["-c", f"trap '' HUP INT TERM; mktemp -p . {_MARK}XXXXXXXX; sleep 600"],
    "timeout": 600_000,
}
"""The tool's arguments: it leaves a file in the workspace once no signal but SIGKILL ends it any more."""

_LOOK_S = 0.02


def measure() -> list[Figure]:
    floors, ends, times = [], [], []
    with _engine() as client:
        for _ in range(REPEATS):
            with temporary_folder() as folder:
                floors.append(asyncio.run(_remove_alone(client, folder)))
            with temporary_folder() as folder:
                ended, gone = _cancel(client, folder)
                ends.append(ended)
                times.append(gone)
    return [
        Figure(f"SIGINT → both gone, median of {REPEATS}", median(times), "s", median(floors), LIMIT_S),
        Figure("the slowest", max(times), "s", max(floors)),
        Figure("SIGINT → the process has ended", median(ends), "s"),
    ]


@contextlib.contextmanager
def _engine() -> Iterator[Any]:
    try:
        client = docker.from_env(max_pool_size=DELEGATES + 1)
    except DockerException as error:
        raise BenchmarkError(f"no Docker Engine answers: {error}") from error
    try:
        yield client
    except DockerException as error:
        raise BenchmarkError(str(error)) from error
    finally:
        client.close()


async def _remove_alone(client: Any, folder: Path) -> float:
    """Seconds that the engine takes to remove such containers: the coordinator's, frozen, and the delegates'."""
    async with opened(folder) as sandboxes:
        started = await sandboxes.start(DELEGATES + 1)
        coordinator, *delegates = started
        await sandboxes.backend.park(coordinator.sandbox)
        coordinator.peer.is_parked = True
        for one in delegates:
            one.peer.send(_in_the_tool(one.sandbox.spec.run_id))
        await asyncio.to_thread(_wait_for_marks, folder / "workspace")
        seconds = await asyncio.to_thread(_remove_at_once, client, [one.sandbox.id for one in started])
        await sandboxes.stop(started)
    return seconds


def _in_the_tool(run_id: str) -> wire.Assign:
    """What has a runner go on in the middle of a step: with a call of the tool."""
    waiting = ToolCall(id="call_1", skill_name=BASE_SKILL, skill_type=SkillType.MCP, tool_name="exec", args=_STUBBORN)
    return wire.Assign(
        job_id="bench",
        run_id=run_id,
        expert_key="worker",
        state=State.CALLING_MCP_TOOLS,
        pending_tool_calls=(waiting,),
        base_tools=("exec",),
        workspace="/workspace",
    )


def _remove_at_once(client: Any, containers: Sequence[str]) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(len(containers)) as pool:
        # As `docker rm -f -v` does.
        removals = [pool.submit(client.api.remove_container, one, force=True, v=True) for one in containers]
    seconds = time.monotonic() - began
    for removal in removals:
        removal.result()
    return seconds


def _cancel(client: Any, folder: Path) -> tuple[float, float]:
    """Seconds from SIGINT until the process has ended, and until the engine has no container of the Job either."""
    calls = [call("worker", query=f"{at} of {DELEGATES}") for at in range(DELEGATES)]
    coordinator = {"expert": COORDINATOR, "turns": [{"toolCalls": calls}]}
    worker = {"expert": "worker", "turns": [{"toolCalls": [call("exec", **_STUBBORN)]}]}
    experts: dict[str, dict[str, Any]] = {
        COORDINATOR: {"instruction": "Be quick.", "delegates": ["worker"]},
        "worker": {"instruction": "Be quick.", "description": "Works."},
    }
    job_id = f"bench-{folder.name}"
    with ModelProcess(folder, coordinator, worker) as model:
        (folder / "stage").mkdir()
        job = Stage(folder / "stage", model.url, experts).start(["--job-id", job_id])
        try:
            _wait_for_marks(job.workspace)
            if len(_containers(client, job_id)) != DELEGATES + 1:
                raise BenchmarkError("the Job has not one container for each Run")
            began = time.monotonic()
            job.process.send_signal(signal.SIGINT)
            code = job.process.wait(RUN_S)
            ended = time.monotonic() - began
            while _containers(client, job_id):
                time.sleep(_LOOK_S)
            gone = time.monotonic() - began
        finally:
            job.cancel()
        if code != ExitCode.CANCELLED:
            raise BenchmarkError(f"cancelled, the Job ended with code {code}: {job.errors.read_text()[-2000:]}")
    return ended, gone


def _containers(client: Any, job_id: str) -> list[Any]:
    """What `docker ps -a` shows of the Job."""
    found: list[Any] = client.api.containers(all=True, quiet=True, filters={"label": f"{LABEL_JOB}={job_id}"})
    return found


def _wait_for_marks(workspace: Path) -> None:
    """Until every delegate is in the tool.

    Raises:
        BenchmarkError: some are not.
    """
    deadline = time.monotonic() + START_S
    while (there := len(list(workspace.glob(f"{_MARK}*")))) < DELEGATES:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{there} of {DELEGATES} delegates came to their tool in {START_S:.0f} s")
        time.sleep(_LOOK_S)
