import asyncio
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from expert_runner.skills.base import allowance
from expert_runner.skills.base.definitions import MAX_TEXT
from expert_runner.skills.base.skill import BaseSkill

Call = Callable[..., Awaitable[str]]


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ({}, "a\nb\r\nc\n"),
        ({"from": 0, "to": 1}, "a\n"),
        ({"from": 1}, "b\r\nc\n"),
        ({"from": 1, "to": 2}, "b\r\n"),
        ({"from": 2, "to": 99}, "c\n"),
    ],
)
async def test_lines_are_returned_as_they_are(ok: Call, workspace: Path, args: dict[str, int], shown: str) -> None:
    (workspace / "file").write_bytes(b"a\nb\r\nc\n")
    assert await ok("readTextFile", {"path": "file", **args}) == shown


@pytest.mark.parametrize(("content", "lines"), [(b"a\nb\n", 2), (b"a\nb", 2), (b"", 0)])
async def test_a_start_beyond_the_end_is_refused_with_the_number_of_lines(
    refused: Call, workspace: Path, content: bytes, lines: int
) -> None:
    (workspace / "file").write_bytes(content)
    for start in (max(lines, 1), lines + 1, 10**12):
        assert f"has {lines} lines" in await refused("readTextFile", {"path": "file", "from": start})


async def test_an_end_before_the_start_is_refused(refused: Call, workspace: Path) -> None:
    (workspace / "file").write_text("a\nb\nc\n")
    assert "must be greater" in await refused("readTextFile", {"path": "file", "from": 2, "to": 2})


async def test_an_empty_file_says_so(ok: Call, workspace: Path) -> None:
    (workspace / "file").touch()
    assert await ok("readTextFile", path="file") == "'file' is empty."


async def test_a_long_file_is_cut_at_a_line_and_says_how_to_read_on(ok: Call, workspace: Path) -> None:
    content = "".join(f"line {number} äöü 🙂\n" for number in range(20_000))
    (workspace / "file").write_text(content)
    collected, start = "", 0
    while True:
        text = await ok("readTextFile", {"path": "file", "from": start})
        shown, _, note = text.partition("\nThis is not all: ")
        assert len(shown) <= MAX_TEXT
        collected += shown
        if not note:
            break
        start = int(note.rpartition("`from`: ")[2].rstrip("."))
    assert collected == content


async def test_text_of_exactly_the_limit_is_not_cut(ok: Call, workspace: Path) -> None:
    for character in ("x", "🙂"):
        (workspace / "file").write_text(character * MAX_TEXT)
        assert await ok("readTextFile", path="file") == character * MAX_TEXT


async def test_a_line_beyond_the_limit_shows_its_beginning_and_a_way_on(ok: Call, workspace: Path) -> None:
    (workspace / "file").write_text("short\n" + "🙂" * (MAX_TEXT + 5) + "\nlast\n")
    text = await ok("readTextFile", {"path": "file", "from": 1})
    assert text.startswith("🙂" * MAX_TEXT + "\nLine 1 is longer")
    assert "`from`: 2" in text
    assert await ok("readTextFile", {"path": "file", "from": 2}) == "last\n"


async def test_what_is_not_utf8_is_replaced_and_counted(ok: Call, workspace: Path) -> None:
    (workspace / "file").write_bytes(b"caf\xe9 \xff genuine:\xef\xbf\xbd")
    text = await ok("readTextFile", path="file")
    assert text == "caf\ufffd \ufffd genuine:\ufffd\n2 bytes are not UTF-8 and shown as \ufffd."


async def test_only_what_is_shown_is_counted(ok: Call, workspace: Path) -> None:
    (workspace / "file").write_bytes(b"\xff\n" + b"x" * (MAX_TEXT - 3) + b"\n" + b"\xff\0" * MAX_TEXT)
    assert "\n1 bytes are not UTF-8 and shown as \ufffd. This is not all" in await ok("readTextFile", path="file")


async def test_nul_bytes_are_shown_and_counted(ok: Call, workspace: Path) -> None:
    (workspace / "file").write_bytes(b"a\0b\0")
    assert await ok("readTextFile", path="file") == "a\u2400b\u2400\n2 NUL bytes are shown as \u2400."


