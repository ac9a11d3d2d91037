"""The loop of one Run: the order of events, what ends it, and what a model can get wrong."""

import json

import pytest

from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.events import BaseRunEvent, StopRunByError
from orchestrator.store.log import read_records
from tests.jobs.stage import Stage, call, done, talk, turn

SOLO: dict[str, dict[str, object]] = {"solo": {}}
CONTAINER = ("dockerContainerStatus",)


async def test_a_normal_run_tells_its_events_in_the_contracts_order(stage: Stage) -> None:
    played = await stage.play(
        SOLO,
        talk("solo", turn(call("writeTextFile", path="a/b.txt", text="hello")), *done("It is written.")),
    )
    told = played.types(without=CONTAINER)
    first, last = told.index("startStreamingRunResult"), told.index("completeStreamingRunResult")
    assert told[:first] == [
        "initializeRuntime",
        "skillConnected",
        "startRun",
        *("startGeneration", "callTools", "resolveToolResults", "finishToolCall", "continueToNextStep"),
        *("startGeneration", "callTools", "attemptCompletion"),
    ]
    assert set(told[first + 1 : last]) == {"streamRunResult"}
    assert told[last + 1 :] == ["completeRun", "skillDisconnected"]
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert played.end.text == "It is written."
    assert (stage.workspace / "a/b.txt").read_text() == "hello"


async def test_an_answer_without_calls_completes_the_run_at_once(local_stage: Stage) -> None:
    played = await local_stage.play(SOLO, talk("solo", turn(text="Nothing to do.")))
    assert played.end is not None
    assert played.end.text == "Nothing to do."
    assert played.types()[3:] == [
        "startGeneration",
        *("startStreamingRunResult", "streamRunResult", "completeStreamingRunResult"),
        *("completeRun", "skillDisconnected"),
    ]


async def test_deltas_come_in_order_between_their_start_and_their_end(local_stage: Stage) -> None:
    text = " ".join(str(n) for n in range(200))
    thought = "because " * 50
    played = await local_stage.play(
        SOLO,
        talk("solo", turn(call("attemptCompletion"), reasoning=thought), turn(text=text, reasoning="so", chunkSize=7)),
    )
    streamed = [event for event in played.events if "tream" in event.type]
    assert [streamed[0].type, streamed[-1].type] == ["startStreamingReasoning", "completeStreamingRunResult"]
    assert "".join(e.delta for e in streamed if e.type == "streamRunResult") == text
    assert "".join(e.delta for e in streamed if e.type == "streamReasoning") == thought + "so"
    assert [e.text for e in streamed if e.type.startswith("complete")] == [thought, "so", text]
    current = None
    for event in streamed:
        if event.type.startswith("start"):
            assert current is None
            current = event.type.removeprefix("start")
        elif event.type.startswith("complete"):
            assert current == event.type.removeprefix("complete")
            current = None
        else:
            assert current is not None


async def test_parallel_calls_are_answered_in_call_order(stage: Stage) -> None:
    stage.workspace.joinpath("a.txt").write_text("first")
    played = await stage.play(
        SOLO,
        talk(
            "solo",
            turn(
                call("exec", command="sh", args=["-c", "sleep 0.5; echo slow"]),
                call("readTextFile", path="a.txt"),
                call("exec", command="echo", args=["quick"]),
            ),
            *done("{{turn.0.result.0}}|{{turn.0.result.1}}|{{turn.0.result.2}}"),
        ),
    )
    assert played.end is not None
    slow, read, quick = (played.end.text or "").split("|")
    assert "slow" in slow
    assert "first" in read
    assert "quick" in quick


async def test_completion_beside_other_calls_loses_none_of_them(stage: Stage) -> None:
    played = await stage.play(
        SOLO,
        talk(
            "solo",
            turn(call("attemptCompletion"), call("writeTextFile", path="late.txt", text="still written")),
            turn(text="{{result.1}}"),
        ),
    )
    assert (stage.workspace / "late.txt").read_text() == "still written"
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    (tool_message,) = [m for m in played.end.messages if m.type == "toolMessage"]
    assert [part.tool_name for part in tool_message.contents] == ["attemptCompletion", "writeTextFile"]


async def test_open_todos_hold_the_completion_back(local_stage: Stage) -> None:
    played = await local_stage.play(
        SOLO,
        talk(
            "solo",
            turn(call("todo", newTodos=["water the plants"])),
            turn(call("attemptCompletion")),
            turn(call("todo", completedTodos=[0])),
            *done(),
        ),
    )
    refused = played.of("resolveToolResults")[1].tool_results[0]
    assert refused.tool_name == "attemptCompletion"
    assert "water the plants" in refused.result[0].text
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert [todo.completed for todo in played.end.todos] == [True]


