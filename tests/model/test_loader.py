"""Loading litellm, each time in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def in_a_fresh_process(code: str, cwd: Path) -> Any:
    """What `code` puts into `said`. Fails if anything is printed besides."""
    program = f"import json\nsaid = {{}}\n{code}\nprint(json.dumps(said))"
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_loading_is_quiet_harmless_and_done_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\nOPENAI_API_KEY=sk-from-dotenv\n")
    said = in_a_fresh_process(
        """
import asyncio, gc, os, sys
from orchestrator.model.loader import loaded, start_loading
start_loading()
start_loading()
async def main():
    first, second = await asyncio.gather(loaded(), loaded())
    said["same"] = first is second is sys.modules["litellm"]
    said["models"] = len(first.model_cost)
    said["frozen"] = gc.get_freeze_count()
    said["collecting"] = gc.isenabled()
    said["dotenv"] = "FROM_DOTENV" in os.environ
    first.main._get_encoding()
    said["tokenizer"] = "litellm.litellm_core_utils.default_encoding" in sys.modules
    said["works"] = first.main.encoding.encode("two words")
asyncio.run(main())
""",
        tmp_path,
    )
    assert said["same"]
    assert said["models"] > 500  # the table that comes with the package
    assert said["frozen"] > 100_000
    assert said["collecting"]
    assert not said["dotenv"]
    assert not said["tokenizer"]
    assert said["works"]


def test_a_caller_that_gives_up_leaves_the_import_to_the_others(tmp_path: Path) -> None:
    said = in_a_fresh_process(
        """
import asyncio
from orchestrator.model.loader import loaded
async def main():
    impatient = asyncio.create_task(loaded())
    await asyncio.sleep(0)
    impatient.cancel()
    said["name"] = (await loaded()).__name__
    said["cancelled"] = impatient.cancelled()
asyncio.run(main())
""",
        tmp_path,
    )
    assert said == {"name": "litellm", "cancelled": True}


def test_an_import_that_fails_fails_for_everyone(tmp_path: Path) -> None:
    (tmp_path / "litellm.py").write_text("raise ImportError('broken installation')")
    said = in_a_fresh_process(
        """
import asyncio, gc, sys
sys.path.insert(0, "")
from orchestrator.model.loader import loaded
async def main():
    said["errors"] = [str(error) for error in await asyncio.gather(loaded(), loaded(), return_exceptions=True)]
    said["collecting"] = gc.isenabled()
asyncio.run(main())
""",
        tmp_path,
    )
    assert said == {"errors": ["broken installation"] * 2, "collecting": True}


def test_a_gateway_can_be_described_without_litellm(tmp_path: Path) -> None:
    said = in_a_fresh_process(
        """
import sys
import orchestrator.model.gateway, orchestrator.model.conversation, orchestrator.model.provider
said["loaded"] = sorted({"litellm", "httpx", "openai", "aiohttp"} & set(sys.modules))
""",
        tmp_path,
    )
    assert said == {"loaded": []}
