"""The summary of a Job: what it counts, and what it says about how the Job goes on."""

import os
import re

import pytest

from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.jobs import JobStatus
from orchestrator.logs.reading import JobReader
from orchestrator.logs.summary import continue_command, open_job, summarise
from orchestrator.logs.summary_schema import JobSummary
from orchestrator.logs.summary_text import summary_lines
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from orchestrator.store.lease import JobLease
from tests.logs.histories import kill, rewrite, run_of


def summary_of(store: Store, job_id: str = "team") -> JobSummary:
    history, worker = open_job(store, job_id)
    return summarise(JobReader(history), worker)


def text_of(summary: JobSummary, *, is_verbose: bool = False) -> str:
    return "\n".join(summary_lines(summary, is_verbose=is_verbose))


def test_the_tree_has_delegates_below_their_callers_in_call_order(team: JobHistory) -> None:
    summary = summary_of(team.store)
    assert [(run.depth, run.expert_key) for run in summary.runs] == [
        (0, "boss"),
        (1, "left"),
        (2, "leaf"),
        (1, "right"),
    ] * 2
    for run in summary.runs:
        caller = team.runs[run.run_id].delegated_by
        assert run.caller_run_id == (caller.run_id if caller is not None else None)


def test_a_branch_says_what_it_was_made_from_and_the_newest_is_known(team: JobHistory) -> None:
    summary = summary_of(team.store)
    first, branch = (run for run in summary.runs if run.depth == 0)
    assert (first.branched_from, first.is_newest, branch.is_newest) == (None, False, True)
    assert branch.branched_from == team.coordinators[1].branched_from
    assert branch.further_queries == ("Once more.",)
    assert summary.coordinator_run_id == branch.run_id
    text = text_of(summary)
    assert branch.branched_from is not None
    assert f"branch of {first.run_id}, from checkpoint {branch.branched_from.checkpoint_id}" in text
    assert text.count("the newest") == 1


def test_the_tree_is_drawn_so_that_every_line_leads_to_its_caller(team: JobHistory) -> None:
    lines = text_of(summary_of(team.store)).splitlines()
    drawn = [match[0] for line in lines if line.endswith(tuple(team.runs)) and (match := re.match(r"\W*\w+", line))]
    assert drawn == ["boss", "├─ left", "│  └─ leaf", "└─ right"] * 2


def test_totals_of_an_ended_job_are_its_records_and_those_of_its_runs_add_up_to_them(team: JobHistory) -> None:
    summary, job = summary_of(team.store), team.job
    assert (summary.steps, summary.usage, summary.cost) == (job.total_steps, job.usage, job.cost)
    assert sum(run.steps for run in summary.runs) == job.total_steps
    assert sum(run.usage.total_tokens for run in summary.runs) == job.usage.total_tokens
    assert sum(run.cost or 0 for run in summary.runs) == pytest.approx(job.cost)
    assert job.total_steps == 18


def test_time_is_that_of_the_coordinators_and_shorter_than_the_jobs_life(team: JobHistory) -> None:
    summary = summary_of(team.store)
    assert summary.duration_ms == sum(run.duration_ms for run in summary.runs if run.depth == 0)
    assert summary.finished_at is not None
    assert 0 < summary.duration_ms < summary.finished_at - summary.started_at
    left = next(run for run in summary.runs if run.expert_key == "left")
    assert left.duration_ms >= 200, "its model took that long"


def test_the_last_error_is_the_latest_of_all_runs(team: JobHistory) -> None:
    error = summary_of(team.store).last_error
    assert error is not None
    newest_right = [run.run_id for run in summary_of(team.store).runs if run.expert_key == "right"][-1]
    assert (error.expert_key, error.run_id, error.step_number) == ("right", newest_right, 2)
    assert (error.name, error.status_code) == ("ModelError", 401)


def test_a_job_that_waits_says_for_what_and_how_to_answer(team: JobHistory) -> None:
    summary = summary_of(team.store)
    assert summary.question is not None
    assert summary.question.args == {"question": "Red or blue?"}
    text = text_of(summary)
    assert "Job team: stoppedByInteractiveTool" in text
    assert 'question     askUser {"question": "Red or blue?"}' in text
    assert 'answer       perstack run --continue-job team -i "ANSWER"' in text


def test_a_completed_job_shows_its_result_and_takes_a_further_query(team: JobHistory) -> None:
    summary = summary_of(team.store, "simple")
    assert (summary.status, summary.text, summary.last_error) == (JobStatus.COMPLETED, "Simply done.", None)
    text = text_of(summary)
    assert "result       Simply done." in text
    assert 'go on        perstack run --continue-job simple "QUERY"' in text
    assert "branch" not in text
    assert "newest" not in text


def test_an_interrupted_job_is_counted_from_its_events(copy: Store) -> None:
    killed = kill(copy)
    summary = summary_of(copy)
    assert summary.is_interrupted
    assert summary.worked_on_by is None
    assert summary.steps == sum(run.steps for run in summary.runs) > killed.total_steps
    assert summary.usage.total_tokens == sum(run.usage.total_tokens for run in summary.runs)
    assert 0 < summary.usage.total_tokens < killed.usage.total_tokens
    assert summary.cost is not None
    assert killed.cost is not None
    assert summary.cost < killed.cost
    assert [(run.expert_key, run.status) for run in summary.runs if run.status.value in ("proceeding", "init")] == [
        ("left", CheckpointStatus.PROCEEDING)
    ]
    text = text_of(summary)
    assert "Job team: interrupted (nobody works on it)" in text
    assert "left     interrupted" in text
    assert text.endswith("go on        perstack run --continue-job team")


