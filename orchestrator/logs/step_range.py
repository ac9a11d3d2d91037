"""Ranges of steps, as the command line writes them: `5`, `>5`, `>=5`, `<5`, `<=5`, `1-10`."""

import re
from typing import NamedTuple

from orchestrator.errors import ConfigError

# Bounded: a longer number is a mistake, and Python refuses to read a very long one.
_RANGE = re.compile(
    r"\s*(?:(?P<sign><=|>=|<|>|)\s*(?P<bound>\d{1,9})|(?P<first>\d{1,9})\s*-\s*(?P<last>\d{1,9}))\s*", re.ASCII
)


class StepRange(NamedTuple):
    """Steps of each Run from `first` to `last`, both included; None: to its end."""

    first: int
    last: int | None

    def __contains__(self, step: object) -> bool:
        return isinstance(step, int) and step >= self.first and (self.last is None or step <= self.last)


def parse_steps(text: str) -> StepRange:
    """
    Raises:
        ConfigError: it is no range, or an empty one.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"--step {text!r}: write 5, >5, >=5, <5, <=5 or 1-10")
    steps = _between(match) if match["bound"] is None else _compared(match["sign"], int(match["bound"]))
    if steps.last is not None and steps.last < max(steps.first, 1):
        raise ConfigError(f"--step {text!r} holds no step: they count from 1 in each Run, and a range goes upwards")
    return steps


def _between(match: re.Match[str]) -> StepRange:
    return StepRange(int(match["first"]), int(match["last"]))


def _compared(sign: str, bound: int) -> StepRange:
    match sign:
        case ">":
            return StepRange(bound + 1, None)
        case ">=":
            return StepRange(bound, None)
        case "<":
            return StepRange(1, bound - 1)
        case "<=":
            return StepRange(1, bound)
        case _:
            return StepRange(bound, bound)
