"""Reading a Job's logs, whole and damaged."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.logs.reading import JobReader
from orchestrator.store.history import HistoryEvent, JobHistory
from orchestrator.store.layout import RunRecord, Store
from orchestrator.store.log import EventLog
from tests.logs.histories import kill, rewrite, run_of


def positions(reader: JobReader, run_id: str) -> list[int]:
    return [entry.position for entry in reader.entries(run_id)]


def test_entries_are_the_stored_bytes_and_their_events(team: JobHistory) -> None:
    for run_id in team.runs:
        stored = team.store.events_path("team", run_id).read_bytes()
        entries = list(JobReader(team).entries(run_id))
        assert b"".join(entry.line + b"\n" for entry in entries) == stored
        assert [entry.event for entry in entries] == list(team.events(run_id))
        assert [entry.data["id"] for entry in entries] == [entry.event.id for entry in entries]


def test_events_of_all_runs_come_in_the_order_of_time_and_each_runs_in_its_own(team: JobHistory) -> None:
    reader = JobReader(team)
    entries = list(reader.interleaved())
    times = [entry.event.timestamp for entry in entries]
    assert times == sorted(times)
    for run_id in team.runs:
        assert [e.position for e in entries if e.run_id == run_id] == positions(reader, run_id)
    changes = sum(a.run_id != b.run_id for a, b in pairwise(entries))
    assert changes > len(team.runs), "parallel Runs alternate"


def test_only_the_runs_that_are_asked_for_are_read(team: JobHistory) -> None:
    wanted = {run_of(team, "left"), run_of(team, "leaf")}
    assert {entry.run_id for entry in JobReader(team).interleaved(wanted)} == wanted


def clocked(store: Store, run_id: str, created_at: int, *times: int, template: HistoryEvent) -> None:
    """A Run of the Job whose events happened at `times`."""
    log = EventLog(
        store.open_run(RunRecord(id=run_id, job_id="team", expert_key="e", query="q", created_at=created_at))
    )
    for number, time in enumerate(times):
        log.append(
            template.model_copy(update={"id": f"{run_id}{number}", "run_id": run_id, "timestamp": time, "prev": None})
        )
    log.close()


def test_a_clock_that_was_set_back_does_not_reorder_a_run(copy: Store) -> None:
    history = JobHistory(copy, "team")
    template = next(history.events(history.job.coordinator_run_id))
    clocked(copy, "A", 10, 10, 50, 20, 60, template=template)
    clocked(copy, "B", 15, 15, 30, 55, template=template)
    clocked(copy, "C", 12, template=template)
    clocked(copy, "D", 70, 70, template=template)
    entries = JobReader(JobHistory(copy, "team")).interleaved({"A", "B", "C", "D"})
    assert [entry.event.id for entry in entries] == ["A0", "B0", "B1", "A1", "A2", "B2", "A3", "D0"]


def test_a_run_without_events_is_no_damage(copy: Store) -> None:
    history = JobHistory(copy, "team")
    run_id = run_of(history, "leaf")
    copy.events_path("team", run_id).unlink()
    reader = JobReader(history)
    assert positions(reader, run_id) == []
    assert reader.damages == {}


def test_a_torn_last_line_is_what_a_crash_leaves_and_no_damage(copy: Store) -> None:
    kill(copy)
    history = JobHistory(copy, "team")
    reader = JobReader(history)
    list(reader.interleaved())
    assert reader.damages == {}


def broken(path: Path, line: int) -> str:
    return f"{path}:{line}: "


def test_what_stands_before_a_damage_is_read_and_other_runs_are_too(copy: Store) -> None:
    history = JobHistory(copy, "team")
    left = run_of(history, "left")
    path = rewrite(copy, left, lambda lines: [*lines[:3], b"{garbage\n", *lines[4:]])
    reader = JobReader(history)
    entries = list(reader.interleaved())
    assert [e.position for e in entries if e.run_id == left] == [1, 2, 3]
    assert list(reader.damages) == [left]
    assert reader.damages[left].startswith(broken(path, 4))
    for other in set(history.runs) - {left}:
        assert [e.position for e in entries if e.run_id == other] == positions(JobReader(history), other)


def test_a_line_that_was_changed_taken_out_or_put_in_is_told_with_its_place(copy: Store) -> None:
    history = JobHistory(copy, "team")
    for line, change in (
        (
            3,
            lambda lines: [
                lines[0],
                lines[1].replace(b"timestamp", b"timestamp", 1).replace(b'"id":"', b'"id":"0'),
                *lines[2:],
            ],
        ),
        (2, lambda lines: [lines[0], *lines[2:]]),
        (3, lambda lines: [lines[0], lines[1], lines[1], *lines[2:]]),
    ):
        run_id = run_of(history, "right")
        whole = copy.events_path("team", run_id).read_bytes()
        path = rewrite(copy, run_id, change)
        reader = JobReader(history)
        assert positions(reader, run_id) == list(range(1, line))
        assert reader.damages[run_id].startswith(f"{path}:{line}: does not follow")
        path.write_bytes(whole)


def test_another_runs_log_in_the_place_of_a_run_is_a_damage(copy: Store) -> None:
    history = JobHistory(copy, "team")
    left, right = run_of(history, "left"), run_of(history, "right")
    path = copy.events_path("team", left)
    path.write_bytes(copy.events_path("team", right).read_bytes())
    reader = JobReader(history)
    assert positions(reader, left) == []
    assert reader.damages == {left: f"{path}:1: an event of Run {right} of Job team"}


def test_a_checkpoint_is_found_in_whichever_run_told_of_it(team: JobHistory) -> None:
    for run_id in team.runs:
        for told in team.told(run_id):
            checkpoint = told.standing.checkpoint
            found = JobReader(team).checkpoint(checkpoint.id)
            assert found.standing.checkpoint == checkpoint
            assert JobReader(team).checkpoint(checkpoint.id, run_id).event.id == told.event.id


def test_a_checkpoint_of_another_run_is_not_found(team: JobHistory) -> None:
    (told,) = team.told(run_of(team, "leaf"))
    with pytest.raises(StoreError, match=f"Run {run_of(team, 'left')} has no checkpoint {told.standing.checkpoint.id}"):
        JobReader(team).checkpoint(told.standing.checkpoint.id, run_of(team, "left"))
    with pytest.raises(StoreError, match="Job team has no checkpoint nothing"):
        JobReader(team).checkpoint("nothing")


def test_a_damaged_log_does_not_hide_the_checkpoints_of_others(copy: Store) -> None:
    history = JobHistory(copy, "team")
    first = history.coordinators[0].id
    (told,) = history.told(run_of(history, "leaf"))
    rewrite(copy, first, lambda lines: [lines[0], b"{}\n", *lines[2:]])
    reader = JobReader(history)
    assert reader.checkpoint(told.standing.checkpoint.id).standing == told.standing
    assert list(reader.damages) == [first]


def test_events_that_are_written_meanwhile_are_read_whole(copy: Store) -> None:
    history = JobHistory(copy, "team")
    run_id = run_of(history, "leaf")
    path = copy.events_path("team", run_id)
    template = next(history.events(run_id)).model_copy(update={"prev": None})
    entries = JobReader(history).entries(run_id)
    first = next(entries)
    log = EventLog(path)
    for number in range(1_000):
        log.append(template.model_copy(update={"id": f"late{number}"}))
    log.close()
    read = [first, *entries]
    assert [json.loads(entry.line)["id"] for entry in read] == [entry.event.id for entry in read]
    assert b"".join(entry.line + b"\n" for entry in read) == b"".join(
        path.read_bytes().splitlines(keepends=True)[: len(read)]
    )