async def test_a_missing_file_and_a_folder_are_refused_with_advice(refused: Call, workspace: Path) -> None:
    (workspace / "folder").mkdir()
    assert "'none' does not exist" in await refused("readTextFile", path="none")
    text = await refused("readTextFile", path="folder")
    assert text == "'folder' is a folder, not a file; listDirectory shows what is in it."
    assert "is a folder" in await refused("readTextFile", path=".")


@pytest.mark.parametrize("tool", ["readTextFile", "writeTextFile"])
async def test_a_named_pipe_is_refused_and_waits_for_nobody(refused: Call, workspace: Path, tool: str) -> None:
    os.mkfifo(workspace / "pipe")
    args = {"text": "x"} if tool == "writeTextFile" else {}
    assert "is a named pipe" in await refused(tool, path="pipe", **args)


@pytest.mark.parametrize("tool", ["readTextFile", "writeTextFile"])
async def test_a_socket_is_refused(refused: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    monkeypatch.chdir(workspace)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        args = {"text": "x"} if tool == "writeTextFile" else {}
        assert "a socket or a device, not a file" in await refused(tool, path="socket", **args)


async def test_a_named_pipe_that_somebody_reads_is_not_written(refused: Call, workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    reading = os.open(workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert "is a named pipe, not a file" in await refused("writeTextFile", path="pipe", text="x")
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
@pytest.mark.parametrize("tool", ["readTextFile", "writeTextFile"])
async def test_a_device_is_refused(refused: Call, workspace: Path, tool: str) -> None:
    os.mknod(workspace / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    args = {"text": "x"} if tool == "writeTextFile" else {}
    assert "is a device, not a file" in await refused(tool, path="zero", **args)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_without_permission_is_refused(refused: Call, workspace: Path) -> None:
    (workspace / "file").touch(mode=0)
    assert "permission denied" in await refused("readTextFile", path="file")


@pytest.fixture
def endless(workspace: Path) -> str:
    """The name of a file that nobody reads to its end in reasonable time."""
    with (workspace / "endless").open("wb") as file:
        file.truncate(2**40)
    return "endless"


async def test_a_search_that_takes_too_long_is_given_up(
    refused: Call, endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "FILE_WORK_S", 0.2)
    assert "took longer than 0.2 s" in await refused("readTextFile", {"path": endless, "from": 1})


async def test_a_search_ends_when_it_is_cancelled(skill: BaseSkill, endless: str) -> None:
    task = asyncio.create_task(skill.call("readTextFile", {"path": endless, "from": 1}))
    await asyncio.sleep(0)  # the task hands its work to a thread
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(allowance.FILE_WORK_S / 3):
        await asyncio.get_running_loop().shutdown_default_executor()  # waits for its threads


READ_HUGE = textwrap.dedent("""
    import asyncio, re, sys
    from pathlib import Path
    from expert_runner.skills.base.skill import BaseSkill

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    async def main():
        skill = BaseSkill(workspace=Path(sys.argv[1]), env={}, tools=["readTextFile"], todos=())
        await skill.call("readTextFile", {"path": "small"})
        before = peak()
        for args in ({}, {"from": 1}):
            outcome = await skill.call("readTextFile", {"path": "huge", **args})
            print(len(outcome.parts[0].text))
        print(peak() - before)

    asyncio.run(main())
""")


def test_a_line_of_a_gigabyte_takes_neither_memory_nor_long(workspace: Path) -> None:
    (workspace / "small").write_text("x")
    with (workspace / "huge").open("wb") as file:
        file.truncate(2**30)  # a sparse file: one line of NULs
        file.seek(0, os.SEEK_END)
        file.write(b"\nsecond\n")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", READ_HUGE, str(workspace)],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    beginning, second, grown_kib = map(int, done.stdout.split())
    assert (beginning, second) == (MAX_TEXT, len("second\n"))
    assert grown_kib < 8 * 1024
    assert time.monotonic() - started < 30
