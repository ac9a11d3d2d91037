import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

Call = Callable[..., Awaitable[str]]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def test_a_file_is_written_with_its_parent_folders(ok: Call, workspace: Path) -> None:
    assert await ok("writeTextFile", path="a/b/c.txt", text="grüße\r\n") == "Wrote 9 bytes to 'a/b/c.txt'."
    assert (workspace / "a" / "b" / "c.txt").read_bytes() == "grüße\r\n".encode()


async def test_what_was_there_is_replaced_and_its_mode_kept(ok: Call, workspace: Path) -> None:
    file = workspace / "run.sh"
    file.write_text("a much longer text than the new one")
    file.chmod(0o751)
    await ok("writeTextFile", path="run.sh", text="new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o7777 == 0o751


async def test_a_new_file_follows_the_umask(ok: Call, workspace: Path) -> None:
    before = os.umask(0o027)
    try:
        await ok("writeTextFile", path="file", text="")
    finally:
        os.umask(before)
    assert (workspace / "file").stat().st_mode & 0o7777 == 0o640


async def test_the_longest_text_fits(ok: Call, workspace: Path) -> None:
    await ok("writeTextFile", path="file", text="🙂" * 10_000)
    assert (workspace / "file").read_text() == "🙂" * 10_000


async def test_a_folder_is_not_overwritten(refused: Call, workspace: Path) -> None:
    (workspace / "folder").mkdir()
    assert "'folder' is a folder, not a file" in await refused("writeTextFile", path="folder", text="x")
    assert "'.' is a folder" in await refused("writeTextFile", path=".", text="x")


async def test_a_file_in_the_way_of_a_folder_is_refused(refused: Call, workspace: Path) -> None:
    (workspace / "file").write_text("kept")
    assert "'file/new' is not a folder" in await refused("writeTextFile", path="file/new", text="x")
    assert (workspace / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_file_that_may_not_be_written_is_refused(refused: Call, workspace: Path) -> None:
    (workspace / "file").touch(mode=0o444)
    assert "permission denied" in await refused("writeTextFile", path="file", text="x")


async def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    refused: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "file").write_text("old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert "the disk is full" in await refused("writeTextFile", path="file", text="new")
    assert (workspace / "file").read_text() == "old"
    assert names(workspace) == ["file"]


async def test_readers_see_one_whole_version_or_another(ok: Call, workspace: Path) -> None:
    versions = {character * 10_000 for character in "abcdefgh"}
    await ok("writeTextFile", path="file", text="a" * 10_000)

    async def write(version: str) -> None:
        for _ in range(10):
            await ok("writeTextFile", path="file", text=version)

    async def look() -> None:
        for _ in range(50):
            assert await ok("readTextFile", path="file") in versions

    await asyncio.gather(look(), *(write(version) for version in versions))
    assert names(workspace) == ["file"]
