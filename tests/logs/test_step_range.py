"""Ranges of steps as the command line writes them."""

import pytest

from orchestrator.errors import ConfigError
from orchestrator.logs.step_range import parse_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5", [5]),
        (" 5 ", [5]),
        (">5", [6, 7, 8, 9]),
        ("> 5", [6, 7, 8, 9]),
        (">=5", [5, 6, 7, 8, 9]),
        ("<5", [1, 2, 3, 4]),
        ("<=5", [1, 2, 3, 4, 5]),
        ("2-4", [2, 3, 4]),
        ("2 - 4", [2, 3, 4]),
        ("3-3", [3]),
        ("0-2", [1, 2]),
        (">0", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("<=1", [1]),
        ("999999999", []),
    ],
)
def test_a_range_holds_its_steps(text: str, steps: list[int]) -> None:
    parsed = parse_steps(text)
    assert [step for step in range(1, 10) if step in parsed] == steps


@pytest.mark.parametrize(
    "text", ["", "x", "-", "5-", "-5", "1-2-3", ">", "=5", "==5", ">=", "5>", "1,2", "1.5", "\u0665", "9" * 10]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write 5, >5, >=5, <5, <=5 or 1-10"):
        parse_steps(text)


@pytest.mark.parametrize("text", ["0", "<1", "<=0", "<0", "10-1", "0-0"])
def test_a_range_that_holds_no_step_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="holds no step"):
        parse_steps(text)


def test_what_has_no_step_is_in_no_range() -> None:
    assert None not in parse_steps(">0")
