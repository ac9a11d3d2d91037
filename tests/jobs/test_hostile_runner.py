"""A runner that lies ends its own Run with an error, and only that Run."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import CheckpointStatus, RunError
from expert_runner.contract.messages import TextPart
from expert_runner.contract.todos import TodoChange
from expert_runner.link import Link
from orchestrator.runs.witness import MAX_RESULT_CHARACTERS, Witness
from orchestrator.sandbox.backend import Exit, ExitCause
from tests.jobs.hostile import check_it_ended_alone, moved, play_beside, raw_runner, result
from tests.jobs.puppets import Ended, drive, honest, over_link
from tests.jobs.stage import Stage

CONTRACT_ERRORS = ("ContractError", "ForbiddenTransition", "PeerViolation")


async def begin(link: Link) -> Any:
    """What an honest runner does first; returns the model's first calls."""
    await link.next_command()
    await link.report(moved("startGeneration"))
    return (await link.next_command()).tool_calls


# --- lies: what a runner says that cannot be true


async def asks_the_model_twice(link: Link) -> None:
    await link.next_command()
    await link.report(moved("startGeneration"))
    await link.report(moved("startGeneration"))


async def asks_the_model_twice_in_one_frame(link: Link) -> None:
    await link.next_command()
    await link.report(moved("startGeneration"), moved("startGeneration"))


async def asks_the_model_again_instead_of_carrying_out_its_calls(link: Link) -> None:
    await begin(link)
    await link.report(moved("startGeneration"))


async def delegates_what_the_model_did_not(link: Link) -> None:
    await begin(link)
    await link.report(moved("callDelegate"))


async def asks_the_user_what_the_model_did_not(link: Link) -> None:
    await begin(link)
    await link.report(moved("callInteractiveTool"))


async def invents_a_call(link: Link) -> None:
    await begin(link)
    await link.report(wire.Resolved(tool_results=(result("call_invented"),)))


async def answers_a_call_of_its_caller(link: Link) -> None:
    """The delegating call that made this Run, whose id a scripted model gives again and again."""
    await begin(link)
    await link.report(wire.Resolved(tool_results=(result("call_0_0_0"),)))


async def answers_a_call_of_its_sibling(link: Link) -> None:
    await begin(link)
    await link.report(wire.Resolved(tool_results=(result("call_2_0_0"),)))


async def answers_a_call_twice(link: Link) -> None:
    calls = await begin(link)
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),)))
    await link.report(wire.Resolved(tool_results=(result(calls[0].id), result(calls[1].id))))


async def answers_a_call_twice_in_one_report(link: Link) -> None:
    calls = await begin(link)
    await link.report(wire.Resolved(tool_results=(result(calls[0].id), result(calls[0].id))))


async def answers_nothing(link: Link) -> None:
    await begin(link)
    await link.report(wire.Resolved(tool_results=()))


async def finishes_a_step_with_open_calls(link: Link) -> None:
    calls = await begin(link)
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),)), moved("finishToolCall"))


async def completes_without_being_asked_to(link: Link) -> None:
    calls = await begin(link)
    await link.report(wire.CompletionAttempted(tool_result=result(calls[0].id)))


async def completes_with_an_invented_call(link: Link) -> None:
    await begin(link)
    await link.report(wire.CompletionAttempted(tool_result=result("call_invented")))


async def completes_with_what_was_the_last_of_its_calls(link: Link) -> None:
    calls = await begin(link)
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),)))
    await link.report(wire.CompletionAttempted(tool_result=result(calls[1].id)))


async def resumes_what_did_not_stop(link: Link) -> None:
    await begin(link)
    await link.report(moved("finishAllToolCalls"))


async def ticks_a_todo_that_is_not_there(link: Link) -> None:
    calls = await begin(link)
    forged = TodoChange(completed=(17,))
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),), todo_change=forged))