async def test_unknown_tools_and_broken_arguments_are_told_to_the_model(local_stage: Stage) -> None:
    played = await local_stage.play(
        SOLO,
        talk(
            "solo",
            turn(
                call("launchMissiles", target="moon"),
                {"name": "readTextFile", "arguments": '{"path": "a.t'},
                {"name": "readTextFile", "arguments": "[1, 2]"},
                call("readTextFile"),
                call("readTextFile", path="a", colour="red"),
            ),
            *done(),
        ),
    )
    results = played.of("resolveToolResults")[0].tool_results
    texts = [result.result[0].text for result in results]
    assert all(result.is_error for result in results)
    assert "launchMissiles" in texts[0]
    assert "readTextFile" in texts[0]
    assert "not a JSON object" in texts[1]
    assert "not a JSON object" in texts[2]
    assert "path" in texts[3]
    assert "colour" in texts[4]
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED


async def test_an_empty_answer_is_asked_for_again_and_then_given_up(local_stage: Stage) -> None:
    played = await local_stage.play(SOLO, talk("solo", turn(faults=[{"kind": "empty"}])), max_retries=2)
    assert [e.reason for e in played.of("retry")] == ["the answer was empty"] * 2
    assert played.end is not None
    assert played.end.status is CheckpointStatus.STOPPED_BY_ERROR
    assert played.end.error is not None
    assert "no usable answer in 3 attempts" in played.end.error.message
    assert played.types()[-2:] == ["stopRunByError", "skillDisconnected"]


async def test_a_cut_off_answer_is_retried_whole(local_stage: Stage) -> None:
    played = await local_stage.play(
        SOLO,
        talk(
            "solo",
            turn(
                call("writeTextFile", path="one.txt", text="1" * 300),
                call("writeTextFile", path="two.txt", text="2" * 300),
                faults=[{"kind": "cutOff", "times": 1}],
            ),
            *done(),
        ),
    )
    (retry,) = played.of("retry")
    assert "cut off" in retry.reason
    assert {p.name for p in local_stage.workspace.iterdir()} == {"one.txt", "two.txt"}
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert len(played.of("callTools")[0].tool_calls) == 2
    assert played.end.usage.input_tokens == sum(
        e.usage.input_tokens for e in played.events if e.type in ("retry", "callTools", "completeRun")
    )


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_a_passing_refusal_is_retried_after_the_time_it_asks_for(local_stage: Stage, status: int) -> None:
    fault = {"kind": "status", "status": status, "retryAfter": 0.2, "times": 2}
    played = await local_stage.play(SOLO, talk("solo", turn(text="ok", faults=[fault])))
    retries = played.of("retry")
    assert [(e.status_code, e.attempt) for e in retries] == [(status, 1), (status, 2)]
    assert all(e.delay_ms >= 200 for e in retries)
    assert played.end is not None
    assert played.end.text == "ok"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_final_refusal_ends_the_run_with_its_status(local_stage: Stage, status: int) -> None:
    played = await local_stage.play(SOLO, talk("solo", turn(faults=[{"kind": "status", "status": status}])))
    assert played.of("retry") == []
    assert played.end is not None
    assert played.end.error is not None
    assert played.end.error.status_code == status
    assert played.types()[-2:] == ["stopRunByError", "skillDisconnected"]


async def test_a_model_that_hangs_is_given_up_after_the_timeout(local_stage: Stage) -> None:
    played = await local_stage.play(
        SOLO, talk("solo", turn(text="finally", faults=[{"kind": "hang", "times": 1}])), timeout=1_500
    )
    assert len(played.of("retry")) == 1
    assert played.end is not None
    assert played.end.text == "finally"


async def test_the_step_limit_counts_all_runs_and_is_not_overshot(local_stage: Stage) -> None:
    again = turn(call("healthCheck"), repeat=50)
    played = await local_stage.play(
        {"boss": {"delegates": ["one", "two"]}, "one": {}, "two": {}},
        talk("boss", turn(call("one", query="a"), call("two", query="b")), again),
        talk("one", again),
        talk("two", again),
        max_steps=9,
    )
    assert played.end is not None
    assert played.end.status is CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS
    assert len(played.of("startGeneration")) == 9
    job = local_stage.store.read_job(played.end.job_id)
    assert (job.status, job.total_steps, job.max_steps) == ("stoppedByMaxSteps", 9, 9)


