"""Proofs of reasoning: what providers want back unchanged with the next request, kept as thinking parts.

A thinking part has a text and a signature. Two of the things providers sign are no thinking text, and are told apart by
how the signature begins: Anthropic's encrypted blocks, and Google's signatures of single tool calls.
"""

from collections.abc import Iterable
from typing import Any

from expert_runner.contract.messages import ThinkingPart

_REDACTED = "redacted:"
_CALL = "call:"


def redacted(data: str) -> ThinkingPart:
    """Reasoning that only the provider can read."""
    return ThinkingPart(thinking="", signature=_REDACTED + data)


def of_call(call_id: str, signature: str) -> ThinkingPart:
    """The signature of one tool call."""
    return ThinkingPart(thinking="", signature=f"{_CALL}{call_id}:{signature}")


def of_calls(parts: Iterable[ThinkingPart]) -> dict[str, str]:
    """The signatures of tool calls in `parts`, by the call's id."""
    found = {}
    for part in parts:
        if part.signature is not None and part.signature.startswith(_CALL):
            # A signature is base64 and has no colon; an id may have.
            call_id, _, signature = part.signature.removeprefix(_CALL).rpartition(":")
            found[call_id] = signature
    return found


def thinking_blocks(parts: Iterable[ThinkingPart]) -> list[dict[str, Any]]:
    """The signed reasoning in `parts` as litellm takes it back."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if part.signature is None or part.signature.startswith(_CALL):
            continue
        if part.signature.startswith(_REDACTED):
            blocks.append({"type": "redacted_thinking", "data": part.signature.removeprefix(_REDACTED)})
        else:
            blocks.append({"type": "thinking", "thinking": part.thinking, "signature": part.signature})
    return blocks
