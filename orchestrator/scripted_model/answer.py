"""From a request to the answer that the script has for it."""

import json
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.scripted_model.prompt import Prompt, RequestRefusedError
from orchestrator.scripted_model.script import CutOffFault, EmptyFault, Fault, Script, TokenCounts, Turn
from orchestrator.scripted_model.templates import fill, fill_json

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Cue:
    """The place in the script that a request has reached: indices from 0, and the turn there."""

    conversation: int
    index: int
    turn: Turn


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of an answer; `arguments` is the text that is sent."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as they are reported; reasoning is part of completion, cached part of prompt."""

    prompt: int
    completion: int
    reasoning: int
    cached: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the model, complete."""

    reasoning: str
    text: str
    calls: tuple[Call, ...]
    finish_reason: Literal["stop", "tool_calls", "length"]
    usage: Usage


def find_cue(script: Script, prompt: Prompt) -> Cue:
    """Where in `script` the request is. Raises RequestRefusedError if no conversation matches or it is over."""
    for at, conversation in enumerate(script.conversations):
        if not conversation.matches(prompt.expert_key, prompt.query):
            continue
        turn = conversation.turn_at(prompt.turn)
        if turn is None:
            when = "" if conversation.when is None else f", when {conversation.when!r}"
            raise RequestRefusedError(
                f"conversations[{at}] (expert {conversation.expert!r}{when}) ran out: it has {len(conversation)} turns "
                f"and the request has {prompt.turn} answers already; add a turn or set repeatLast"
            )
        return Cue(at, prompt.turn, turn)
    if prompt.expert_key is None:
        raise RequestRefusedError(
            "no conversation matches: the system message names no Expert, and no conversation has the expert '*'"
        )
    raise RequestRefusedError(
        f"no conversation matches the Expert {prompt.expert_key!r} and the first user message {prompt.query[:200]!r}"
    )


def compose(cue: Cue, prompt: Prompt, fault: Fault | None) -> Answer:
    """The answer at `cue`, cut off or empty if `fault` says so.

    Ids of calls are the same each time, so that two Runs of one Expert use the same ones, as with some providers.
    Raises RequestRefusedError if the request lacks a result that the answer quotes.
    """
    turn = cue.turn
    reasoning = text = ""
    calls: tuple[Call, ...] = ()
    if not isinstance(fault, EmptyFault):
        reasoning = fill(turn.reasoning or "", prompt, cue.index)
        text = fill(turn.text or "", prompt, cue.index)
        calls = tuple(
            Call(
                id=f"call_{cue.conversation}_{cue.index}_{number}",
                name=call.name,
                arguments=fill(call.arguments, prompt, cue.index)
                if isinstance(call.arguments, str)
                else json.dumps(fill_json(call.arguments, prompt, cue.index)),
            )
            for number, call in enumerate(turn.tool_calls)
        )
    if isinstance(fault, CutOffFault):
        if calls:
            calls = (*calls[:-1], replace(calls[-1], arguments=_half(calls[-1].arguments)))
        elif text:
            text = _half(text)
        else:
            reasoning = _half(reasoning)
    return Answer(
        reasoning=reasoning,
        text=text,
        calls=calls,
        finish_reason="length" if isinstance(fault, CutOffFault) else "tool_calls" if calls else "stop",
        usage=_usage(turn.usage, prompt.size, reasoning, text, calls),
    )


def _usage(given: TokenCounts, size: int, reasoning: str, text: str, calls: tuple[Call, ...]) -> Usage:
    written = len(reasoning) + len(text) + sum(len(call.name) + len(call.arguments) for call in calls)
    return Usage(
        prompt=_tokens(size) if given.prompt_tokens is None else given.prompt_tokens,
        completion=_tokens(written) if given.completion_tokens is None else given.completion_tokens,
        reasoning=_tokens(len(reasoning)) if given.reasoning_tokens is None else given.reasoning_tokens,
        cached=given.cached_tokens or 0,
    )


def _tokens(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)


def _half(text: str) -> str:
    return text[: len(text) // 2]
