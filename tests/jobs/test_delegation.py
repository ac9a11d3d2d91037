"""Delegation: whose answer reaches whom, what runs at the same time, and what a delegate's failure does."""

import asyncio

import pytest

from expert_runner.contract.checkpoints import CheckpointStatus
from tests.jobs.stage import Played, Stage, call, done, talk, turn


def answers(played: Played, expert: str) -> list[str]:
    """The results of delegates as the model of `expert` read them, in order."""
    return [part.result[0].text for e in played.of("resumeToolCalls", expert) for part in e.partial_tool_results]


async def test_a_delegates_answer_is_the_result_of_its_call(stage: Stage) -> None:
    played = await stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk("boss", turn(call("aide", query="What is it?")), *done("It is {{turn.0.result.0}}.")),
        talk("aide", turn(text="{{query}} Forty-two")),
    )
    assert played.end is not None
    assert played.end.text == "It is What is it? Forty-two."
    (boss,) = played.runs("boss")
    told = [t for t in played.types(boss) if t.startswith(("call", "stop", "resume", "finish", "continue"))]
    assert told[:5] == [
        "callDelegate",
        "stopRunByDelegate",
        "resumeToolCalls",
        "finishAllToolCalls",
        "continueToNextStep",
    ]


async def test_parallel_delegates_overlap_and_answer_in_call_order(stage: Stage) -> None:
    played = await stage.play(
        {"boss": {"delegates": ["slow", "quick"]}, "slow": {}, "quick": {}},
        talk("boss", turn(call("slow", query="s"), call("quick", query="q")), *done()),
        talk("slow", turn(text="I took my time", delayMs=1500)),
        talk("quick", turn(text="I did not", delayMs=300)),
    )
    assert answers(played, "boss") == ["I took my time", "I did not"]
    ends = {e.expert_key: e.timestamp for e in played.of("completeRun")}
    starts = {e.expert_key: e.timestamp for e in played.of("startRun")}
    assert ends["quick"] < ends["slow"]
    assert starts["slow"] < ends["quick"]
    assert starts["quick"] < ends["slow"]


async def test_one_delegate_called_twice_is_two_runs(local_stage: Stage) -> None:
    played = await local_stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk("boss", turn(call("aide", query="one"), call("aide", query="two")), *done()),
        talk("aide", turn(text="about {{query}}")),
    )
    assert answers(played, "boss") == ["about one", "about two"]
    assert len(set(played.runs("aide"))) == 2


async def test_nested_delegates_inside_parallel_ones_return_through_every_level(stage: Stage) -> None:
    played = await stage.play(
        {
            "boss": {"delegates": ["left", "right"]},
            "left": {"delegates": ["leaf"]},
            "right": {"delegates": ["leaf"]},
            "leaf": {},
        },
        talk(
            "boss",
            turn(call("left", query="L"), call("right", query="R")),
            *done("{{turn.0.result.0}}+{{turn.0.result.1}}"),
        ),
        talk("left", turn(call("leaf", query="l")), *done("left({{turn.0.result.0}})")),
        talk("right", turn(call("leaf", query="r")), *done("right({{turn.0.result.0}})")),
        talk("leaf", turn(text="leaf({{query}})")),
    )
    assert played.end is not None
    assert played.end.text == "left(leaf(l))+right(leaf(r))"
    callers = {e.expert_key: e.initial_checkpoint.delegated_by for e in played.of("startRun")}
    assert callers["boss"] is None
    assert callers["left"].expert.key == "boss"
    assert callers["leaf"].expert.key in ("left", "right")


async def test_tools_delegates_and_completion_in_one_answer_are_all_carried_out(stage: Stage) -> None:
    played = await stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk(
            "boss",
            turn(
                call("attemptCompletion"),
                call("aide", query="q"),
                call("writeTextFile", path="x.txt", text="from the boss"),
            ),
            turn(text="{{result.1}} / {{result.2}}"),
        ),
        talk("aide", turn(call("readTextFile", path="x.txt")), *done("read: {{turn.0.result.0}}")),
    )
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert "from the boss" in (played.end.text or ""), "the tool runs before the delegate"
    (boss,) = played.runs("boss")
    told = [t for t in played.types(boss) if t in ("callTools", "callDelegate", "resumeToolCalls", "attemptCompletion")]
    assert told == ["callTools", "callDelegate", "resumeToolCalls", "attemptCompletion"]


async def test_a_delegate_sees_its_query_and_nothing_of_its_callers_conversation(local_stage: Stage) -> None:
    await local_stage.play(
        {"boss": {"delegates": ["aide"], "instruction": "SECRET-OF-THE-BOSS"}, "aide": {}},
        talk("boss", turn(call("aide", query="the query")), *done()),
        talk("aide", turn(text="fine")),
        query="SECRET-REQUEST",
    )
    assert local_stage.model is not None
    asked = [r for r in local_stage.model.requests if r.expert_key == "aide"]
    assert len(asked) == 1
    body = str(asked[0].body)
    assert "the query" in body
    assert "SECRET" not in body


