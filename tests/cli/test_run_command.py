"""`perstack run` as a user runs it: a process, its output, its exit code and what it leaves behind."""

import asyncio
import json
import signal
import time
from collections.abc import Callable

import pytest

from tests.cli.shell import CONFIG, Shell, leftovers, model_of, mounts_under, volumes
from tests.jobs.stage import KEY, call, done, talk, turn

BOSS = talk("boss", turn(call("aide", query="do it")), *done("The aide said: {{turn.0.result.0}}"))


@pytest.mark.docker
async def test_success_prints_events_alone_and_leaves_nothing(shell: Shell) -> None:
    before = volumes()
    async with model_of(shell, BOSS, talk("aide", turn(text="done"))) as model:
        ended = await shell.run("boss", "Go.")
        assert all(record.has_key for record in model.requests)
    assert ended.code == 0, ended.err
    assert ended.types[0] == "initializeRuntime"
    assert [e["text"] for e in ended.events if e["type"] == "completeRun"] == ["done", "The aide said: done"]
    assert ended.err == ""
    assert leftovers(ended.events[0]["jobId"]) == []
    assert volumes() == before
    assert list(shell.temporary.iterdir()) == []
    assert mounts_under(shell.folder) == []
    assert KEY not in ended.out
    (job,) = (shell.folder / "perstack" / "jobs").iterdir()
    assert json.loads((job / "job.json").read_text())["status"] == "completed"
    for path in job.rglob("*"):
        assert path.is_dir() or KEY not in path.read_text()


@pytest.mark.docker
async def test_what_is_stored_are_the_bytes_that_were_printed(shell: Shell) -> None:
    async with model_of(shell, BOSS, talk("aide", turn(text="done"))):
        ended = await shell.run("boss", "Go.")
    printed = ended.out.splitlines()
    stored = [
        line for log in (shell.folder / "perstack").rglob("events.jsonl") for line in log.read_text().splitlines()
    ]
    assert len(stored) > 20
    assert set(stored) <= set(printed)
    assert {json.loads(line)["type"] for line in set(printed) - set(stored)} == {
        "startStreamingRunResult",
        "streamRunResult",
        "completeStreamingRunResult",
    }


@pytest.mark.docker
async def test_failure_exits_with_1_and_leaves_nothing(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(faults=[{"kind": "status", "status": 401}]))):
        ended = await shell.run("boss", "Go.")
    assert ended.code == 1
    assert "401" in ended.err
    assert KEY not in ended.err + ended.out
    assert ended.events[-3]["type"] == "stopRunByError"
    assert ended.events[-3]["error"]["statusCode"] == 401
    assert leftovers(ended.events[0]["jobId"]) == []
    assert list(shell.temporary.iterdir()) == []


@pytest.mark.docker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_ends_every_run_within_3_seconds_and_leaves_nothing(shell: Shell, number: signal.Signals) -> None:
    hold = talk("aide", turn(call("exec", command="sh", args=["-c", "trap '' TERM INT; sleep 60"])))
    async with model_of(shell, talk("boss", turn(call("aide", query="1"), call("aide", query="2"))), hold):
        process = await shell.start("run", "boss", "Go.")
        assert process.stdout is not None
        lines: list[bytes] = []
        busy = 0
        async with asyncio.timeout(60):
            while busy < 2:
                lines.append(await process.stdout.readline())
                busy += json.loads(lines[-1])["type"] == "callTools"
        began = time.monotonic()
        process.send_signal(number)
        process.send_signal(number)  # an impatient user changes nothing
        out, err = await process.communicate()
        took = time.monotonic() - began
    events = [json.loads(line) for line in (*lines, *out.splitlines())]
    assert process.returncode == 130, err.decode()
    assert took < 3
    stopped = [e["expertKey"] for e in events if e["type"] == "stopRunByCancellation"]
    assert sorted(stopped) == ["aide", "aide", "boss"]
    assert leftovers(events[0]["jobId"]) == []
    assert list(shell.temporary.iterdir()) == []
    assert mounts_under(shell.folder) == []


@pytest.mark.docker
async def test_a_ctrl_c_while_the_first_container_starts_leaves_nothing(shell: Shell) -> None:
    async with model_of(shell, BOSS):
        process = await shell.start("run", "boss", "Go.")
        assert process.stdout is not None
        first = json.loads(await process.stdout.readline())
        assert first["type"] == "initializeRuntime"
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130
    assert leftovers(first["jobId"]) == []
    assert list(shell.temporary.iterdir()) == []


async def test_the_step_limit_exits_with_4(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(call("healthCheck"), repeat=9))):
        ended = await shell.run("--runtime", "local", "--max-steps", "3", "boss", "Go.")
    assert ended.code == 4
    assert "stopRunByExceededMaxSteps" in ended.types


async def test_an_interactive_call_exits_with_3(shell: Shell) -> None:
    with (shell.folder / "perstack.toml").open("a") as config:
        config.write(
            '[experts."boss".skills."user"]\ntype = "interactiveSkill"\n'
            '[experts."boss".skills."user".tools."ask"]\ninputJsonSchema = "{}"\n'
        )
    async with model_of(shell, talk("boss", turn(call("ask")))):
        ended = await shell.run("--runtime", "local", "boss", "Go.")
    assert ended.code == 3


