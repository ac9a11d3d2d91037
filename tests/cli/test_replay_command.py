"""`perstack replay` as a user runs it."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Ended, Shell, leftovers
from tests.jobs.stage import Stage, call, done, talk, turn
from tests.replay.altered import alter, assign

SCRIPT = (
    talk("boss", turn(call("readTextFile", path="in")), turn(call("aide", query="do it")), *done("The end.")),
    talk("aide", turn(text="done")),
)


class Replays(Shell):
    async def replay(self, *arguments: str) -> Ended:
        """With no provider's key in the environment, and no provider that answers."""
        nobody = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://127.0.0.1:9"}
        process = await self.start("replay", *arguments, **nobody)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def record(self, runtime: str = "local", *conversations: dict[str, Any]) -> None:
        stage = Stage(self.folder, runtime)
        stage.storage = self.folder / "perstack"
        (stage.workspace / "in").write_text("then")
        await stage.play({"boss": {"delegates": ["aide"]}, "aide": {}}, *(conversations or SCRIPT), jobId="j")

    def log(self, expert: str) -> Path:
        runs = (self.folder / "perstack" / "jobs" / "j" / "runs").iterdir()
        return next(
            run / "events.jsonl" for run in runs if json.loads((run / "run.json").read_text())["expertKey"] == expert
        )


@pytest.fixture
def shell(short_path: Path) -> Replays:
    return Replays(short_path)


async def test_a_record_that_is_its_own_fold_is_one_line(shell: Replays) -> None:
    await shell.record()
    ended = await shell.replay("j")
    assert (ended.code, ended.err) == (0, "")
    events = sum(len(shell.log(expert).read_text().splitlines()) for expert in ("boss", "aide"))
    assert ended.out == f"Job j: 2 Runs, {events} events, 4 steps: nothing differs\n"
    as_json = await shell.replay("j", "--json")
    assert as_json.events == [{"jobId": "j", "runs": 2, "events": events, "steps": 4}]


async def test_the_first_difference_is_told_with_its_place(shell: Replays) -> None:
    await shell.record()
    log = shell.log("aide")
    alter(log, lambda lines: assign(lines[-2], "checkpoint.usage.totalTokens", 7))
    line = json.loads(log.read_text().splitlines()[-2])
    ended = await shell.replay("j")
    assert ended.code == 1
    number = len(log.read_text().splitlines()) - 1
    assert ended.out.splitlines()[0] == f"First difference in Run {line['runId']} (aide):"
    assert f"{log}:{number}, completeRun {line['id']}" in ended.out
    assert "checkpoint.usage.totalTokens" in ended.out
    assert "recorded: 7" in ended.out
    as_json = await shell.replay("j", "--json")
    assert as_json.code == 1
    (report,) = as_json.events
    difference = report["difference"]
    assert (difference["runId"], difference["expertKey"]) == (line["runId"], "aide")
    assert (difference["file"], difference["line"]) == (str(log), number)
    assert (difference["eventId"], difference["event"]) == (line["id"], "completeRun")
    assert (difference["field"], difference["recorded"]) == ("checkpoint.usage.totalTokens", 7)


async def test_a_damaged_log_is_told_with_its_place(shell: Replays) -> None:
    await shell.record()
    log = shell.log("boss")
    content = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*content[:2], b"garbage\n", *content[2:]]))
    ended = await shell.replay("j")
    assert ended.code == 1
    assert f"{log}:3" in ended.out
    assert "not an event" in ended.out


@pytest.mark.parametrize("runtime", ["local", pytest.param("docker", marks=pytest.mark.docker)])
async def test_a_job_is_run_again_without_a_key_and_leaves_nothing(shell: Replays, runtime: str) -> None:
    await shell.record(runtime)
    before = {path: path.read_bytes() for path in shell.folder.rglob("*") if path.is_file()}
    ended = await shell.replay("--run", "j")
    assert ended.code == 1
    assert "toolResults[0].result[0].text" in ended.out
    assert 'recorded: "then"' in ended.out
    assert "does not exist" in ended.out
    same = await shell.replay("--run", "--workspace", "workspace", "j")
    assert same.code == 0, same.out + same.err
    assert ("NO ISOLATION" in same.err) == (runtime == "local")
    assert before == {path: path.read_bytes() for path in shell.folder.rglob("*") if path.is_file()}
    assert list(shell.temporary.iterdir()) == []


@pytest.mark.docker
async def test_ctrl_c_ends_a_replay_and_leaves_nothing(shell: Replays) -> None:
    wait = ["-c", "test -e in || { touch busy; sleep 600; }"]
    await shell.record("docker", talk("boss", turn(call("exec", command="sh", args=wait)), *done()))
    process = await shell.start("replay", "--run", "j")
    async with asyncio.timeout(60):
        while not _busy(shell):
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out) == (130, b""), err.decode()
    assert list(shell.temporary.iterdir()) == []
    assert leftovers("j") == []


def _busy(shell: Replays) -> list[Path]:
    return list(shell.temporary.glob("perstack-replay-*/workspace/busy"))


async def test_checking_a_record_needs_neither_litellm_nor_docker(shell: Replays) -> None:
    await shell.record()
    program = (
        "import sys; from orchestrator.cli.main import cli; cli(['replay', 'j'], standalone_mode=False); "
        "print([name for name in ('litellm', 'docker', 'aiohttp', 'mcp') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), cwd=shell.folder, env=shell.environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "an unknown Job": (["nope"], 1, "there is no Job nope"),
    "an id that is none": (["../j"], 2, "job id '../j'"),
    "a workspace without --run": (["j", "--workspace", "w"], 2, "give --run with them"),
    "no configuration": (["j", "--run", "--config", "gone.toml"], 2, "gone.toml: there is no such file"),
    "no Job at all": ([], 2, "Missing argument 'JOB'"),
}


async def test_mistakes_are_named(shell: Replays) -> None:
    await shell.record()
    for mistake, (arguments, code, text) in MISTAKES.items():
        ended = await shell.replay(*arguments)
        assert (ended.code, ended.out) == (code, ""), mistake
        assert text in ended.err, mistake


async def test_a_history_of_a_later_version_is_refused(shell: Replays) -> None:
    await shell.record()
    path = shell.folder / "perstack" / "jobs" / "j" / "job.json"
    job: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(job | {"historyVersion": 99, "runtimeVersion": "99.0.0", "news": True}))
    ended = await shell.replay("j")
    assert (ended.code, ended.out) == (1, "")
    assert "use a newer perstack" in ended.err
