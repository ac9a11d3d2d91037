"""Interactive tools: the coordinator stops and waits for the user's answer, one question at a time."""

import re
from typing import Any

import pytest

from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.jobs import JobStatus
from orchestrator.errors import ConfigError
from tests.jobs.stage import Played, Stage, call, talk, turn

ASK = {"type": "interactiveSkill", "tools": {"askUser": {"inputJsonSchema": '{"type":"object"}'}}}
EXPERTS: dict[str, Any] = {"boss": {"skills": {"ask": ASK}, "delegates": ["aide"]}, "aide": {}}


def question(text: str = "Which?") -> dict[str, Any]:
    return call("askUser", question=text)


def answered(played: Played) -> list[str]:
    return [part.result[0].text for e in played.of("resumeToolCalls") for part in e.partial_tool_results]


async def test_the_answer_is_the_result_of_the_pending_call(stage: Stage) -> None:
    asked = await stage.play(EXPERTS, talk("boss", turn(question()), turn(text="You said {{turn.0.result.0}}.")))
    assert asked.end is not None
    assert asked.end.status is CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL
    assert [c.tool_name for c in asked.end.pending_tool_calls or ()] == ["askUser"]
    assert stage.history().job.status is JobStatus.STOPPED_BY_INTERACTIVE_TOOL
    played = await stage.go_on(answer="red")
    assert played.end is not None
    assert played.end.text == "You said red."


async def test_several_questions_of_one_answer_are_asked_one_by_one(local_stage: Stage) -> None:
    script = talk("boss", turn(question("A?"), question("B?")), turn(text="{{turn.0.result.0}}{{turn.0.result.1}}"))
    first = await local_stage.play(EXPERTS, script)
    second = await local_stage.go_on(answer="a")
    assert second.end is not None
    assert second.end.status is CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL
    ids = [call.id for call in first.of("callInteractiveTool")[0].tool_calls]
    assert [e.tool_call.id for played in (first, second) for e in played.of("callInteractiveTool")] == ids
    last = await local_stage.go_on(answer="b")
    assert last.end is not None
    assert last.end.text == "ab"


async def test_questions_come_after_the_tools_and_delegates_of_their_answer(stage: Stage) -> None:
    played = await stage.play(
        EXPERTS,
        talk(
            "boss",
            turn(
                question(),
                call("aide", query="q"),
                call("writeTextFile", path="x", text="x"),
                call("attemptCompletion"),
            ),
            turn(text="{{result.0}}, {{result.1}}"),
        ),
        talk("aide", turn(call("readTextFile", path="x")), turn(text="aided")),
    )
    (boss,) = played.runs("boss")
    calls = [t for t in played.types(boss) if t.startswith(("call", "stopRun"))]
    assert calls == [
        "callTools",
        "callDelegate",
        "stopRunByDelegate",
        "callInteractiveTool",
        "stopRunByInteractiveTool",
    ]
    last = await stage.go_on(answer="red")
    assert last.end is not None
    assert last.end.text == "red, aided"


async def test_a_job_that_waits_is_not_continued_without_its_answer(local_stage: Stage) -> None:
    await local_stage.play(EXPERTS, talk("boss", turn(question())), jobId="j")
    for query in (None, "Something else"):
        with pytest.raises(ConfigError, match=re.escape('waits for the answer to askUser {"question": "Which?"}')):
            await local_stage.go_on(query)


async def test_an_answer_that_nobody_waits_for_is_refused(local_stage: Stage) -> None:
    await local_stage.play(EXPERTS, talk("boss", turn(text="end")), jobId="j")
    with pytest.raises(ConfigError, match="Job j waits for no answer"):
        await local_stage.go_on(answer="red")


async def test_an_answer_to_another_call_is_refused(local_stage: Stage) -> None:
    asked = await local_stage.play(EXPERTS, talk("boss", turn(question()), turn(text="end")), jobId="j")
    (pending,) = asked.of("callInteractiveTool")[0].tool_calls
    wrong = {"interactiveToolCallResult": {"text": "red", "toolCallId": "other"}}
    with pytest.raises(ConfigError, match=f"waits for the answer to call {pending.id}, not other"):
        await local_stage.go_on(input=wrong)
    right = {"interactiveToolCallResult": {"text": "red", "toolCallId": pending.id}}
    played = await local_stage.go_on(input=right)
    assert answered(played) == ["red"]


async def test_an_answer_can_branch_off_too(local_stage: Stage) -> None:
    script = talk("boss", turn(question()), turn(text="{{turn.0.result.0}}"))
    asked = await local_stage.play(EXPERTS, script)
    assert asked.end is not None
    first = await local_stage.go_on(answer="red")
    second = await local_stage.go_on(answer="blue", resumeFrom=asked.end.id)
    assert [played.end and played.end.text for played in (first, second)] == ["red", "blue"]