def test_a_running_job_tells_who_works_on_it(copy: Store) -> None:
    kill(copy)
    lease = JobLease.take(copy.job_folder("team"))
    try:
        just_begun = summary_of(copy)
        lease.announce()
        summary = summary_of(copy)
    finally:
        lease.release()
    assert "Job team: running (it has just begun)" in text_of(just_begun)
    assert not summary.is_interrupted
    assert summary.worked_on_by is not None
    assert summary.worked_on_by.pid == os.getpid()
    assert summary.continue_command is None
    text = text_of(summary)
    assert f"Job team: running (process {os.getpid()} on " in text
    assert "left     running" in text
    assert text.endswith("go on        when the process that works on it has ended")
    assert summary_of(copy).is_interrupted, "released"


def test_an_end_that_is_written_while_we_look_is_not_called_an_interruption(
    copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = copy.read_job("team")
    kill(copy)

    def end_meanwhile(_: object) -> None:
        copy.write_job(ended)

    monkeypatch.setattr("orchestrator.logs.summary.holder", end_meanwhile)
    summary = summary_of(copy)
    assert (summary.status, summary.is_interrupted) == (ended.status, False)


def test_a_job_killed_before_it_wrote_that_it_waits_still_tells_its_question(copy: Store) -> None:
    job = copy.read_job("team")
    copy.write_job(job.model_copy(update={"status": JobStatus.RUNNING, "finished_at": None}))
    summary = summary_of(copy)
    assert summary.is_interrupted
    assert summary.question is not None
    assert summary.continue_command == 'perstack run --continue-job team -i "ANSWER"'


def test_a_job_killed_before_its_first_run_was_recorded_is_shown(copy: Store) -> None:
    job = copy.read_job("team")
    begun = job.model_copy(update={"id": "bare", "status": JobStatus.RUNNING, "finished_at": None})
    copy.make_job_folder("bare")
    copy.write_job(begun)
    summary = summary_of(copy, "bare")
    assert (summary.is_interrupted, summary.runs, summary.steps, summary.query) == (True, (), 0, None)
    assert "interrupted" in text_of(summary)


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (CheckpointStatus.COMPLETED, 'perstack run --continue-job j "QUERY"'),
        (CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL, 'perstack run --continue-job j -i "ANSWER"'),
        (CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS, "perstack run --continue-job j --max-steps N"),
        (CheckpointStatus.STOPPED_BY_ERROR, "perstack run --continue-job j"),
        (CheckpointStatus.STOPPED_BY_CANCELLATION, "perstack run --continue-job j"),
        (CheckpointStatus.PROCEEDING, "perstack run --continue-job j"),
    ],
)
def test_how_a_job_goes_on_depends_on_how_it_stands(status: CheckpointStatus, command: str) -> None:
    assert continue_command("j", status) == command


def test_a_damaged_run_is_summed_up_as_far_as_it_can_be_read(copy: Store) -> None:
    history = JobHistory(copy, "team")
    leaf = run_of(history, "leaf")
    path = rewrite(copy, leaf, lambda lines: [*lines[:2], b"\x1b[2Jgarbage\n", *lines[3:]])
    summary = summary_of(copy)
    run = next(run for run in summary.runs if run.run_id == leaf)
    assert run.events == 2
    assert run.damage is not None
    assert f"{path}:3" in run.damage
    text = text_of(summary)
    assert f"damaged: {path}:3: not an event" in text
    assert "\x1b" not in text
    assert [r.damage for r in summary.runs if r.run_id != leaf] == [None] * 7


def test_the_schema_is_stable(team: JobHistory) -> None:
    """Scripts read these names; add to them, and take none away."""
    summary = summary_of(team.store).model_dump(mode="json", by_alias=True)
    assert list(summary) == [
        "jobId",
        "status",
        "isInterrupted",
        "workedOnBy",
        "coordinatorExpertKey",
        "coordinatorRunId",
        "query",
        "text",
        "steps",
        "maxSteps",
        "usage",
        "cost",
        "durationMs",
        "startedAt",
        "continuedAt",
        "finishedAt",
        "runtimeVersion",
        "question",
        "lastError",
        "continueCommand",
        "runs",
    ]
    assert list(summary["runs"][0]) == [
        "runId",
        "expertKey",
        "depth",
        "callerRunId",
        "toolCallId",
        "branchedFrom",
        "isNewest",
        "status",
        "query",
        "furtherQueries",
        "steps",
        "usage",
        "cost",
        "durationMs",
        "createdAt",
        "lastAt",
        "events",
        "checkpointId",
        "text",
        "error",
        "sandboxesLost",
        "damage",
    ]


def test_long_texts_are_cut_unless_they_are_asked_for_whole(team: JobHistory) -> None:
    summary = summary_of(team.store, "simple").model_copy(update={"text": "first line\n" + "x" * 1_000})
    assert "x" * 1_000 not in text_of(summary)
    assert "\n               " + "x" * 1_000 in text_of(summary, is_verbose=True)
