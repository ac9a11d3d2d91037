"""Streams that keep to nobody's rules, over HTTP and through litellm."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from expert_runner.contract.usage import Usage
from orchestrator.model.gateway import Delta, ModelError
from tests.model.stub_provider import USAGE, StubProvider, call, chunk, conversation, openai, sse

END = [chunk(finish="stop"), USAGE, "[DONE]"]


async def test_chunks_without_choices_or_deltas_are_passed_over(ask_stub: Callable[..., Any]) -> None:
    empty = chunk() | {"choices": []}
    nothing = chunk()
    nothing["choices"][0]["delta"] = None
    nulls = chunk({"role": None, "content": None, "tool_calls": None, "reasoning_content": None})
    answer = await ask_stub(
        [empty, nothing, chunk({"content": "a"}), nulls, nothing, empty, chunk({"content": "b"}), *END]
    )
    assert answer.text == "ab"
    assert answer.usage == Usage(input_tokens=7, output_tokens=5, total_tokens=12)


async def test_what_follows_the_end_is_passed_over(ask_stub: Callable[..., Any]) -> None:
    answer = await ask_stub(
        [chunk({"content": "a"}), chunk(finish="stop"), chunk(finish="stop"), chunk(), USAGE, "[DONE]"]
    )
    assert answer.text == "a"
    assert answer.usage.total_tokens == 12


async def test_the_end_may_come_with_the_last_piece(ask_stub: Callable[..., Any]) -> None:
    answer = await ask_stub([chunk({"content": "a"}), chunk({"content": "b"}, finish="length"), USAGE, "[DONE]"])
    assert (answer.text, answer.cut_off) == ("ab", True)
    assert answer.usage.total_tokens == 12


async def test_usage_may_come_with_the_end(ask_stub: Callable[..., Any]) -> None:
    end = chunk(finish="stop", usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})
    answer = await ask_stub([chunk({"content": "a"}), end, "[DONE]"])
    assert answer.usage.total_tokens == 12


async def test_usage_may_come_with_every_chunk(ask_stub: Callable[..., Any]) -> None:
    def counted(tokens: int, **fields: Any) -> Any:
        usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
        return chunk({"content": "x"}, usage=usage, **fields)

    answer = await ask_stub([counted(1), counted(2), counted(3), chunk(finish="stop"), "[DONE]"])
    assert answer.text == "xxx"
    assert answer.usage == Usage(input_tokens=7, output_tokens=3, total_tokens=10)


async def test_a_stream_may_say_done_without_a_reason(ask_stub: Callable[..., Any]) -> None:
    assert (await ask_stub([chunk({"content": "a"}), "[DONE]"])).text == "a"


async def test_a_stream_may_end_without_saying_done(ask_stub: Callable[..., Any]) -> None:
    assert (await ask_stub([chunk({"content": "a"}), chunk(finish="stop")])).text == "a"


async def test_pieces_of_calls_may_be_mixed_with_names_late(ask_stub: Callable[..., Any]) -> None:
    events = [
        chunk(call(0, "a", None, "")),
        chunk(call(1, "b", "read", "{")),
        chunk(call(0, None, "exec", '{"x"')),
        chunk(call(1, None, None, "}")),
        chunk(call(0, None, None, ": 1}")),
        chunk(finish="tool_calls"),
        USAGE,
        "[DONE]",
    ]
    answer = await ask_stub(events)
    assert [(each.id, each.name, each.arguments) for each in answer.calls] == [
        ("a", "exec", '{"x": 1}'),
        ("b", "read", "{}"),
    ]


async def test_calls_without_ids_or_with_the_same_get_their_own(ask_stub: Callable[..., Any]) -> None:
    calls = [chunk(call(0, None, "f", "{}")), chunk(call(1, "same", "f", "{}")), chunk(call(2, "same", "f", "{}"))]
    answer = await ask_stub([*calls, chunk(finish="tool_calls"), "[DONE]"])
    assert len({each.id for each in answer.calls}) == 3
    assert all(each.id for each in answer.calls)


async def test_calls_that_end_with_stop_are_calls(ask_stub: Callable[..., Any]) -> None:
    answer = await ask_stub([chunk(call(0, "a", "f", "{}")), *END])
    assert [each.name for each in answer.calls] == ["f"]


async def test_calls_in_one_chunk_are_all_taken(ask_stub: Callable[..., Any]) -> None:
    both = {"tool_calls": call(0, "a", "f", "{}")["tool_calls"] + call(1, "b", "g", "{}")["tool_calls"]}
    answer = await ask_stub([chunk(both, finish="tool_calls"), USAGE, "[DONE]"])
    assert [(each.id, each.name) for each in answer.calls] == [("a", "f"), ("b", "g")]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_read_by_either_name(ask_stub: Callable[..., Any], field: str) -> None:
    deltas: list[Delta] = []
    answer = await ask_stub([chunk({field: "hm"}), chunk({"content": "a"}), *END], deltas)
    assert deltas == [("reasoning", "hm"), ("text", "a")]
    assert answer.thinking[0].thinking == "hm"


async def test_comments_and_blank_events_are_passed_over(ask_stub: Callable[..., Any]) -> None:
    answer = await ask_stub(["", chunk({"content": "a"}), " ", *END])
    assert answer.text == "a"


async def test_choices_that_are_null_are_none(ask_stub: Callable[..., Any]) -> None:
    answer = await ask_stub([chunk() | {"choices": None}, chunk({"content": "a"}), *END])
    assert answer.text == "a"


@pytest.mark.parametrize(
    "text",
    [
        "write data: [DONE] to end",
        "data: [DONE]",
        'a "delta": null and "choices":null',
        "one\u2028two\u0085three\x0bfour\u2029",
        "<s>old</s> <|im_end|> <|system|>",
        "\\u005b\\",
    ],
)
async def test_no_text_is_mistaken_for_something_else(stub: StubProvider, gateway: Any, text: str) -> None:
    arguments = json.dumps({"text": text}, ensure_ascii=False)
    events = [chunk({"content": text}), chunk(call(0, "a", "f", arguments)), chunk(finish="stop"), USAGE]
    # As many providers send it: nothing escaped that need not be.
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    stub.parts = ["".join([*lines, "data: [DONE]\n\n"]).encode()]
    answer = await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], lambda delta: None)
    assert answer.text == text
    assert json.loads(answer.calls[0].arguments) == {"text": text}


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_a_stream_may_arrive_in_pieces_of_any_size(stub: StubProvider, gateway: Any, size: int) -> None:
    raw = sse([chunk({"content": "é\U0001f600"}), chunk(call(0, "a", "f", "{}")), *END]).replace(b"\n", b"\r\n")
    stub.parts = [raw[start : start + size] for start in range(0, len(raw), size)]
    answer = await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], lambda delta: None)
    assert (answer.text, len(answer.calls), answer.usage.total_tokens) == ("é\U0001f600", 1, 12)


async def test_a_line_without_an_end_is_refused(
    stub: StubProvider, gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.model.lines.MAX_LINE", 1000)
    stub.parts = [b"data: " + b"x" * 500, b"x" * 600]
    with pytest.raises(ModelError, match="more than 1000 bytes"):
        await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], lambda delta: None)
