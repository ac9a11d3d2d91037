"""The runner as a process: hidden, a good process 1, and gone when its orchestrator is."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from expert_runner import process
from expert_runner.contract.wire import LEASE_S
from expert_runner.process import ExitCode, zombies_of
from orchestrator.bus import IDENTITY_NAME, Bus
from orchestrator.sandbox.backend import SandboxOwner, Transport

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_a_hidden_process_is_not_dumpable() -> None:
    read = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    assert run_python(read).strip() == "1"
    assert run_python(f"from expert_runner.process import hide; hide(); {read}").strip() == "0"


async def test_orphans_are_collected_and_own_children_left_to_whoever_started_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "REAP_INTERVAL_S", 0.2)
    pid = os.posix_spawn("/bin/true", ["true"], {})  # noqa: ASYNC221 (nobody waits for this one)
    reaping = asyncio.create_task(process.reap_forever())
    try:
        async with asyncio.timeout(10):
            while not zombies_of(os.getpid()):
                await asyncio.sleep(0.01)
            own = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
            assert await own.wait() == 7
            while pid in zombies_of(os.getpid()):
                await asyncio.sleep(0.05)
    finally:
        reaping.cancel()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (does not wait)


def test_zombies_are_found_whatever_their_processes_are_called(tmp_path: Path) -> None:
    for pid, text in {
        "7": "7 (a) b) c) Z 1 7 7 0",
        "8": "8 (ok) S 1 8 8 0",
        "9": "9 (other) Z 2 9 9 0",
        "self": "",
    }.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(text)
    (tmp_path / "10").mkdir()
    assert zombies_of(1, tmp_path) == {7}


async def start(identity: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "expert_runner"),
        cwd=ROOT,
        env={"PERSTACK_IDENTITY": str(identity), "PATH": os.defpath},
        stderr=asyncio.subprocess.PIPE,
    )


async def test_without_an_identity_it_says_so_and_exits(tmp_path: Path) -> None:
    runner = await start(tmp_path / "none")
    _, err = await runner.communicate()
    assert runner.returncode == ExitCode.NO_IDENTITY
    assert b"no identity" in err


async def test_it_exits_when_its_orchestrator_is_gone_for_longer_than_the_lease(short_path: Path) -> None:
    async with Bus(Transport("ipc"), SandboxOwner(os.geteuid(), os.getegid()), short_path, None) as bus:
        peer = bus.add("r1")
        runner = await start(peer.folder / IDENTITY_NAME)
        async with asyncio.timeout(30):
            await peer.greeted
    async with asyncio.timeout(LEASE_S + 15):
        _, err = await runner.communicate()
    assert runner.returncode == ExitCode.LEASE_LOST
    assert b"no sign of life" in err


def test_it_starts_on_pydantic_and_zmq_alone() -> None:
    heavy = ("litellm", "docker", "mcp", "click", "aiohttp", "httpx", "requests", "orchestrator")
    found = run_python(f"import expert_runner.__main__, sys; print([m for m in {heavy} if m in sys.modules])")
    assert found.strip() == "[]"
