"""Look-ups: Jobs, their Runs, checkpoints and events, as they are on disk when they are asked for.

Each takes `storage`, the folder of the history; None is `$PERSTACK_STORAGE_PATH`, else `./perstack`. Disks are read in
a thread, so that the event loop goes on. They may be asked at any time, also of a Job that another process works on.

Checkpoints are no files here: a Run's event log is all there is, and a checkpoint is what its events come to. Those
that these functions return are whole, messages included.

Every one of them raises StoreError where there is no such Job, Run or checkpoint, or where the history is damaged or of
a later version; the text names the place. ConfigError is raised for what cannot be an id.
"""

import asyncio
from pathlib import Path
from typing import NamedTuple

from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.events import BaseRunEvent
from expert_runner.contract.jobs import Job, JobStatus
from expert_runner.version import RUNTIME_VERSION
from orchestrator.runs.ledger import new_id, now_ms
from orchestrator.store.history import HistoryEvent, JobHistory
from orchestrator.store.layout import RunRecord, Store, check_id, default_root
from orchestrator.store.lease import JobLease


class EventSummary(NamedTuple):
    """An event in short. `timestamp` is Unix milliseconds; `step_number` counts within the Run, from 1, and is None for
    what happened around it.
    """

    id: str
    type: str
    timestamp: int
    step_number: int | None


# --- Jobs


async def get_all_jobs(storage: Path | None = None) -> tuple[Job, ...]:
    """All Jobs; the one that was begun or continued last comes first."""

    def read() -> tuple[Job, ...]:
        store = _store(storage)
        jobs = [store.read_job(job_id) for job_id in store.job_ids()]
        return tuple(sorted(jobs, key=lambda job: (job.continued_at or job.started_at, job.id), reverse=True))

    return await asyncio.to_thread(read)


async def retrieve_job(job_id: str, storage: Path | None = None) -> Job:
    """A Job's record: its status, its totals over all Runs, when it began and ended (Unix milliseconds)."""
    return await asyncio.to_thread(_store(storage).read_job, job_id)


async def store_job(job: Job, storage: Path | None = None) -> None:
    """Write a Job's record, whole or not at all, in the place of an earlier one.

    Raises:
        StoreError: it cannot be written.
        JobHeldError: a process works on the Job, and writes its record itself.
    """

    def write() -> None:
        store = _store(storage)
        lease = JobLease.take(store.make_job_folder(job.id))
        try:
            store.write_job(job)
        finally:
            lease.release()

    await asyncio.to_thread(write)


async def create_initial_job(job_id: str, expert_key: str, max_steps: int | None = None) -> Job:
    """The record of a Job that begins now, with no steps yet. Nothing is written; :func:`store_job` does.

    `run` makes the records of its Jobs itself, and refuses an id that has one.

    Args:
        expert_key: the coordinator.
        max_steps: steps of all Runs together; None: no limit.
    """
    return Job(
        id=check_id("job id", job_id),
        status=JobStatus.RUNNING,
        coordinator_expert_key=expert_key,
        coordinator_run_id=new_id(),
        runtime_version=RUNTIME_VERSION,
        max_steps=max_steps,
        started_at=now_ms(),
    )


# --- Runs and checkpoints


async def get_all_runs(job_id: str | None = None, storage: Path | None = None) -> tuple[RunRecord, ...]:
    """The records of a Job's Runs, or of all Jobs', oldest first: whose they are, who called them, and with what."""

    def read() -> tuple[RunRecord, ...]:
        store = _store(storage)
        if job_id is not None:
            store.read_job(job_id)
        records = [r for one in (store.job_ids() if job_id is None else [job_id]) for r in store.run_records(one)]
        return tuple(sorted(records, key=lambda record: (record.created_at, record.id)))

    return await asyncio.to_thread(read)


async def get_checkpoints_by_job_id(job_id: str, storage: Path | None = None) -> tuple[Checkpoint, ...]:
    """All checkpoints of a Job, of all Runs, in the order they were told: at the end of each step and at each stop."""

    def read() -> tuple[Checkpoint, ...]:
        history = JobHistory(_store(storage), job_id)
        told = [told for run_id in history.runs for told in history.told(run_id)]
        return tuple(t.standing.checkpoint for t in sorted(told, key=lambda told: told.event.timestamp))

    return await asyncio.to_thread(read)


async def retrieve_checkpoint(job_id: str, checkpoint_id: str, storage: Path | None = None) -> Checkpoint:
    """A checkpoint. That of a step which is not finished does not exist yet."""
    return await asyncio.to_thread(_checkpoint, job_id, checkpoint_id, storage)


# --- events


async def get_events_by_run(job_id: str, run_id: str, storage: Path | None = None) -> tuple[EventSummary, ...]:
    """What happened in a Run, in order and in short."""
    return tuple(
        EventSummary(
            event.id,
            event.type,
            event.timestamp,
            event.step_number if isinstance(event, BaseRunEvent) else None,
        )
        for event in await get_event_contents(job_id, run_id, storage=storage)
    )


async def get_event_contents(
    job_id: str, run_id: str, max_step_number: int | None = None, storage: Path | None = None
) -> tuple[HistoryEvent, ...]:
    """A Run's events as they are recorded: messages that another event brought are named, not repeated.

    Args:
        max_step_number: leave out what is of later steps.
    """

    def read() -> tuple[HistoryEvent, ...]:
        events = JobHistory(_store(storage), job_id).events(run_id)
        return tuple(e for e in events if max_step_number is None or getattr(e, "step_number", 0) <= max_step_number)

    return await asyncio.to_thread(read)


# --- where they are


async def get_jobs_dir(storage: Path | None = None) -> Path:
    """The folder with a folder for each Job."""
    return _store(storage).jobs_folder


async def get_job_dir(job_id: str, storage: Path | None = None) -> Path:
    """A Job's folder, whether it exists or not: `job.json` and its Runs."""
    return _store(storage).job_folder(job_id)


async def get_run_dir(job_id: str, run_id: str, storage: Path | None = None) -> Path:
    """A Run's folder, whether it exists or not: `run.json` and `events.jsonl`."""
    return _store(storage).run_folder(job_id, run_id)


async def get_checkpoint_dir(job_id: str, storage: Path | None = None) -> Path:
    """The folder that holds what a Job's checkpoints are folded from: the folders of its Runs."""
    return _store(storage).job_folder(job_id) / "runs"


async def get_checkpoint_path(job_id: str, checkpoint_id: str, storage: Path | None = None) -> Path:
    """The event log that tells of a checkpoint. The checkpoint itself is :func:`retrieve_checkpoint`'s."""
    checkpoint = await retrieve_checkpoint(job_id, checkpoint_id, storage)
    return _store(storage).events_path(job_id, checkpoint.run_id)


def _store(storage: Path | None) -> Store:
    return Store((storage or default_root()).absolute())


def _checkpoint(job_id: str, checkpoint_id: str, storage: Path | None) -> Checkpoint:
    return JobHistory(_store(storage), job_id).standing_at(checkpoint_id).checkpoint
