"""A Run's messages as models are sent them."""

import json
from typing import Any

import pytest

from expert_runner.contract.messages import (
    ExpertMessage,
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)
from expert_runner.contract.tools import ToolDefinition
from orchestrator.model import signatures
from orchestrator.model.conversation import Conversation, Extra, tool_schemas

ALL = frozenset(Extra)


def text(value: str) -> TextPart:
    return TextPart(text=value)


def user(*parts: Any) -> UserMessage:
    return UserMessage(id="u", contents=parts)


def expert(*parts: Any) -> ExpertMessage:
    return ExpertMessage(id="e", contents=parts)


def results(*parts: ToolResultPart) -> ToolMessage:
    return ToolMessage(id="t", contents=parts)


def result(call: str, *parts: Any, is_error: bool = False) -> ToolResultPart:
    return ToolResultPart(tool_call_id=call, tool_name="read", contents=parts, is_error=is_error)


def sent(*messages: Message, extras: frozenset[Extra] = ALL) -> list[dict[str, Any]]:
    conversation = Conversation()
    conversation.extend(messages)
    plain = conversation.messages(extras)
    assert json.loads(conversation.encoded(extras)) == json.loads(json.dumps(plain))
    return plain


def test_an_instruction_is_the_system_message() -> None:
    assert sent(InstructionMessage(id="i", contents=(text("a"), text("b")))) == [
        {"role": "system", "content": "a\n\nb"}
    ]


def test_a_query_of_text_is_a_plain_string() -> None:
    assert sent(user(text("go"))) == [{"role": "user", "content": "go"}]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            ImageUrlPart(url="https://x.example/a.png", mime_type="image/png"),
            {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        ),
        (
            ImageInlinePart(encoded_data="QUJD", mime_type="image/png"),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ),
        (
            ImageBinaryPart(data="QUJD", mime_type="image/gif"),
            {"type": "image_url", "image_url": {"url": "data:image/gif;base64,QUJD"}},
        ),
        (
            FileUrlPart(url="https://x.example/a.pdf", mime_type="application/pdf"),
            {"type": "file", "file": {"file_id": "https://x.example/a.pdf", "format": "application/pdf"}},
        ),
        (
            FileInlinePart(encoded_data="QUJD", mime_type="application/pdf"),
            {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
        ),
        (
            FileBinaryPart(data="QUJD", mime_type="application/pdf"),
            {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
        ),
    ],
)
def test_a_query_may_hold_images_and_files(part: Any, expected: dict[str, Any]) -> None:
    assert sent(user(text("look"), part)) == [{"role": "user", "content": [{"type": "text", "text": "look"}, expected]}]


def test_an_answer_keeps_its_calls_in_order_with_arguments_as_text() -> None:
    calls = [ToolCallPart(tool_call_id=f"c{n}", tool_name="exec", args={"n": n, "é": None}) for n in range(3)]
    (answer,) = sent(expert(text("I will"), *calls))
    assert answer["content"] == "I will"
    assert [call["id"] for call in answer["tool_calls"]] == ["c0", "c1", "c2"]
    assert json.loads(answer["tool_calls"][2]["function"]["arguments"]) == {"n": 2, "é": None}


def test_an_answer_of_calls_alone_has_no_content() -> None:
    (answer,) = sent(expert(ToolCallPart(tool_call_id="c", tool_name="exec", args={})))
    assert answer["content"] is None


def test_an_empty_answer_has_content_nevertheless() -> None:
    assert sent(expert()) == [{"role": "assistant", "content": "(no answer)"}]


def test_arguments_that_are_not_json_go_back_as_json_that_shows_them() -> None:
    (answer,) = sent(expert(ToolCallPart(tool_call_id="c", tool_name="exec", invalid_args='{"command": oops')))
    assert json.loads(answer["tool_calls"][0]["function"]["arguments"]) == {"_invalid": '{"command": oops'}


