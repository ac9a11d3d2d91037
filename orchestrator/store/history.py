"""One Job's history, read: its Runs, how they belong together, their events and checkpoints. Nothing here writes."""

from collections.abc import Iterator
from typing import NamedTuple

from expert_runner.contract import events as e
from expert_runner.contract.errors import ContractError
from expert_runner.contract.jobs import Job
from expert_runner.contract.standing import Passage, Standing, follow
from orchestrator.errors import StoreError
from orchestrator.store.layout import RunRecord, Store
from orchestrator.store.log import read_records

HistoryEvent = e.RunEvent | e.RuntimeEvent


class Told(NamedTuple):
    """Where a Run stood when `event`, the end of a step or a stop, told of its checkpoint."""

    standing: Standing
    event: e.ContinueToNextStep | e.Stop


class JobHistory:
    """What is on disk of one Job when it is asked for.

    Every call that reads events raises StoreError where a log is damaged or its events cannot follow each other, with
    the place.

    Args:
        store: where Jobs are.
        job_id: which.

    Attributes:
        job: the Job's record.
        runs: the records of all its Runs by id, oldest first.

    Raises:
        StoreError: there is no such Job, it is of a later version, or its records cannot be read.
    """

    def __init__(self, store: Store, job_id: str) -> None:
        self.store = store
        self.job: Job = store.read_job(job_id)
        self.runs = {record.id: record for record in store.run_records(job_id)}
        self._bases: dict[str, Standing] = {}

    def run(self, run_id: str) -> RunRecord:
        """
        Raises:
            StoreError: the Job has no such Run.
        """
        record = self.runs.get(run_id)
        if record is None:
            raise StoreError(f"Job {self.job.id} has no Run {run_id}: it has {', '.join(self.runs) or 'none'}")
        return record

    @property
    def coordinators(self) -> tuple[RunRecord, ...]:
        """The coordinator's Run and its branches, oldest first."""
        return tuple(record for record in self.runs.values() if record.delegated_by is None)

    def delegates_of(self, run_id: str) -> tuple[RunRecord, ...]:
        """The Runs that `run_id` called, oldest first."""
        return tuple(r for r in self.runs.values() if r.delegated_by is not None and r.delegated_by.run_id == run_id)

    def records(self, run_id: str) -> Iterator[tuple[bytes, HistoryEvent]]:
        """A Run's lines as they are stored, with the events they are, in order. A Run that was killed at its very
        beginning has none.
        """
        path = self.store.events_path(self.job.id, self.run(run_id).id)
        if not path.exists():
            return
        for number, (line, event) in enumerate(read_records(path), start=1):
            if (event.job_id, event.run_id) != (self.job.id, run_id):
                raise StoreError(f"{path}:{number}: an event of Run {event.run_id} of Job {event.job_id}")
            yield line, event

    def events(self, run_id: str) -> Iterator[HistoryEvent]:
        """A Run's events, in order."""
        return (event for _, event in self.records(run_id))

    def base(self, run_id: str) -> Standing | None:
        """What the first event of a branch applies to; None for a Run that is none."""
        origin = self.run(run_id).branched_from
        if origin is None:
            return None
        if run_id not in self._bases:
            record = self.runs[run_id]
            given = Standing.at(record.base, record.created_at) if record.base is not None else None
            base = given or self.standing_at(origin.checkpoint_id, origin.run_id)
            self._bases[run_id] = base.branch(run_id)
        return self._bases[run_id]

    def passages(self, run_id: str) -> Iterator[Passage]:
        """A Run's transitions, each with where the Run stood before and after."""
        number = 0

        def counted() -> Iterator[HistoryEvent]:
            nonlocal number
            for event in self.events(run_id):
                number += 1
                yield event

        try:
            yield from follow(counted(), self.base(run_id))
        except ContractError as error:
            path = self.store.events_path(self.job.id, run_id)
            raise StoreError(f"{path}:{number}: {error}") from error

    def standing(self, run_id: str) -> Standing | None:
        """Where a Run stands at the end of its record; None if it has not begun."""
        standing = None
        for passage in self.passages(run_id):
            standing = passage.after
        return standing

    def told(self, run_id: str) -> Iterator[Told]:
        """The Run's checkpoints in order, each with where the Run stood."""
        for event, before, after in self.passages(run_id):
            if isinstance(event, e.ContinueToNextStep):
                yield Told(before, event)
            elif isinstance(event, e.Stop):
                yield Told(after, event)

    def standing_at(self, checkpoint_id: str, run_id: str | None = None) -> Standing:
        """Where the Run `run_id`, or whichever told of it, stood at a checkpoint.

        Raises:
            StoreError: none told of it; a step that is not finished has none yet.
        """
        for candidate in (run_id,) if run_id is not None else tuple(self.runs):
            for standing, _ in self.told(candidate):
                if standing.checkpoint.id == checkpoint_id:
                    return standing
        raise StoreError(
            f"Job {self.job.id} has no checkpoint {checkpoint_id}: `perstack log --job {self.job.id} --type "
            "continueToNextStep` shows those of finished steps; a step that is not finished has none yet"
        )


def latest_job(store: Store) -> Job:
    """The Job that was begun or continued last.

    Raises:
        StoreError: there is none, or a Job's record cannot be read.
    """
    jobs = [store.read_job(job_id) for job_id in store.job_ids()]
    if not jobs:
        raise StoreError(f"there is no Job in {store.jobs_folder} to continue")
    return max(jobs, key=lambda job: (job.continued_at or job.started_at, job.id))
