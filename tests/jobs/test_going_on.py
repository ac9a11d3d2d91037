"""A Job goes on: after every kind of end, with a further query, a raised limit, from an earlier checkpoint."""

import asyncio
import re
from typing import Any

import pytest

from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus
from expert_runner.contract.jobs import JobStatus
from expert_runner.contract.messages import TextPart, UserMessage
from orchestrator import RunOptions
from orchestrator.errors import ConfigError, PerstackError, StoreError
from tests.jobs.stage import Played, Stage, call, done, talk, turn

TEAM: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}


def queries(played: Played) -> list[str]:
    """What the user has said."""
    assert played.end is not None
    said = [part for m in played.end.messages if isinstance(m, UserMessage) for part in m.contents]
    return [part.text for part in said if isinstance(part, TextPart)]


async def cancelled_at(stage: Stage, kind: str, expert: str, *conversations: Any, experts: Any = None) -> Played:
    """A Job that is cancelled when `expert` has told of `kind` for the first time."""
    seen = asyncio.Event()

    def listen(event: Any) -> None:
        if event.type == kind and getattr(event, "expert_key", None) == expert:
            seen.set()

    job = asyncio.create_task(stage.play(experts or TEAM, *conversations, event_listener=listen))
    async with asyncio.timeout(60):
        await seen.wait()
    job.cancel()
    return await job


async def test_a_completed_job_goes_on_with_a_further_query(stage: Stage) -> None:
    await stage.play({"boss": {}}, talk("boss", turn(text="first"), turn(text="second")), query="One?")
    played = await stage.go_on("And two?")
    assert played.end is not None
    assert played.end.text == "second"
    assert queries(played) == ["One?", "And two?"]
    assert played.end.step_number == 2
    assert [e.step_number for e in played.of("startRun")] == [2]
    job = stage.history().job
    assert (job.status, job.total_steps) == (JobStatus.COMPLETED, 2)
    assert job.usage.total_tokens == played.end.usage.total_tokens
    assert job.continued_at is not None


async def test_a_completed_job_without_a_query_is_refused_and_left_as_it_is(local_stage: Stage) -> None:
    await local_stage.play({"boss": {}}, talk("boss", turn(text="first")))
    before = snapshot(local_stage)
    with pytest.raises(ConfigError, match="is completed: give a QUERY"):
        await local_stage.go_on()
    assert snapshot(local_stage) == before


async def test_the_latest_job_is_the_one_begun_or_continued_last(local_stage: Stage) -> None:
    script = talk("boss", turn(text="one"), turn(text="two"), turn(text="three"))
    await local_stage.play({"boss": {}}, script, jobId="old")
    await local_stage.play({"boss": {}}, script, jobId="new")
    first = await local_stage.go_on("More.", continueLatest=True)
    assert first.end is not None
    assert first.end.job_id == "new"
    await local_stage.go_on("More.", continueJob="old")
    last = await local_stage.go_on("More.", continueLatest=True)
    assert last.end is not None
    assert (last.end.job_id, last.end.text) == ("old", "three")


async def test_a_raised_limit_goes_on_where_the_last_one_stopped(stage: Stage) -> None:
    conversation = talk("boss", turn(call("healthCheck"), repeat=4), turn(text="done"))
    limited = await stage.play({"boss": {}}, conversation, maxSteps=2)
    assert limited.end is not None
    assert limited.end.status is CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS
    with pytest.raises(ConfigError, match="has used 2 steps and its limit is 2: raise it with --max-steps"):
        await stage.go_on()
    raised = await stage.go_on(maxSteps=4)
    assert raised.end is not None
    assert raised.end.status is CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS
    assert len(raised.of("startGeneration")) == 2, "all the steps there are, and not one more"
    last = await stage.go_on(maxSteps=5)
    assert last.end is not None
    assert last.end.text == "done"
    assert stage.history().job.total_steps == 5


async def test_the_limit_of_a_job_with_parallel_delegates_is_never_overshot(local_stage: Stage) -> None:
    await local_stage.play(
        TEAM,
        talk("boss", turn(*(call("aide", query=str(n)) for n in range(4))), *done()),
        talk("aide", turn(call("healthCheck"), repeat=5), turn(text="ok")),
        maxSteps=7,
    )
    history = local_stage.history()
    asked = [e for run_id in history.runs for e in history.events(run_id) if e.type == "startGeneration"]
    assert len(asked) == history.job.total_steps == 7
    assert history.job.status is JobStatus.STOPPED_BY_MAX_STEPS


async def test_a_job_that_failed_goes_on_once_the_cause_is_gone(local_stage: Stage) -> None:
    broken = turn(text="fine", faults=[{"kind": "status", "status": 401}])
    failed = await local_stage.play({"boss": {}}, talk("boss", turn(call("healthCheck")), broken))
    assert failed.end is not None
    assert failed.end.status is CheckpointStatus.STOPPED_BY_ERROR
    local_stage._conversations = (talk("boss", turn(call("healthCheck")), turn(text="fine")),)
    mended = await local_stage.go_on()
    assert mended.end is not None
    assert (mended.end.text, mended.end.error) == ("fine", None)
    assert mended.of("resolveToolResults") == [], "what was done is not done again"


