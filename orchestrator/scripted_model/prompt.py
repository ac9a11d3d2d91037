"""A chat completion request, as far as a scripted model looks at it."""

import json
import re
from dataclasses import dataclass
from typing import Any

from expert_runner.contract.tools import EFFECTS_UNKNOWN

_EXPERT_KEY = re.compile(r'^Your Expert key is "(.+)"\.$', re.MULTILINE)
"""The line of the system message that says which Expert asks."""


class RequestRefusedError(Exception):
    """The request cannot be answered, and asking again does not help: HTTP 400 with this message."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request that an OpenAI-compatible provider would accept.

    `answers` holds the positions of the assistant messages in `messages`, without those of turns that have to be given
    again: the effects of a call of theirs are unknown, and a careful model looks and repeats it. `size` is the size of
    the body in bytes.
    """

    model: str
    messages: list[dict[str, Any]]
    expert_key: str | None
    query: str
    answers: list[int]
    size: int
    stream: bool
    include_usage: bool

    @property
    def turn(self) -> int:
        """The index of the turn that is asked for. It is all in the request, so it survives restarts of either side."""
        return len(self.answers)

    @property
    def settled(self) -> list[dict[str, Any]]:
        """The messages that are the same in each attempt at this turn: up to the last answer, or to the query."""
        if self.answers:
            return self.messages[: self.answers[-1] + 1]
        query = next((at for at, message in enumerate(self.messages) if message["role"] == "user"), -1)
        return self.messages[: query + 1]

    def results_of(self, turn: int) -> list[str]:
        """The texts of the tool results that follow the answer given in `turn`."""
        if not 0 <= turn < len(self.answers):
            return []
        start = self.answers[turn]
        end = self.answers[turn + 1] if turn + 1 < len(self.answers) else len(self.messages)
        return [_text(message.get("content")) for message in self.messages[start:end] if message["role"] == "tool"]


def read_prompt(body: bytes) -> Prompt:
    """Reads the body of a request. Raises RequestRefusedError where a provider would refuse it."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise RequestRefusedError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestRefusedError("the body is not a JSON object")
    model, messages = request.get("model"), request.get("messages")
    if not isinstance(model, str) or not model:
        raise RequestRefusedError("'model' is missing")
    if not isinstance(messages, list) or not messages:
        raise RequestRefusedError("'messages' is missing or empty")
    options = request.get("stream_options")
    expert_key = query = None
    answers: list[int] = []
    uncertain: set[int] = set()
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "assistant":
            answers.append(at)
        elif role == "user":
            query = _text(message.get("content")) if query is None else query
        elif role in ("system", "developer"):
            found = _EXPERT_KEY.search(_text(message.get("content"))) if expert_key is None else None
            expert_key = found[1] if found else expert_key
        elif role != "tool":
            raise RequestRefusedError(f"messages[{at}] has no known 'role'")
        elif answers and EFFECTS_UNKNOWN in _text(message.get("content")):
            uncertain.add(answers[-1])
    _check_results(messages)
    return Prompt(
        model=model,
        messages=messages,
        expert_key=expert_key,
        query=query or "",
        answers=[at for at in answers if at not in uncertain],
        size=len(body),
        stream=request.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Each call has its result right after it, and each result its call: providers refuse anything else."""
    waiting: set[str] = set()
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            call = str(message.get("tool_call_id"))
            if call not in waiting:
                raise RequestRefusedError(f"messages[{at}] is the result of {call!r}, which no answer before it called")
            waiting.remove(call)
            continue
        if waiting:
            break
        if message["role"] == "assistant":
            waiting = _call_ids(at, message.get("tool_calls"))
    if waiting:
        raise RequestRefusedError(f"tool calls without a result after them: {', '.join(sorted(waiting))}")


def _call_ids(at: int, calls: Any) -> set[str]:
    try:
        ids = {str(call["id"]) for call in calls or ()}
    except (TypeError, KeyError):
        raise RequestRefusedError(f"messages[{at}].tool_calls is not a list of calls with an 'id'") from None
    if len(ids) != len(calls or ()):
        raise RequestRefusedError(f"messages[{at}].tool_calls has the same 'id' twice")
    return ids


def _text(content: Any) -> str:
    """The text of a message's content, which is a string, a list of parts, or null."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""
