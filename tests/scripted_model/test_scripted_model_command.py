"""`perstack scripted-model`, as a process of its own."""

import asyncio
import signal
import sys
import tomllib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession
from click.testing import CliRunner

from orchestrator.cli.scripted_model import scripted_model
from orchestrator.scripted_model import Conversation, Script, ScriptedModel, Turn

SCRIPT = '[[conversations]]\nexpert = "*"\nturns = [{ text = "hello" }]\n'
COMMAND = "from orchestrator.cli.scripted_model import scripted_model; scripted_model()"


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", COMMAND, *arguments, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_where_it_listens_and_how_to_use_it_and_stops_when_told(
    tmp_path: Path, stop: signal.Signals
) -> None:
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    async with running(str(script)) as process:
        assert process.stdout is not None
        first = (await process.stdout.readline()).decode()
        assert first.startswith("listening on http://127.0.0.1:")
        url = first.removeprefix("listening on ").strip()
        request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        async with ClientSession() as client, client.post(f"{url}/chat/completions", json=request) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "hello"
        process.send_signal(stop)
        rest, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
    shown = "\n".join(line.strip() for line in rest.decode().splitlines() if line.startswith("    "))
    assert tomllib.loads(shown) == {
        "model": "scripted",
        "provider": {"providerName": "openai", "setting": {"baseUrl": url}},
    }


def test_a_broken_script_is_a_usage_error_that_names_the_place(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT.replace("text", "txet"))
    result = CliRunner().invoke(scripted_model, [str(script)])
    assert result.exit_code == 2
    assert "conversations[0].turns[0].txet: unknown field" in result.output


async def test_a_port_in_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    async with ScriptedModel(Script(conversations=(Conversation(expert="*", turns=(Turn(text="x"),)),))) as model:
        port = model.url.split(":")[2].split("/")[0]
        async with running(str(script), "--port", port) as process:
            output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert f"cannot listen on 127.0.0.1:{port}".encode() in errors
