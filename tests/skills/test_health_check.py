from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from expert_runner.skills.base import health_check
from expert_runner.version import RUNTIME_VERSION

Call = Callable[..., Awaitable[str]]


async def test_it_tells_version_uptime_and_workspace(ok: Call, workspace: Path) -> None:
    text = await ok("healthCheck")
    assert f"runtime version: {RUNTIME_VERSION}" in text
    assert "uptime: 0." in text
    assert f"workspace: {workspace}, writable, " in text


@pytest.fixture
def lost_workspace(workspace: Path) -> None:
    workspace.rmdir()


@pytest.mark.usefixtures("lost_workspace")
async def test_it_tells_when_the_workspace_is_gone(ok: Call) -> None:
    assert "NOT writable, cannot be looked at (No such file or directory)" in await ok("healthCheck")


@pytest.mark.parametrize(
    ("used_in", "limit_in", "limit", "says"),
    [
        ("memory.current", "memory.max", "max\n", "10 MiB used, no limit"),
        ("memory.current", "memory.max", f"{2**29}\n", "10 MiB used, limit 512 MiB"),
        ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes", f"{2**63 - 4096}\n", "10 MiB used, no limit"),
        ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes", f"{2**28}\n", "10 MiB used, limit 256 MiB"),
    ],
)
async def test_it_tells_the_sandboxs_memory(
    ok: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used_in: str, limit_in: str, limit: str, says: str
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / used_in).write_text(f"{10 * 2**20}\n")
    (tmp_path / limit_in).write_text(limit)
    monkeypatch.setattr(health_check, "CGROUP", tmp_path)
    assert says in await ok("healthCheck")


async def test_memory_is_unknown_where_the_system_does_not_tell(
    ok: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "CGROUP", tmp_path)
    assert "memory: unknown" in await ok("healthCheck")