async def test_local_says_loudly_that_it_isolates_nothing(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(text="ok"))):
        ended = await shell.run("--runtime", "local", "boss", "Go.")
    assert "NO ISOLATION" in ended.err
    assert ended.code == 0


async def test_a_closed_stdout_does_not_end_the_job(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(call("writeTextFile", path="x", text="y")), *done())):
        process = await shell.start("run", "--runtime", "local", "boss", "Go.")
        assert process.stdout is not None
        process.stdout._transport.close()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    assert (shell.folder / "workspace" / "x").read_text() == "y"


async def test_the_history_of_a_job_stays_when_its_id_is_given_again(shell: Shell) -> None:
    async with model_of(shell, talk("boss", turn(text="ok"))):
        first = await shell.run("--runtime", "local", "--job-id", "mine", "boss", "Go.")
        second = await shell.run("--runtime", "local", "--job-id", "mine", "boss", "Go.")
    assert first.code == 0
    assert second.code == 1
    assert "Job mine exists already" in second.err
    assert {e["jobId"] for e in first.events} == {"mine"}


async def test_a_tool_that_prints_a_gigabyte_and_nuls_is_bounded(shell: Shell) -> None:
    flood = "import sys\nfor _ in range(1024): sys.stdout.buffer.write(b'x\\0' * (1 << 19))"
    async with model_of(
        shell, talk("boss", turn(call("exec", command="python3", args=["-c", flood], timeout=60000)), *done())
    ):
        ended = await shell.run("--runtime", "local", "boss", "Go.")
    assert ended.code == 0, ended.err
    assert len(ended.out) < 1_000_000
    assert "\\u0000" not in ended.out


MISTAKES: dict[str, tuple[list[str], Callable[[Shell], object], int, list[str]]] = {
    "an unknown Expert": (["nobody", "Go."], lambda shell: None, 2, ["nobody", "aide", "boss"]),
    "an unknown delegate": (
        ["boss", "Go."],
        lambda shell: (shell.folder / "perstack.toml").write_text(CONFIG.replace('["aide"]', '["aid"]')),
        2,
        ["perstack.toml:7", "aid", "aide"],
    ),
    "a broken perstack.toml": (
        ["boss", "Go."],
        lambda shell: (shell.folder / "perstack.toml").write_text('model = "x\n'),
        2,
        ["perstack.toml:1"],
    ),
    "a wrong field": (
        ["boss", "Go."],
        lambda shell: (shell.folder / "perstack.toml").write_text(CONFIG + "instrucion = 1\n"),
        2,
        ["perstack.toml:10", "instrucion", "instruction"],
    ),
    "no perstack.toml": (
        ["--config", "missing.toml", "boss", "Go."],
        lambda shell: None,
        2,
        ["missing.toml"],
    ),
    "a missing key": (
        ["boss", "Go."],
        lambda shell: shell.environment.pop("OPENAI_API_KEY"),
        2,
        ["OPENAI_API_KEY"],
    ),
    "a provider key passed into the sandbox": (
        ["--env", "OPENAI_API_KEY", "boss", "Go."],
        lambda shell: None,
        2,
        ["OPENAI_API_KEY", "never enters a sandbox"],
    ),
    "an unset variable": (["--env", "NOT_SET", "boss", "Go."], lambda shell: None, 2, ["NOT_SET"]),
    "a missing env file": (["--env-path", "none.env", "boss", "Go."], lambda shell: None, 2, ["none.env"]),
    "a bad job id": (["--job-id", "../x", "boss", "Go."], lambda shell: None, 2, ["../x"]),
    "a workspace that is a file": (
        ["--workspace", "perstack.toml", "boss", "Go."],
        lambda shell: None,
        1,
        ["perstack.toml"],
    ),
    "no Docker": (
        ["boss", "Go."],
        lambda shell: shell.environment.update(DOCKER_HOST="unix:///nowhere/docker.sock"),
        1,
        ["/nowhere/docker.sock"],
    ),
    "a skill this version cannot run": (
        ["boss", "Go."],
        lambda shell: (shell.folder / "perstack.toml").write_text(
            CONFIG + '[experts."aide".skills."git"]\ntype = "mcpStdioSkill"\ncommand = "uvx"\n'
        ),
        2,
        ["aide", "git", "mcpStdioSkill"],
    ),
    "an option that does not exist": (["--frobnicate", "boss", "Go."], lambda shell: None, 2, ["--frobnicate"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_told_before_anything_starts(shell: Shell, mistake: str) -> None:
    arguments, make, code, words = MISTAKES[mistake]
    make(shell)
    async with model_of(shell, talk("boss", turn(text="ok"))) as model:
        ended = await shell.run(*arguments)
        assert list(model.requests) == []
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err
    assert shell.nothing_started()


@pytest.mark.parametrize("delay_s", [0.1, 0.4, 0.8, 1.2])
async def test_a_ctrl_c_at_any_moment_of_the_start_is_a_cancellation(shell: Shell, delay_s: float) -> None:
    async with model_of(shell, talk("boss", turn(text="ok", delayMs=60_000))):
        process = await shell.start("run", "--runtime", "local", "boss", "Go.")
        await asyncio.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    # Python's own start-up, before any code of ours, ends by the signal.
    assert process.returncode in (130, -signal.SIGINT), err.decode()
    assert list(shell.temporary.iterdir()) == []
