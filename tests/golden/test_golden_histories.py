"""Histories that were recorded once still replay, and come to what they came to."""

import json
from collections import Counter
from typing import get_args

import pytest

from expert_runner.contract import events as e
from expert_runner.contract.machine import EVENT_TYPES
from orchestrator.replay.fold_check import check_fold
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.golden.record import EXPECTED, HISTORIES, ends
from tests.golden.scenarios import SCENARIOS

STORE = Store(HISTORIES)


def test_every_scenario_is_recorded() -> None:
    assert set(STORE.job_ids()) == {path.stem for path in EXPECTED.iterdir()} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_golden_history_is_its_own_fold(name: str) -> None:
    report = check_fold(JobHistory(STORE, name))
    assert report.difference is None, report.describe()
    assert report.events > 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_golden_history_comes_to_what_it_came_to(name: str) -> None:
    expected = json.loads((EXPECTED / f"{name}.json").read_text())
    folded = ends(JobHistory(STORE, name))
    assert folded.keys() == expected.keys()
    for run_id, checkpoint in expected.items():
        # A later version may know more of a checkpoint, and nothing else of what was known.
        assert {key: folded[run_id].get(key) for key in checkpoint} == checkpoint


def test_between_them_golden_histories_have_every_transition_of_the_machine() -> None:
    seen: Counter[str] = Counter()
    for name in SCENARIOS:
        history = JobHistory(STORE, name)
        seen.update(event.type for run_id in history.runs for event in history.events(run_id))
    assert {kind.model_fields["type"].default for kind in get_args(e.RunEvent)} == EVENT_TYPES
    assert set(seen) >= EVENT_TYPES
    assert seen["sandboxLost"] == 1
