"""`perstack run --continue …` as users run it."""

import asyncio
import json
import os
import signal

import pytest

from tests.cli.shell import CONFIG, Ended, Shell, leftovers, model_of
from tests.jobs.stage import call, done, talk, turn

LOCAL = ("--runtime", "local")
ASKING = (
    CONFIG
    + """
[experts."boss".skills."ask"]
type = "interactiveSkill"
[experts."boss".skills."ask".tools."askUser"]
inputJsonSchema = '{"type":"object"}'
"""
)


def result(ended: Ended) -> list[str]:
    return [event["text"] for event in ended.events if event["type"] == "completeRun"]


def history(shell: Shell) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (shell.folder / "perstack").rglob("*") if p.is_file()}


def asks(shell: Shell) -> None:
    table = ASKING.index('[experts."aide"]')
    skill = ASKING.index('[experts."boss".skills."ask"]')
    (shell.folder / "perstack.toml").write_text(ASKING[:table] + ASKING[skill:] + ASKING[table:skill])


async def test_the_latest_job_goes_on_with_a_query(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(text="one"), turn(text="two"), turn(text="three"))):
        await shell.run(*LOCAL, "boss", "First.")
        second = await shell.run(*LOCAL, "--continue", "boss", "Second.")
        third = await shell.run(*LOCAL, "--continue", "Third.")
    assert (second.code, result(second)) == (0, ["two"]), second.err
    assert (third.code, result(third)) == (0, ["three"]), third.err
    assert len({event["jobId"] for ended in (second, third) for event in ended.events}) == 1


async def test_a_question_is_answered_with_i(shell: Shell) -> None:
    asks(shell)
    async with model_of(
        shell, talk("boss", turn(call("askUser", question="Which?")), turn(text="{{turn.0.result.0}}!"))
    ):
        asked = await shell.run(*LOCAL, "--job-id", "j", "boss", "Go.")
        assert asked.code == 3
        before = history(shell)
        for arguments in (("--continue-job", "j"), ("--continue-job", "j", "red")):
            refused = await shell.run(*LOCAL, *arguments)
            assert refused.code == 2
            assert 'Job j waits for the answer to askUser {"question": "Which?"}' in refused.err
        assert history(shell) == before
        answered = await shell.run(*LOCAL, "--continue", "-i", "red")
    assert (answered.code, result(answered)) == (0, ["red!"]), answered.err


async def test_a_raised_limit(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(call("healthCheck"), repeat=3), turn(text="end"))):
        limited = await shell.run(*LOCAL, "--max-steps", "2", "boss", "Go.")
        assert limited.code == 4
        refused = await shell.run(*LOCAL, "--continue")
        assert (refused.code, "raise it with --max-steps" in refused.err) == (2, True)
        raised = await shell.run(*LOCAL, "--continue", "--max-steps", "9")
    assert (raised.code, result(raised)) == (0, ["end"]), raised.err


async def test_a_branch(shell: Shell) -> None:
    async with model_of(
        shell, talk("boss", turn(call("healthCheck")), turn(text="{{turn.0.result.0}}"), turn(text="no"))
    ):
        first = await shell.run(*LOCAL, "--job-id", "j", "boss", "Go.")
        (step,) = (event for event in first.events if event["type"] == "continueToNextStep")
        branch = await shell.run(*LOCAL, "--continue-job", "j", "--resume-from", step["checkpoint"]["id"], "Other.")
    assert branch.code == 0, branch.err
    (begun,) = (event for event in branch.events if event["type"] == "initializeRuntime")
    assert begun["branchedFrom"] == {"runId": first.events[0]["runId"], "checkpointId": step["checkpoint"]["id"]}


@pytest.mark.docker
async def test_a_job_whose_orchestrator_was_killed_goes_on_and_leaves_nothing(shell: Shell) -> None:
    conversations = (
        talk("boss", turn(call("aide", query="a"), call("aide", query="b")), *done("{{turn.0.result.0}}")),
        talk("aide", turn(call("exec", command="bash", args=["-c", "echo x >>journal; sleep 3"])), turn(text="A")),
    )
    async with model_of(shell, *conversations):
        process = await shell.start("run", "--job-id", "killed", "boss", "Go.")
        journal = shell.folder / "workspace" / "journal"
        reading = asyncio.create_task(process.communicate())
        while not (journal.exists() and len(journal.read_text()) == 4):
            assert not reading.done(), "the tools of both delegates begin"
            await asyncio.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        await reading
        assert len(leftovers("killed")) == 3
        ended = await shell.run("--continue-job", "killed")
    assert ended.code == 0, ended.err
    assert result(ended)[-1] == "A"
    told = [e["toolResults"][0]["result"][0]["text"] for e in ended.events if e["type"] == "resolveToolResults"]
    assert sum("is unknown: look before you repeat it." in text for text in told) == 2
    assert leftovers("killed") == []
    assert list(shell.temporary.iterdir()) == [], "the runtime folder and mount of the killed one too"
    job = json.loads((shell.folder / "perstack/jobs/killed/job.json").read_text())
    assert job["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["boss"], 2, "give EXPERT and QUERY"),
        (["-i", "boss", "red"], 2, "answers what a Job waits for"),
        (["--continue", "-i"], 2, "give the answer as QUERY"),
        (["--continue"], 1, "there is no Job in"),
        (["--continue-job", "none"], 1, "there is no Job none in"),
        (["--continue-job", "../up", "q"], 2, "job id '../up'"),
        (["--resume-from", "c", "boss", "q"], 2, "--resume-from needs --continue-job"),
        (["--continue", "--continue-job", "j"], 2, "say different things"),
        (["--continue", "--job-id", "j"], 2, "--job-id is for a new Job"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_a_mistake_is_told_before_anything_starts(
    shell: Shell, arguments: list[str], code: int, why: str
) -> None:
    ended = await shell.run(*LOCAL, *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    assert shell.nothing_started()
