"""One Run in sum."""

from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import CheckpointStatus, DelegatedBy, ExpertRef
from expert_runner.contract.standing import fold
from expert_runner.contract.tools import SkillType, ToolCall
from orchestrator.logs.digest import Digest
from orchestrator.store.history import HistoryEvent, JobHistory
from orchestrator.store.layout import RunRecord
from tests.contract.story import Story
from tests.logs.histories import run_of

AROUND: dict[str, Any] = {"id": "x", "job_id": "job", "run_id": "run"}


def begins(timestamp: int) -> e.InitializeRuntime:
    return e.InitializeRuntime(
        **AROUND,
        timestamp=timestamp,
        runtime_version="0",
        runtime="local",
        expert_name="lead",
        experts=("lead",),
        model="m",
        max_retries=5,
        timeout=1,
    )


def at(events: list[Any], *times: int) -> list[HistoryEvent]:
    return [event.model_copy(update={"timestamp": time}) for event, time in zip(events, times, strict=True)]


def test_the_status_is_that_of_the_fold_after_every_event(team: JobHistory) -> None:
    for run_id in (record.id for record in team.runs.values() if record.branched_from is None):
        events = list(team.events(run_id))
        for end in range(1, len(events) + 1):
            transitions = [event for event in events[:end] if isinstance(event, e.BaseRunEvent)]
            expected = fold(transitions).checkpoint.status if transitions else CheckpointStatus.INIT
            assert Digest.of(events[:end]).status is expected


def test_tokens_are_those_of_the_checkpoint(team: JobHistory) -> None:
    for record in team.runs.values():
        standing = team.standing(record.id)
        assert standing is not None
        base = team.base(record.id)
        used = standing.checkpoint.usage - base.checkpoint.usage if base is not None else standing.checkpoint.usage
        assert Digest.of(team.events(record.id)).totals.usage == used


def test_a_run_without_events_has_not_begun() -> None:
    digest = Digest.of(())
    assert (digest.status, digest.totals.steps, digest.worked_ms, digest.last_at) == (CheckpointStatus.INIT, 0, 0, None)


def story(*told: str) -> list[Any]:
    made = Story()
    for kind in told:
        made.happens(kind)
    return list(made.history)


def test_time_counts_from_the_beginning_of_each_process_to_its_last_transition() -> None:
    start, ask, stop, again, more = story(
        "startRun", "startGeneration", "stopRunByCancellation", "startRun", "startGeneration"
    )
    gone = e.SkillDisconnected(**AROUND, timestamp=0, skill_name="s")
    events = at(
        [begins(0), start, ask, stop, gone, begins(0), again, more],
        1000,
        1100,
        1200,
        1500,
        9000,
        50_000,
        50_010,
        50_100,
    )
    assert Digest.of(events).worked_ms == 500 + 100


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    start, ask = story("startRun", "startGeneration")
    assert Digest.of(at([begins(0), start, ask], 1000, 1500, 200)).worked_ms == 500


def delegate(call_id: str, created_at: int) -> RunRecord:
    expert = ExpertRef(key="lead", name="lead", version="1.0.0")
    caller = DelegatedBy(expert=expert, run_id="run", checkpoint_id="c", tool_call_id=call_id, tool_name="x")
    return RunRecord(id="d", job_id="job", expert_key="e", query="q", delegated_by=caller, created_at=created_at)


def test_delegates_have_the_place_of_their_call_even_where_ids_repeat() -> None:
    made = Story().until_answer()
    made.happens("callTools", "tool", "delegate", "delegate")
    first = made.history[-1].model_copy(update={"timestamp": 100})
    second = first.model_copy(update={"timestamp": 200})
    digest = Digest.of([first, second])
    assert [digest.place_of(delegate(*called)) for called in (("c1", 150), ("c2", 150), ("c1", 250), ("c2", 200))] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert digest.place_of(delegate("unknown", 300)) == (2, 0), "after all others"


def test_the_question_is_the_call_that_waits_with_its_arguments() -> None:
    made = Story().until_answer()
    made.happens("callInteractiveTool", "interactive", "interactive")
    answer = made.history[-1]
    assert isinstance(answer, e.CallInteractiveTool)
    first, second = (call for call in answer.tool_calls if isinstance(call, ToolCall))
    assert Digest.of(made.history).question == first
    made.happens("stopRunByInteractiveTool")
    made.happens("resumeToolCalls", resolved=("c0",))
    assert Digest.of(made.history).question is None
    made.happens("callInteractiveTool")
    assert Digest.of(made.history).question == second


def test_an_error_is_the_runs_only_as_long_as_it_is_stopped_by_it() -> None:
    made = Story().until_answer()
    made.happens("stopRunByError")
    stopped = Digest.of(made.history)
    assert stopped.error is not None
    assert stopped.error.message == "overloaded"
    made.happens("startRun")
    going_on = Digest.of(made.history)
    assert going_on.error is None
    assert going_on.failure is not None, "it is still what happened last"


def test_a_lost_sandbox_is_counted(team: JobHistory) -> None:
    lost = e.SandboxLost(**AROUND, timestamp=1, cause="oom", evidence="the kernel says so", losses=1)
    assert Digest.of([begins(1), lost, lost]).sandboxes_lost == 2
    assert Digest.of(team.events(run_of(team, "boss"))).sandboxes_lost == 0


def test_queries_are_what_the_user_asked(team: JobHistory) -> None:
    first, branch = team.coordinators
    assert Digest.of(team.events(first.id)).queries == ["Go."]
    assert Digest.of(team.events(branch.id)).queries == ["Once more."]
    assert SkillType.DELEGATE in {call.skill_type for call in _calls(team, first.id)}


def _calls(team: JobHistory, run_id: str) -> list[Any]:
    return [call for event in team.events(run_id) if isinstance(event, e.Answer) for call in event.tool_calls]
