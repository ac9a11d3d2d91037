"""What a filter is once it is parsed: conditions on an event's JSON.

A path gives the values it leads to in an event. A field that is not there is null; `[]` gives every element of a list,
and of anything else none. A comparison holds if it does for any of the values.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any


class Each(Enum):
    """`[]` in a path."""

    ELEMENT = auto()


Key = str | int | Each


@dataclass(frozen=True, slots=True)
class Path:
    """Where values are in an event."""

    keys: tuple[Key, ...]

    def values(self, event: Any) -> Iterator[Any]:
        return _values(event, self.keys)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it is written in the filter."""

    value: str | float | bool | None

    def values(self, _: Any) -> Iterator[Any]:
        yield self.value


Operand = Path | Literal


class Expression(ABC):
    """A condition on events."""

    @abstractmethod
    def matches(self, event: Any) -> bool:
        """Whether it holds for `event`, an object read from JSON."""


@dataclass(frozen=True, slots=True)
class Comparison(Expression):
    """`left operator right`; see :data:`OPERATORS`."""

    left: Operand
    operator: str
    right: Operand

    def matches(self, event: Any) -> bool:
        holds = OPERATORS[self.operator]
        return any(holds(left, right) for left in self.left.values(event) for right in self.right.values(event))


@dataclass(frozen=True, slots=True)
class Search(Expression):
    """`left =~ "pattern"`: the pattern is found in a text."""

    left: Operand
    pattern: re.Pattern[str]

    def matches(self, event: Any) -> bool:
        return any(isinstance(value, str) and self.pattern.search(value) for value in self.left.values(event))


@dataclass(frozen=True, slots=True)
class Holds(Expression):
    """A path or a literal alone: a value is neither null nor false."""

    operand: Operand

    def matches(self, event: Any) -> bool:
        return any(value is not None and value is not False for value in self.operand.values(event))


@dataclass(frozen=True, slots=True)
class Not(Expression):
    part: Expression

    def matches(self, event: Any) -> bool:
        return not self.part.matches(event)


@dataclass(frozen=True, slots=True)
class AllOf(Expression):
    parts: tuple[Expression, ...]

    def matches(self, event: Any) -> bool:
        return all(part.matches(event) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf(Expression):
    parts: tuple[Expression, ...]

    def matches(self, event: Any) -> bool:
        return any(part.matches(event) for part in self.parts)


def _values(value: Any, keys: tuple[Key, ...]) -> Iterator[Any]:
    for position, key in enumerate(keys):
        if key is Each.ELEMENT:
            for element in value if isinstance(value, list) else ():
                yield from _values(element, keys[position + 1 :])
            return
        value = _at(value, key)
    yield value


def _at(value: Any, key: str | int) -> Any:
    if isinstance(key, str):
        return value.get(key) if isinstance(value, dict) else None
    is_there = isinstance(value, list) and -len(value) <= key < len(value)
    return value[key] if is_there else None


def _equal(left: Any, right: Any) -> bool:
    # To Python true is 1; to JSON it is not.
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Numbers have an order and texts have one; between anything else no comparison holds."""

    def holds(left: Any, right: Any) -> bool:
        return any(_is(left, kind) and _is(right, kind) for kind in ((int, float), str)) and compare(left, right)

    return holds


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "contains": lambda left, right: isinstance(left, str) and isinstance(right, str) and right in left,
}
"""What compares two values; `=~`, whose right side is a pattern, is :class:`Search`."""
