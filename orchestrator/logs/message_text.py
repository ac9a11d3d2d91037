"""Messages and checkpoints as lines for people."""

import json
from collections.abc import Iterator

from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.messages import (
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from expert_runner.contract.tools import ToolCall
from orchestrator.logs.conversation import Said
from orchestrator.logs.text import lines_of, moment, safe

_INDENT = "  "
_SPEAKERS = {
    "instructionMessage": "instruction",
    "userMessage": "user",
    "toolMessage": "tools",
}

Part = (
    TextPart
    | ThinkingPart
    | ToolCallPart
    | ToolResultPart
    | ImageUrlPart
    | ImageInlinePart
    | ImageBinaryPart
    | FileUrlPart
    | FileInlinePart
    | FileBinaryPart
)


def said_lines(said: Said) -> Iterator[str]:
    """A message of a conversation: who speaks to or as which Expert, when, and every word."""
    step = f"step {said.step_number}" if said.step_number is not None else "before the branch"
    when = f", {moment(said.timestamp)}" if said.timestamp is not None else ""
    yield from message_lines(said.message, said.expert_key, f"{step}{when}")


def message_lines(message: Message, expert_key: str, note: str = "") -> Iterator[str]:
    """A message of an Expert's conversation, whole, with an empty line after it."""
    speaker = _SPEAKERS.get(message.type, expert_key)
    yield safe(f"── {speaker} ({', '.join(filter(None, (message.id, note)))})")
    for part in message.contents:
        for line in _part_text(part):
            yield f"{_INDENT}{line}"
    yield ""


def checkpoint_lines(checkpoint: Checkpoint) -> Iterator[str]:
    """A checkpoint whole: where the Run stands, and its conversation."""
    yield safe(f"Checkpoint {checkpoint.id} of Run {checkpoint.run_id}, Job {checkpoint.job_id}")
    for label, text in _fields(checkpoint):
        first, *others = lines_of(text)
        yield f"{_INDENT}{label:<16}{first}"
        for line in others:
            yield f"{_INDENT}{'':<16}{line}"
    yield ""
    for message in checkpoint.messages:
        yield from message_lines(message, checkpoint.expert.key)


def _fields(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    yield "expert", f"{checkpoint.expert.key} {checkpoint.expert.version}"
    state = "" if checkpoint.state.is_end else f" ({checkpoint.state})"
    yield "status", f"{checkpoint.status}{state}, step {checkpoint.step_number}"
    usage = checkpoint.usage
    yield "tokens", f"{usage.total_tokens:,}: {usage.input_tokens:,} in, {usage.output_tokens:,} out"
    if checkpoint.context_window is not None:
        used = f"{checkpoint.context_window_usage:.1%} of " if checkpoint.context_window_usage is not None else ""
        yield "context window", f"{used}{checkpoint.context_window:,} tokens"
    if checkpoint.delegated_by is not None:
        yield "called by", f"{checkpoint.delegated_by.expert.key} (Run {checkpoint.delegated_by.run_id})"
    for target in checkpoint.delegate_to or ():
        yield "waits for", f"{target.expert_key} (Run {target.run_id})"
    for call in checkpoint.pending_tool_calls or ():
        yield "pending call", _call(call)
    for result in checkpoint.partial_tool_results or ():
        yield "result so far", f"{result.tool_name} ({result.id})"
    if checkpoint.error is not None:
        yield "error", f"{checkpoint.error.name}: {checkpoint.error.message}"
    for todo in checkpoint.todos:
        yield "todo", f"[{'x' if todo.completed else ' '}] {todo.id} {todo.title}"
    if checkpoint.text is not None:
        yield "result", checkpoint.text


def _call(call: ToolCall) -> str:
    return f"{call.tool_name} ({call.id}) {_arguments(call.args, call.invalid_args)}"


def _arguments(args: dict[str, object] | None, invalid_args: str | None) -> str:
    return (invalid_args or "") if args is None else json.dumps(args, ensure_ascii=False)


def _part_text(part: Part) -> Iterator[str]:
    match part:
        case TextPart():
            yield from lines_of(part.text)
        case ThinkingPart():
            yield from (f"~ {line}" for line in lines_of(part.thinking))
        case ToolCallPart():
            yield safe(f"→ {part.tool_name} ({part.tool_call_id}) {_arguments(part.args, part.invalid_args)}")
        case ToolResultPart():
            yield safe(f"← {part.tool_name} ({part.tool_call_id}){' ERROR' if part.is_error else ''}")
            for content in part.contents:
                yield from (f"{_INDENT}{line}" for line in _part_text(content))
        case ImageUrlPart() | FileUrlPart():
            yield safe(f"[{part.mime_type} at {part.url}]")
        case ImageInlinePart() | FileInlinePart():
            yield safe(f"[{part.mime_type}, {_size(part.encoded_data)}]")
        case ImageBinaryPart() | FileBinaryPart():
            yield safe(f"[{part.mime_type}, {_size(part.data)}]")


def _size(encoded: str) -> str:
    """How large what base64 text stands for is, to within two bytes."""
    return f"{len(encoded) * 3 // 4:,} bytes"