async def ticks_a_todo_with_a_negative_id(link: Link) -> None:
    calls = await begin(link)
    forged = TodoChange(added=("x",), completed=(-1,))
    await link.report(wire.Resolved(tool_results=(result(calls[0].id),), todo_change=forged))


async def hoards_todos(link: Link) -> None:
    calls = await begin(link)
    for asked in calls:
        change = TodoChange(added=("x",) * 900)
        await link.report(wire.Resolved(tool_results=(result(asked.id),), todo_change=change))


async def gives_a_result_too_large_in_one_part(link: Link) -> None:
    calls = await begin(link)
    await link.report(wire.Resolved(tool_results=(result(calls[0].id, "x" * (MAX_RESULT_CHARACTERS + 1)),)))


async def gives_a_result_too_large_in_pieces(link: Link) -> None:
    calls = await begin(link)
    parts = tuple(TextPart(text="x" * 60_000) for _ in range(20))
    await link.report(wire.Resolved(tool_results=(wire.WireResult(id=calls[0].id, result=parts),)))


async def connects_a_skill_it_does_not_have(link: Link) -> None:
    await link.next_command()
    await link.report(wire.SkillUp(skill_name="@evil/skill", total_duration_ms=0))


async def connects_its_skill_twice(link: Link) -> None:
    await link.next_command()
    for _ in range(2):
        await link.report(wire.SkillUp(skill_name="@perstack/base", total_duration_ms=0))


async def sends_a_command(link: Link) -> None:
    await link.next_command()
    await link.report(wire.Resume(resolved=("call_1_0_0",)))


async def sends_the_end(link: Link) -> None:
    await link.next_command()
    await link.report(wire.End())


