"""Answers of a model over HTTP, as they should be."""

import asyncio
import gc
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from expert_runner.contract.messages import (
    ExpertMessage,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
)
from expert_runner.contract.usage import Usage
from orchestrator.model.gateway import Delta, Gateway, Generation
from orchestrator.scripted_model import Conversation as Turns
from orchestrator.scripted_model import (
    CutOffFault,
    EmptyFault,
    Script,
    ScriptedCall,
    ScriptedModel,
    TokenCounts,
    Turn,
)
from tests.model.stub_provider import KEY, TOOL, USAGE, StubProvider, chunk, conversation, openai, sse


def scripted(*turns: Turn, **options: Any) -> ScriptedModel:
    return ScriptedModel(Script(conversations=(Turns(expert="*", turns=turns),)), keep_bodies=True, **options)


@pytest.fixture
def ask(gateway: Callable[..., Gateway]) -> Callable[..., Any]:
    """The answer that a scripted model gives in one turn, and its deltas."""

    async def ask(turn: Turn, model: str = "gpt-4o", **options: Any) -> tuple[Generation, list[Delta]]:
        deltas: list[Delta] = []
        async with scripted(turn) as server:
            asked = gateway(openai(server.url, model), **options)
            return await asked.generate(conversation(), [TOOL], deltas.append), deltas

    return ask


async def test_reasoning_and_text_stream_in_order(ask: Callable[..., Any]) -> None:
    turn = Turn(reasoning="I think, therefore", text="I am é \U0001f600.", chunk_size=4)
    answer, deltas = await ask(turn)
    assert (answer.text, answer.thinking) == (turn.text, (ThinkingPart(thinking="I think, therefore"),))
    assert "".join(delta.text for delta in deltas if delta.kind == "reasoning") == turn.reasoning
    assert "".join(delta.text for delta in deltas if delta.kind == "text") == turn.text
    kinds = [delta.kind for delta in deltas]
    assert len(kinds) > 4
    assert kinds == sorted(kinds)  # all reasoning before all text
    assert answer.calls == ()
    assert not answer.cut_off


async def test_deltas_arrive_while_the_answer_is_written(gateway: Callable[..., Gateway], stub: StubProvider) -> None:
    rest, arrived = asyncio.Event(), asyncio.Event()
    stub.parts = [sse([chunk({"content": "first"})]), rest, sse([chunk(finish="stop"), USAGE, "[DONE]"])]
    asked = gateway(openai(f"{stub.url}/v1"))
    task = asyncio.create_task(asked.generate(conversation(), [], lambda delta: arrived.set()))
    await asyncio.wait_for(arrived.wait(), 10)
    assert not task.done()
    rest.set()
    assert (await task).text == "first"


async def test_parallel_calls_keep_their_order_ids_and_arguments(ask: Callable[..., Any]) -> None:
    calls = tuple(ScriptedCall(name="exec", arguments={"n": n, "text": "x" * 50}) for n in range(5))
    answer, deltas = await ask(Turn(text="working", tool_calls=calls, chunk_size=7))
    assert [json.loads(call.arguments)["n"] for call in answer.calls] == [0, 1, 2, 3, 4]
    assert len({call.id for call in answer.calls}) == 5
    assert answer.text == "working"
    assert "".join(delta.text for delta in deltas) == "working"


async def test_malformed_arguments_come_through_as_they_are(ask: Callable[..., Any]) -> None:
    answer, _ = await ask(Turn(tool_calls=(ScriptedCall(name="exec", arguments='{"command": oops'),)))
    assert answer.calls[0].arguments == '{"command": oops'


async def test_usage_and_cost_are_those_reported(ask: Callable[..., Any]) -> None:
    counts = TokenCounts(prompt_tokens=1000, completion_tokens=500, reasoning_tokens=200, cached_tokens=400)
    answer, _ = await ask(Turn(text="hi", usage=counts))
    assert answer.usage == Usage(
        input_tokens=1000, output_tokens=500, reasoning_tokens=200, total_tokens=1500, cached_input_tokens=400
    )
    dollars = 600 * 2.5e-6 + 400 * 1.25e-6 + 500 * 10e-6
    assert answer.cost == pytest.approx(dollars)


async def test_the_cost_of_an_unknown_model_is_unknown(ask: Callable[..., Any]) -> None:
    answer, _ = await ask(Turn(text="hi"), model="scripted")
    assert answer.usage.total_tokens > 0
    assert answer.cost is None


async def test_usage_that_is_not_reported_is_not_estimated(ask_stub: Callable[..., Any]) -> None:
    answer = await ask_stub([chunk({"content": "some text"}), chunk(finish="stop"), "[DONE]"])
    assert answer.usage == Usage()
    assert answer.cost is None


async def test_an_answer_that_met_its_limit_is_cut_off(ask: Callable[..., Any]) -> None:
    answer, _ = await ask(Turn(text="0123456789", faults=(CutOffFault(),)))
    assert (answer.text, answer.cut_off) == ("01234", True)


