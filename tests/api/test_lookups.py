"""Look-ups tell what Jobs left on disk."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.jobs import JobStatus
from orchestrator import (
    create_initial_job,
    get_all_jobs,
    get_all_runs,
    get_checkpoint_dir,
    get_checkpoint_path,
    get_checkpoints_by_job_id,
    get_event_contents,
    get_events_by_run,
    get_job_dir,
    get_jobs_dir,
    get_run_dir,
    retrieve_checkpoint,
    retrieve_job,
    store_job,
)
from orchestrator.errors import ConfigError, StoreError
from orchestrator.state_machine import fold
from orchestrator.store.lease import JobHeldError, JobLease
from tests.jobs.stage import Played, Stage, call, done, talk, turn

TEAM: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}
SCRIPT = (
    talk("boss", turn(call("healthCheck")), turn(call("aide", query="q")), *done("end"), turn(text="more")),
    talk("aide", turn(text="answer")),
)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "local")


def told(played: Played) -> list[Checkpoint]:
    """The checkpoints that a listener was told, whole."""
    return [e.checkpoint for e in played.events if e.type.startswith(("stopRun", "continueTo", "completeRun"))]


async def test_jobs_come_with_the_one_begun_or_continued_last_first(stage: Stage) -> None:
    for job_id in ("one", "two"):
        await stage.play(TEAM, *SCRIPT, jobId=job_id)
    assert [job.id for job in await get_all_jobs(stage.storage)] == ["two", "one"]
    await stage.go_on("More.", continueJob="one")
    assert [job.id for job in await get_all_jobs(stage.storage)] == ["one", "two"]
    job = await retrieve_job("one", stage.storage)
    assert (job.status, job.total_steps) == (JobStatus.COMPLETED, 5)
    assert len(await get_all_runs(storage=stage.storage)) == 4


async def test_checkpoints_are_whole_and_come_in_the_order_they_were_told(stage: Stage) -> None:
    played = await stage.play(TEAM, *SCRIPT, jobId="j")
    expected = told(played)
    assert len(expected) == 5
    assert list(await get_checkpoints_by_job_id("j", stage.storage)) == expected
    for checkpoint in expected:
        found = await retrieve_checkpoint("j", checkpoint.id, stage.storage)
        assert found.messages
        assert found == next(c for c in expected if c.id == checkpoint.id)
        log = await get_checkpoint_path("j", checkpoint.id, stage.storage)
        assert checkpoint.id in log.read_text()
        assert log.is_relative_to(await get_checkpoint_dir("j", stage.storage))


async def test_events_are_those_of_the_log_and_fold_to_the_runs_end(stage: Stage) -> None:
    played = await stage.play(TEAM, *SCRIPT, jobId="j")
    boss, aide = await get_all_runs("j", stage.storage)
    assert (boss.expert_key, aide.expert_key, aide.query) == ("boss", "aide", "q")
    assert aide.delegated_by is not None
    assert aide.delegated_by.run_id == boss.id
    events = await get_event_contents("j", boss.id, storage=stage.storage)
    assert fold(events).checkpoint == played.end
    short = await get_events_by_run("j", boss.id, stage.storage)
    assert [(s.id, s.type, s.timestamp) for s in short] == [(e.id, e.type, e.timestamp) for e in events]
    assert {s.step_number for s in short} == {None, 1, 2, 3}
    first = await get_event_contents("j", boss.id, 1, stage.storage)
    assert [e.type for e in first if hasattr(e, "step_number")][-1] == "continueToNextStep"
    assert {getattr(e, "step_number", 0) for e in first} == {0, 1}


async def test_folders_are_where_things_are(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.play(TEAM, *SCRIPT, jobId="j")
    (run, _) = await get_all_runs("j", stage.storage)
    jobs = await get_jobs_dir(stage.storage)
    assert jobs == stage.storage / "jobs"
    assert (await get_job_dir("j", stage.storage) / "job.json").is_file()
    assert (await get_run_dir("j", run.id, stage.storage) / "events.jsonl").is_file()
    monkeypatch.setenv("PERSTACK_STORAGE_PATH", str(stage.storage))
    assert await get_jobs_dir() == jobs
    assert await retrieve_job("j") == await retrieve_job("j", stage.storage)


async def test_a_jobs_own_record_can_be_made_stored_and_read(tmp_path: Path) -> None:
    job = await create_initial_job("mine", "boss", max_steps=7)
    assert (job.status, job.total_steps, job.max_steps, job.finished_at) == (JobStatus.RUNNING, 0, 7, None)
    await store_job(job, tmp_path)
    assert await retrieve_job("mine", tmp_path) == job
    ended = job.model_copy(update={"status": JobStatus.COMPLETED})
    await store_job(ended, tmp_path)
    assert await get_all_jobs(tmp_path) == (ended,)


async def test_the_record_of_a_job_that_is_worked_on_is_not_overwritten(tmp_path: Path) -> None:
    job = await create_initial_job("mine", "boss")
    await store_job(job, tmp_path)
    lease = JobLease.take(await get_job_dir("mine", tmp_path))
    try:
        with pytest.raises(JobHeldError):
            await store_job(job.model_copy(update={"total_steps": 9}), tmp_path)
    finally:
        lease.release()
    assert await retrieve_job("mine", tmp_path) == job


async def test_what_is_not_there_is_named(stage: Stage) -> None:
    await stage.play(TEAM, *SCRIPT, jobId="j")
    where = stage.storage
    for unknown in (retrieve_job, get_all_runs, get_checkpoints_by_job_id):
        with pytest.raises(StoreError, match="no Job nope"):
            await unknown("nope", where)
    with pytest.raises(StoreError, match="no Run nope"):
        await get_events_by_run("j", "nope", where)
    with pytest.raises(StoreError, match="no checkpoint nope"):
        await retrieve_checkpoint("j", "nope", where)
    with pytest.raises(ConfigError, match="job id"):
        await get_job_dir("../etc", where)
    with pytest.raises(ConfigError, match="job id"):
        await create_initial_job("../etc", "boss")
    assert await get_all_jobs(where / "elsewhere") == ()


async def test_a_damaged_log_is_told_with_its_place(stage: Stage) -> None:
    await stage.play(TEAM, *SCRIPT, jobId="j")
    run, _ = await get_all_runs("j", stage.storage)
    log = stage.store.events_path("j", run.id)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    for look_up in (get_checkpoints_by_job_id("j", stage.storage), get_events_by_run("j", run.id, stage.storage)):
        with pytest.raises(StoreError, match=r"events\.jsonl:4: does not follow"):
            await look_up


async def test_reading_a_long_history_leaves_the_event_loop_free(stage: Stage) -> None:
    await stage.play({"boss": {}}, talk("boss", turn(call("healthCheck"), repeat=30), turn(text="end")), jobId="j")
    turns = 0

    async def breathe() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(breathe())
    await get_checkpoints_by_job_id("j", stage.storage)
    other.cancel()
    assert turns > 10


def test_everything_public_is_there_and_says_what_it_is_for() -> None:
    for name in orchestrator.__all__:
        public = getattr(orchestrator, name)
        assert isinstance(public, str) or public.__doc__, name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        orchestrator.nothing_like_it  # noqa: B018
