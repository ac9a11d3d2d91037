"""A Job's Runs as the coordinator's newest branch has them: one line from its beginning, and its delegates' Runs."""

from collections.abc import Iterator
from typing import NamedTuple

from expert_runner.contract import events as e
from expert_runner.contract.tools import SkillType
from orchestrator.errors import ConfigError
from orchestrator.replay.course import Course
from orchestrator.replay.lines import Line, lines
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import RunRecord

Lineage = tuple[str, ...]
"""The ids of the delegating calls from the coordinator, which has none, down to a Run."""


class Branch(NamedTuple):
    """A Run of the line, up to the checkpoint from which the next one goes on; None: to its end."""

    record: RunRecord
    until: str | None


def courses(history: JobHistory) -> dict[Lineage, Course]:
    """The courses of the coordinator and of all delegates under it, callers before those they called.

    Raises:
        ConfigError: the coordinator goes on from a checkpoint that came from outside the history.
        DamagedError: a log cannot be read.
        StoreError: the coordinator's Run was never begun.
    """
    line = _line(history)
    course = Course.of(told for branch in line for told in _lines(history, branch))
    found: dict[Lineage, Course] = {(): course}
    # A call of the newest branch counts before one with the same id in what it goes on from.
    _add_delegates(history, tuple(branch.record.id for branch in reversed(line)), (), course, found)
    return found


def _add_delegates(
    history: JobHistory, callers: tuple[str, ...], lineage: Lineage, course: Course, found: dict[Lineage, Course]
) -> None:
    began: dict[str, str] = {}
    for caller in reversed(callers):
        for record in history.delegates_of(caller):
            if record.delegated_by is not None:
                began[record.delegated_by.tool_call_id] = record.id
    for call in course.calls:
        run_id = began.get(call.id)
        if call.skill_type is not SkillType.DELEGATE or run_id is None:
            continue
        theirs = Course.of(lines(history, run_id))
        if theirs.end is not None:
            found[*lineage, call.id] = theirs
            _add_delegates(history, (run_id,), (*lineage, call.id), theirs, found)


def _line(history: JobHistory) -> list[Branch]:
    """From the coordinator's first Run to its newest branch."""
    record = history.run(history.job.coordinator_run_id)
    line = [Branch(record, None)]
    while record.branched_from is not None:
        if record.base is not None:
            raise ConfigError(
                f"Run {record.id} goes on from a checkpoint that was given from outside the history: nobody knows what "
                "led to it, so the Job cannot be run again"
            )
        origin = record.branched_from
        record = history.run(origin.run_id)
        line.insert(0, Branch(record, origin.checkpoint_id))
    return line


def _lines(history: JobHistory, branch: Branch) -> Iterator[Line]:
    for line in lines(history, branch.record.id):
        ends_step = isinstance(line.event, e.ContinueToNextStep)
        is_last = isinstance(line.event, e.ContinueToNextStep | e.Stop) and line.event.checkpoint.id == branch.until
        if not (is_last and ends_step):
            # What a branch goes on from is the end of a step, before the next one.
            yield line
        if is_last:
            return