async def test_a_cancelled_job_goes_on_with_its_delegates(stage: Stage) -> None:
    conversations = (
        talk("boss", turn(call("aide", query="a"), call("aide", query="b")), *done("{{turn.0.result.0}}")),
        talk("aide", turn(call("todo", newTodos=["{{query}}"])), turn(call("clearTodo"), delayMs=700), *done("A")),
    )
    cancelled = await cancelled_at(stage, "continueToNextStep", "aide", *conversations)
    assert cancelled.end is not None
    assert cancelled.end.status is CheckpointStatus.STOPPED_BY_CANCELLATION
    assert len(cancelled.of("stopRunByCancellation")) == 3, "every Run of the tree"
    assert stage.history().job.status is JobStatus.STOPPED_BY_CANCELLATION
    played = await stage.go_on()
    assert played.end is not None
    assert played.end.text == "A"
    assert set(played.runs("aide")) == set(cancelled.runs("aide")), "the same Runs go on"
    todos = [e for e in played.of("resolveToolResults", "aide") if e.tool_results[0].tool_name == "todo"]
    assert len(todos) <= 1


async def test_a_tool_under_way_when_the_job_was_cancelled_has_unknown_effects(stage: Stage) -> None:
    script = talk("boss", turn(call("exec", command="sleep", args=["60"])), turn(text="{{turn.0.result.0}}"))
    script["turns"][1] = turn(text="I looked")
    await cancelled_at(stage, "callTools", "boss", script, talk("boss", turn(text="unused")))
    stage._conversations = (talk("boss", turn(text="I looked")),)
    played = await stage.go_on()
    (result,) = played.of("resumeToolCalls")[0].partial_tool_results
    assert result.is_error
    assert "The Run was stopped while this call was being carried out" in result.result[0].text
    assert "unknown: look before you repeat it" in result.result[0].text
    assert played.end is not None
    assert played.end.text == "I looked"


async def test_a_further_query_takes_the_place_of_what_was_cancelled(stage: Stage) -> None:
    conversations = (
        talk(
            "boss", turn(call("aide", query="a"), call("writeTextFile", path="x", text="x")), turn(text="As you like")
        ),
        talk("aide", turn(call("exec", command="sleep", args=["60"]))),
    )
    await cancelled_at(stage, "callTools", "aide", *conversations)
    played = await stage.go_on("Never mind, just say yes.")
    assert played.end is not None
    assert played.end.text == "As you like"
    assert queries(played)[-1] == "Never mind, just say yes."
    assert played.runs("aide") == []


async def test_a_branch_goes_on_from_an_earlier_checkpoint_and_is_then_the_latest(stage: Stage) -> None:
    conversation = talk("boss", turn(call("todo", newTodos=["a"])), turn(text="first end"), turn(text="no"))
    first = await stage.play({"boss": {}}, conversation, jobId="j")
    (step,) = first.of("continueToNextStep")
    branch = await stage.go_on("Another way.", resumeFrom=step.checkpoint.id)
    assert branch.end is not None
    assert queries(branch) == ["Go.", "Another way."]
    assert branch.end.text == "first end"
    assert [todo.title for todo in branch.end.todos] == ["a"]
    (started,) = branch.of("initializeRuntime")
    assert started.branched_from is not None
    assert (started.branched_from.run_id, started.branched_from.checkpoint_id) == (
        first.runs("boss")[0],
        step.checkpoint.id,
    )
    history = stage.history()
    assert [r.id for r in history.coordinators] == [first.runs("boss")[0], branch.runs("boss")[0]]
    assert history.job.coordinator_run_id == branch.runs("boss")[0]
    old = history.standing(first.runs("boss")[0])
    assert old is not None
    assert old.checkpoint.text == "first end", "the old one stays readable"
    latest = await stage.go_on("And now?", continueLatest=True)
    assert queries(latest) == ["Go.", "Another way.", "And now?"], "latest means the newest branch"


async def test_a_branch_without_a_query_repeats_what_followed(local_stage: Stage) -> None:
    conversation = talk("boss", turn(call("healthCheck")), turn(call("healthCheck")), turn(text="end"))
    first = await local_stage.play({"boss": {}}, conversation)
    step = first.of("continueToNextStep")[0]
    branch = await local_stage.go_on(resumeFrom=step.checkpoint.id)
    assert branch.end is not None
    assert branch.end.text == "end"
    assert len(branch.of("resolveToolResults")) == 1
    assert len({m.id for m in branch.end.messages}) == len(branch.end.messages)


