"""How long to wait before asking again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.retry import BASE_S, CAP_S, MAX_RETRY_AFTER_S, backoff_s

jitters = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (6, 16.0), (7, 30.0), (99, 30.0)]
)
def test_waits_double_up_to_the_cap(attempt: int, longest: float) -> None:
    assert backoff_s(attempt, None, 0.0) == longest / 2
    assert backoff_s(attempt, None, 0.999) == pytest.approx(longest, rel=0.001)


@given(st.integers(1, 10**6), jitters)
def test_own_waits_stay_within_bounds(attempt: int, jitter: float) -> None:
    assert BASE_S / 2 <= backoff_s(attempt, None, jitter) <= CAP_S


@given(st.integers(1, 50), st.floats(0, MAX_RETRY_AFTER_S), jitters)
def test_a_wait_that_was_asked_for_is_never_undercut(attempt: int, asked: float, jitter: float) -> None:
    assert asked <= backoff_s(attempt, asked, jitter) <= asked + BASE_S


@pytest.mark.parametrize(("asked", "waits"), [(3600, MAX_RETRY_AFTER_S), (float("inf"), MAX_RETRY_AFTER_S), (-5, 0)])
def test_unreasonable_waits_are_bounded(asked: float, waits: float) -> None:
    assert backoff_s(1, asked, 0.0) == waits
