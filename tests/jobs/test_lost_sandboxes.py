"""Sandboxes that are lost: the cause is recorded, the Run goes on in another one, and nothing is done twice unasked."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.version import RUNTIME_VERSION
from orchestrator import bus
from orchestrator.runs.actor import MAX_LOSSES
from tests.jobs.stage import Played, Stage, call, done, talk, turn

TEAM: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True)


def kill(container: str) -> None:
    docker("kill", container)


def killing(kind: str, times: int = 1, expert: str = "boss") -> Any:
    """A listener that kills the Run's container whenever it tells of `kind`, at most `times` times."""
    containers: dict[str, str] = {}
    left = times

    def listen(event: Any) -> None:
        nonlocal left
        if event.type == "dockerContainerStatus" and event.status == "running":
            containers[event.run_id] = event.container_id
        if (
            event.type == kind
            and getattr(event, "expert_key", expert) == expert
            and left
            and event.run_id in containers
        ):
            left -= 1
            kill(containers[event.run_id])

    return listen


@pytest.fixture
def docker_stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "docker")


def causes(played: Played) -> list[str]:
    return [e.cause for e in played.of("sandboxLost")]


@pytest.mark.docker
async def test_a_killed_sandbox_is_replaced_and_its_call_comes_back_as_unknown(docker_stage: Stage) -> None:
    script = "echo once >>journal; sleep 30"
    played = await docker_stage.play(
        {"boss": {}},
        talk("boss", turn(call("exec", command="bash", args=["-c", script])), turn(text="unused")),
        event_listener=_kill_when_written(docker_stage, "journal", "boss"),
        maxSteps=1,
    )
    (lost,) = played.of("sandboxLost")
    assert (lost.cause, lost.exit_code, lost.losses) == ("killed", 137, 1)
    assert lost.sandbox_id
    (resolved,) = played.of("resolveToolResults")
    assert resolved.tool_results[0].is_error
    assert (
        "The sandbox was lost (killed) while this call was being carried out" in resolved.tool_results[0].result[0].text
    )
    assert (docker_stage.workspace / "journal").read_text() == "once\n"
    statuses = [e.status for e in played.of("dockerContainerStatus")]
    assert statuses == ["starting", "running", "removed", "starting", "running", "removed"]
    order = [e.type for e in played.events if e.type in ("sandboxLost", "dockerContainerStatus")]
    assert order.index("sandboxLost") == 2, "the cause is recorded before the container is removed"


def _kill_when_written(stage: Stage, name: str, expert: str) -> Any:
    containers: dict[str, str] = {}

    def listen(event: Any) -> None:
        if event.type == "dockerContainerStatus" and event.status == "running":
            containers[event.service] = event.container_id
        if event.type == "callTools" and event.expert_key == expert and len(containers) == 1:
            asyncio.get_running_loop().create_task(_when(stage.workspace / name, containers[expert]))

    return listen


async def _when(path: Path, container: str) -> None:
    while not await asyncio.to_thread(path.exists):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(kill, container)


@pytest.mark.docker
async def test_a_call_that_only_reads_is_simply_made_again(docker_stage: Stage) -> None:
    (docker_stage.workspace / "x").write_text("contents")
    played = await docker_stage.play(
        {"boss": {}},
        talk("boss", turn(call("readTextFile", path="x")), *done("{{turn.0.result.0}}")),
        event_listener=killing("callTools"),
    )
    assert played.end is not None
    assert "contents" in (played.end.text or "")
    assert causes(played) == ["killed"]


@pytest.mark.docker
async def test_the_model_is_not_asked_again_because_a_sandbox_was_lost(docker_stage: Stage) -> None:
    played = await docker_stage.play(
        {"boss": {}},
        talk("boss", turn(call("healthCheck"), delayMs=1500), turn(text="end")),
        event_listener=killing("startGeneration"),
    )
    assert played.end is not None
    assert played.end.text == "end"
    assert causes(played) == ["killed"]
    assert docker_stage.model is not None
    assert len(docker_stage.model.requests) == 2


@pytest.mark.docker
async def test_a_coordinator_whose_parked_sandbox_is_gone_goes_on_in_a_new_one(docker_stage: Stage) -> None:
    played = await docker_stage.play(
        TEAM,
        talk("boss", turn(call("aide", query="q")), *done("{{turn.0.result.0}}")),
        talk("aide", turn(text="aided", delayMs=1500)),
        event_listener=killing("stopRunByDelegate"),
    )
    assert played.end is not None
    assert played.end.text == "aided"
    assert causes(played) == ["killed"]
    assert len(played.runs("aide")) == 1


@pytest.mark.docker
async def test_a_delegate_that_loses_every_sandbox_is_a_failed_delegation(docker_stage: Stage) -> None:
    def listen(event: Any) -> None:
        if event.type == "dockerContainerStatus" and event.status == "running" and event.service == "aide":
            kill(event.container_id)

    played = await docker_stage.play(
        TEAM,
        talk("boss", turn(call("aide", query="q")), turn(text="The aide failed: {{turn.0.result.0}}")),
        talk("aide", turn(text="never")),
        event_listener=listen,
    )
    assert [e.losses for e in played.of("sandboxLost")] == list(range(1, MAX_LOSSES + 2))
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert "Delegation failed: SandboxLost: the sandbox ended before its Run: killed" in (played.end.text or "")


HOGS = """
import subprocess, sys
hog = "import sys, time; a = bytearray(15 * 1024 * 1024); time.sleep(60)"
hogs = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(60)]
[hog.wait() for hog in hogs]
"""


@pytest.mark.docker
async def test_out_of_memory_is_told_as_such(docker_stage: Stage) -> None:
    """Many small processes: the largest of all, which the kernel ends first, is then the runner."""
    played = await docker_stage.play(
        {"boss": {}},
        talk("boss", turn(call("exec", command="python3", args=["-c", HOGS])), turn(text="unused")),
        maxSteps=1,
    )
    (lost,) = played.of("sandboxLost")
    assert lost.cause == "outOfMemory"
    assert "out of memory" in lost.evidence
    (result,) = played.of("resolveToolResults")[0].tool_results
    assert "The sandbox was lost (outOfMemory)" in result.result[0].text


@pytest.mark.docker
async def test_a_silent_runner_is_a_lost_sandbox(docker_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "LEASE_S", 3.0)
    frozen: list[str] = []

    def listen(event: Any) -> None:
        if event.type == "dockerContainerStatus" and event.status == "running" and not frozen:
            frozen.append(event.container_id)
        if event.type == "startGeneration" and len(frozen) == 1:
            frozen.append("paused")
            docker("pause", frozen[0])

    played = await docker_stage.play({"boss": {}}, talk("boss", *done()), event_listener=listen)
    assert causes(played) == ["silent"]
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED


@pytest.mark.docker
async def test_an_image_that_is_gone_ends_the_run_with_what_to_do(docker_stage: Stage) -> None:
    tag = f"perstack-test-gone:{docker_stage.folder.name.lower()[-20:]}"
    docker("tag", f"perstack-expert:{RUNTIME_VERSION}", tag)

    def listen(event: Any) -> None:
        if event.type == "callDelegate":
            docker("rmi", tag)

    played = await docker_stage.play(
        TEAM,
        talk("boss", turn(call("aide", query="q")), turn(text="{{turn.0.result.0}}")),
        talk("aide", turn(text="never")),
        event_listener=listen,
        image=tag,
    )
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert "Delegation failed" in (played.end.text or "")
    assert "No such image" in (played.end.text or "")
