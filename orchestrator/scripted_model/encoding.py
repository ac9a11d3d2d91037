"""Answers and errors in the format of OpenAI's chat completions."""

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.scripted_model.answer import Answer, Call

# litellm raises the same error for whatever says "invalid_request_error", so only statuses that mean that say it.
_KINDS = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("not_found_error", "model_not_found"),
    413: ("invalid_request_error", None),
    422: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


def completion(answer: Answer, *, completion_id: str, created: int, model: str) -> bytes:
    """The whole answer as one body. `created` is in Unix seconds."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(call, call.arguments) for call in answer.calls]
    return json.dumps(
        {
            "id": completion_id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
            "usage": _usage(answer),
        }
    ).encode()


def chunks(
    answer: Answer, *, completion_id: str, created: int, model: str, chunk_size: int, include_usage: bool
) -> Iterator[bytes]:
    """The answer as server-sent events, `chunk_size` characters a delta, one event an item."""
    head = json.dumps({"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model})[:-1]
    for delta in _deltas(answer, chunk_size):
        yield _event(f'{head}, "choices": [{{"index": 0, "delta": {json.dumps(delta)}, "finish_reason": null}}]}}')
    yield _event(f'{head}, "choices": [{{"index": 0, "delta": {{}}, "finish_reason": "{answer.finish_reason}"}}]}}')
    if include_usage:
        yield _event(f'{head}, "choices": [], "usage": {json.dumps(_usage(answer))}}}')
    yield _event("[DONE]")


def error(status: int, message: str) -> bytes:
    """The body of an error with that HTTP status."""
    kind, code = _KINDS.get(status, ("server_error" if status >= 500 else "api_error", None))
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _deltas(answer: Answer, chunk_size: int) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if answer.calls else ""}
    for piece in _pieces(answer.reasoning, chunk_size):
        yield {"reasoning_content": piece}
    for piece in _pieces(answer.text, chunk_size):
        yield {"content": piece}
    for index, call in enumerate(answer.calls):
        yield {"tool_calls": [{"index": index, **_call(call, "")}]}
        for piece in _pieces(call.arguments, chunk_size):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def _call(call: Call, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
