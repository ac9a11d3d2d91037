"""The server, with the client that the gateway uses."""

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from orchestrator.scripted_model import (
    Conversation,
    CutOffFault,
    DisconnectFault,
    EmptyFault,
    HangFault,
    Script,
    ScriptedCall,
    ScriptedModel,
    StatusFault,
    TokenCounts,
    Turn,
)

Messages = Callable[..., list[dict[str, Any]]]

TOOLS = [{"type": "function", "function": {"name": "exec", "description": "", "parameters": {"type": "object"}}}]


@pytest.fixture
def ask(litellm: ModuleType, messages: Messages) -> Callable[..., Any]:
    """Asks a server with that one turn, as a stream, and returns what litellm makes of the chunks."""

    async def ask(turn: Turn, **options: Any) -> Any:
        script = Script(conversations=(Conversation(expert="coordinator", turns=(turn,)),))
        async with ScriptedModel(script) as model:
            stream = await litellm.acompletion(
                model="openai/scripted",
                api_base=model.url,
                api_key="none",
                messages=messages(),
                tools=TOOLS,
                stream=True,
                stream_options={"include_usage": True},
                max_retries=0,
                **options,
            )
            return litellm.stream_chunk_builder([chunk async for chunk in stream])

    return ask


async def test_litellm_reads_text_reasoning_calls_and_usage(ask: Callable[..., Any]) -> None:
    turn = Turn(
        reasoning="I think, therefore I call.",
        text="Two calls, with é and \U0001f600.",
        tool_calls=(
            ScriptedCall(name="exec", arguments={"command": "echo", "args": ["{{query}}"]}),
            ScriptedCall(name="exec", arguments={"command": "ls"}),
        ),
        usage=TokenCounts(prompt_tokens=100, completion_tokens=50, reasoning_tokens=20, cached_tokens=30),
        chunk_size=3,
    )
    answer = await ask(turn)
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == (turn.text, turn.reasoning)
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("call_0_0_0", "exec", '{"command": "echo", "args": ["do it"]}'),
        ("call_0_0_1", "exec", '{"command": "ls"}'),
    ]
    assert answer.choices[0].finish_reason == "tool_calls"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 50, 150)
    assert usage.completion_tokens_details.reasoning_tokens == 20
    assert usage.prompt_tokens_details.cached_tokens == 30


async def test_litellm_reads_an_answer_that_is_not_streamed(litellm: ModuleType, messages: Messages) -> None:
    script = Script(conversations=(Conversation(expert="*", turns=(Turn(text="hello", reasoning="hm"),)),))
    async with ScriptedModel(script) as model:
        answer = await litellm.acompletion(
            model="openai/scripted", api_base=model.url, api_key="none", messages=messages(), max_retries=0
        )
    assert (answer.choices[0].message.content, answer.choices[0].message.reasoning_content) == ("hello", "hm")


async def test_litellm_passes_malformed_arguments_on_as_they_are(ask: Callable[..., Any]) -> None:
    answer = await ask(Turn(tool_calls=(ScriptedCall(name="exec", arguments='{"command": oops'),)))
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"command": oops'


async def test_litellm_sees_that_an_answer_was_cut_off(ask: Callable[..., Any]) -> None:
    call = ScriptedCall(name="exec", arguments='{"command": "ls"}')
    answer = await ask(Turn(tool_calls=(call,), faults=(CutOffFault(),)))
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"comman'


async def test_litellm_reads_an_empty_answer(ask: Callable[..., Any]) -> None:
    answer = await ask(Turn(faults=(EmptyFault(),)))
    assert answer.choices[0].finish_reason == "stop"
    assert not answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


async def test_litellm_raises_a_rate_limit_with_its_retry_after(litellm: ModuleType, ask: Callable[..., Any]) -> None:
    with pytest.raises(litellm.RateLimitError, match="slow down") as raised:
        await ask(Turn(faults=(StatusFault(status=429, message="slow down", retry_after=7),)))
    assert raised.value.litellm_response_headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "APIError"),
        (404, "NotFoundError"),
        (409, "APIError"),
        (422, "BadRequestError"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailableError"),
    ],
)
async def test_litellm_raises_the_error_of_the_status(
    litellm: ModuleType, ask: Callable[..., Any], status: int, error: str
) -> None:
    with pytest.raises(getattr(litellm, error)) as raised:
        await ask(Turn(faults=(StatusFault(status=status, message="no"),)))
    assert raised.value.status_code == status


async def test_litellm_raises_when_the_connection_closes_in_the_middle(ask: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match=r"not completed|incomplete chunked read"):
        await ask(Turn(text="x" * 500, faults=(DisconnectFault(),)))


async def test_litellm_times_out_on_an_answer_that_hangs(ask: Callable[..., Any]) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(Exception, match=r"[Tt]imeout"):
            await ask(Turn(faults=(HangFault(),)), timeout=0.3)
