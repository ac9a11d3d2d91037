"""docs/library.md does what it says: its snippets are run, one after the other, as a program of their own."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract.checkpoints import CheckpointStatus
from orchestrator.scripted_model import Script, ScriptedModel
from tests.jobs.stage import KEY, call, turn

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)

GREETER = {
    "conversations": [
        {
            "expert": "greeter",
            "turns": [
                turn(call("writeTextFile", path="greeting.txt", text="Hello, world!"), delayMs=1000),
                turn(text="Hello, world!"),
                turn(text="Bonjour !"),
            ],
        }
    ]
}


def test_every_snippet_is_found() -> None:
    assert len(SNIPPETS) == TEXT.count("```") / 2 >= 6


@pytest.mark.parametrize("runtime", ["local", pytest.param("docker", marks=pytest.mark.docker)])
async def test_the_snippets_do_what_they_say(
    runtime: str, short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(short_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PERSTACK_STORAGE_PATH", raising=False)
    program: dict[str, Any] = {}
    statuses = []
    async with ScriptedModel(Script.model_validate(GREETER)) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        for snippet in SNIPPETS:
            source = snippet.replace('"runtime": "docker"', f'"runtime": "{runtime}"')
            code = compile(source, "library.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            outcome = eval(code, program)  # noqa: S307 - the project's own documentation
            if inspect.isawaitable(outcome):
                await outcome
            statuses.append(program["checkpoint"].status)
    completed, cancelled = CheckpointStatus.COMPLETED, CheckpointStatus.STOPPED_BY_CANCELLATION
    assert statuses == [completed, completed, completed, cancelled, completed, completed, completed]
    out = capsys.readouterr().out
    assert "Hello, world!" in out
    assert "greeter ['writeTextFile']" in out
    assert "stateDiagram" in out
    assert (short_path / "workspace" / "greeting.txt").read_text() == "Hello, world!"
    assert len(list((short_path / "perstack" / "jobs").iterdir())) == 4