LIES = [
    asks_the_model_twice,
    asks_the_model_twice_in_one_frame,
    asks_the_model_again_instead_of_carrying_out_its_calls,
    delegates_what_the_model_did_not,
    asks_the_user_what_the_model_did_not,
    invents_a_call,
    answers_a_call_of_its_caller,
    answers_a_call_of_its_sibling,
    answers_a_call_twice,
    answers_a_call_twice_in_one_report,
    answers_nothing,
    finishes_a_step_with_open_calls,
    completes_without_being_asked_to,
    completes_with_an_invented_call,
    completes_with_what_was_the_last_of_its_calls,
    resumes_what_did_not_stop,
    ticks_a_todo_that_is_not_there,
    ticks_a_todo_with_a_negative_id,
    hoards_todos,
    gives_a_result_too_large_in_one_part,
    gives_a_result_too_large_in_pieces,
    connects_a_skill_it_does_not_have,
    connects_its_skill_twice,
    sends_a_command,
    sends_the_end,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
async def test_a_lying_runner_ends_its_own_run_alone(
    local_stage: Stage, lie: Callable[[Link], Awaitable[None]]
) -> None:
    played = await play_beside(local_stage, over_link(lie))
    check_it_ended_alone(played, *CONTRACT_ERRORS)


async def test_the_same_job_with_an_honest_runner_completes(local_stage: Stage) -> None:
    """The control: without a lie nothing fails."""
    played = await play_beside(local_stage, honest)
    assert played.of("stopRunByError") == []
    bad, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert (bad.result[0].text, good.result[0].text) == ("I am done", "good answer")


async def test_the_check_finds_an_orchestrator_that_believes_its_runners(
    local_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A witness that looks away makes the checks above fail, so they look at something."""
    truthful = Witness.take

    def credulous(self: Witness, report: Any) -> Any:
        if isinstance(report, wire.SkillUp):
            return None
        return truthful(self, report)

    monkeypatch.setattr(Witness, "take", credulous)

    async def lies_and_goes_on(link: Link) -> None:
        await link.report(wire.SkillUp(skill_name="@evil/skill", total_duration_ms=0))
        await drive(link)

    played = await play_beside(local_stage, over_link(lies_and_goes_on))
    with pytest.raises(AssertionError):
        check_it_ended_alone(played, *CONTRACT_ERRORS)


# --- what is no lie, and what ends a sandbox


async def test_a_result_given_before_it_was_asked_for_counts_when_it_is(local_stage: Stage) -> None:
    """Ids of calls can be guessed. What a runner says of its own calls is believed anyway; the record is in order."""

    async def guesses(link: Link) -> None:
        await link.next_command()
        await link.report(moved("startGeneration"))
        guessed = tuple(result(f"call_1_0_{n}") for n in range(2))
        await link.report(wire.Resolved(tool_results=guessed), moved("finishToolCall"), moved("continueToNextStep"))
        await link.report(moved("startGeneration"))

    played = await play_beside(local_stage, over_link(guesses))
    assert played.of("stopRunByError") == []
    (bad,) = played.runs("bad")
    assert played.types(bad, without=["initializeRuntime", "skillConnected"])[:5] == [
        "startRun",
        "startGeneration",
        "callTools",
        "resolveToolResults",
        "finishToolCall",
    ]
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED


async def test_a_runner_that_says_it_failed_is_believed(local_stage: Stage) -> None:
    async def fails(link: Link) -> None:
        await begin(link)
        await link.report(wire.Failed(error=RunError(name="Whatever", message="I give up")))

    assert check_it_ended_alone(await play_beside(local_stage, over_link(fails)), "Whatever") == "I give up"


def lost(cause: ExitCause = ExitCause.OUT_OF_MEMORY) -> Ended:
    return Ended(Exit(cause, 137, "OOMKilled", "the last words"))


async def test_a_runner_that_is_gone_each_time_ends_its_own_run_after_a_few(local_stage: Stage) -> None:
    async def vanishes(link: Link) -> None:
        await begin(link)
        raise lost()

    async def vanishes_again(link: Link) -> None:
        await link.next_command()
        raise lost()

    puppets = iter([over_link(vanishes)])

    async def puppet(identity: wire.Identity) -> None:
        await next(puppets, over_link(vanishes_again))(identity)

    played = await play_beside(local_stage, puppet)
    message = check_it_ended_alone(played, "SandboxLost")
    assert "outOfMemory" in message
    assert "the last words" in message
    assert [event.losses for event in played.of("sandboxLost")] == [1, 2, 3, 4]


async def test_a_runner_that_is_gone_once_is_replaced_and_its_run_goes_on(local_stage: Stage) -> None:
    async def vanishes(link: Link) -> None:
        await begin(link)
        raise lost(ExitCause.KILLED)

    puppets = iter([over_link(vanishes)])

    async def puppet(identity: wire.Identity) -> None:
        await next(puppets, honest)(identity)

    played = await play_beside(local_stage, puppet)
    assert played.of("stopRunByError") == []
    (loss,) = played.of("sandboxLost")
    assert (loss.cause, loss.exit_code, loss.log) == (ExitCause.KILLED, 137, "the last words")
    bad, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert (bad.result[0].text, good.result[0].text) == ("I am done", "good answer")


@pytest.mark.parametrize("says_hello", [False, True], ids=["from the start", "after hello"])
async def test_a_silent_runner_is_a_lost_sandbox_as_often_as_it_may(
    local_stage: Stage, monkeypatch: pytest.MonkeyPatch, says_hello: bool
) -> None:
    monkeypatch.setattr("orchestrator.runs.session.START_DEADLINE_S", 0.3)
    monkeypatch.setattr("orchestrator.bus.LEASE_S", 0.5)
    for module in ("orchestrator.bus", "expert_runner.link"):
        monkeypatch.setattr(f"{module}.HEARTBEAT_S", 0.05)

    async def silent(identity: wire.Identity) -> None:
        async with raw_runner(identity) as runner:
            if says_hello:
                await runner.hello()
            await asyncio.Event().wait()

    played = await play_beside(local_stage, silent)
    assert "silent" in check_it_ended_alone(played, "SandboxLost")
    assert [(event.cause, event.losses) for event in played.of("sandboxLost")] == [
        (ExitCause.SILENT, losses) for losses in (1, 2, 3, 4)
    ]