async def test_an_interactive_call_stops_the_coordinator_and_waits(local_stage: Stage) -> None:
    ask = {"type": "interactiveSkill", "tools": {"askUser": {"inputJsonSchema": json.dumps({"type": "object"})}}}
    played = await local_stage.play(
        {"solo": {"skills": {"user": ask}}},
        talk("solo", turn(call("askUser", question="why?"), call("healthCheck"))),
    )
    assert played.types()[-5:] == [
        *("callTools", "resolveToolResults", "callInteractiveTool", "stopRunByInteractiveTool", "skillDisconnected"),
    ]
    assert played.end is not None
    assert played.end.status is CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL
    assert [c.tool_name for c in played.end.pending_tool_calls or ()] == ["askUser"]


async def test_usage_is_what_the_provider_counted_and_the_window_what_it_holds_now(local_stage: Stage) -> None:
    usage = {"promptTokens": 1000, "completionTokens": 24, "cachedTokens": 100}
    played = await local_stage.play(
        SOLO, talk("solo", turn(call("healthCheck"), usage=usage), *(t | {"usage": usage} for t in done()))
    )
    assert played.end is not None
    assert played.end.usage.input_tokens == 3000
    assert played.end.usage.cached_input_tokens == 300
    assert played.end.context_window == 128_000
    assert played.end.context_window_usage == pytest.approx(1024 / 128_000, abs=1e-6)
    assert local_stage.store.read_job(played.end.job_id).usage == played.end.usage


async def test_each_text_is_written_once(local_stage: Stage) -> None:
    """Neither the history nor the events repeat a message (invariant 8)."""
    (local_stage.workspace / "in.txt").write_text("MARK-RESULT")
    played = await local_stage.play(
        {"boss": {"delegates": ["aide"], "instruction": "MARK-INSTRUCTION"}, "aide": {}},
        talk(
            "boss",
            turn(call("readTextFile", path="in.txt"), text="MARK-TEXT", reasoning="MARK-THOUGHT"),
            turn(call("healthCheck"), call("aide", query="MARK-QUERY")),
            turn(call("writeTextFile", path="out.txt", text="MARK-ARGUMENT")),
            *done("MARK-END"),
        ),
        talk("aide", turn(text="MARK-ANSWER")),
        query="MARK-REQUEST",
    )
    assert played.end is not None
    (boss,) = played.runs("boss")
    log = local_stage.store.events_path(played.end.job_id, boss).read_text()
    for mark in ("RESULT", "INSTRUCTION", "TEXT", "QUERY", "ARGUMENT", "END", "ANSWER"):
        assert log.count(f"MARK-{mark}") == 1, mark
    # The request is also what initializeRuntime says the Run is for.
    assert log.count("MARK-REQUEST") == 2
    whole = played.end.encode().decode()
    for mark in ("RESULT", "INSTRUCTION", "TEXT", "QUERY", "ARGUMENT", "ANSWER", "REQUEST"):
        assert f"MARK-{mark}" in whole, mark


async def test_halves_of_surrogate_pairs_and_what_is_not_json_do_no_harm(local_stage: Stage) -> None:
    played = await local_stage.play(
        SOLO,
        talk(
            "solo",
            turn(
                {"name": "writeTextFile", "arguments": '{"path": "a", "text": "\\ud800"}'},
                {"name": "readTextFile", "arguments": '{"path": "a", "from": NaN}'},
            ),
            turn(text="half \ud83d of a pair", chunkSize=3),
        ),
    )
    assert all(result.is_error for result in played.of("resolveToolResults")[0].tool_results)
    assert played.end is not None
    assert played.end.text == "half \ufffd of a pair"


async def test_a_listener_that_fails_ends_the_job_and_the_record_says_why(local_stage: Stage) -> None:
    def fail(event: object) -> None:
        if getattr(event, "type", "") == "callTools":
            raise LookupError("the listener's own")

    with pytest.raises(LookupError, match="the listener's own"):
        await local_stage.play(SOLO, talk("solo", turn(call("healthCheck")), *done()), event_listener=fail)
    (log,) = local_stage.storage.rglob("events.jsonl")
    *_, last = [e for _, e in read_records(log) if isinstance(e, BaseRunEvent)]
    assert isinstance(last, StopRunByError)
    assert last.error.name == "LookupError"
