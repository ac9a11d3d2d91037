"""A Job run again with its recorded answers: the same, or the first thing that goes differently."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract.experts import Expert
from orchestrator.errors import ConfigError
from orchestrator.model.conversation import Conversation
from orchestrator.model.gateway import ModelError
from orchestrator.replay.comparison import Comparison
from orchestrator.replay.recorded_model import RecordedModels
from orchestrator.replay.report import Difference, Report
from orchestrator.replay.rerun import run_again
from orchestrator.replay.tree import courses
from tests.jobs.stage import Played, Stage, call, done, talk, turn
from tests.replay.altered import alter, assign, log_of

ASK = {"type": "interactiveSkill", "tools": {"ask": {"inputJsonSchema": '{"type": "object"}'}}}
TEAM: dict[str, Any] = {"boss": {"delegates": ["aide", "clerk"]}, "aide": {"delegates": ["clerk"]}, "clerk": {}}


def experts_of(declared: dict[str, Any]) -> dict[str, Expert]:
    return {
        key: Expert.model_validate({"key": key, "instruction": f"Be {key}.", **expert})
        for key, expert in declared.items()
    }


async def again(stage: Stage, declared: dict[str, Any], workspace: Path | None = None) -> Report:
    return await run_again(stage.history(), experts_of(declared), workspace=workspace)


async def found(stage: Stage, declared: dict[str, Any], workspace: Path | None = None) -> Difference:
    difference = (await again(stage, declared, workspace)).difference
    assert difference is not None
    return difference


async def cancelled_at(stage: Stage, kind: str, expert: str, declared: Any, *conversations: Any) -> Played:
    """A Job that is cancelled when `expert` has told of `kind` for the first time."""
    seen = asyncio.Event()

    def listen(event: Any) -> None:
        if event.type == kind and getattr(event, "expert_key", None) == expert:
            seen.set()

    job = asyncio.create_task(stage.play(declared, *conversations, event_listener=listen))
    async with asyncio.timeout(60):
        await seen.wait()
    job.cancel()
    return await job


async def test_a_tree_of_runs_goes_the_same_way_again(stage: Stage) -> None:
    await stage.play(
        TEAM,
        talk(
            "boss",
            turn(
                call("writeTextFile", path="note", text="n"),
                call("exec", command="pwd"),
                call("healthCheck"),
                {"name": "readTextFile", "arguments": '{"path": "a.t'},
                call("launchMissiles"),
            ),
            turn(call("aide", query="help"), call("clerk", query="file it"), call("clerk")),
            *done("{{turn.1.result.0}}"),
        ),
        talk("aide", turn(call("readTextFile", path="note")), turn(call("clerk", query="copy")), *done("helped")),
        talk("clerk", turn(text="filed", reasoning="so be it", faults=[{"kind": "empty", "times": 1}])),
    )
    before = {path: path.read_bytes() for path in stage.storage.rglob("*") if path.is_file()}
    (stage.workspace / "note").unlink()
    report = await again(stage, TEAM)
    assert report.difference is None, report.describe()
    assert report.runs == 4
    assert not (stage.workspace / "note").exists(), "the workspace is another"
    assert before == {path: path.read_bytes() for path in stage.storage.rglob("*") if path.is_file()}


async def test_a_tool_that_now_gives_another_result_is_the_first_difference(stage: Stage) -> None:
    (stage.workspace / "in").write_text("then")
    script = talk("aide", turn(call("healthCheck"), call("readTextFile", path="in")), turn(text="read"))
    played = await stage.play(TEAM, talk("boss", turn(call("aide", query="q")), *done()), script)
    difference = await found(stage, TEAM)
    (resolved,) = played.of("resolveToolResults")
    assert (difference.run_id, difference.expert_key) == (played.runs("aide")[0], "aide")
    assert difference.event_id == resolved.id
    assert difference.line is not None
    assert resolved.id in log_of(stage.history(), "aide").read_text().splitlines()[difference.line - 1]
    assert difference.field == "toolResults[1].result[0].text"
    assert difference.recorded == "then"
    assert "'in' does not exist" in difference.replayed
    (stage.workspace / "in").write_text("now")
    difference = await found(stage, TEAM, stage.workspace)
    assert difference.field == "toolResults[1].result[0].text"
    assert (difference.recorded, difference.replayed) == ("then", "now")
    (stage.workspace / "in").write_text("then")
    report = await again(stage, TEAM, stage.workspace)
    assert report.difference is None, report.describe()


async def test_of_several_differences_the_one_recorded_first_is_told(local_stage: Stage) -> None:
    read = turn(call("readTextFile", path="in"))
    (local_stage.workspace / "in").write_text("then")
    await local_stage.play(
        TEAM, talk("boss", turn(call("aide", query="q")), read, *done()), talk("aide", read, turn(text="read"))
    )
    assert (await found(local_stage, TEAM)).expert_key == "aide"


async def test_answers_to_the_user_and_further_queries_are_given_again_in_turn(stage: Stage) -> None:
    declared = {"boss": {"skills": {"user": ASK}}}
    await stage.play(
        declared,
        talk(
            "boss",
            turn(call("exec", command="echo", args=["1"]), call("ask", n=1), call("ask", n=2)),
            turn(text="first end"),
            turn(call("exec", command="echo", args=["2"])),
            turn(text="second end"),
        ),
    )
    await stage.go_on(answer="one")
    await stage.go_on(answer="two")
    await stage.go_on("More.")
    report = await again(stage, declared)
    assert report.difference is None, report.describe()


async def test_what_failed_or_was_stopped_is_not_repeated_and_its_going_on_is(local_stage: Stage) -> None:
    declared: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}
    work = turn(call("exec", command="echo", args=["work"]))
    script = (
        talk("boss", work, turn(call("aide", query="a")), turn(text="end", faults=[{"kind": "status", "status": 401}])),
        talk("aide", turn(text="no", faults=[{"kind": "status", "status": 403}])),
    )
    await local_stage.play(declared, *script, maxSteps=1)
    assert (await again(local_stage, declared)).difference is None
    await local_stage.go_on(maxSteps=9)
    assert local_stage.history().job.status == "stoppedByError"
    report = await again(local_stage, declared)
    assert report.difference is None, report.describe()
    local_stage._conversations = (talk("boss", work, turn(call("aide", query="a")), turn(text="end"), turn(text="x")),)
    await local_stage.go_on()
    report = await again(local_stage, declared)
    assert report.difference is None, report.describe()
    assert (report.runs, local_stage.history().job.status) == (2, "completed")


async def test_a_cancelled_job_is_run_as_far_as_it_is_known(local_stage: Stage) -> None:
    sleep = turn(call("exec", command="sleep", args=["3600"]))
    script = (
        talk("boss", turn(call("aide", query="a"), call("writeTextFile", path="x", text="x")), turn(text="Well")),
        talk("aide", turn(call("writeTextFile", path="y", text="y")), sleep),
    )
    declared: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}
    await cancelled_at(local_stage, "continueToNextStep", "aide", declared, *script)
    report = await again(local_stage, declared)
    assert report.difference is None, report.describe()
    await local_stage.go_on("Never mind.")
    report = await again(local_stage, declared)
    assert report.difference is None, report.describe()


async def test_a_result_that_only_says_its_call_was_interrupted_is_not_expected_again(local_stage: Stage) -> None:
    once = ["-c", "test -e begun || { touch begun; sleep 3600; }"]
    script = talk("boss", turn(call("exec", command="sh", args=once)), *done())
    job = asyncio.create_task(local_stage.play({"boss": {}}, script))
    async with asyncio.timeout(60):
        while not (local_stage.workspace / "begun").exists():
            await asyncio.sleep(0.05)
    job.cancel()
    await job
    played = await local_stage.go_on()
    (unknown,) = played.of("resumeToolCalls")[0].partial_tool_results
    assert unknown.is_error
    report = await again(local_stage, {"boss": {}}, local_stage.workspace)
    assert report.difference is None, report.describe()


async def test_the_newest_branch_is_the_one_that_is_run_again(local_stage: Stage) -> None:
    declared: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}
    script = (
        talk("boss", turn(call("aide", query="1")), turn(call("aide", query="2")), turn(text="end"), turn(text="x")),
        talk("aide", turn(text="{{query}}")),
    )
    first = await local_stage.play(declared, *script)
    (stop, _) = first.of("stopRunByDelegate")
    # The same call's delegate says something else in the branch.
    local_stage._conversations = (script[0], talk("aide", turn(text="{{query}}, again")))
    await local_stage.go_on(resumeFrom=stop.checkpoint.id)
    report = await again(local_stage, declared)
    assert report.difference is None, report.describe()
    step = first.of("continueToNextStep")[0]
    await local_stage.go_on("Another way.", resumeFrom=step.checkpoint.id)
    report = await again(local_stage, declared)
    assert report.difference is None, report.describe()


async def test_an_expert_that_lost_its_delegate_is_a_difference(local_stage: Stage) -> None:
    await local_stage.play(TEAM, talk("boss", turn(call("clerk", query="q")), *done()), talk("clerk", turn(text="c")))
    difference = await found(local_stage, {**TEAM, "boss": {"delegates": ["aide"]}})
    assert (difference.event, difference.field) == ("callDelegate", "type")
    assert difference.replayed == "callTools"


async def test_a_question_that_is_not_asked_any_more_is_a_difference(local_stage: Stage) -> None:
    await local_stage.play({"boss": {"skills": {"user": ASK}}}, talk("boss", turn(call("ask")), turn(text="end")))
    await local_stage.go_on(answer="yes")
    difference = await found(local_stage, {"boss": {}})
    assert (difference.event, difference.recorded) == ("callInteractiveTool", "callInteractiveTool")


async def test_a_record_that_is_not_its_own_fold_is_not_run(local_stage: Stage, temporary: Path) -> None:
    await local_stage.play({"boss": {}}, talk("boss", turn(call("writeTextFile", path="x", text="x")), *done()))
    alter(log_of(local_stage.history(), "boss"), lambda lines: assign(lines[-2], "checkpoint.messageCount", 1))
    difference = await found(local_stage, {"boss": {}}, temporary)
    assert difference.field == "checkpoint.messageCount"
    assert not (temporary / "x").exists()


async def test_a_cancelled_replay_leaves_nothing(stage: Stage, temporary: Path) -> None:
    (stage.workspace / "quick").touch()
    wait = ["-c", "test -e quick || { touch busy; sleep 3600; }"]
    await stage.play({"boss": {}}, talk("boss", turn(call("exec", command="sh", args=wait)), *done()))

    def is_busy() -> bool:
        return bool(list(temporary.glob("perstack-replay-*/workspace/busy")))

    replay = asyncio.create_task(again(stage, {"boss": {}}))
    async with asyncio.timeout(60):
        while not is_busy():
            await asyncio.sleep(0.05)
    replay.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replay


@pytest.mark.docker
async def test_a_replay_in_the_jobs_own_workspace_does_not_see_its_history(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "docker")
    stage.storage = stage.workspace / "perstack"
    (stage.workspace / "key").write_text("secret")
    look = turn(call("exec", command="sh", args=["-c", "ls -A perstack; cat key"]))
    await stage.play({"boss": {}}, talk("boss", look, *done()), secret_files=[stage.workspace / "key"])
    report = await run_again(
        stage.history(), experts_of({"boss": {}}), workspace=stage.workspace, hidden=[stage.workspace / "key"]
    )
    assert report.difference is None, report.describe()


async def test_a_job_that_nobody_knows_the_beginning_of_cannot_be_run_again(local_stage: Stage) -> None:
    from orchestrator import RunOptions

    first = await local_stage.play({"boss": {}}, talk("boss", turn(text="one"), turn(text="two")))
    assert first.end is not None
    options = RunOptions(retrieve_checkpoint=lambda job, checkpoint: first.end)  # type: ignore[arg-type,return-value]
    await local_stage.go_on("More.", resumeFrom=first.end.id, options=options)
    with pytest.raises(ConfigError, match="from outside the history"):
        await again(local_stage, {"boss": {}})


async def test_an_expert_that_is_gone_from_the_configuration_is_named(local_stage: Stage) -> None:
    await local_stage.play({"boss": {}}, talk("boss", turn(text="end")))
    with pytest.raises(ConfigError, match="there is no Expert 'boss'"):
        await again(local_stage, {"aide": {}})


async def test_a_model_that_is_asked_more_often_than_recorded_says_so(local_stage: Stage) -> None:
    await local_stage.play({"boss": {}}, talk("boss", turn(call("healthCheck")), turn(text="end")))
    model = RecordedModels(courses(local_stage.history())).of_run(())
    said = [await model.generate(Conversation(), [], lambda delta: None) for _ in range(2)]
    assert [[call.name for call in generation.calls] for generation in said] == [["healthCheck"], []]
    assert said[1].text == "end"
    with pytest.raises(ModelError, match="no further answer"):
        await model.generate(Conversation(), [], lambda delta: None)
    stranger = RecordedModels(courses(local_stage.history())).of_run(("no such call",))
    with pytest.raises(ModelError, match="no further answer"):
        await stranger.generate(Conversation(), [], lambda delta: None)


async def test_more_answers_fewer_answers_and_other_delegates_are_differences(local_stage: Stage) -> None:
    await local_stage.play(
        TEAM,
        talk("boss", turn(call("clerk", query="q"), call("exec", command="true")), turn(text="end")),
        talk("clerk", turn(text="c")),
    )
    history = local_stage.history()

    def first(change: Any, *, recorded: bool) -> Difference:
        then, now = courses(history), courses(history)
        change(then if recorded else now)
        difference = Comparison(then, now, (None, "")).first()
        assert difference is not None
        return difference

    assert Comparison(courses(history), courses(history), (None, "")).first() is None
    more = first(lambda found: found[()].moments.pop(), recorded=True)
    assert more.problem == "the Run goes on with completeRun when the Job is run again, where its record ends"
    fewer = first(lambda found: found[()].moments.pop(), recorded=False)
    assert (fewer.field, fewer.recorded, fewer.replayed) == ("type", "completeRun", "completed")
    (clerk,) = (lineage for lineage in courses(history) if lineage)
    gone = first(lambda found: found.pop(clerk), recorded=False)
    assert (gone.event, gone.field, gone.recorded, gone.replayed) == ("callTools", "toolCalls[0]", "its Run", None)
    new = first(lambda found: found.pop(clerk), recorded=True)
    assert (new.recorded, new.replayed) == (None, "its Run")
    unlike = first(lambda found: found[()].moments[1].follows.pop(), recorded=False)
    assert (unlike.field, unlike.recorded, unlike.replayed) == ("type", "continueToNextStep", None)
    lost = first(lambda found: found[()].results.popitem(), recorded=False)
    assert (lost.event, lost.field, lost.replayed) == ("resumeToolCalls", "partialToolResults[0]", None)
