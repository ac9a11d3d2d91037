"""What can be asked of the log, and what not at once."""

from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.logs.filter import parse_filter
from orchestrator.logs.question import Question
from orchestrator.logs.selection import Selection
from orchestrator.logs.step_range import parse_steps

TYPE = Selection(types=frozenset({"retry"}))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"checkpoint_id": "c", "take": 1}, "--checkpoint shows one checkpoint: leave --take out"),
        ({"checkpoint_id": "c", "summary": True}, "--checkpoint shows one checkpoint: leave --summary out"),
        ({"checkpoint_id": "c", "selection": TYPE}, "--checkpoint shows one checkpoint: leave --type out"),
        ({"checkpoint_id": "c", "selection": Selection(steps=parse_steps("1"))}, "leave --step out"),
        ({"messages": True, "context": 0}, "--messages shows conversations, not events: leave --context out"),
        ({"messages": True, "summary": True}, "leave --summary out"),
        ({"messages": True, "selection": Selection(errors=True)}, "leave --errors out"),
        ({"messages": True, "selection": Selection(tools=True)}, "leave --tools out"),
        ({"messages": True, "selection": Selection(delegations=True)}, "leave --delegations out"),
        ({"messages": True, "selection": Selection(expression=parse_filter(".a"))}, "leave --filter out"),
        ({"summary": True, "take": 0}, "--summary counts everything: leave --take out"),
        ({"summary": True, "offset": 1}, "leave --offset out"),
    ],
)
def test_what_excludes_each_other_is_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Question(**asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"checkpoint_id": "c", "messages": True, "selection": Selection(run_id="r"), "as_json": True},
        {"messages": True, "take": 1, "offset": 1, "selection": Selection(run_id="r", steps=parse_steps("1"))},
        {"summary": True, "selection": TYPE, "is_verbose": True},
        {"take": 1, "offset": 1, "context": 1, "selection": TYPE},
    ],
)
def test_what_goes_together_is_taken(asked: dict[str, Any]) -> None:
    Question(**asked)


def test_a_summary_is_shown_unless_events_are_asked_for() -> None:
    for summarised in ({}, {"job_id": "j"}, {"as_json": True}, {"summary": True, "selection": TYPE}):
        assert Question(**summarised).wants_summary
    for events in ({"selection": TYPE}, {"take": 0}, {"offset": 0}, {"context": 0}, {"is_verbose": True}):
        assert not Question(**events).wants_summary