@pytest.mark.parametrize(("name", "told"), [("read file!", "read_file_"), ("", "unnamed"), ("x" * 99, "x" * 64)])
def test_names_that_providers_refuse_are_mended(name: str, told: str) -> None:
    (answer,) = sent(expert(ToolCallPart(tool_call_id="c", tool_name=name, args={})))
    assert answer["tool_calls"][0]["function"]["name"] == told


def test_every_result_is_a_message_of_its_own_in_call_order() -> None:
    chats = sent(results(result("c1", text("one"), text("two")), result("c2", text("three"))))
    assert chats == [
        {"role": "tool", "tool_call_id": "c1", "content": "one\ntwo"},
        {"role": "tool", "tool_call_id": "c2", "content": "three"},
    ]


def test_a_failed_call_says_so_in_its_text() -> None:
    (chat,) = sent(results(result("c1", text("no such file"), is_error=True)))
    assert chat["content"] == "Error: no such file"


def test_images_and_files_of_results_follow_all_results() -> None:
    image = ImageInlinePart(encoded_data="QUJD", mime_type="image/png")
    pdf = FileInlinePart(encoded_data="REVG", mime_type="application/pdf")
    chats = sent(results(result("c1", text("a picture"), image), result("c2", text("x")), result("c3", pdf)))
    assert [chat["role"] for chat in chats] == ["tool", "tool", "tool", "user"]
    assert chats[0]["content"] == "a picture\n(image/png, attached below)"
    assert [part["type"] for part in chats[3]["content"]] == ["text", "image_url", "text", "file"]
    assert "c1" in chats[3]["content"][0]["text"]
    assert "c3" in chats[3]["content"][2]["text"]


def test_reasoning_goes_back_to_the_providers_that_want_it() -> None:
    answer = expert(
        ThinkingPart(thinking="signed", signature="s"),
        ThinkingPart(thinking="unsigned"),
        signatures.of_call("c", "sig"),
        ToolCallPart(tool_call_id="c", tool_name="exec", args={}),
    )
    (chat,) = sent(answer)
    assert chat["thinking_blocks"] == [{"type": "thinking", "thinking": "signed", "signature": "s"}]
    assert chat["reasoning_content"] == "unsigned"
    assert chat["tool_calls"][0]["provider_specific_fields"] == {"thought_signature": "sig"}


def test_reasoning_is_kept_from_the_providers_that_refuse_it() -> None:
    answer = expert(
        ThinkingPart(thinking="signed", signature="s"),
        ThinkingPart(thinking="unsigned"),
        signatures.of_call("c", "sig"),
        ToolCallPart(tool_call_id="c", tool_name="exec", args={}),
    )
    (chat,) = sent(answer, extras=frozenset())
    assert set(chat) == {"role", "content", "tool_calls"}
    assert set(chat["tool_calls"][0]) == {"id", "type", "function"}


def test_changing_what_was_handed_out_changes_nothing_here() -> None:
    conversation = Conversation()
    conversation.extend([user(text("go"))])
    conversation.messages(ALL)[0]["content"] = "changed"
    assert conversation.messages(ALL)[0]["content"] == "go"


def test_the_encoded_form_grows_with_the_conversation_and_follows_what_is_wanted() -> None:
    conversation = Conversation()
    assert conversation.encoded(ALL) == b"[]"
    conversation.extend([user(text("go"))])
    assert len(json.loads(conversation.encoded(ALL))) == 1
    conversation.extend([expert(ThinkingPart(thinking="hm"), text('a "quoted" é\ud800'))])
    assert json.loads(conversation.encoded(ALL))[1]["reasoning_content"] == "hm"
    assert "reasoning_content" not in json.loads(conversation.encoded(frozenset()))[1]


def test_tools_are_offered_as_functions() -> None:
    schema = {"type": "object", "properties": {}}
    tool = ToolDefinition(skill_name="s", name="read", description="Reads.", input_schema=schema)
    assert tool_schemas([tool]) == [
        {"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": schema}}
    ]
