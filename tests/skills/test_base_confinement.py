"""Nothing outside the workspace is ever read, listed or written, whatever links do and whenever they do it."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from expert_runner.skills.base.skill import BaseSkill, Outcome
from expert_runner.skills.base.workspace import Workspace

Call = Callable[..., Awaitable[str]]

FILE_TOOLS: list[tuple[str, dict[str, Any]]] = [
    ("readTextFile", {}),
    ("writeTextFile", {"text": "mine"}),
    ("listDirectory", {}),
]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("secret")
    return folder


@pytest.mark.parametrize(("tool", "args"), FILE_TOOLS)
@pytest.mark.parametrize(
    "path",
    [
        "../outside/file",
        "a/../../outside/file",
        "/etc/passwd",
        "..",
        "/",
        "link/file",
        "link",
        "filelink",
        "chain/file",
    ],
)
async def test_a_path_that_leads_outside_is_refused(
    refused: Call, workspace: Path, outside: Path, tool: str, args: dict[str, Any], path: str
) -> None:
    (workspace / "link").symlink_to(outside)
    (workspace / "filelink").symlink_to(outside / "file")
    (workspace / "chain").symlink_to("link")
    assert "outside the workspace" in await refused(tool, path=path, **args)
    assert (outside / "file").read_text() == "secret"
    assert names(outside) == ["file"]


async def test_a_name_that_begins_like_the_workspace_is_outside(refused: Call, workspace: Path) -> None:
    twin = workspace.with_name("workspace-twin")
    twin.mkdir()
    (twin / "file").write_text("secret")
    assert "outside the workspace" in await refused("readTextFile", path=str(twin / "file"))
    assert "outside the workspace" in await refused("readTextFile", path="../workspace-twin/file")


async def test_exec_starts_only_inside(refused: Call, workspace: Path, outside: Path) -> None:
    (workspace / "link").symlink_to(outside)
    for cwd in ("..", "link", "/tmp"):
        assert "outside the workspace" in await refused("exec", command="touch", args=["made"], cwd=cwd)
    assert not (outside / "made").exists()


async def test_absolute_paths_and_links_that_stay_inside_work(ok: Call, workspace: Path) -> None:
    (workspace / "real").mkdir()
    (workspace / "real" / "file").write_text("inside")
    (workspace / "relative").symlink_to("real")
    (workspace / "absolute").symlink_to(workspace / "real")
    (workspace / "real" / "up").symlink_to("../real/file")
    for path in (
        "real/file",
        "relative/file",
        "absolute/file",
        "real/up",
        "./real/../real//file",
        "absolute/../real/file",
    ):
        assert await ok("readTextFile", path=path) == "inside"
        assert await ok("readTextFile", path=f"{workspace}/{path}") == "inside"
    assert "real/" in await ok("listDirectory", path=str(workspace))
    assert "real/" in await ok("listDirectory", path=f"{workspace}/")


async def test_a_workspace_reached_through_a_link_works(
    tmp_path: Path, workspace: Path, read: Callable[[Outcome], str]
) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(workspace)
    (workspace / "file").write_text("inside")
    skill = BaseSkill(workspace=alias, env={}, tools=("readTextFile",), todos=())
    for path in ("file", str(alias / "file"), str(workspace / "file")):
        assert read(await skill.call("readTextFile", {"path": path})) == "inside"


async def test_writing_through_a_link_keeps_the_link(ok: Call, workspace: Path) -> None:
    (workspace / "real").write_text("old")
    (workspace / "link").symlink_to("real")
    (workspace / "dangling").symlink_to("new/file")
    await ok("writeTextFile", path="link", text="new")
    await ok("writeTextFile", path="dangling", text="made")
    assert (workspace / "link").is_symlink()
    assert (workspace / "real").read_text() == "new"
    assert (workspace / "new" / "file").read_text() == "made"


@pytest.mark.parametrize(("tool", "args"), FILE_TOOLS)
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "is not a path"),
        ("a\0b", "is not a path"),
        ("a\ud800b", "is not a path"),
        ("x" * 256, "is too long"),
        ("x/" * 2_500, "at most 4,095"),
        ("loop", "circle"),
        ("loop/below", "circle"),
        ("file/below", "is not a folder"),
    ],
)
async def test_a_path_that_cannot_be_is_refused_in_words(
    refused: Call, workspace: Path, tool: str, args: dict[str, Any], path: str, says: str
) -> None:
    (workspace / "loop").symlink_to("loop")
    (workspace / "file").write_text("")
    text = await refused(tool, path=path, **args)
    assert says in text or ("loop" in path and "is not a folder" in text)
    assert len(text) < 500


@pytest.mark.parametrize("swapped", ["folder", "file"])
@pytest.mark.parametrize(("tool", "args"), FILE_TOOLS)
async def test_a_link_swapped_in_between_check_and_use_leads_nowhere(
    skill: BaseSkill,
    read: Callable[[Outcome], str],
    workspace: Path,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    args: dict[str, Any],
    swapped: str,
) -> None:
    (workspace / "folder").mkdir()
    (workspace / "folder" / "file").write_text("inside")
    resolve = Workspace.resolve

    def resolve_then_swap(self: Workspace, path: str) -> tuple[str, ...]:
        names = resolve(self, path)
        if swapped == "folder":
            (workspace / "folder").rename(workspace / "was")
            (workspace / "folder").symlink_to(outside)
        else:
            (workspace / "folder" / "file").unlink()
            (workspace / "folder" / "file").symlink_to(outside / "file")
        return names

    monkeypatch.setattr(Workspace, "resolve", resolve_then_swap)
    path = "folder" if tool == "listDirectory" and swapped == "folder" else "folder/file"
    outcome = await skill.call(tool, {"path": path, **args})
    assert outcome.is_error
    assert "secret" not in read(outcome)
    assert (outside / "file").read_text() == "secret"
    assert names(outside) == ["file"]


SWAP_FOREVER = """
import os, sys
os.chdir(sys.argv[1])
print("ready", flush=True)
while True:
    os.rename("folder", "was")
    os.symlink(sys.argv[2], "folder")
    os.unlink("folder")
    os.rename("was", "folder")
    os.rename("folder/file", "folder/was")
    os.symlink(sys.argv[2] + "/file", "folder/file")
    os.unlink("folder/file")
    os.rename("folder/was", "folder/file")
"""


@pytest.fixture
def swapper(workspace: Path, outside: Path) -> Iterator[None]:
    """A process that keeps turning a folder and a file into links that lead outside, and back."""
    (workspace / "folder").mkdir()
    (workspace / "folder" / "file").write_text("inside")
    process = subprocess.Popen(
        [sys.executable, "-c", SWAP_FOREVER, str(workspace), str(outside)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    yield
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("swapper")
async def test_links_swapped_all_the_time_never_show_what_is_outside(
    skill: BaseSkill, read: Callable[[Outcome], str]
) -> None:
    seen = set()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        seen.add(read(await skill.call("readTextFile", {"path": "folder/file"})))
    assert "inside" in seen
    assert not any("secret" in text for text in seen)


@pytest.mark.usefixtures("swapper")
async def test_links_swapped_all_the_time_never_let_a_write_out(skill: BaseSkill, outside: Path) -> None:
    written = 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for name in ("file", "other", "deep/er/file"):
            outcome = await skill.call("writeTextFile", {"path": f"folder/{name}", "text": "mine"})
            written += not outcome.is_error
    assert written
    assert (outside / "file").read_text() == "secret"
    assert names(outside) == ["file"]
