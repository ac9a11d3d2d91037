"""A Run's log line by line, folded on the way."""

from collections.abc import Iterator
from typing import NamedTuple

from expert_runner.contract.errors import ContractError
from expert_runner.contract.standing import Passage, Standing, follow
from orchestrator.errors import StoreError
from orchestrator.replay.report import Difference, Place, Unlike, of_record
from orchestrator.store.history import HistoryEvent, JobHistory


class Line(NamedTuple):
    """An event where it is recorded, and where its Run stood before and after it; None: it is no transition."""

    place: Place
    passage: Passage | None

    @property
    def event(self) -> HistoryEvent:
        return self.place.event


class DamagedError(Exception):
    """A log cannot be read, or its events cannot follow each other. `difference` says where."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.problem)
        self.difference = difference


def lines(history: JobHistory, run_id: str) -> Iterator[Line]:
    """The lines of a Run's log, in order.

    Raises:
        DamagedError: one of them cannot be what it is.
    """
    record = history.run(run_id)
    file = str(history.store.events_path(history.job.id, run_id))
    read: list[Place] = []

    def places() -> Iterator[HistoryEvent]:
        for number, event in enumerate(history.events(run_id), start=1):
            read.append(Place(file, number, record, event))
            yield event

    last = 0
    try:
        for passage in follow(places(), _base(history, run_id)):
            *around, place = read
            yield from (Line(other, None) for other in around)
            yield Line(place, passage)
            last = place.line
            read.clear()
    except StoreError as error:
        line = (read[-1].line if read else last) + 1
        problem = str(error).removeprefix(f"{file}:{line}: ")
        raise DamagedError(
            Difference(run_id=run_id, expert_key=record.expert_key, file=file, line=line, problem=problem)
        ) from error
    except ContractError as error:
        place = read[-1]
        raise DamagedError(place.problem(str(error))) from error
    yield from (Line(other, None) for other in read)


def _base(history: JobHistory, run_id: str) -> Standing | None:
    try:
        return history.base(run_id)
    except StoreError as error:
        record = history.run(run_id)
        origin = record.branched_from
        named = origin.checkpoint_id if origin is not None else None
        difference = of_record(history, record, Unlike("branchedFrom.checkpointId", named, None))
        raise DamagedError(difference.model_copy(update={"problem": str(error)})) from error
