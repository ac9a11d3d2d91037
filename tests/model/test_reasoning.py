"""A reasoning budget in the terms of each provider."""

from typing import Any

import pytest

from orchestrator.model.reasoning import Effort, parse_budget, reasoning_options


def anything(options: dict[str, Any]) -> bool:
    return True


def only(*names: str, efforts: tuple[str, ...] = ()) -> Any:
    """A model that takes these options, and these efforts alone."""
    return lambda options: set(options) <= set(names) and options.get("reasoning_effort", "high") in (*efforts, "high")


@pytest.mark.parametrize(
    ("value", "parsed"), [(None, None), ("none", "none"), ("high", "high"), (0, 0), (2048, 2048), ("2048", 2048)]
)
def test_a_budget_is_an_effort_or_a_number_of_tokens(value: Any, parsed: Any) -> None:
    assert parse_budget(value) == parsed


@pytest.mark.parametrize("value", ["", "huge", "-1", -1, True, "1.5", "²"])
def test_anything_else_is_refused_with_what_is_expected(value: Any) -> None:
    with pytest.raises(ValueError, match="none, minimal, low, medium, high or a number of tokens"):
        parse_budget(value)


def test_without_a_budget_the_provider_decides() -> None:
    assert reasoning_options("openai", None, anything) == {}


@pytest.mark.parametrize("budget", [0, "none"])
def test_models_that_think_unasked_are_told_not_to(budget: Effort | int) -> None:
    assert reasoning_options("openai", budget, anything) == {"reasoning_effort": "none"}
    assert reasoning_options("anthropic", budget, anything) == {}


def test_tokens_become_a_thinking_budget_where_there_are_budgets() -> None:
    expected = {"thinking": {"type": "enabled", "budget_tokens": 5000}}
    assert reasoning_options("anthropic", 5000, anything) == expected


def test_a_budget_below_the_smallest_is_raised_to_it() -> None:
    assert reasoning_options("anthropic", 10, anything)["thinking"]["budget_tokens"] == 1024


@pytest.mark.parametrize(("tokens", "effort"), [(1, "minimal"), (1024, "low"), (4096, "medium"), (16384, "high")])
def test_tokens_become_an_effort_elsewhere(tokens: int, effort: str) -> None:
    takes = only("reasoning_effort", efforts=("minimal", "low", "medium"))
    assert reasoning_options("openai", tokens, takes) == {"reasoning_effort": effort}


def test_an_effort_that_the_model_does_not_have_becomes_the_next_one_up() -> None:
    takes = only("reasoning_effort", efforts=("low", "medium"))
    assert reasoning_options("openai", "none", takes) == {"reasoning_effort": "low"}
    assert reasoning_options("openai", "minimal", takes) == {"reasoning_effort": "low"}


def test_the_smallest_effort_of_claude_is_low() -> None:
    assert reasoning_options("anthropic", "minimal", anything) == {"reasoning_effort": "low"}


def test_a_model_without_reasoning_gets_nothing() -> None:
    assert reasoning_options("openai", "high", lambda options: False) == {}
    assert reasoning_options("google", 4096, lambda options: False) == {}
