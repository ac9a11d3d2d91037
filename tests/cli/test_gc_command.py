"""`perstack gc` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import gc as command
from orchestrator.cli.gc import describe
from orchestrator.gc import Collection, Leftover, LeftoverKind

ROOT = Path(__file__).parents[2]

MAKE_AND_DIE = """
import asyncio, os, signal
from orchestrator.runtime_folder import RuntimeFolder

async def main() -> None:
    async with RuntimeFolder("the-job", "token") as folder:
        print(folder, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """No engine answers, and temporary files are the test's own."""
    (tmp_path / "tmp").mkdir()
    yield {
        **os.environ,
        "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock",
        "TMPDIR": str(tmp_path / "tmp"),
        "PERSTACK_STORAGE_PATH": str(tmp_path / "history"),
        "PYTHONPATH": str(ROOT),
    }
    assert not (tmp_path / "history").exists()


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=environment["TMPDIR"], env=environment, capture_output=True, text=True
    )


def gc(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return run(environment, "-m", "orchestrator.cli.main", "gc", *options)


def test_it_shows_then_removes_what_a_killed_process_left(environment: dict[str, str]) -> None:
    killed = run(environment, "-c", MAKE_AND_DIE)
    assert killed.returncode == -signal.SIGKILL
    folder = Path(killed.stdout.strip())

    shown = gc(environment, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert f"would remove folder {folder} of Job the-job, " in shown.stdout
    assert "which started it, has ended" in shown.stdout
    assert "Containers and networks were not looked for" in shown.stderr
    assert folder.is_dir()

    removed = gc(environment, "--json")
    assert removed.returncode == 0, removed.stderr
    (told,) = [told for line in removed.stdout.splitlines() if (told := json.loads(line))["jobId"] == "the-job"]
    assert (told["kind"], told["id"], told["removed"]) == ("runtimeFolder", str(folder), True)
    assert not folder.exists()
    assert "the-job" not in gc(environment).stdout


def test_what_could_not_be_removed_is_told_with_an_exit_code(environment: dict[str, str]) -> None:
    folder = Path(run(environment, "-c", MAKE_AND_DIE).stdout.strip())
    (folder / "mine").write_text("precious")
    ended = gc(environment)
    assert ended.returncode == 1
    assert f"could not remove folder {folder} of Job the-job" in ended.stdout
    assert "nothing that perstack makes there" in ended.stdout
    assert (folder / "mine").read_text() == "precious"


def invoke(monkeypatch: pytest.MonkeyPatch, found: Collection, *options: str) -> str:
    async def collect(*_: object, **__: object) -> Collection:
        return found

    monkeypatch.setattr(command, "collect", collect)
    result = CliRunner().invoke(command.gc, options)
    assert result.exit_code == 0
    return result.stdout


def test_nothing_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(monkeypatch, Collection(())) == "Nothing is left over.\n"
    assert invoke(monkeypatch, Collection(()), "--json") == ""


CONTAINER = Leftover(
    kind=LeftoverKind.CONTAINER, id="0123456789abcdef", job_id="j", run_id="r", age_s=7_300, why="it is dead"
)


@pytest.mark.parametrize(
    ("leftover", "line"),
    [
        (CONTAINER, "would remove container 0123456789ab of Job j, Run r, 2 h old: it is dead"),
        (
            CONTAINER.model_copy(update={"removed": True, "age_s": 59}),
            "removed container 0123456789ab of Job j, Run r, 59 s old: it is dead",
        ),
        (
            CONTAINER.model_copy(update={"problem": "It is stuck.", "age_s": None, "run_id": None}),
            "could not remove container 0123456789ab of Job j: It is stuck.",
        ),
        (
            Leftover(kind=LeftoverKind.PROCESSES, id="12 1234567890123", job_id="j", age_s=200_000, why="dead"),
            "would remove processes 12 1234567890123 of Job j, 2 d old: dead",
        ),
    ],
)
def test_each_is_one_line(leftover: Leftover, line: str) -> None:
    assert describe(leftover) == line