async def test_a_delegate_is_offered_no_interactive_tool(local_stage: Stage) -> None:
    ask = {"type": "interactiveSkill", "tools": {"askUser": {"inputJsonSchema": "{}"}}}
    await local_stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {"skills": {"user": ask}}},
        talk("boss", turn(call("aide", query="q")), *done()),
        talk("aide", turn(text="fine")),
    )
    assert local_stage.model is not None
    (asked,) = [r for r in local_stage.model.requests if r.expert_key == "aide"]
    assert "askUser" not in {tool["function"]["name"] for tool in asked.body["tools"]}


@pytest.mark.parametrize(
    ("aide", "words"),
    [
        (turn(faults=[{"kind": "status", "status": 401}]), "401"),
        (turn(faults=[{"kind": "empty"}]), "no usable answer"),
    ],
    ids=["refused by the provider", "nothing but empty answers"],
)
async def test_a_failing_delegate_is_an_error_of_its_own_call_alone(
    local_stage: Stage, aide: dict[str, object], words: str
) -> None:
    played = await local_stage.play(
        {"boss": {"delegates": ["bad", "good"]}, "bad": {}, "good": {}},
        talk("boss", turn(call("bad", query="b"), call("good", query="g")), *done()),
        talk("bad", aide),
        talk("good", turn(text="good answer")),
        max_retries=1,
    )
    failed, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert failed.is_error
    assert failed.result[0].text.startswith("Delegation failed: ")
    assert words in failed.result[0].text
    assert good.result[0].text == "good answer"
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED


async def test_a_delegation_without_a_query_is_told_to_the_model(local_stage: Stage) -> None:
    played = await local_stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk("boss", turn(call("aide"), {"name": "aide", "arguments": "not json"}), *done()),
    )
    assert played.runs("aide") == []
    assert all(text.startswith("Delegation failed: the call has no `query`") for text in answers(played, "boss"))
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED


async def test_todos_are_each_runs_own(local_stage: Stage) -> None:
    played = await local_stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk(
            "boss",
            turn(call("todo", newTodos=["open"])),
            turn(call("aide", query="q")),
            turn(call("clearTodo")),
            *done(),
        ),
        talk("aide", *done("completed all the same")),
    )
    assert answers(played, "boss") == ["completed all the same"]


async def test_cancelling_ends_every_run_of_the_tree(stage: Stage) -> None:
    begun = asyncio.Event()
    busy = 0

    def watch(event: object) -> None:
        nonlocal busy
        busy += getattr(event, "type", "") == "callTools"
        if busy == 2:
            begun.set()

    hold = turn(call("exec", command="sleep", args=["60"]))
    playing = asyncio.create_task(
        stage.play(
            {"boss": {"delegates": ["one", "two"]}, "one": {}, "two": {}},
            talk("boss", turn(call("one", query="1"), call("two", query="2"))),
            talk("one", hold),
            talk("two", hold),
            event_listener=watch,
        )
    )
    async with asyncio.timeout(60):
        await begun.wait()
    playing.cancel()
    async with asyncio.timeout(10):
        played = await playing
    assert {e.expert_key for e in played.of("stopRunByCancellation")} == {"boss", "one", "two"}
    assert played.end is not None
    assert played.end.status is CheckpointStatus.STOPPED_BY_CANCELLATION
    assert stage.store.read_job(played.end.job_id).status == "stoppedByCancellation"


async def test_delegation_without_an_end_is_refused_at_a_depth(
    local_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.job.MAX_DEPTH", 2)
    played = await local_stage.play(
        {"echo": {"delegates": ["echo"]}},
        talk("echo", turn(call("echo", query="again")), *done("{{turn.0.result.0}}")),
    )
    assert len(played.runs("echo")) == 3
    assert played.end is not None
    assert (played.end.text or "").endswith("Delegation failed: delegates may delegate 2 levels deep")


async def test_scoped_experts_can_be_delegated_to(local_stage: Stage) -> None:
    played = await local_stage.play(
        {"boss": {"delegates": ["@acme/aide@1.0.0"]}, "@acme/aide@1.0.0": {}},
        talk("boss", turn(call("acme-aide", query="q")), *done("{{turn.0.result.0}}")),
        talk("@acme/aide@1.0.0", turn(text="from acme")),
    )
    assert played.end is not None
    assert played.end.text == "from acme"
    (delegated,) = played.of("startRun", "@acme/aide@1.0.0")
    assert delegated.initial_checkpoint.expert.name == "@acme/aide"
