"""A Job with a long history goes on: from `perstack run --continue-job` to the first request, beside a new Job's."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import BenchmarkError, Figure, median
from benchmarks.recorded import EVENTS_A_STEP, RecordedRun
from benchmarks.scripted import ModelProcess, Request
from benchmarks.stage import COORDINATOR, Stage, StartedJob, temporary_folder
from expert_runner.contract.jobs import Job, JobStatus
from expert_runner.version import RUNTIME_VERSION
from orchestrator.earlier import Earlier
from orchestrator.runs.ledger import now_ms
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from orchestrator.store.log import read_lines
from orchestrator.store.totals import Totals

EVENTS = 10_000
REPEATS = 5
LIMIT_S = 1.0
"""Above the start of a new Job, whose first request is when everything is there."""

_JOB_ID = "long"


def measure() -> list[Figure]:
    # The model says the same, however many answers the conversation has.
    conversation = {"expert": COORDINATOR, "turns": [{"text": "done", "repeat": EVENTS}]}
    with temporary_folder() as folder, ModelProcess(folder, conversation) as model:
        store = Store(folder / "history")
        log = _record(store)
        reads = [_seconds(lambda: sum(len(line) for line in read_lines(log))) for _ in range(REPEATS)]
        folds = [_seconds(lambda: Earlier.read(JobHistory(store, _JOB_ID))) for _ in range(REPEATS)]
        (folder / "stage").mkdir()
        stage = Stage(folder / "stage", model.url, {COORDINATOR: {"instruction": "Be quick."}})
        stage.run()  # fills the caches of the disk, for both
        model.take()
        new, continued = [], []
        for _ in range(REPEATS):
            new.append(_until_asked(stage.run(), model)[0])
            job = stage.run(("--continue-job", _JOB_ID), history=store.root)
            seconds, request = _until_asked(job, model)
            continued.append(seconds)
    above = [one - floor for one, floor in zip(continued, new, strict=True)]
    megabytes = request.body_bytes / 1e6
    return [
        Figure(f"→ first request, {megabytes:.1f} MB (floor: a new Job's)", median(continued), "s", median(new)),
        Figure(f"above the floor, median of {REPEATS}", median(above), "s", limit=LIMIT_S),
        Figure("reading and folding it alone (floor: its lines)", median(folds), "s", median(reads)),
    ]


def _record(store: Store) -> Path:
    """The history of a completed Job of EVENTS events; returns the path of its Run's log."""
    totals = Totals()
    began_at = now_ms()
    store.make_job_folder(_JOB_ID)
    run = RecordedRun(store, _JOB_ID, lambda event, _: totals.add(event))
    for _ in range(EVENTS // EVENTS_A_STEP):
        for record in run.step():
            record()
    run.complete()
    run.ledger.close()
    store.write_job(
        Job(
            id=_JOB_ID,
            status=JobStatus.COMPLETED,
            coordinator_expert_key=COORDINATOR,
            coordinator_run_id=run.id,
            runtime_version=RUNTIME_VERSION,
            total_steps=totals.steps,
            usage=totals.usage,
            started_at=began_at,
            finished_at=now_ms(),
        )
    )
    return run.path


def _until_asked(job: StartedJob, model: ModelProcess) -> tuple[float, Request]:
    """Seconds from a Job's execution to its one request, and that request."""
    requests = model.take()
    if len(requests) != 1:
        raise BenchmarkError(f"a Job of one request made {len(requests)}")
    return requests[0].arrived_at - job.started_at, requests[0]


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
