"""What a benchmark finds, and how it is shown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["ms", "s", "MB", "x", "/s"]

_LAYOUT = "{:<56} {:>10} {:>10} {:>8} {:>9}  {}"

HEADER = _LAYOUT.format("", "measured", "floor", "ratio", "limit", "").rstrip()


class BenchmarkError(Exception):
    """A benchmark could not be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        value: what was measured, in `unit`.
        floor: what the unavoidable part takes by itself, measured in the same run; None: there is no such thing.
        limit: what `value` may be at most.
        limit_ratio: what `value` may be at most, in floors.
        least: what `value` has to be at least. Without any of these limits the figure is for information.
    """

    name: str
    value: float
    unit: Unit
    floor: float | None = None
    limit: float | None = None
    limit_ratio: float | None = None
    least: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.floor if self.floor else None

    @property
    def verdict(self) -> Literal["ok", "over", "under", ""]:
        if self.least is not None:
            return "ok" if self.value >= self.least else "under"
        if self.limit is not None:
            return "ok" if self.value <= self.limit else "over"
        if self.limit_ratio is not None and self.ratio is not None:
            return "ok" if self.ratio <= self.limit_ratio else "over"
        return ""

    def line(self) -> str:
        cells = (
            _amount(self.value, self.unit),
            _amount(self.floor, self.unit),
            _amount(self.ratio, "x"),
            self._limit(),
        )
        return _LAYOUT.format(f"  {self.name}", *cells, self.verdict).rstrip()

    def _limit(self) -> str:
        if self.least is not None:
            return f"≥ {_amount(self.least, self.unit)}"
        return _amount(self.limit, self.unit) if self.limit_ratio is None else _amount(self.limit_ratio, "x")


def _amount(value: float | None, unit: Unit) -> str:
    if value is None:
        return ""
    if unit == "x":
        return f"{value:.2f}x"
    return f"{value:.0f} {unit}" if unit == "/s" or (unit == "ms" and value >= 100) else f"{value:.2f} {unit}"


median = statistics.median


def p10(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=10)[0]


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]
