"""A page of what was found, and the events around it."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.logs.paging import Page, with_context
from orchestrator.logs.reading import JobReader
from orchestrator.store.history import JobHistory


@given(st.integers(0, 30), st.integers(0, 12), st.integers(0, 12))
def test_a_page_holds_the_latest_without_the_very_last(total: int, take: int, offset: int) -> None:
    page = Page(range(total), take, offset)
    without = list(range(total))[: total - offset if offset < total else 0]
    expected = without if take == 0 else without[-take:]
    assert list(page) == expected
    assert (page.total, page.given) == (total, len(expected))


def test_all_of_it_is_given_while_it_is_found() -> None:
    taken = []

    def found() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    assert next(iter(Page(found(), 0, 1))) == 0
    assert taken == [0, 1], "no more than the offset is read ahead"


def around(team: JobHistory, positions: dict[str, list[int]], number: int) -> list[tuple[str, int, bool]]:
    matches = [
        e for run_id, wanted in positions.items() for e in JobReader(team).entries(run_id) if e.position in wanted
    ]
    return [(e.run_id, e.position, is_match) for e, is_match in with_context(JobReader(team), matches, number)]


def test_context_is_what_stands_beside_a_match_in_its_run(team: JobHistory) -> None:
    run_id = team.job.coordinator_run_id
    assert around(team, {run_id: [5]}, 2) == [(run_id, n, n == 5) for n in (3, 4, 5, 6, 7)]


def test_contexts_that_overlap_are_shown_once(team: JobHistory) -> None:
    run_id = team.job.coordinator_run_id
    assert around(team, {run_id: [4, 5, 8]}, 2) == [(run_id, n, n in (4, 5, 8)) for n in range(2, 11)]


def test_context_ends_where_its_run_does(team: JobHistory) -> None:
    run_id = team.job.coordinator_run_id
    last = sum(1 for _ in team.events(run_id))
    assert [position for _, position, _ in around(team, {run_id: [1]}, 3)] == [1, 2, 3, 4]
    assert [position for _, position, _ in around(team, {run_id: [last]}, 3)] == [last - 3, last - 2, last - 1, last]
    assert len(around(team, {run_id: [1]}, 10**9)) == last


def test_context_of_several_runs_is_interleaved_by_time(team: JobHistory) -> None:
    first, second = (record.id for record in team.delegates_of(team.coordinators[0].id))
    shown = around(team, {first: [2], second: [2]}, 1)
    assert {run_id for run_id, _, _ in shown} == {first, second}
    whole = [(e.run_id, e.position) for e in JobReader(team).interleaved({first, second})]
    assert [(r, p) for r, p, _ in shown] == [(r, p) for r, p in whole if p <= 3]
