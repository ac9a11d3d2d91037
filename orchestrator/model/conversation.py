"""A Run's messages as models are sent them: OpenAI's chat messages, which litellm turns into each provider's own."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any

from expert_runner.contract.messages import (
    ExpertMessage,
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    MediaPart,
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

Chat = dict[str, Any]

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


class Extra(StrEnum):
    """Fields of an answer that are not OpenAI's: some providers need one back, others refuse a request that has it."""

    THINKING_BLOCKS = "thinking_blocks"
    CALL_SIGNATURES = "provider_specific_fields"
    REASONING = "reasoning_content"


_EXTRAS = frozenset(Extra)


class Conversation:
    """The messages of one Run, each converted once, when it is added."""

    def __init__(self) -> None:
        self.call_ids: set[str] = set()
        """Of all calls in the messages."""
        self._messages: list[Chat] = []
        self._encoded = bytearray()
        self._encoded_count = 0
        self._encoded_extras: Collection[Extra] = ()

    def extend(self, messages: Iterable[Message]) -> None:
        """Add `messages`, in order."""
        for message in messages:
            self._messages += _convert(message)
            if isinstance(message, ExpertMessage):
                self.call_ids |= {part.tool_call_id for part in message.contents if isinstance(part, ToolCallPart)}

    def messages(self, extras: Collection[Extra]) -> list[Chat]:
        """All messages with those `extras`, as copies: litellm changes what it is given."""
        return [_with(message, extras) for message in self._messages]

    def encoded(self, extras: Collection[Extra]) -> bytes:
        """As :meth:`messages`, as a JSON array. Each is encoded once: a long history costs no more than a copy."""
        if extras != self._encoded_extras:
            self._encoded, self._encoded_count, self._encoded_extras = bytearray(), 0, extras
        for message in self._messages[self._encoded_count :]:
            self._encoded += b"," if self._encoded else b"["
            self._encoded += json.dumps(_with(message, extras), separators=(",", ":")).encode()
        self._encoded_count = len(self._messages)
        return bytes(self._encoded or b"[") + b"]"


def _with(message: Chat, extras: Collection[Extra]) -> Chat:
    chat = {name: value for name, value in message.items() if name not in _EXTRAS or name in extras}
    if "tool_calls" in chat and Extra.CALL_SIGNATURES not in extras:
        chat["tool_calls"] = [
            {name: value for name, value in call.items() if name not in _EXTRAS} for call in chat["tool_calls"]
        ]
    return chat


def tool_schemas(tools: Sequence[ToolDefinition]) -> list[dict[str, Any]]:
    """`tools` as they are offered to a model."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
        }
        for tool in tools
    ]


def _convert(message: Message) -> list[Chat]:
    match message:
        case InstructionMessage():
            return [{"role": "system", "content": "\n\n".join(part.text for part in message.contents)}]
        case UserMessage():
            return [{"role": "user", "content": _user_content(message.contents)}]
        case ExpertMessage():
            return [_answer(message)]
        case ToolMessage():
            return _results(message)


def _user_content(parts: Sequence[TextPart | MediaPart]) -> str | list[Chat]:
    if all(isinstance(part, TextPart) for part in parts):
        return "\n\n".join(part.text for part in parts if isinstance(part, TextPart))
    return [_text(part.text) if isinstance(part, TextPart) else _media(part) for part in parts]


def _answer(message: ExpertMessage) -> Chat:
    calls = [part for part in message.contents if isinstance(part, ToolCallPart)]
    thoughts = [part for part in message.contents if isinstance(part, ThinkingPart)]
    # Providers refuse an answer without any content, which a model may give nevertheless.
    chat: Chat = {"role": "assistant", "content": message.text or (None if calls else "(no answer)")}
    of_calls = signatures.of_calls(thoughts)
    if calls:
        chat["tool_calls"] = [_call(call, of_calls.get(call.tool_call_id)) for call in calls]
    blocks = signatures.thinking_blocks(thoughts)
    if blocks:
        chat[Extra.THINKING_BLOCKS.value] = blocks
    reasoning = "".join(part.thinking for part in thoughts if part.signature is None)
    if reasoning:
        # Models that disclose their reasoning without a proof want it back as text between tool calls.
        chat[Extra.REASONING.value] = reasoning
    return chat


def _call(part: ToolCallPart, signature: str | None) -> Chat:
    # What the model wrote may be anything; what providers are told it wrote has to be valid.
    args = part.args if part.args is not None else {"_invalid": part.invalid_args or ""}
    name = _NOT_IN_NAMES.sub("_", part.tool_name)[:64] or "unnamed"
    chat: Chat = {
        "id": part.tool_call_id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(args)},
    }
    if signature is not None:
        chat[Extra.CALL_SIGNATURES.value] = {"thought_signature": signature}
    return chat


def _results(message: ToolMessage) -> list[Chat]:
    """One message per result. Images and files follow as the user's: most providers take text alone in results."""
    chats: list[Chat] = []
    media: list[Chat] = []
    for result in message.contents:
        chats.append({"role": "tool", "tool_call_id": result.tool_call_id, "content": _result_text(result)})
        attached = [_media(part) for part in result.contents if not isinstance(part, TextPart)]
        if attached:
            media += [_text(f"Attached to the result of {result.tool_name} ({result.tool_call_id}):"), *attached]
    return [*chats, {"role": "user", "content": media}] if media else chats


def _result_text(result: ToolResultPart) -> str:
    text = "\n".join(
        part.text if isinstance(part, TextPart) else f"({part.mime_type}, attached below)" for part in result.contents
    )
    # Only some providers have a flag for it.
    return f"Error: {text}" if result.is_error else text


def _text(text: str) -> Chat:
    return {"type": "text", "text": text}


def _media(part: MediaPart) -> Chat:
    match part:
        case ImageUrlPart():
            return {"type": "image_url", "image_url": {"url": part.url}}
        case ImageInlinePart():
            return {"type": "image_url", "image_url": {"url": _data_url(part.mime_type, part.encoded_data)}}
        case ImageBinaryPart():
            return {"type": "image_url", "image_url": {"url": _data_url(part.mime_type, part.data)}}
        case FileUrlPart():
            return {"type": "file", "file": {"file_id": part.url, "format": part.mime_type}}
        case FileInlinePart():
            return _file(part.mime_type, part.encoded_data)
        case FileBinaryPart():
            return _file(part.mime_type, part.data)


def _file(mime_type: str, data: str) -> Chat:
    name = f"file.{mime_type.rpartition('/')[2] or 'bin'}"
    return {"type": "file", "file": {"filename": name, "file_data": _data_url(mime_type, data)}}


def _data_url(mime_type: str, data: str) -> str:
    return f"data:{mime_type};base64,{data}"
