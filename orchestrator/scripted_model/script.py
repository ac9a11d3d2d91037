"""What a scripted model says: conversations, their turns, and what goes wrong in them."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from expert_runner.contract.model import Model
from orchestrator.scripted_model.templates import check_placeholders

ANY_EXPERT = "*"
"""A conversation's `expert` that matches every Expert, and requests that name none."""

Text = Annotated[str, AfterValidator(check_placeholders)]
"""Text in which `{{query}}`, `{{turn}}`, `{{result.N}}` and `{{turn.T.result.N}}` are filled in."""


def _check_arguments(value: object) -> object:
    if isinstance(value, str):
        return check_placeholders(value)
    if not isinstance(value, dict):
        raise ValueError("expected a table, or a string that is sent as it is")
    try:
        check_placeholders(json.dumps(value, ensure_ascii=False))
    except TypeError as error:
        raise ValueError(f"expected values that JSON has ({error})") from None
    return value


def _check_not_empty(value: tuple[Model, ...]) -> tuple[Model, ...]:
    # Not a `min_length`: pydantic leaves broken items out before it counts, and would complain about both.
    if not value:
        raise ValueError("expected at least one")
    return value


Arguments = Annotated[dict[str, Any] | str, PlainValidator(_check_arguments)]


class ScriptedCall(Model):
    """A tool call. `arguments` is a table, or a string that is sent as it is (for arguments that are not JSON)."""

    name: str = Field(min_length=1)
    arguments: Arguments = Field(default_factory=dict)


class TokenCounts(Model):
    """The usage that an answer reports. What is left out is counted from the sizes, the same each time."""

    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int | None = Field(default=None, ge=0)
    cached_tokens: int | None = Field(default=None, ge=0)


class _Fault(Model):
    """`times` attempts at the turn meet it; without `times`, all do."""

    times: int | None = Field(default=None, ge=1)


class StatusFault(_Fault):
    """An HTTP error instead of an answer. `retry_after` is in seconds."""

    kind: Literal["status"] = "status"
    status: int = Field(ge=400, le=599)
    message: str | None = None
    retry_after: float | None = Field(default=None, ge=0)


class CutOffFault(_Fault):
    """The answer ends half-way through its last part, with finish reason `length`."""

    kind: Literal["cutOff"] = "cutOff"


class EmptyFault(_Fault):
    """A complete answer with neither text nor calls."""

    kind: Literal["empty"] = "empty"


class HangFault(_Fault):
    """Headers, then silence until the client goes away or the server closes."""

    kind: Literal["hang"] = "hang"


class DisconnectFault(_Fault):
    """Half of the answer, then the connection closes."""

    kind: Literal["disconnect"] = "disconnect"


Fault = Annotated[StatusFault | CutOffFault | EmptyFault | HangFault | DisconnectFault, Field(discriminator="kind")]


class Turn(Model):
    """One answer of the model.

    `faults` are met one after the other by the attempts at this turn, before the answer is given. `delay_ms` passes
    before the first byte, `chunk_delay_ms` between chunks; `chunk_size` is the characters in a streamed delta. With
    `repeat` the turn stands for that many turns in a row.
    """

    reasoning: Text | None = None
    text: Text | None = None
    tool_calls: tuple[ScriptedCall, ...] = ()
    usage: TokenCounts = TokenCounts()
    faults: tuple[Fault, ...] = ()
    repeat: int = Field(default=1, ge=1)
    delay_ms: float = Field(default=0, ge=0)
    chunk_delay_ms: float = Field(default=0, ge=0)
    chunk_size: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _has_an_outcome(self) -> Self:
        if any(fault.times is None for fault in self.faults[:-1]):
            raise ValueError("only the last of `faults` can be without `times`: it hides those after it")
        always_fails = bool(self.faults) and self.faults[-1].times is None
        if not (self.reasoning or self.text or self.tool_calls or always_fails):
            raise ValueError("expected `text`, `toolCalls` or `reasoning`, or a fault without `times`")
        return self

    def fault_at(self, attempt: int) -> Fault | None:
        """What goes wrong with `attempt` (from 0) at this turn."""
        for fault in self.faults:
            if fault.times is None or attempt < fault.times:
                return fault
            attempt -= fault.times
        return None


class Conversation(Model):
    """The turns for one Expert, or for any (`*`); with `when`, only where the first user message contains it."""

    expert: str = Field(min_length=1)
    when: str | None = None
    turns: Annotated[tuple[Turn, ...], AfterValidator(_check_not_empty)]
    repeat_last: bool = False

    @cached_property
    def _ends(self) -> Sequence[int]:
        """For each of `turns`, the number of turns up to and including its repetitions."""
        return tuple(accumulate(turn.repeat for turn in self.turns))

    def __len__(self) -> int:
        """How many turns there are, each repetition counted."""
        return self._ends[-1]

    def turn_at(self, index: int) -> Turn | None:
        """The turn at `index` (from 0); past the end the last one if it repeats, otherwise none."""
        if index < len(self):
            return self.turns[bisect_right(self._ends, index)]
        return self.turns[-1] if self.repeat_last else None

    def matches(self, expert_key: str | None, query: str) -> bool:
        """Whether this conversation is for that Expert and that first user message."""
        return self.expert in (ANY_EXPERT, expert_key) and (self.when is None or self.when in query)


class Script(Model):
    """Everything a scripted model knows. The first conversation that matches a request answers it."""

    conversations: Annotated[tuple[Conversation, ...], AfterValidator(_check_not_empty)]
