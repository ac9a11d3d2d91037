import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

Call = Callable[..., Awaitable[str]]


async def test_entries_are_sorted_with_type_and_size(ok: Call, workspace: Path) -> None:
    (workspace / "b.txt").write_text("x" * 1_234)
    (workspace / "a").mkdir()
    (workspace / "a" / "deeper").touch()
    (workspace / "link").symlink_to("/etc/passwd")
    os.mkfifo(workspace / "pipe")
    (workspace / ".hidden").touch()
    assert await ok("listDirectory") == (
        "file       .hidden (0 bytes)\n"
        "directory  a/\n"
        "file       b.txt (1,234 bytes)\n"
        "link       link -> /etc/passwd\n"
        "other      pipe"
    )
    assert await ok("listDirectory", path="a") == "file       deeper (0 bytes)"


async def test_an_empty_folder_says_so(ok: Call) -> None:
    assert await ok("listDirectory") == "'.' is empty."


async def test_strange_names_stay_on_their_line(ok: Call, workspace: Path) -> None:
    (workspace / "two\nlines\x1b[31m").touch()
    (workspace / os.fsdecode(b"caf\xe9")).touch()
    assert await ok("listDirectory") == ("file       caf\\udce9 (0 bytes)\nfile       two\\nlines\\x1b[31m (0 bytes)")


@pytest.mark.parametrize(("count", "left_out"), [(1_000, None), (1_001, "1 more"), (2_500, "1,500 more")])
async def test_a_large_folder_names_the_first_thousand(
    ok: Call, workspace: Path, count: int, left_out: str | None
) -> None:
    for number in range(count):
        (workspace / f"{number:05}").touch()
    lines = (await ok("listDirectory")).splitlines()
    assert lines[:1_000] == [f"file       {number:05} (0 bytes)" for number in range(1_000)]
    assert len(lines) == (1_000 if left_out is None else 1_001)
    assert left_out is None or left_out in lines[1_000]


async def test_what_is_no_folder_is_refused(refused: Call, workspace: Path) -> None:
    (workspace / "file").touch()
    assert "'file' is not a folder" in await refused("listDirectory", path="file")
    assert "'none' does not exist" in await refused("listDirectory", path="none")
