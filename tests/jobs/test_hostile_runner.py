"""A runner that lies ends its own Run with an error, and only that Run."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import CheckpointStatus, RunError
from expert_runner.contract.messages import TextPart
from expert_runner.contract.todos import TodoChange
from expert_runner.link import Link
from orchestrator.api.run import make_plan
from orchestrator.api.setting import as_setting
from orchestrator.job import JobRunner
from orchestrator.sandbox.backend import Exit, ExitCause
from orchestrator.scripted_model import Script, ScriptedModel
from tests.jobs.puppets import PuppetBackend
from tests.jobs.stage import Played, Stage, call, done, talk, turn

MODEL = [
    talk("boss", turn(call("bad", query="b"), call("good", query="g")), *done()),
    talk("bad", turn(call("healthCheck"), call("todo", newTodos=["x"])), turn(text="I am done")),
    talk("good", turn(call("healthCheck")), turn(text="good answer")),
]
EXPERTS = {"boss": {"delegates": ["bad", "good"]}, "bad": {"delegates": ["good"]}, "good": {}}


def moved(kind: Any) -> wire.Moved:
    return wire.Moved(type=kind)


def result(call_id: str, text: str = "forged") -> wire.WireResult:
    return wire.WireResult(id=call_id, result=(TextPart(text=text),))


async def begin(link: Link) -> Any:
    """What an honest runner does first; returns the model's first calls."""
    await link.next_command()
    await link.report(moved("startRun"))
    await link.report(moved("startGeneration"))
    return (await link.next_command()).tool_calls


async def completes_before_it_begins(link: Link) -> None:
    await link.next_command()
    await link.report(moved("completeRun"))


async def completes_while_the_model_is_asked(link: Link) -> None:
    await link.next_command()
    for kind in ("startRun", "startGeneration", "completeRun"):
        await link.report(moved(kind))


async def asks_the_model_twice(link: Link) -> None:
    await link.next_command()
    for kind in ("startRun", "startGeneration", "startGeneration"):
        await link.report(moved(kind))


async def starts_again(link: Link) -> None:
    await begin(link)
    await link.report(moved("startRun"))


async def completes_without_carrying_out_its_calls(link: Link) -> None:
    await begin(link)
    await link.report(moved("completeRun"))


async def delegates_what_the_model_did_not(link: Link) -> None:
    await begin(link)
    await link.report(moved("callDelegate"))


async def invents_a_call(link: Link) -> None:
    await begin(link)
    await link.report(moved("callTools"))
    await link.report(wire.Resolved(tool_results=(result("call_invented"),)))


async def answers_a_call_twice(link: Link) -> None:
    calls = await begin(link)
    await link.report(moved("callTools"))
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),)))
    await link.report(wire.Resolved(tool_results=(result(calls[0].id), result(calls[1].id))))


async def finishes_a_step_with_open_calls(link: Link) -> None:
    await begin(link)
    await link.report(moved("callTools"))
    await link.report(moved("finishToolCall"))


async def completes_without_being_asked_to(link: Link) -> None:
    calls = await begin(link)
    await link.report(moved("callTools"))
    await link.report(wire.CompletionAttempted(tool_result=result(calls[0].id)))


async def resumes_what_did_not_stop(link: Link) -> None:
    await begin(link)
    await link.report(moved("resumeToolCalls"))


async def ticks_a_todo_that_is_not_there(link: Link) -> None:
    calls = await begin(link)
    await link.report(moved("callTools"))
    forged = TodoChange(completed=(17,))
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),), todo_change=forged))


async def gives_a_result_of_a_gigabyte_in_pieces(link: Link) -> None:
    calls = await begin(link)
    await link.report(moved("callTools"))
    parts = tuple(TextPart(text="x" * 60_000) for _ in range(20))
    await link.report(wire.Resolved(tool_results=(wire.WireResult(id=calls[0].id, result=parts),)))


async def connects_a_skill_it_does_not_have(link: Link) -> None:
    await link.next_command()
    await link.report(wire.SkillUp(skill_name="@evil/skill", total_duration_ms=0))


async def sends_what_is_no_report(link: Link) -> None:
    await link.next_command()
    await link.report(wire.End())


async def says_it_failed(link: Link) -> None:
    await begin(link)
    await link.report(wire.Failed(error=RunError(name="Whatever", message="I give up")))


LIES = [
    completes_before_it_begins,
    completes_while_the_model_is_asked,
    asks_the_model_twice,
    starts_again,
    completes_without_carrying_out_its_calls,
    delegates_what_the_model_did_not,
    invents_a_call,
    answers_a_call_twice,
    finishes_a_step_with_open_calls,
    completes_without_being_asked_to,
    resumes_what_did_not_stop,
    ticks_a_todo_that_is_not_there,
    gives_a_result_of_a_gigabyte_in_pieces,
    connects_a_skill_it_does_not_have,
    sends_what_is_no_report,
    says_it_failed,
]


async def play(stage: Stage, **puppets: Callable[[Link], Awaitable[None]]) -> Played:
    stage.played = played = Played(None, [])
    async with ScriptedModel(Script.model_validate({"conversations": MODEL}), keep_bodies=True) as model:
        plan = make_plan(as_setting(stage.setting(model, EXPERTS, "Go.")))

        def backend(folder: Path) -> PuppetBackend:
            return PuppetBackend(stage.workspace, puppets)

        runner = JobRunner(replace(plan, make_backend=backend), lambda event, _: played.events.append(event))
        played.end = await runner.run()
        await plan.gateway.close()
    stage.check_history(played)
    return played


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
async def test_a_lying_runner_ends_its_own_run_alone(
    local_stage: Stage, lie: Callable[[Link], Awaitable[None]]
) -> None:
    played = await play(local_stage, bad=lie)
    (error,) = played.of("stopRunByError", "bad")
    assert error.error.message
    assert played.of("completeRun", "bad") == []
    bad, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert bad.is_error
    assert "Delegation failed" in bad.result[0].text
    assert good.result[0].text == "good answer"
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED


async def test_the_same_job_with_an_honest_runner_completes(local_stage: Stage) -> None:
    """The control: without a lie nothing fails."""
    played = await play(local_stage)
    assert played.of("stopRunByError") == []
    bad, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert (bad.result[0].text, good.result[0].text) == ("I am done", "good answer")


async def test_a_runner_that_is_gone_before_its_run_is_a_lost_sandbox(local_stage: Stage) -> None:
    class Vanishing(PuppetBackend):
        async def wait(self, sandbox: Any) -> Any:
            if sandbox.spec.expert_key == "bad":
                return Exit(ExitCause.OUT_OF_MEMORY, 137, "OOMKilled", "the last words")
            return await super().wait(sandbox)

    stage = local_stage
    stage.played = played = Played(None, [])
    async with ScriptedModel(Script.model_validate({"conversations": MODEL})) as model:
        plan = make_plan(as_setting(stage.setting(model, EXPERTS, "Go.")))
        plan = replace(plan, make_backend=lambda folder: Vanishing(stage.workspace, {}))
        played.end = await JobRunner(plan, lambda event, _: played.events.append(event)).run()
        await plan.gateway.close()
    (error,) = played.of("stopRunByError", "bad")
    assert error.error.name == "SandboxLost"
    assert "outOfMemory" in error.error.message
    assert "the last words" in error.error.message
    stage.check_history(played)
