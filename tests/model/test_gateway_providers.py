"""What reaches each provider, and how its own kind of answer is read."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from expert_runner.contract.messages import (
    ExpertMessage,
    ImageInlinePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
)
from expert_runner.contract.usage import Usage
from orchestrator.model import signatures
from orchestrator.model.backend import wanted_extras
from orchestrator.model.conversation import Conversation, Extra
from orchestrator.model.gateway import Delta, Gateway, Generation, ModelError
from orchestrator.model.provider import ProviderConfig, resolve
from tests.model.stub_provider import KEY, TOOL, USAGE, Received, StubProvider, call, chunk, conversation, openai, sse

ENV = {
    "ANTHROPIC_API_KEY": KEY,
    "OPENAI_API_KEY": KEY,
    "GOOGLE_GENERATIVE_AI_API_KEY": KEY,
    "AZURE_API_KEY": KEY,
    "DEEPSEEK_API_KEY": KEY,
}
OPENAI = sse(
    [chunk({"content": "hi"}), chunk(call(0, "c1", "todo", "{}")), chunk(finish="tool_calls"), USAGE, "[DONE]"]
)


def worked() -> Conversation:
    """A conversation with everything in it that providers treat differently."""
    result = conversation()
    answer = (
        ThinkingPart(thinking="signed", signature="SIG"),
        ThinkingPart(thinking="unsigned"),
        signatures.of_call("c1", "Q0FMTA=="),
        TextPart(text="ok"),
        ToolCallPart(tool_call_id="c1", tool_name="todo", args={"newTodos": ["a"]}),
        ToolCallPart(tool_call_id="c2", tool_name="todo", invalid_args='{"x'),
    )
    image = ImageInlinePart(encoded_data="iVBORw0KGgo=", mime_type="image/png")
    results = (
        ToolResultPart(tool_call_id="c1", tool_name="todo", contents=(TextPart(text="fine"), image)),
        ToolResultPart(tool_call_id="c2", tool_name="todo", contents=(TextPart(text="no JSON"),), is_error=True),
    )
    result.extend([ExpertMessage(id="e", contents=answer), ToolMessage(id="t", contents=results)])
    return result


Ask = Callable[..., Any]


@pytest.fixture
def ask(stub: StubProvider, gateway: Callable[..., Gateway]) -> Ask:
    """The answer `raw` of a provider, its deltas, and the request that it got."""

    async def ask(
        name: str, model: str, raw: bytes, path: str = "", setting: dict[str, Any] | None = None, **options: Any
    ) -> tuple[Generation, list[Delta], Received]:
        stub.parts = [raw]
        config = ProviderConfig.model_validate(
            {"providerName": name, "setting": {"baseUrl": stub.url + path, **(setting or {})}}
        )
        deltas: list[Delta] = []
        answer = await gateway(resolve(config, model, ENV), **options).generate(worked(), [TOOL], deltas.append)
        (received,) = stub.received
        return answer, deltas, received

    return ask


def roles(messages: Iterable[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


# --- OpenAI and what speaks its language -----------------------------------------------------------------------------


async def test_openai_gets_its_own_format_and_no_more(ask: Ask) -> None:
    setting = {"organization": "org", "project": "proj", "headers": {"X-Own": "value"}}
    answer, _, received = await ask("openai", "gpt-4o", OPENAI, "/v1", setting)
    assert (answer.text, answer.calls[0].name) == ("hi", "todo")
    assert received.path == "/v1/chat/completions"
    assert received.headers["Authorization"] == f"Bearer {KEY}"
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["OpenAI-Organization"] == "org"
    assert received.headers["OpenAI-Project"] == "proj"
    assert received.headers["X-Own"] == "value"
    assert set(received.body) == {"model", "messages", "stream", "stream_options", "tools"}
    assert received.body["model"] == "gpt-4o"
    assert roles(received.body["messages"]) == ["system", "user", "assistant", "tool", "tool", "user"]
    fields = set().union(*received.body["messages"])
    assert fields == {"role", "content", "tool_calls", "tool_call_id", "reasoning_content"}
    assert set(received.body["messages"][2]["tool_calls"][0]) == {"id", "type", "function"}


@pytest.mark.parametrize("model", ["gpt-5", "o3", "gpt-4.1", "some/model:tag"])
async def test_any_model_of_openai_gets_the_whole_conversation(ask: Ask, model: str) -> None:
    _, _, received = await ask("openai", model, OPENAI, "/v1")
    assert received.body["model"] == model
    assert roles(received.body["messages"]) == ["system", "user", "assistant", "tool", "tool", "user"]


@pytest.mark.parametrize(
    ("model", "budget", "effort"),
    [
        ("gpt-5", "high", "high"),
        ("gpt-5", "none", "minimal"),
        ("gpt-5.1", "none", "none"),
        ("gpt-5.1", 5000, "medium"),
        ("gpt-4o", "high", None),
        ("an-unknown-one", "low", "low"),
    ],
)
async def test_openai_reasons_as_much_as_the_model_can(ask: Ask, model: str, budget: Any, effort: str | None) -> None:
    _, _, received = await ask("openai", model, OPENAI, "/v1", reasoning_budget=budget)
    assert received.body.get("reasoning_effort") == effort


async def test_models_that_need_the_responses_api_get_the_conversation_there(ask: Ask) -> None:
    response = {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5.4",
        "status": "completed",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    item = {
        "type": "function_call",
        "id": "f",
        "call_id": "c",
        "name": "todo",
        "arguments": "",
        "status": "in_progress",
    }
    done = {**item, "arguments": "{}", "status": "completed"}
    usage = {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9}
    raw = sse(
        [
            {"type": "response.created", "response": response},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.function_call_arguments.delta", "item_id": "f", "output_index": 0, "delta": "{}"},
            {"type": "response.output_item.done", "output_index": 0, "item": done},
            {"type": "response.completed", "response": {**response, "output": [done], "usage": usage}},
        ]
    )
    answer, _, received = await ask("openai", "gpt-5.4", raw, "/v1", reasoning_budget="high")
    assert received.path == "/v1/responses"
    assert received.body["instructions"].startswith("You work.")
    assert [item["type"] for item in received.body["input"]].count("function_call_output") == 2
    assert [(each.name, each.arguments) for each in answer.calls] == [("todo", "{}")]
    assert answer.usage.total_tokens == 9


async def test_deepseek_gets_its_reasoning_back(ask: Ask) -> None:
    answer, _, received = await ask("deepseek", "deepseek-reasoner", OPENAI, reasoning_budget="low")
    assert answer.usage == Usage(input_tokens=7, output_tokens=5, total_tokens=12)
    assert received.path == "/chat/completions"
    assert received.headers["Authorization"] == f"Bearer {KEY}"
    assert received.body["thinking"] == {"type": "enabled"}
    assistant = received.body["messages"][2]
    assert assistant["reasoning_content"] == "unsigned"
    assert "thinking_blocks" not in assistant


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ({}, "/openai/v1/chat/completions"),
        ({"useDeploymentBasedUrls": True}, "/openai/deployments/mine/chat/completions?api-version=2024-10-21"),
        ({"apiVersion": "2025-01-01"}, "/openai/deployments/mine/chat/completions?api-version=2025-01-01"),
    ],
)
async def test_azure_is_asked_at_the_address_of_its_version(ask: Ask, setting: dict[str, Any], path: str) -> None:
    answer, _, received = await ask("azure-openai", "mine", OPENAI, "/openai", setting)
    assert answer.text == "hi"
    assert received.path == path
    assert KEY in (received.headers.get("api-key"), received.headers.get("Authorization", "").removeprefix("Bearer "))
    assert set(received.body["messages"][2]) == {"role", "content", "tool_calls"}


@pytest.mark.parametrize("version", ["v1", "2025-01-01"])
async def test_azure_is_asked_once_an_attempt(
    stub: StubProvider, gateway: Callable[..., Gateway], version: str
) -> None:
    stub.status, stub.headers = 503, {"Content-Type": "application/json", "Retry-After": "0"}
    stub.parts = [b'{"error": {"message": "later"}}']
    config = {"providerName": "azure-openai", "setting": {"baseUrl": stub.url, "apiVersion": version}}
    target = resolve(ProviderConfig.model_validate(config), "mine", ENV)
    with pytest.raises(ModelError, match="later") as raised:
        await gateway(target).generate(worked(), [TOOL], lambda delta: None)
    assert (raised.value.status_code, raised.value.is_retryable) == (503, True)
    assert len(stub.received) == 1


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://api.openai.com/v1", frozenset()),
        ("https://eu.api.openai.com/v1", frozenset()),
        ("https://notopenai.com/v1", {Extra.REASONING}),
        ("http://127.0.0.1:8000/v1", {Extra.REASONING}),
    ],
)
def test_openai_itself_is_not_sent_the_reasoning_of_others(url: str, wanted: frozenset[Extra]) -> None:
    assert wanted_extras(openai(url)) == wanted


# --- the others ------------------------------------------------------------------------------------------------------


def anthropic_events(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def start(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": fields}


def anthropic(reason: str = "tool_use") -> bytes:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
        "output_tokens": 1,
    }
    message = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": [], "usage": usage}
    stops = [{"type": "content_block_stop", "index": index} for index in range(4)]
    return anthropic_events(
        {"type": "message_start", "message": message},
        start(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="let me "),
        delta(0, type="thinking_delta", thinking="see"),
        delta(0, type="signature_delta", signature="SIGN=="),
        stops[0],
        start(1, type="redacted_thinking", data="ENCRYPTED"),
        stops[1],
        start(2, type="text", text=""),
        delta(2, type="text_delta", text="I will"),
        stops[2],
        start(3, type="tool_use", id="toolu_9", name="todo", input={}),
        delta(3, type="input_json_delta", partial_json='{"newTodos":'),
        delta(3, type="input_json_delta", partial_json=' ["b"]}'),
        stops[3],
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 42}},
        {"type": "message_stop"},
    )


async def test_anthropics_answer_is_read_with_its_proofs(ask: Ask) -> None:
    answer, deltas, _ = await ask("anthropic", "claude-sonnet-4-5", anthropic())
    assert answer.text == "I will"
    assert [(each.id, json.loads(each.arguments)) for each in answer.calls] == [("toolu_9", {"newTodos": ["b"]})]
    assert answer.thinking == (
        ThinkingPart(thinking="let me see", signature="SIGN=="),
        signatures.redacted("ENCRYPTED"),
    )
    assert deltas == [("reasoning", "let me "), ("reasoning", "see"), ("text", "I will")]
    assert answer.usage == Usage(input_tokens=160, output_tokens=42, total_tokens=202, cached_input_tokens=100)
    # What is written to the cache costs more, what is read from it less.
    assert answer.cost == pytest.approx((10 * 3 + 50 * 3.75 + 100 * 0.3 + 42 * 15) / 1e6)
    assert not answer.cut_off


async def test_anthropic_says_that_an_answer_was_cut_off(ask: Ask) -> None:
    answer, _, _ = await ask("anthropic", "claude-sonnet-4-5", anthropic("max_tokens"))
    assert answer.cut_off


async def test_anthropic_gets_its_own_format_with_proofs_and_a_cached_prompt(ask: Ask) -> None:
    _, _, received = await ask("anthropic", "claude-sonnet-4-5", anthropic(), "/v1", reasoning_budget=2000)
    assert received.path == "/v1/messages"
    assert received.headers["x-api-key"] == KEY
    body = received.body
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert body["max_tokens"] > 2000
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert roles(body["messages"]) == ["user", "assistant", "user"]
    assistant, last = body["messages"][1]["content"], body["messages"][2]["content"]
    assert assistant[0] == {"type": "thinking", "thinking": "signed", "signature": "SIG"}
    assert [part["input"] for part in assistant if part["type"] == "tool_use"] == [
        {"newTodos": ["a"]},
        {"_invalid": '{"x'},
    ]
    assert [part["type"] for part in last] == ["tool_result", "tool_result", "text", "image"]
    assert last[-1]["cache_control"] == {"type": "ephemeral"}


async def test_anthropic_does_not_think_unless_asked(ask: Ask) -> None:
    _, _, received = await ask("anthropic", "claude-sonnet-4-5", anthropic(), reasoning_budget="none")
    assert "thinking" not in received.body


async def test_an_overloaded_anthropic_may_be_asked_again(stub: StubProvider, gateway: Callable[..., Gateway]) -> None:
    stub.status, stub.headers = 529, {"Content-Type": "application/json", "Retry-After": "3"}
    stub.parts = [b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}']
    config = ProviderConfig.model_validate({"setting": {"baseUrl": stub.url}})
    with pytest.raises(ModelError, match="Overloaded") as raised:
        await gateway(resolve(config, "claude-sonnet-4-5", ENV)).generate(worked(), [TOOL], lambda delta: None)
    assert (raised.value.status_code, raised.value.is_retryable, raised.value.retry_after_s) == (529, True, 3)
    assert len(stub.received) == 1


GOOGLE = sse(
    [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True}]}, "index": 0}]},
        {
            "candidates": [
                {
                    "content": {
                        "role": "model",
                        "parts": [
                            {
                                "functionCall": {"name": "todo", "args": {"newTodos": ["b"]}},
                                "thoughtSignature": "U0lH" * 200,
                            },
                            {"functionCall": {"name": "todo", "args": {}}},
                        ],
                    },
                    "finishReason": "STOP",
                    "index": 0,
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 10,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 18,
            },
        },
    ]
)


async def test_googles_answer_is_read_with_the_signatures_of_its_calls(ask: Ask) -> None:
    answer, deltas, _ = await ask("google", "gemini-2.5-flash", GOOGLE, "/v1beta")
    assert deltas == [("reasoning", "hm")]
    assert [json.loads(each.arguments) for each in answer.calls] == [{"newTodos": ["b"]}, {}]
    assert all(len(each.id) <= 256 for each in answer.calls)
    assert signatures.of_calls(answer.thinking) == {answer.calls[0].id: "U0lH" * 200}
    assert answer.usage == Usage(input_tokens=10, output_tokens=8, reasoning_tokens=3, total_tokens=18)


async def test_google_gets_its_own_format_with_signatures(ask: Ask) -> None:
    _, _, received = await ask("google", "gemini-2.5-flash", GOOGLE, "/v1beta", reasoning_budget=2000)
    assert received.path == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert received.headers["x-goog-api-key"] == KEY
    assert received.body["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 2000
    assert roles(received.body["contents"]) == ["user", "model", "user", "user"]
    parts = [part for content in received.body["contents"] for part in content["parts"]]
    assert [part["thoughtSignature"] for part in parts if "thoughtSignature" in part] == ["Q0FMTA=="]
    assert any("inline_data" in part for part in parts)


async def test_ollama_is_asked_in_its_own_format(ask: Ask, stub: StubProvider) -> None:
    def line(done: bool = False, **message: Any) -> bytes:
        end = {"done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4} if done else {}
        whole = {
            "model": "m",
            "created_at": "2024-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": "", **message},
        }
        return json.dumps({**whole, "done": done, **end}).encode() + b"\n"

    calls = [{"function": {"name": "todo", "arguments": {"newTodos": [text]}}} for text in "bc"]
    stub.headers = {"Content-Type": "application/x-ndjson"}
    raw = line(thinking="hm") + line(content="hel") + line(content="lo") + line(tool_calls=calls) + line(done=True)
    answer, deltas, received = await ask("ollama", "qwen3", raw, "/api", reasoning_budget="none")
    assert received.path == "/api/chat"
    assert "Authorization" not in received.headers
    assert received.body["think"] is False
    assert roles(received.body["messages"]) == ["system", "user", "assistant", "tool", "tool", "user"]
    assert deltas == [("reasoning", "hm"), ("text", "hel"), ("text", "lo")]
    assert [json.loads(each.arguments) for each in answer.calls] == [{"newTodos": ["b"]}, {"newTodos": ["c"]}]
    assert len({each.id for each in answer.calls}) == 2
    assert answer.usage == Usage(input_tokens=9, output_tokens=4, total_tokens=13)
    assert answer.cost == 0
