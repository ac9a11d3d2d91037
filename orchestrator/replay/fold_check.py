"""A Job's record checked against its own fold: nothing is run, nothing is written."""

from orchestrator.replay.across import differences
from orchestrator.replay.facts import Facts
from orchestrator.replay.folded import folded
from orchestrator.replay.lines import DamagedError, Line, lines
from orchestrator.replay.report import Difference, Report, compared
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import RunRecord
from orchestrator.store.totals import Totals


def check_fold(history: JobHistory) -> Report:
    """Fold the log of every Run of a Job, branches too, and compare all that its events and records say.

    The first difference is the first of the first Run (in the order they began) that has one; then come those between
    Runs, then the Job's record. A log that is damaged is a difference. Of a Job that is being worked on, what is on
    disk now is looked at, and what one Run says of another may be there before the other's.
    """
    return _Check(history).run()


class _Check:
    def __init__(self, history: JobHistory) -> None:
        self._history = history
        self._facts: dict[str, Facts] = {}
        self._totals = Totals()
        self._events = 0

    def run(self) -> Report:
        return Report(
            job_id=self._history.job.id,
            difference=self._difference(),
            runs=len(self._facts),
            events=self._events,
            steps=self._totals.steps,
        )

    def _difference(self) -> Difference | None:
        for record in self._history.runs.values():
            if difference := self._of_run(record):
                return difference
        return next(differences(self._history, self._facts, self._totals), None)

    def _of_run(self, record: RunRecord) -> Difference | None:
        self._facts[record.id] = facts = Facts(record)
        try:
            for line in lines(self._history, record.id):
                self._events += 1
                self._totals.add(line.event)
                if difference := _of_line(line, record):
                    return difference
                if line.passage is not None:
                    facts.add(line.place, line.passage)
        except DamagedError as damaged:
            return damaged.difference
        return None


def _of_line(line: Line, record: RunRecord) -> Difference | None:
    unlike = compared(line.event, folded(line.event, line.passage, record))
    return line.place.difference(unlike) if unlike is not None else None
