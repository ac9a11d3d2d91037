"""The fold of a record against what the record says: whatever was altered is found where it stands."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.replay.fold_check import check_fold
from orchestrator.replay.report import Difference
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.jobs.stage import Stage, call, done, talk, turn
from tests.replay.altered import Lines, alter, alter_record, assign, log_of, run_of

JOB = "job"
ASK = {"type": "interactiveSkill", "tools": {"ask": {"inputJsonSchema": '{"type": "object"}'}}}


async def _record(folder: Path) -> None:
    stage = Stage(folder, "local")
    await stage.play(
        {
            "boss": {"delegates": ["aide", "clerk"], "skills": {"user": ASK}},
            "aide": {"delegates": ["clerk"]},
            "clerk": {},
        },
        talk(
            "boss",
            turn(call("writeTextFile", path="a", text="a"), call("clerk", query="file it"), call("aide", query="help")),
            turn(call("todo", newTodos=["x"]), faults=[{"kind": "empty", "times": 1}]),
            turn(call("clearTodo"), call("ask", what="?")),
            *done("The end."),
        ),
        talk("aide", turn(call("clerk", query="copy it")), *done("helped")),
        talk("clerk", turn(text="filed")),
        jobId=JOB,
    )
    await stage.go_on(answer="yes")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    asyncio.run(_record(folder))
    return folder / "history"


@pytest.fixture
def history(recorded: Path, tmp_path: Path) -> JobHistory:
    shutil.copytree(recorded, tmp_path / "history")
    return JobHistory(Store(tmp_path / "history"), JOB)


def found(history: JobHistory) -> Difference:
    difference = check_fold(JobHistory(history.store, JOB)).difference
    assert difference is not None
    return difference


def nth(lines: Lines, event: str, number: int = 0) -> int:
    return [index for index, line in enumerate(lines) if line["type"] == event][number]


def test_an_unaltered_record_is_its_own_fold_and_is_left_alone(history: JobHistory) -> None:
    before = {path: path.read_bytes() for path in history.store.root.rglob("*") if path.is_file()}
    report = check_fold(history)
    assert report.difference is None
    assert (report.runs, report.steps) == (4, 8)
    assert report.events == sum(body.count(b"\n") for path, body in before.items() if path.name == "events.jsonl")
    assert report.describe() == f"Job {JOB}: 4 Runs, {report.events} events, 8 steps: nothing differs"
    assert before == {path: path.read_bytes() for path in history.store.root.rglob("*") if path.is_file()}


ALTERED: list[tuple[str, str, str, Any]] = [
    # Expert, event, what is altered, to what
    ("boss", "initializeRuntime", "query", "Go away."),
    ("aide", "startRun", "initialCheckpoint.usage.inputTokens", 7),
    ("aide", "startRun", "initialCheckpoint.delegatedBy.checkpointId", "other"),
    ("boss", "startRun", "initialCheckpoint.status", "proceeding"),
    ("boss", "startRun", "inputMessages[1].contents[0].text", "Go away."),
    ("boss", "startRun", "inputMessages[0].id", "other"),
    ("boss", "startRun", "expertKey", "aide"),
    ("boss", "startGeneration", "messages[1].id", "other"),
    ("boss", "retry", "attempt", 2),
    ("boss", "retry", "newMessages[0].id", "other"),
    ("boss", "callTools", "newMessage.id", "other"),
    ("boss", "callDelegate", "toolCalls[1].id", "other"),
    ("boss", "callInteractiveTool", "toolCall.toolName", "other"),
    ("boss", "resolveToolResults", "toolResults[0].toolName", "readTextFile"),
    ("boss", "finishAllToolCalls", "newMessages[0].id", "other"),
    ("boss", "resumeToolCalls", "pendingToolCalls[0].id", "other"),
    ("boss", "resumeToolCalls", "partialToolResults[0].result[0].text", "lost"),
    ("boss", "resumeToolCalls", "partialToolResults[1].isError", True),
    ("boss", "continueToNextStep", "checkpoint.messageCount", 1),
    ("boss", "continueToNextStep", "step.newMessages[0].id", "other"),
    ("boss", "continueToNextStep", "step.usage.inputTokens", 7),
    ("boss", "continueToNextStep", "step.startedAt", 7),
    ("boss", "continueToNextStep", "nextCheckpoint.lastMessageId", "other"),
    ("boss", "stopRunByDelegate", "checkpoint.delegateTo[0].runId", "other"),
    ("boss", "stopRunByDelegate", "checkpoint.delegateTo[1].expertKey", "clerk"),
    ("boss", "stopRunByInteractiveTool", "checkpoint.pendingToolCalls[0].toolName", "other"),
    ("boss", "attemptCompletion", "toolResult.toolName", "other"),
    ("boss", "completeRun", "checkpoint.usage.totalTokens", 7),
    ("boss", "completeRun", "step.stepNumber", 7),
]


@pytest.mark.parametrize(("expert", "event", "path", "value"), ALTERED)
def test_an_altered_field_is_the_first_difference(
    history: JobHistory, expert: str, event: str, path: str, value: Any
) -> None:
    log = log_of(history, expert)
    changed: dict[str, Any] = {}

    def change(lines: Lines) -> None:
        changed["index"] = nth(lines, event)
        changed["id"] = lines[changed["index"]]["id"]
        assign(lines[changed["index"]], path, value)

    alter(log, change)
    difference = found(history)
    assert (difference.run_id, difference.expert_key) == (run_of(history, expert), expert)
    assert (difference.file, difference.line) == (str(log), changed["index"] + 1)
    assert (difference.event, difference.event_id) == (event, changed["id"])
    assert difference.field == path
    assert difference.recorded == value
    assert difference.replayed != value


def test_usage_that_was_altered_shows_in_the_first_checkpoint_told_after_it(history: JobHistory) -> None:
    alter(log_of(history, "clerk"), lambda lines: assign(lines[nth(lines, "completeRun")], "usage.inputTokens", 9))
    difference = found(history)
    assert (difference.event, difference.field) == ("completeRun", "checkpoint.usage.inputTokens")
    assert difference.replayed == 9


def test_a_query_that_was_altered_is_not_the_one_its_delegate_got(history: JobHistory) -> None:
    log = log_of(history, "boss")
    alter(log, lambda lines: assign(lines[nth(lines, "callTools")], "toolCalls[1].args.query", "burn it"))
    difference = found(history)
    assert Path(difference.file).name == "run.json"
    assert (difference.expert_key, difference.field) == ("clerk", "query")
    assert (difference.recorded, difference.replayed) == ("file it", "burn it")


def test_a_result_that_was_altered_at_its_source_differs_at_its_caller(history: JobHistory) -> None:
    alter(log_of(history, "clerk"), lambda lines: assign(lines[nth(lines, "completeRun")], "text", "burnt"))
    difference = found(history)
    assert (difference.event, difference.expert_key) == ("resumeToolCalls", "boss")
    assert difference.field == "partialToolResults[0].result[0].text"
    assert (difference.recorded, difference.replayed) == ("filed", "burnt")


IMPOSSIBLE: list[tuple[str, Callable[[Lines], None], str]] = [
    ("an event is missing", lambda lines: lines.__delitem__(nth(lines, "startGeneration")), "cannot happen in state"),
    ("two events are swapped", lambda lines: lines.insert(4, lines.pop(3)), "cannot happen in state"),
    ("a step is wrong", lambda lines: assign(lines[3], "stepNumber", 5), "of step 5 cannot happen in step 1"),
    (
        "a result nobody asked for",
        lambda lines: assign(lines[nth(lines, "resolveToolResults")], "toolResults[0].id", "x"),
        "gives a result that no waiting call",
    ),
]


@pytest.mark.parametrize(("change", "problem"), [case[1:] for case in IMPOSSIBLE], ids=[case[0] for case in IMPOSSIBLE])
def test_events_that_cannot_follow_each_other_are_a_difference_with_their_place(
    history: JobHistory, change: Callable[[Lines], None], problem: str
) -> None:
    log = log_of(history, "boss")
    alter(log, change)
    difference = found(history)
    assert problem in (difference.problem or "")
    assert (difference.file, difference.field) == (str(log), None)
    assert difference.line is not None
    assert json.loads(log.read_bytes().splitlines()[difference.line - 1])["id"] == difference.event_id


RECORDS: list[tuple[str, str, Any]] = [
    ("clerk", "jobId", "other"),
    ("clerk", "query", "burn it"),
    ("clerk", "expertKey", "aide"),
    ("clerk", "delegatedBy.runId", "other"),
    ("clerk", "delegatedBy.toolCallId", "other"),
    ("clerk", "delegatedBy.checkpointId", "other"),
    ("clerk", "delegatedBy.expert.key", "other"),
    ("job", "totalSteps", 3),
    ("job", "usage.outputTokens", 3),
    ("job", "cost", 3.5),
    ("job", "status", "stoppedByMaxSteps"),
]


@pytest.mark.parametrize(("record", "path", "value"), RECORDS)
def test_an_altered_record_is_a_difference(history: JobHistory, record: str, path: str, value: Any) -> None:
    folder = history.store.job_folder(JOB)
    file = folder / "job.json" if record == "job" else folder / "runs" / run_of(history, record) / "run.json"
    if record != "job":
        # The Run's own events tell the same, so that they are not what differs.
        def change(lines: Lines) -> None:
            begin = lines[nth(lines, "startRun")]
            if path == "query":
                assign(begin, "inputMessages[1].contents[0].text", value)
                assign(lines[0], "query", value)
            for line in lines:
                if path == "expertKey" and "expertKey" in line:
                    line["expertKey"] = value
                told = [line.get("initialCheckpoint"), line.get("checkpoint")]
                for checkpoint in filter(None, told):
                    if path == "expertKey":
                        checkpoint["expert"]["key"] = value
                    elif path.startswith("delegatedBy"):
                        assign(checkpoint, path, value)

        alter(log_of(history, record), change)
    alter_record(file, lambda content: assign(content, path, value))
    difference = found(history)
    assert (difference.file, difference.field, difference.recorded) == (str(file), path, value)
    assert difference.line is None


def test_a_broken_chain_is_a_difference_with_its_place(history: JobHistory) -> None:
    log = log_of(history, "boss")
    lines = log.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"timestamp":1', b'"timestamp":2')
    log.write_bytes(b"".join(lines))
    difference = found(history)
    assert (difference.file, difference.line) == (str(log), 6)
    assert difference.problem == "does not follow the line before it; the log was altered"


@pytest.mark.parametrize("name", ["jobId", "runId"])
@pytest.mark.parametrize("event", ["skillConnected", "startGeneration"])
def test_an_event_of_another_run_is_a_difference_with_its_place(history: JobHistory, event: str, name: str) -> None:
    log = log_of(history, "boss")
    alter(log, lambda lines: assign(lines[nth(lines, event)], name, "other"))
    difference = found(history)
    assert "an event of Run" in (difference.problem or "")
    assert json.loads(log.read_bytes().splitlines()[(difference.line or 0) - 1])["type"] == event


@pytest.mark.parametrize("garbage", [b"\n", b"{}\n", b"\xff\xfe\n", b'{"type":"startRun"}\n'])
def test_what_is_no_event_is_a_difference_with_its_place(history: JobHistory, garbage: bytes) -> None:
    log = log_of(history, "boss")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:5], garbage, *lines[5:]]))
    difference = found(history)
    assert difference.line == 6
    assert "not an event" in (difference.problem or "")


def test_a_torn_last_line_was_never_acknowledged_and_is_no_difference(history: JobHistory) -> None:
    with log_of(history, "boss").open("ab") as log:
        log.write(b'{"prev":"00')
    assert check_fold(history).difference is None


def test_totals_of_a_job_that_goes_on_are_not_looked_at(history: JobHistory) -> None:
    def reopen(job: dict[str, Any]) -> None:
        del job["finishedAt"]
        job |= {"status": "running", "totalSteps": 1}

    alter_record(history.store.job_folder(JOB) / "job.json", reopen)
    assert check_fold(JobHistory(history.store, JOB)).difference is None


def test_the_text_shows_where_two_long_values_part() -> None:
    one, other = "x" * 1000 + "one" + "y" * 1000, "x" * 1000 + "two" + "y" * 1000
    text = Difference(file="log", line=3, field="text", recorded=one, replayed=other).describe()
    assert "…" in text
    assert "xxone" in text
    assert "xxtwo" in text
    assert len(text) < 1000
