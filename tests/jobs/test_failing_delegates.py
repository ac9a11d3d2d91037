"""Delegates that fail, each in its own way: each is an error of its own call, in its place, and nobody else's."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, Step
from expert_runner.contract.jobs import JobStatus
from orchestrator import RunOptions, RunSetting
from orchestrator.errors import SandboxError
from orchestrator.runs.actor import MAX_LOSSES
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxSpec
from tests.jobs.puppets import Ended, PuppetBackend, play_puppets, script
from tests.jobs.stage import Played, Stage, call, done, talk, turn

REFUSED = turn(faults=[{"kind": "status", "status": 401}])
"""What a provider says to a wrong key."""


def told(played: Played, expert: str = "boss") -> list[tuple[bool, str]]:
    """What became of the calls of `expert`'s delegates, in call order: whether it is an error, and its text."""
    results = [result for event in played.of("resumeToolCalls", expert) for result in event.partial_tool_results]
    return [(result.is_error, result.result[0].text) for result in results]


def text(played: Played) -> str:
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED, played.end.error
    return played.end.text or ""


async def dies(identity: wire.Identity) -> None:
    raise Ended(Exit(ExitCause.KILLED, 137, "status exited, exit code 137"))


class RefusingBackend(PuppetBackend):
    """Starts nothing for the Expert `refused`."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        if spec.expert_key == "refused":
            raise SandboxError("The Docker Engine could not start a sandbox: no space left on device.")
        return await super().start(spec)


COMPANY: dict[str, Any] = {
    "boss": {"delegates": ["dying", "denied", "refused", "good"]},
    "dying": {},
    "denied": {},
    "refused": {},
    "good": {},
}
CALLS = (
    call("dying", query="d"),
    call("good", query="g"),
    call("refused", query="r"),
    call("denied", query="n"),
    call("good", query=42),
    call("nobody", query="x"),
    call("good", query="h"),
)
WORK = (
    talk("dying", turn(text="never said")),
    talk("denied", REFUSED),
    talk("refused", turn(text="never said")),
    talk("good", turn(call("writeTextFile", path="{{query}}", text="{{query}}")), turn(text="good {{query}}")),
)
ENDS = [
    (True, "Delegation failed: SandboxLost: the sandbox ended before its Run: killed"),
    (False, "good g"),
    (True, "Delegation failed: SandboxError: The Docker Engine could not start a sandbox: no space left on device."),
    (True, "Delegation failed: ModelError: openai (gpt-4o) refused the key (401)"),
    (True, "Delegation failed: the call has no `query`"),
    (False, "good h"),
]


def check_ends(outcomes: list[tuple[bool, str]]) -> None:
    assert len(outcomes) == len(ENDS)
    for (is_error, words), (should_be_error, beginning) in zip(outcomes, ENDS, strict=True):
        assert words.startswith(beginning)
        assert is_error is should_be_error


async def test_every_kind_of_failure_at_once_leaves_the_others_their_answers(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "local")
    backend = RefusingBackend(stage.workspace, {"dying": dies})
    played = await play_puppets(
        stage, COMPANY, script(talk("boss", turn(*CALLS), *done("I decided to go on")), *WORK), backend
    )
    assert text(played) == "I decided to go on"
    check_ends(told(played))
    assert [event.losses for event in played.of("sandboxLost")] == list(range(1, MAX_LOSSES + 2))
    assert [(stage.workspace / name).read_text() for name in "gh"] == ["g", "h"]
    assert stage.history().job.status is JobStatus.COMPLETED


async def test_a_delegate_in_the_middle_is_told_of_its_own_and_ends_as_it_likes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "local")
    experts = COMPANY | {"boss": {"delegates": ["middle"]}, "middle": {"delegates": list(COMPANY)[1:]}}
    backend = RefusingBackend(stage.workspace, {"dying": dies})
    played = await play_puppets(
        stage,
        experts,
        script(
            talk("boss", turn(call("middle", query="1"), call("middle", query="2")), *done("{{turn.0.result.0}}")),
            talk("middle", turn(*CALLS), *done("two of six"), when="1"),
            talk("middle", turn(call("dying", query="d")), REFUSED, when="2"),
            *WORK,
        ),
        backend,
    )
    assert text(played) == "two of six"
    first, second = told(played)
    assert first == (False, "two of six")
    assert second[0]
    assert second[1].startswith("Delegation failed: ModelError: openai (gpt-4o) refused the key (401)")
    by_run = {event.run_id: event for event in played.of("resumeToolCalls", "middle")}
    ends = sorted((list(event.partial_tool_results) for event in by_run.values()), key=len)
    assert [len(results) for results in ends] == [1, len(ENDS)]
    check_ends([(result.is_error, result.result[0].text) for result in ends[1]])


async def test_a_caller_may_try_again(stage: Stage) -> None:
    played = await stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk(
            "boss", turn(call("aide", query="first")), turn(call("aide", query="again")), *done("{{turn.1.result.0}}")
        ),
        talk("aide", REFUSED, when="first"),
        talk("aide", turn(text="now it works"), when="again"),
    )
    assert text(played) == "now it works"
    assert [is_error for is_error, _ in told(played)] == [True, False]


async def test_the_jobs_limit_ends_delegates_and_then_their_caller(stage: Stage) -> None:
    conversations = (
        talk(
            "boss", turn(call("aide", query="a"), call("quick", query="q")), turn(text="{{turn.0.result.1}}, at last")
        ),
        talk("aide", turn(call("healthCheck"), repeat=50), turn(text="never said")),
        talk("quick", turn(text="quick")),
    )
    experts: dict[str, Any] = {"boss": {"delegates": ["aide", "quick"]}, "aide": {}, "quick": {}}
    quick_ended = asyncio.Event()

    def listen(event: Any) -> None:
        if event.type == "completeRun" and event.expert_key == "quick":
            quick_ended.set()

    async def ask(setting: RunSetting, checkpoint: Checkpoint, step: Step) -> bool:
        # The other one takes no step that this one needs.
        await quick_ended.wait()
        return True

    limited = await stage.play(
        experts, *conversations, maxSteps=6, event_listener=listen, options=RunOptions(should_continue_run=ask)
    )
    assert told(limited) == [(True, "Delegation failed: the Job reached its limit of steps"), (False, "quick")]
    assert limited.end is not None
    assert limited.end.status is CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS
    assert stage.history().job.total_steps == 6
    raised = await stage.go_on(maxSteps=7)
    assert text(raised) == "quick, at last"
    assert raised.runs("aide") == [], "its caller was told that it failed, and decides"


async def test_a_delegate_that_the_program_stops_is_a_failure_its_caller_is_told_of(stage: Stage) -> None:
    async def ask(setting: RunSetting, checkpoint: Checkpoint, step: Step) -> bool:
        await asyncio.sleep(0)
        return not (checkpoint.expert.key == "aide" and step.step_number == 2)

    aide = talk("aide", turn(call("todo", newTodos=["{{query}}"]), repeat=5), turn(text="never said"))
    played = await stage.play(
        {"boss": {"delegates": ["middle"]}, "middle": {"delegates": ["aide", "good"]}, "aide": {}, "good": {}},
        talk("boss", turn(call("middle", query="m")), turn(text="{{turn.0.result.0}}"), turn(text="and on")),
        talk("middle", turn(call("aide", query="a"), call("good", query="g")), turn(text="{{turn.0.result.1}}")),
        aide,
        talk("good", turn(call("healthCheck"), repeat=4), turn(text="good")),
        options=RunOptions(should_continue_run=ask),
    )
    assert text(played) == "good"
    assert told(played, "middle") == [
        (True, "Delegation failed: the Expert ended as stoppedByCancellation"),
        (False, "good"),
    ]
    assert [event.expert_key for event in played.of("stopRunByCancellation")] == ["aide"]
    assert len(played.of("startGeneration", "aide")) == 2
    further = await stage.go_on("Anything else?")
    assert text(further) == "and on"
    assert further.runs("aide") == []


@pytest.mark.docker
async def test_a_delegate_whose_containers_are_all_killed_does_not_disturb_its_siblings(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "docker")

    def kill(event: Any) -> None:
        if event.type == "dockerContainerStatus" and event.status == "running" and event.service == "doomed":
            subprocess.run(["docker", "kill", event.container_id], check=True, capture_output=True)

    played = await stage.play(
        {"boss": {"delegates": ["doomed", "good"]}, "doomed": {}, "good": {}},
        talk("boss", turn(call("good", query="1"), call("doomed", query="d"), call("good", query="2")), *done("on")),
        talk("doomed", turn(text="never said")),
        talk("good", turn(call("healthCheck"), repeat=5), turn(text="good {{query}}")),
        event_listener=kill,
    )
    assert text(played) == "on"
    first, doomed, second = told(played)
    assert (first, second) == ((False, "good 1"), (False, "good 2"))
    assert doomed[0]
    assert doomed[1].startswith("Delegation failed: SandboxLost: the sandbox ended before its Run: killed")
    assert {event.run_id for event in played.of("sandboxLost")} == set(played.runs("doomed"))
