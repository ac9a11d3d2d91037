"""The server, with a plain HTTP client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientResponse, ClientSession, ClientTimeout

from orchestrator.scripted_model import (
    Conversation,
    DisconnectFault,
    HangFault,
    Script,
    ScriptedCall,
    ScriptedModel,
    StatusFault,
    TokenCounts,
    Turn,
    records,
)

Body = Callable[..., bytes]
Post = Callable[..., Any]


@asynccontextmanager
async def serving(*turns: Turn, **options: Any) -> AsyncIterator[tuple[ScriptedModel, Post]]:
    """A server that gives `turns` to every Expert, and a function that posts a body to it."""
    script = Script(conversations=(Conversation(expert="*", turns=turns),))
    async with ScriptedModel(script, **options) as model, ClientSession(timeout=ClientTimeout(total=10)) as client:

        def post(body: bytes, **kwargs: Any) -> Any:
            return client.post(f"{model.url}/chat/completions", data=body, **kwargs)

        yield model, post


async def events(response: ClientResponse) -> list[Any]:
    """The JSON of each server-sent event, after checking that the last one is `[DONE]`."""
    lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


async def received_until_it_broke(response: ClientResponse) -> bytes:
    received = b""
    try:
        async for part in response.content.iter_any():
            received += part
    except ClientPayloadError:
        return received
    pytest.fail("the answer is complete")


async def test_a_completion_comes_as_one_body(body: Body) -> None:
    turn = Turn(
        reasoning="hm",
        text="hello",
        tool_calls=(ScriptedCall(name="exec", arguments={"command": "ls"}), ScriptedCall(name="todo")),
        usage=TokenCounts(prompt_tokens=10, completion_tokens=5, reasoning_tokens=2, cached_tokens=3),
    )
    async with serving(turn) as (_, post), post(body()) as response:
        completion = await response.json()
    assert (response.status, completion["object"], completion["model"]) == (200, "chat.completion", "any")
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "hello",
                "reasoning_content": "hm",
                "tool_calls": [
                    {
                        "id": "call_0_0_0",
                        "type": "function",
                        "function": {"name": "exec", "arguments": '{"command": "ls"}'},
                    },
                    {"id": "call_0_0_1", "type": "function", "function": {"name": "todo", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ]
    assert completion["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


async def test_a_stream_has_the_role_the_deltas_the_finish_and_the_end_in_this_order(body: Body) -> None:
    turn = Turn(text="abcd", tool_calls=(ScriptedCall(name="exec", arguments="{}"),), chunk_size=2)
    async with serving(turn) as (_, post), post(body(stream=True)) as response:
        chunks = await events(response)
        assert response.content_type == "text/event-stream"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": None},
        {"content": "ab"},
        {"content": "cd"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0_0_0",
                    "type": "function",
                    "function": {"name": "exec", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 5 + ["tool_calls"]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1


async def test_a_stream_reports_usage_only_if_asked_and_without_choices(body: Body) -> None:
    request = json.loads(body(stream=True))
    asking = json.dumps({**request, "stream_options": {"include_usage": True}}).encode()
    async with serving(Turn(text="x", usage=TokenCounts(prompt_tokens=7, completion_tokens=1))) as (_, post):
        async with post(asking) as response:
            last = (await events(response))[-1]
        async with post(body(stream=True)) as response:
            without = await events(response)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 8)
    assert all(chunk["choices"] and "usage" not in chunk for chunk in without)


async def test_the_turn_is_in_the_request_so_a_new_server_goes_on_where_the_old_one_was(body: Body) -> None:
    turns = (Turn(text="first"), Turn(text="second"))
    for results, expected in (([], "first"), ([["r"]], "second"), ([], "first")):
        async with serving(*turns) as (_, post), post(body("q", *results)) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_status_comes_as_often_as_scripted_and_then_the_answer(body: Body, stream: bool) -> None:
    fault = StatusFault(status=429, message="slow down", retry_after=2, times=2)
    async with serving(Turn(text="x", faults=(fault,))) as (model, post):
        for _ in range(2):
            async with post(body(stream=stream)) as response:
                assert response.headers["Retry-After"] == "2"
                assert (await response.json())["error"] == {
                    "message": "slow down",
                    "type": "rate_limit_error",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
        async with post(body(stream=stream)) as response:
            assert response.status == 200
    assert [record.status for record in model.requests] == [429, 429, 200]


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "authentication_error", "invalid_api_key"),
        (409, "api_error", None),
        (500, "server_error", None),
    ],
)
async def test_errors_have_the_type_and_code_of_their_status(
    body: Body, status: int, kind: str, code: str | None
) -> None:
    async with serving(Turn(faults=(StatusFault(status=status),))) as (_, post), post(body()) as response:
        error = (await response.json())["error"]
    assert (response.status, error["type"], error["code"]) == (status, kind, code)


async def test_a_conversation_that_ran_out_is_a_bad_request_that_says_so(body: Body) -> None:
    async with serving(Turn(text="x")) as (model, post), post(body("q", ["r"])) as response:
        error = (await response.json())["error"]
    assert (response.status, error["type"]) == (400, "invalid_request_error")
    assert "conversations[0] (expert '*') ran out" in error["message"]
    assert (model.requests[0].status, model.requests[0].expert_key) == (400, "coordinator")


async def test_an_unknown_address_is_answered_with_the_known_ones() -> None:
    async with serving(Turn(text="x")) as (model, _), ClientSession() as client:
        async with client.post(model.url.removesuffix("/v1") + "/chat/completions") as response:
            error = (await response.json())["error"]
        assert response.status == 404
        assert "POST /v1/chat/completions" in error["message"]
        async with client.get(f"{model.url}/models") as response:
            assert [entry["id"] for entry in (await response.json())["data"]] == ["scripted"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_comes_after_half_of_the_answer(body: Body, stream: bool) -> None:
    turn = Turn(text="x" * 1000, faults=(DisconnectFault(times=1),))
    async with serving(turn) as (model, post):
        async with post(body(stream=stream)) as response:
            received = await received_until_it_broke(response)
        async with post(body(stream=stream)) as response:
            whole = await response.read()
    assert len(whole) // 2 - 2 <= len(received) <= len(whole) // 2 + 2  # the number in its id may be longer
    assert [record.answered_at is None for record in model.requests] == [True, False]


async def test_a_hanging_answer_sends_headers_and_ends_at_once_when_the_server_closes(body: Body) -> None:
    async with serving(Turn(faults=(HangFault(),))) as (model, post), post(body(stream=True)) as response:
        assert response.status == 200
        reading = asyncio.ensure_future(response.read())
        started = time.monotonic()
        await model.close()
        assert time.monotonic() - started < 1
        with pytest.raises(ClientError):
            await reading
    assert model.requests[0].answered_at is None


async def test_a_delayed_answer_ends_at_once_when_the_server_closes(body: Body) -> None:
    async with serving(Turn(text="x", delay_ms=60_000)) as (model, post):
        asking = asyncio.ensure_future(post(body()).__aenter__())
        await model.wait_for_requests(1)
        started = time.monotonic()
        await model.close()
        assert time.monotonic() - started < 1
        with pytest.raises(ClientError):
            await asking


async def test_a_client_that_goes_away_does_not_keep_its_answer_waiting(body: Body) -> None:
    async with serving(Turn(text="x", faults=(HangFault(times=1),))) as (_, post):
        before = asyncio.all_tasks()
        async with post(body()) as response:
            handlers = asyncio.all_tasks() - before
            response.close()
        _, running = await asyncio.wait(handlers, timeout=5)
        assert handlers
        assert not running


async def test_delays_are_kept_before_the_first_byte_and_between_chunks(body: Body) -> None:
    turn = Turn(text="abcd", chunk_size=1, delay_ms=40, chunk_delay_ms=10)
    async with serving(turn) as (model, post):
        started = time.monotonic()
        async with post(body(stream=True)) as response:
            headers_after = time.monotonic() - started
            await events(response)
        took = time.monotonic() - started
    assert headers_after >= 0.035
    assert took >= 0.095
    [record] = model.requests
    assert record.answered_at is not None
    assert 0.095 <= record.answered_at - record.arrived_at <= took


async def test_many_large_requests_at_once_are_each_answered_with_their_own(body: Body) -> None:
    async with serving(Turn(text="{{query}}", delay_ms=50)) as (model, post):

        async def ask(number: int) -> str:
            async with post(body(f"{number} " + "x" * 500_000)) as response:
                content: str = (await response.json())["choices"][0]["message"]["content"]
                return content.split(" ", maxsplit=1)[0]

        answers = await asyncio.gather(*(ask(number) for number in range(24)))
    assert answers == [str(number) for number in range(24)]
    assert max(record.arrived_at for record in model.requests) < min(
        record.answered_at or 0 for record in model.requests
    )


async def test_requests_are_recorded_without_their_key_and_without_their_bodies(body: Body) -> None:
    async with serving(Turn(text="x", repeat=2)) as (model, post):
        async with post(body("q"), headers={"Authorization": "Bearer sk-secret"}) as response:
            await response.read()
        async with post(body("q", ["r"])) as response:
            await response.read()
    first, second = model.requests
    assert (first.has_key, first.expert_key, first.turn, first.messages) == (True, "coordinator", 0, 2)
    assert (second.has_key, second.turn, second.messages, second.status) == (False, 1, 4, 200)
    assert "sk-secret" not in repr(model.requests)
    with pytest.raises(LookupError, match="keep_bodies=True"):
        _ = first.body


async def test_kept_bodies_are_bounded_and_the_oldest_goes_first(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [body(query) for query in ("a", "b", "c")]
    monkeypatch.setattr(records, "MAX_BODY_BYTES", 2 * len(sent[0]))
    async with serving(Turn(text="x"), keep_bodies=True) as (model, post):
        for one in sent:
            async with post(one) as response:
                await response.read()
    assert [record.raw_body for record in model.requests] == [None, *sent[1:]]
    assert model.requests[-1].body == json.loads(sent[-1])


async def test_a_port_in_use_is_an_error_and_leaves_nothing_listening() -> None:
    script = Script(conversations=(Conversation(expert="*", turns=(Turn(text="x"),)),))
    async with ScriptedModel(script) as model:
        port = int(model.url.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="address already in use"):
            await ScriptedModel(script, port=port).__aenter__()
