"""What a model answers."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from expert_runner.contract.messages import ThinkingPart
from expert_runner.contract.usage import Usage


@dataclass(frozen=True, slots=True)
class RawCall:
    """A tool call as the model wrote it: `arguments` is text that may be anything. `id` is unique."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Generation:
    """A complete answer.

    `usage` is what the provider reported; a provider that reports nothing counts as zero, it is never estimated.
    `cost` is in US dollars, None where the price is not known. `cut_off` says that the answer met its length limit.
    """

    text: str
    thinking: tuple[ThinkingPart, ...]
    calls: tuple[RawCall, ...]
    usage: Usage
    cost: float | None
    cut_off: bool


class Delta(NamedTuple):
    """A piece of an answer while it is written."""

    kind: Literal["reasoning", "text"]
    text: str
