"""A Job in sum, counted from its history."""

from collections.abc import Iterable

from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.jobs import Job, JobStatus
from orchestrator.logs.digest import Digest
from orchestrator.logs.reading import Entry, JobReader
from orchestrator.logs.summary_schema import Counts, JobSummary, LastError, RunSummary, Worker
from orchestrator.logs.tree import Node, tree
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from orchestrator.store.lease import Holder, holder
from orchestrator.store.totals import Totals


def open_job(store: Store, job_id: str) -> tuple[JobHistory, Holder | None]:
    """A Job's history, and who works on the Job.

    Raises:
        StoreError: there is no such Job, its records cannot be read, or it cannot be told whether anybody works on it.
    """
    history = JobHistory(store, job_id)
    if history.job.status is not JobStatus.RUNNING:
        return history, None
    worker = holder(store.job_folder(job_id))
    # Who ends a Job writes how before letting go: read again, the record tells whether it ended meanwhile.
    return (history, worker) if worker is not None else (JobHistory(store, job_id), None)


def summarise(reader: JobReader, worker: Holder | None) -> JobSummary:
    """The Job in sum; `reader` knows afterwards what is damaged."""
    history = reader.history
    digests = {run_id: Digest.of(entry.event for entry in reader.entries(run_id)) for run_id in history.runs}
    nodes = job_tree(history, digests)
    job = history.job
    is_running = job.status is JobStatus.RUNNING
    totals = _sum(digest.totals for digest in digests.values()) if is_running else _of_record(job)
    # A Job may have been killed before its first Run was recorded.
    newest = digests.get(job.coordinator_run_id, Digest())
    first = history.runs.get(job.coordinator_run_id)
    return JobSummary(
        job_id=job.id,
        status=job.status,
        is_interrupted=is_running and worker is None,
        worked_on_by=_worker(worker) if is_running and worker is not None else None,
        coordinator_expert_key=job.coordinator_expert_key,
        coordinator_run_id=job.coordinator_run_id,
        query=first.query if first is not None else None,
        text=newest.text,
        steps=totals.steps,
        max_steps=job.max_steps,
        usage=totals.usage,
        cost=totals.cost,
        duration_ms=sum(digests[record.id].worked_ms for record in history.coordinators),
        started_at=job.started_at,
        continued_at=job.continued_at,
        finished_at=job.finished_at,
        runtime_version=job.runtime_version,
        question=newest.question if newest.status is CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL else None,
        last_error=_last_error(digests.values()),
        # By where the coordinator stands: a killed orchestrator may not have written down how the Job ended.
        continue_command=None if worker is not None else continue_command(job.id, newest.status),
        runs=tuple(_run(node, digests[node.record.id], job, reader.damages) for node in nodes),
    )


def job_tree(history: JobHistory, digests: dict[str, Digest]) -> tuple[Node, ...]:
    """The Job's Runs in tree order, given the digests of those that called others."""
    return tree(
        history.runs,
        lambda record: digests[record.delegated_by.run_id].place_of(record) if record.delegated_by else (0, 0),
    )


def count(job_id: str, entries: Iterable[Entry]) -> Counts:
    """How many `entries` there are, by type."""
    by_type: dict[str, int] = {}
    for entry in entries:
        by_type[entry.event.type] = by_type.get(entry.event.type, 0) + 1
    ordered = dict(sorted(by_type.items(), key=lambda item: (-item[1], item[0])))
    return Counts(job_id=job_id, events=sum(by_type.values()), by_type=ordered)


def continue_command(job_id: str, status: CheckpointStatus) -> str:
    """What lets a Job go on whose coordinator stands at `status`. Words in capitals are for the user to fill in."""
    command = f"perstack run --continue-job {job_id}"
    match status:
        case CheckpointStatus.COMPLETED:
            return f'{command} "QUERY"'
        case CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL:
            return f'{command} -i "ANSWER"'
        case CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS:
            return f"{command} --max-steps N"
        case _:
            return command


def _sum(totals: Iterable[Totals]) -> Totals:
    result = Totals()
    for part in totals:
        result.steps += part.steps
        result.usage += part.usage
        if part.cost is not None:
            result.cost = (result.cost or 0.0) + part.cost
    return result


def _of_record(job: Job) -> Totals:
    return Totals(steps=job.total_steps, usage=job.usage, cost=job.cost)


def _worker(worker: Holder) -> Worker:
    return Worker(pid=worker.pid, host=worker.host or None, since=worker.since)


def _last_error(digests: Iterable[Digest]) -> LastError | None:
    failures = [digest.failure for digest in digests if digest.failure is not None]
    if not failures:
        return None
    last = max(failures, key=lambda event: event.timestamp)
    return LastError(
        name=last.error.name,
        message=last.error.message,
        status_code=last.error.status_code,
        is_retryable=last.error.is_retryable,
        run_id=last.run_id,
        expert_key=last.expert_key,
        step_number=last.step_number,
        timestamp=last.timestamp,
    )


def _run(node: Node, digest: Digest, job: Job, damages: dict[str, str]) -> RunSummary:
    record = node.record
    caller = record.delegated_by
    return RunSummary(
        run_id=record.id,
        expert_key=record.expert_key,
        depth=node.depth,
        caller_run_id=caller.run_id if caller is not None else None,
        tool_call_id=caller.tool_call_id if caller is not None else None,
        branched_from=record.branched_from,
        is_newest=record.id == job.coordinator_run_id,
        status=digest.status,
        query=record.query,
        further_queries=tuple(digest.queries if record.branched_from is not None else digest.queries[1:]),
        steps=digest.totals.steps,
        usage=digest.totals.usage,
        cost=digest.totals.cost,
        duration_ms=digest.worked_ms,
        created_at=record.created_at,
        last_at=digest.last_at,
        events=digest.events,
        checkpoint_id=digest.checkpoint_id,
        text=digest.text,
        error=digest.error,
        sandboxes_lost=digest.sandboxes_lost,
        damage=damages.get(record.id),
    )
