"""A reasoning budget in the terms of each provider."""

from collections.abc import Callable
from typing import Any, Literal

Effort = Literal["none", "minimal", "low", "medium", "high"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high")

MIN_BUDGET_TOKENS = 1_024
"""The smallest thinking budget that providers with budgets accept."""

_EFFORT_UP_TO: tuple[tuple[int, Effort], ...] = ((0, "none"), (1_023, "minimal"), (4_095, "low"), (16_383, "medium"))


def parse_budget(value: str | int | None) -> Effort | int | None:
    """A budget as it is configured: an effort, or a number of tokens (as text too).

    Raises:
        ValueError: it is neither.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    for effort in EFFORTS:
        if value == effort:
            return effort
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise ValueError(f"reasoningBudget is one of {', '.join(EFFORTS)} or a number of tokens, not {value!r}")


def reasoning_options(
    provider: str, budget: Effort | int | None, takes: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """What to pass to litellm for `budget`: of the ways to say it, the first that the model `takes`.

    A model without reasoning gets nothing: the budget is a wish, and the same Expert runs on any model.
    """
    return next((options for options in _ways(provider, budget) if takes(options)), {})


def _ways(provider: str, budget: Effort | int | None) -> list[dict[str, Any]]:
    thinks_only_if_asked = provider in ("anthropic", "amazon-bedrock")
    if budget is None or (budget in (0, "none") and thinks_only_if_asked):
        return []
    ways: list[dict[str, Any]] = []
    if isinstance(budget, int):
        if budget and provider != "deepseek":  # which can be told to think, but not how much
            ways.append({"thinking": {"type": "enabled", "budget_tokens": max(budget, MIN_BUDGET_TOKENS)}})
        budget = _effort(budget)
    # Not every model has the lowest efforts; the next one up is the nearest.
    nearest = EFFORTS[EFFORTS.index("low" if budget == "minimal" and thinks_only_if_asked else budget) :]
    return ways + [{"reasoning_effort": effort} for effort in nearest]


def _effort(tokens: int) -> Effort:
    return next((effort for limit, effort in _EFFORT_UP_TO if tokens <= limit), "high")