async def test_calls_of_an_answer_that_was_cut_off_are_given_as_they_are(ask: Callable[..., Any]) -> None:
    calls = (ScriptedCall(name="exec", arguments={"n": 1}), ScriptedCall(name="exec", arguments={"n": 2}))
    answer, _ = await ask(Turn(tool_calls=calls, faults=(CutOffFault(),)))
    assert answer.cut_off
    assert [call.arguments for call in answer.calls] == ['{"n": 1}', '{"n"']


async def test_an_empty_answer_is_an_answer(ask: Callable[..., Any]) -> None:
    answer, deltas = await ask(Turn(faults=(EmptyFault(),)))
    assert (answer.text, answer.calls, answer.thinking, answer.cut_off) == ("", (), (), False)
    assert deltas == []


async def test_a_model_may_repeat_itself_without_end(ask: Callable[..., Any]) -> None:
    answer, _ = await ask(Turn(text="=====" * 2000, chunk_size=5))
    assert len(answer.text) == 10_000


async def test_the_whole_conversation_is_sent_at_every_step(gateway: Callable[..., Gateway]) -> None:
    turn = Turn(tool_calls=(ScriptedCall(name="todo", arguments={}),), repeat=3)
    async with scripted(turn) as server:
        asked, talk = gateway(openai(server.url)), conversation(query="a query")
        for step in range(3):
            answer = await asked.generate(talk, [TOOL], lambda delta: None)
            call = answer.calls[0]
            part = ToolCallPart(tool_call_id=call.id, tool_name=call.name, args={})
            result = ToolResultPart(tool_call_id=call.id, tool_name="todo", contents=(TextPart(text=f"result {step}"),))
            talk.extend([ExpertMessage(id="e", contents=(part,)), ToolMessage(id="t", contents=(result,))])
        bodies = [request.body for request in server.requests]
    assert [len(body["messages"]) for body in bodies] == [2, 4, 6]
    assert bodies[2]["messages"][:4] == bodies[1]["messages"]
    assert [message["role"] for message in bodies[2]["messages"]] == ["system", "user", *["assistant", "tool"] * 2]
    assert bodies[2]["messages"][1]["content"] == "a query"
    assert bodies[2]["messages"][5]["content"] == "result 1"
    assert bodies[2]["tools"] == [TOOL]


async def test_many_generations_share_a_gateway(gateway: Callable[..., Gateway]) -> None:
    conversations = tuple(
        Turns(expert=f"e{n}", turns=(Turn(text=f"answer {n} to {{{{query}}}}", chunk_size=3),)) for n in range(16)
    )
    async with ScriptedModel(Script(conversations=conversations)) as server:
        asked = gateway(openai(server.url))
        answers = await asyncio.gather(
            *(asked.generate(conversation(f"e{n}", f"query {n}"), [], lambda delta: None) for n in range(16))
        )
    assert [answer.text for answer in answers] == [f"answer {n} to query {n}" for n in range(16)]


async def test_one_failing_generation_disturbs_no_other(gateway: Callable[..., Gateway], stub: StubProvider) -> None:
    # litellm closes a client after certain failures; the others must not notice.
    rest, arrived = asyncio.Event(), asyncio.Event()
    stub.parts = [sse([chunk({"content": "slow"})]), rest, sse([chunk(finish="stop"), USAGE, "[DONE]"])]
    asked = gateway(openai(f"{stub.url}/v1"))
    task = asyncio.create_task(asked.generate(conversation(), [], lambda delta: arrived.set()))
    await asyncio.wait_for(arrived.wait(), 10)
    backend = asked._backend
    assert backend is not None
    await backend._http.splicing_client.client.aclose()
    rest.set()
    assert (await task).text == "slow"


async def test_a_connection_is_used_again(gateway: Callable[..., Gateway], stub: StubProvider) -> None:
    stub.parts = [sse([chunk({"content": "hi"}), chunk(finish="stop"), USAGE, "[DONE]"])]
    asked = gateway(openai(f"{stub.url}/v1"))
    for _ in range(5):
        await asked.generate(conversation(), [], lambda delta: None)
    assert len({request.peer for request in stub.received}) == 1


async def test_an_answer_counts_although_its_stream_does_not_end(
    gateway: Callable[..., Gateway], stub: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.model.backend._TAIL_S", 0.05)
    stub.parts = [sse([chunk({"content": "hi"}), chunk(finish="stop")]), asyncio.Event()]
    answer = await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], lambda delta: None)
    assert answer.text == "hi"


async def test_the_context_window_is_known_once_litellm_is(gateway: Callable[..., Gateway]) -> None:
    known, unknown = gateway(openai("http://127.0.0.1:1")), gateway(openai("http://127.0.0.1:1", "scripted"))
    await known.ready()
    await unknown.ready()
    assert known.context_window == 128_000
    assert unknown.context_window is None


async def test_nothing_is_printed_and_no_key_is_logged(
    ask: Callable[..., Any], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await ask(Turn(text="hi", reasoning="hm"))
    await asyncio.sleep(0)
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert KEY not in caplog.text