async def test_a_branch_of_a_waiting_coordinator_calls_its_delegates_anew(local_stage: Stage) -> None:
    first = await local_stage.play(
        TEAM, talk("boss", turn(call("aide", query="q")), *done("{{turn.0.result.0}}")), talk("aide", turn(text="A"))
    )
    (stop,) = first.of("stopRunByDelegate")
    branch = await local_stage.go_on(resumeFrom=stop.checkpoint.id)
    assert branch.end is not None
    assert branch.end.text == "A"
    assert len(branch.runs("aide")) == 1
    assert branch.runs("aide") != first.runs("aide")


async def test_a_branch_from_a_checkpoint_of_the_programs_own(local_stage: Stage) -> None:
    kept: list[Checkpoint] = []
    conversation = talk("boss", turn(call("todo", newTodos=["a"])), turn(text="end"))
    options = RunOptions(store_checkpoint=kept.append)
    await local_stage.play({"boss": {}}, conversation, options=options)
    asked: list[str] = []

    def retrieve(job_id: str, checkpoint_id: str) -> Any:
        asked.append(checkpoint_id)
        return next(c for c in kept if c.id == checkpoint_id)

    options = RunOptions(retrieve_checkpoint=retrieve)
    branch = await local_stage.go_on("More.", resumeFrom=kept[0].id, options=options)
    assert asked == [kept[0].id]
    assert branch.end is not None
    assert [todo.title for todo in branch.end.todos] == ["a"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"resumeFrom": "x", "continueJob": None, "continueLatest": True}, "--resume-from needs --continue-job"),
        ({"resumeFrom": "nothing"}, "has no checkpoint nothing"),
        ({"continueJob": "nothing"}, "there is no Job nothing"),
        ({"continueLatest": True, "continueJob": "j"}, "say different things"),
        ({"jobId": "other"}, "--job-id is for a new Job"),
        ({"expert_key": "aide"}, "Job j is boss's, not aide's"),
        ({"maxSteps": 1}, "has used 3 steps and its limit is 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_go_on_is_refused_and_nothing_changes(
    local_stage: Stage, more: dict[str, Any], why: str
) -> None:
    await local_stage.play(
        TEAM, talk("boss", turn(call("aide", query="q")), turn(text="end")), talk("aide", turn(text="A")), jobId="j"
    )
    before = snapshot(local_stage)
    with pytest.raises(PerstackError, match=re.escape(why)):
        await local_stage.go_on("More.", **({"continueJob": "j"} | more))
    assert snapshot(local_stage) == before


async def test_a_delegates_checkpoint_cannot_be_resumed_from(local_stage: Stage) -> None:
    played = await local_stage.play(
        TEAM, talk("boss", turn(call("aide", query="q")), turn(text="end")), talk("aide", turn(text="A"))
    )
    (end,) = played.of("completeRun", "aide")
    before = snapshot(local_stage)
    with pytest.raises(ConfigError, match="is of aide, a delegate: only the coordinator's"):
        await local_stage.go_on("More.", resumeFrom=end.checkpoint.id)
    assert snapshot(local_stage) == before


async def test_a_history_of_a_newer_version_is_refused(local_stage: Stage) -> None:
    await local_stage.play({"boss": {}}, talk("boss", turn(text="end")), jobId="j")
    path = local_stage.store.job_folder("j") / "job.json"
    path.write_text(path.read_text().replace('"historyVersion":1', '"historyVersion":2,"novelty":true'))
    before = snapshot(local_stage)
    with pytest.raises(StoreError, match=r"history version 2.*use a newer perstack"):
        await local_stage.go_on("More.")
    assert snapshot(local_stage) == before


async def test_a_damaged_middle_of_a_log_is_told_with_its_place(local_stage: Stage) -> None:
    played = await local_stage.play({"boss": {}}, talk("boss", turn(text="end")), jobId="j")
    path = local_stage.store.events_path("j", played.runs("boss")[0])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"rubbish\n", *lines[3:]]))
    before = snapshot(local_stage)
    with pytest.raises(StoreError, match=r"events\.jsonl:3: not an event"):
        await local_stage.go_on("More.")
    assert snapshot(local_stage) == before


async def test_two_at_once_one_is_told_who_holds_the_job(local_stage: Stage) -> None:
    await local_stage.play({"boss": {}}, talk("boss", turn(text="end"), turn(text="more", delayMs=500)), jobId="j")
    first = asyncio.create_task(local_stage.go_on("More."))
    model = local_stage.model
    while local_stage.model is model or not local_stage.model or not local_stage.model.requests:
        await asyncio.sleep(0.01)
    with pytest.raises(StoreError, match="Job j is being worked on by process"):
        await Stage.go_on(local_stage, "Me too.")
    assert (await first).end is not None


def snapshot(stage: Stage) -> dict[str, bytes]:
    return {str(p.relative_to(stage.storage)): p.read_bytes() for p in stage.storage.rglob("*") if p.is_file()}
