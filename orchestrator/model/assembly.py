"""An answer, put together from the chunks of a stream. Nothing in a chunk is taken for granted."""

import json
import secrets
from collections.abc import Callable, Collection
from typing import Any

from expert_runner.contract.messages import ThinkingPart
from expert_runner.contract.tools import MAX_TOOL_CALLS
from expert_runner.contract.usage import Usage
from orchestrator.model import signatures
from orchestrator.model.generation import Delta, RawCall

MAX_TEXT = 4 * 1024 * 1024
"""Characters of text, and as many of reasoning, in one answer."""

MAX_ARGUMENTS = 1024 * 1024
"""Characters of one call's arguments."""

MAX_ID = 256
"""Characters of a call's id; a longer one is replaced."""

_SIGNATURE_IN_ID = "__thought__"
"""litellm appends Google's signature of a call to its id, behind this."""


class AnswerTooLargeError(Exception):
    """The answer breaks a limit."""


class _Call:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.signature = ""
        self.pieces: list[str] = []
        self.size = 0


class Assembly:
    """Takes a stream's chunks one by one.

    Args:
        on_delta: told of every piece of text and reasoning, in order.
    """

    def __init__(self, on_delta: Callable[[Delta], None]) -> None:
        self._on_delta = on_delta
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._sizes = {"text": 0, "reasoning": 0}
        self._thoughts: list[ThinkingPart] = []
        self._thought: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def take(self, chunk: Any) -> None:
        """Add one chunk.

        Raises:
            AnswerTooLargeError: a limit is broken.
        """
        for choice in getattr(chunk, "choices", None) or ():
            if getattr(choice, "index", 0) or (delta := getattr(choice, "delta", None)) is None:
                continue
            self._take_piece("reasoning", self._reasoning, getattr(delta, "reasoning_content", None))
            for block in getattr(delta, "thinking_blocks", None) or ():
                self._take_thought(block)
            self._take_piece("text", self._text, getattr(delta, "content", None))
            for fragment in getattr(delta, "tool_calls", None) or ():
                self._take_call(fragment)

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def thinking(self) -> tuple[ThinkingPart, ...]:
        """The reasoning: signed blocks where the provider signs, else one unsigned part; and the calls' signatures."""
        thoughts = list(self._thoughts)
        unsigned = "".join(self._thought) if thoughts or self._thought else "".join(self._reasoning)
        if unsigned:
            thoughts.append(ThinkingPart(thinking=unsigned))
        thoughts += [signatures.of_call(call.id, call.signature) for call in self._calls if call.signature]
        return tuple(thoughts)

    @property
    def calls(self) -> tuple[RawCall, ...]:
        return tuple(RawCall(call.id, call.name or "unnamed", "".join(call.pieces)) for call in self._calls)

    def finish(self, taken: Collection[str] = ()) -> None:
        """No more chunks: give every call an id of its own, which is not among those `taken` by earlier answers: some
        providers begin to count again in each.
        """
        seen = set(taken)
        for call in self._calls:
            call.id, _, in_id = call.id.partition(_SIGNATURE_IN_ID)
            call.signature = call.signature or in_id
            if not call.id or len(call.id) > MAX_ID or call.id in seen:
                call.id = f"call_{secrets.token_hex(8)}"
            seen.add(call.id)

    def _take_piece(self, kind: str, pieces: list[str], piece: Any) -> None:
        if not isinstance(piece, str) or not piece:
            return
        self._sizes[kind] += len(piece)
        if self._sizes[kind] > MAX_TEXT:
            raise AnswerTooLargeError(f"more than {MAX_TEXT} characters of {kind}")
        pieces.append(piece)
        self._on_delta(Delta("reasoning" if kind == "reasoning" else "text", piece))

    def _take_thought(self, block: Any) -> None:
        """A piece of a thinking block; its signature ends it."""
        data = _string(block, "data")
        if data:
            self._thoughts.append(signatures.redacted(data))
            return
        self._thought.append(_string(block, "thinking"))
        signature = _string(block, "signature")
        if signature:
            self._thoughts.append(ThinkingPart(thinking="".join(self._thought), signature=signature))
            self._thought = []

    def _take_call(self, fragment: Any) -> None:
        """A piece of a call. Pieces belong together by their index; some providers give all calls the same, or none."""
        index, call_id = get_field(fragment, "index"), _string(fragment, "id")
        call = self._by_index.get(index) if isinstance(index, int) else (self._calls[-1] if self._calls else None)
        if call is None or (call_id and call.id and call_id != call.id):
            if len(self._calls) >= MAX_TOOL_CALLS:
                raise AnswerTooLargeError(f"more than {MAX_TOOL_CALLS} tool calls")
            call = _Call()
            self._calls.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
        call.id = call.id or call_id
        function = get_field(fragment, "function")
        call.name = call.name or _string(function, "name")
        arguments = get_field(function, "arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        if isinstance(arguments, str):
            call.pieces.append(arguments)
            call.size += len(arguments)
            if call.size > MAX_ARGUMENTS:
                raise AnswerTooLargeError(f"a call with more than {MAX_ARGUMENTS} characters of arguments")
        for holder in (fragment, function):
            call.signature = call.signature or _string(
                get_field(holder, "provider_specific_fields"), "thought_signature"
            )


def merge_usage(known: Usage, reported: Any) -> Usage:
    """`known` with what a chunk reports. Some providers report in parts, so what is known is never lowered."""
    prompt, completion = get_field(reported, "prompt_tokens_details"), get_field(reported, "completion_tokens_details")
    input_tokens = max(known.input_tokens, _count(reported, "prompt_tokens"))
    output_tokens = max(known.output_tokens, _count(reported, "completion_tokens"))
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=max(known.reasoning_tokens, _count(completion, "reasoning_tokens")),
        total_tokens=max(known.total_tokens, _count(reported, "total_tokens"), input_tokens + output_tokens),
        cached_input_tokens=max(known.cached_input_tokens, _count(prompt, "cached_tokens")),
    )


def _count(holder: Any, name: str) -> int:
    value = get_field(holder, name)
    return value if isinstance(value, int) and value > 0 else 0


def _string(holder: Any, name: str) -> str:
    value = get_field(holder, name)
    return value if isinstance(value, str) else ""


def get_field(holder: Any, name: str) -> Any:
    """A field of what may be a dict, an object or nothing at all."""
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
