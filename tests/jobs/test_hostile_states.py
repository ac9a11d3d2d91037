"""All that a runner can say, said in every state in which its sandbox can say anything."""

from collections.abc import Callable
from typing import Any

import pytest

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import CheckpointStatus, RunError
from expert_runner.link import Link
from tests.jobs.hostile import moved, result
from tests.jobs.puppets import Puppet, PuppetBackend, honest, over_link, play_puppets, script
from tests.jobs.stage import Played, Stage, call, done, talk, turn

TOUR = (
    turn(call("healthCheck"), call("todo"), delayMs=30),
    turn(call("aide", query="q"), delayMs=30),
    turn(call("attemptCompletion"), delayMs=30),
    turn(text="seen it all", delayMs=30),
)
"""The turns of an Expert that comes through all these states."""

REPORTS: dict[str, Callable[[str], Any]] = {
    "startGeneration": lambda _: moved("startGeneration"),
    "callDelegate": lambda _: moved("callDelegate"),
    "callInteractiveTool": lambda _: moved("callInteractiveTool"),
    "finishToolCall": lambda _: moved("finishToolCall"),
    "finishAllToolCalls": lambda _: moved("finishAllToolCalls"),
    "continueToNextStep": lambda _: moved("continueToNextStep"),
    "resolveToolResults": lambda call_id: wire.Resolved(tool_results=(result(call_id),)),
    "attemptCompletion": lambda call_id: wire.CompletionAttempted(tool_result=result(call_id)),
    "skillConnected": lambda _: wire.SkillUp(skill_name="@perstack/base", total_duration_ms=0),
}
"""Each thing that a runner can report, about the call with this id; all but that it failed."""

MAY_COME: dict[str, set[str]] = {
    "assigned": {"startGeneration"},
    "asking": set(),
    "answered": {"resolveToolResults"},
    "one call resolved": {"resolveToolResults"},
    "all calls resolved": {"finishToolCall"},
    "step finished": {"continueToNextStep"},
    "next step": {"startGeneration"},
    "parked": {"finishAllToolCalls"},
    "resumed": {"finishAllToolCalls"},
    "step finished after a stop": {"continueToNextStep"},
    "asked to complete": {"resolveToolResults", "attemptCompletion"},
}
"""The states, in the order of the tour, and what may be reported there. What is said while the runner is parked counts
once it is not.
"""

CALL = "call_none"
"""The id of no call."""


async def go_to(link: Link, place: str) -> str:
    """Go to `place` as an honest runner does; returns the id of a call that is worked on there."""
    places = iter(MAY_COME)

    async def is_after(*reports: Any) -> bool:
        if reports:
            await link.report(*reports)
        return next(places) == place

    await link.next_command()
    if await is_after(wire.SkillUp(skill_name="@perstack/base", total_duration_ms=0)):
        return CALL
    if await is_after(moved("startGeneration")):
        return CALL
    first, second = (await link.next_command()).tool_calls
    if await is_after():
        return str(first.id)
    for resolved in (first, second):
        if await is_after(wire.Resolved(tool_results=(result(resolved.id),))):
            return str(second.id)
    if await is_after(moved("finishToolCall")) or await is_after(moved("continueToNextStep")):
        return str(second.id)
    await link.report(moved("startGeneration"))
    (delegation,) = (await link.next_command()).tool_calls
    if await is_after():
        return str(delegation.id)
    await link.next_command()
    if await is_after() or await is_after(moved("finishAllToolCalls")):
        return str(delegation.id)
    await link.report(moved("continueToNextStep"), moved("startGeneration"))
    (completion,) = (await link.next_command()).tool_calls
    assert await is_after()
    return str(completion.id)


async def play_tourists(stage: Stage, tourists: dict[str, Puppet]) -> Played:
    """A Job in which each tourist is a delegate, and `good` one more."""
    keys = [*tourists, "good"]
    experts: dict[str, Any] = {"boss": {"delegates": keys}, "good": {}, "aide": {}}
    experts |= {key: {"delegates": ["aide"]} for key in tourists}
    model = script(
        talk("boss", turn(*(call(key, query="q") for key in keys)), *done("all in")),
        talk("good", turn(call("healthCheck")), turn(text="good answer")),
        talk("aide", turn(text="aide's answer", delayMs=60)),
        *(talk(key, *TOUR) for key in tourists),
    )
    return await play_puppets(stage, experts, model, PuppetBackend(stage.workspace, tourists))


def says(place: str, report: Callable[[str], Any]) -> Puppet:
    async def act(link: Link) -> None:
        await link.report(report(await go_to(link, place)))

    return over_link(act)


def check_all_tourists_failed_alone(played: Played, count: int) -> None:
    *bad, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert len(bad) == count
    for answer in bad:
        assert answer.is_error
        assert answer.result[0].text.startswith("Delegation failed: ")
    assert good.result[0].text == "good answer"
    assert played.end is not None
    assert (played.end.status, played.end.text) == (CheckpointStatus.COMPLETED, "all in")


@pytest.mark.parametrize("place", MAY_COME)
async def test_what_cannot_be_reported_here_ends_its_own_run_alone(local_stage: Stage, place: str) -> None:
    lies = {f"t-{name.lower()}": name for name in sorted(REPORTS.keys() - MAY_COME[place])}
    played = await play_tourists(local_stage, {key: says(place, REPORTS[name]) for key, name in lies.items()})
    stops = played.of("stopRunByError")
    assert {stop.expert_key for stop in stops} == set(lies)
    assert {stop.error.name for stop in stops} <= {"ForbiddenTransition", "ContractError"}
    check_all_tourists_failed_alone(played, len(lies))


async def test_a_runner_may_say_that_it_failed_anywhere(local_stage: Stage) -> None:
    def failing(place: str) -> Puppet:
        return says(place, lambda _: wire.Failed(error=RunError(name="Tired", message=f"of being {place}")))

    places = {f"t{number}": place for number, place in enumerate(MAY_COME)}
    played = await play_tourists(local_stage, {key: failing(place) for key, place in places.items()})
    told = {stop.expert_key: (stop.error.name, stop.error.message) for stop in played.of("stopRunByError")}
    assert told == {key: ("Tired", f"of being {place}") for key, place in places.items()}
    check_all_tourists_failed_alone(played, len(places))


async def test_a_runner_cannot_say_that_the_provider_refused(local_stage: Stage) -> None:
    """A status is the gateway's to tell, and whether to try again the orchestrator's to know."""
    forged = RunError(name="ModelError", message="401", status_code=401, is_retryable=True)
    played = await play_tourists(local_stage, {"t0": says("answered", lambda _: wire.Failed(error=forged))})
    (stop,) = played.of("stopRunByError")
    assert stop.error == RunError(name="ModelError", message="401")


async def test_what_may_be_reported_leads_through_the_whole_tour(local_stage: Stage) -> None:
    """The control: an honest runner, and one that says by hand what the tour says, come to the end."""

    async def by_hand(link: Link) -> None:
        completion = await go_to(link, "asked to complete")
        await link.report(wire.CompletionAttempted(tool_result=result(completion)))
        # Its Run is over: what it says from here on is heard by nobody.
        for report in REPORTS.values():
            await link.report(report(completion))

    played = await play_tourists(local_stage, {"by-hand": over_link(by_hand), "honest": honest})
    assert played.of("stopRunByError") == []
    answers = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert [answer.result[0].text for answer in answers] == ["seen it all", "seen it all", "good answer"]
    with pytest.raises(AssertionError):
        check_all_tourists_failed_alone(played, 2)
