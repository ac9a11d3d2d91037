import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from expert_runner.skills.base.capture import HALF, Capture

Call = Callable[..., Awaitable[str]]


def bash(line: str) -> dict[str, object]:
    return {"command": "bash", "args": ["-c", line]}


async def test_both_streams_and_the_exit_code_are_returned(ok: Call) -> None:
    text = await ok("exec", bash("echo out; echo err >&2; exit 3"))
    assert text == "Exit code 3.\n\nstdout:\nout\n\n\nstderr:\nerr\n"


async def test_only_the_streams_that_were_asked_for_are_returned(ok: Call) -> None:
    both = bash("echo out; echo err >&2")
    assert await ok("exec", both, stderr=False) == "Exit code 0.\n\nstdout:\nout\n"
    assert await ok("exec", both, stdout=False) == "Exit code 0.\n\nstderr:\nerr\n"
    assert await ok("exec", both, stdout=False, stderr=False) == "Exit code 0."


async def test_silence_is_said(ok: Call) -> None:
    assert await ok("exec", command="true") == "Exit code 0.\nNo output."


async def test_a_signal_is_named(ok: Call) -> None:
    assert "Killed by signal SIGSEGV." in await ok("exec", bash("kill -SEGV $$"))
    assert "Killed by signal 40." in await ok("exec", bash("kill -40 $$"))


async def test_arguments_meet_no_shell(ok: Call) -> None:
    text = await ok("exec", command="printf", args=["%s|", "a b", "$HOME", "*", "; rm -rf /", ""])
    assert text.endswith("stdout:\na b|$HOME|*|; rm -rf /||")


@pytest.fixture
def stdin_with_content() -> Iterator[None]:
    """A standard input of this process that has something to read and does not end."""
    reading, writing = os.pipe()
    os.write(writing, b"the runner's own input")
    kept = os.dup(0)
    os.dup2(reading, 0)
    yield
    os.dup2(kept, 0)
    for descriptor in (reading, writing, kept):
        os.close(descriptor)


@pytest.mark.usefixtures("stdin_with_content")
async def test_stdin_is_empty(ok: Call) -> None:
    assert "Exit code 0.\nNo output." in await ok("exec", command="cat", timeout=10_000)


async def test_a_program_has_a_session_of_its_own(ok: Call) -> None:
    text = await ok("exec", command=sys.executable, args=["-c", "import os; print(os.getsid(0) == os.getpid())"])
    assert "True" in text


async def test_the_environment_is_minimal(ok: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    text = await ok("exec", command="env", env={"FROM_CALL": "1"})
    variables = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert set(variables) == {"PATH", "HOME", "LANG", "FROM_SKILL", "FROM_CALL", "PERSTACK_CALL"}
    assert variables["PATH"] == os.environ["PATH"]
    assert (variables["HOME"], variables["LANG"]) == ("/tmp", "C.UTF-8")


async def test_the_calls_environment_wins(ok: Call) -> None:
    text = await ok("exec", bash('echo "$FROM_SKILL $HOME"'), env={"FROM_SKILL": "no", "HOME": "/nowhere"})
    assert "no /nowhere" in text


async def test_the_runners_descriptors_stay_its_own(ok: Call) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        text = await ok("exec", bash("ls /proc/self/fd"))
    finally:
        os.close(reading)
        os.close(writing)
    assert text.endswith("stdout:\n0\n1\n2\n3\n")


async def test_it_runs_in_the_workspace_or_a_folder_of_it(ok: Call, refused: Call, workspace: Path) -> None:
    (workspace / "folder").mkdir()
    (workspace / "link").symlink_to("folder")
    (workspace / "file").touch()
    for cwd, place in {".": "", "folder": "/folder", "link": "/folder", f"{workspace}/folder": "/folder"}.items():
        assert f"stdout:\n{workspace}{place}\n" in await ok("exec", command="pwd", cwd=cwd)
    assert "'none' does not exist" in await refused("exec", command="pwd", cwd="none")
    assert "'file' is not a folder" in await refused("exec", command="pwd", cwd="file")


async def test_a_script_of_the_workspace_runs(ok: Call, refused: Call, workspace: Path) -> None:
    script = workspace / "script"
    script.write_text("#!/bin/sh\necho hello")
    assert "is not executable" in await refused("exec", command="./script")
    script.chmod(0o755)
    assert "hello" in await ok("exec", command="./script")
    script.write_text("#!/no/such/interpreter\n")
    assert "interpreter" in await refused("exec", command="./script")
    script.write_text("no first line\n")
    assert "without `#!`" in await refused("exec", command="./script")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"command": "no-such-program"}, "There is no program 'no-such-program' in this sandbox."),
        ({"command": "ls -la | wc"}, "not a shell line"),
        ({"command": "./none"}, "There is no program './none' in '.'"),
        ({"command": "a\0b"}, "command must not hold NUL"),
        ({"command": "a", "args": ["b\0"]}, "args must not hold NUL"),
        ({"command": "a", "env": {"A": "b\0"}}, "env must not hold NUL"),
        ({"command": "a", "env": {"A=B": "c"}}, "'A=B' cannot be the name of a variable"),
        ({"command": "a", "env": {"": "c"}}, "'' cannot be the name of a variable"),
        ({"command": "true", "args": ["x" * 200_000]}, "too large together"),
    ],
)
async def test_what_cannot_be_started_says_why(refused: Call, args: dict[str, object], says: str) -> None:
    assert says in await refused("exec", args)


async def test_nuls_and_invalid_utf8_are_made_safe(ok: Call) -> None:
    text = await ok("exec", bash(r"printf 'a\0b\377c'; printf '\0' >&2"))
    assert (
        "stdout (1 bytes are not UTF-8 and shown as \ufffd. 1 NUL bytes are shown as \u2400.):\na\u2400b\ufffdc" in text
    )
    assert "stderr (1 NUL bytes are shown as \u2400.):\n\u2400" in text


async def test_long_output_keeps_its_beginning_and_its_end(ok: Call) -> None:
    text = await ok("exec", bash("seq 1 100000; seq 1 50000 >&2"))
    assert "stdout:\n1\n2\n3\n" in text
    assert f"[… {588_895 - 2 * HALF:,} bytes left out …]" in text
    assert "\n99999\n100000\n" in text
    assert "stderr:\n1\n" in text
    assert text.endswith("50000\n")
    assert len(text) < 201_000


RUN_FLOOD = textwrap.dedent("""
    import asyncio, re, sys, time
    from pathlib import Path
    from expert_runner.skills.base.skill import BaseSkill

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    async def main():
        skill = BaseSkill(workspace=Path(sys.argv[1]), env={}, tools=["exec"], todos=())
        await skill.call("exec", {"command": "true"})
        before = peak()
        outcome = await skill.call("exec", {"command": "bash", "args": ["-c", sys.argv[2]]})
        print(peak() - before)
        print(outcome.parts[0].text[:40].splitlines()[0])
        print(re.search(r"([\\d,]+) bytes left out", outcome.parts[0].text)[1])

    asyncio.run(main())
""")


@pytest.mark.parametrize("line", ["yes | head -c 1G", "head -c 1G /dev/zero"])
def test_a_gigabyte_of_output_takes_neither_memory_nor_long(workspace: Path, line: str) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", RUN_FLOOD, str(workspace), line],
        capture_output=True,
        check=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ["PATH"]},
    )
    grown_kib, status, dropped = done.stdout.splitlines()
    assert int(grown_kib) < 4 * 1024
    assert status == "Exit code 0."
    assert dropped == f"{2**30 - 2 * HALF:,}"
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("size", [1, 7, 4_096, 300_000])
def test_a_capture_cuts_no_character_in_half(shift: int, size: int) -> None:
    raw = b"x" * shift + "🙂".encode() * 50_000 + b"y" * shift
    capture = Capture()
    for start in range(0, len(raw), size):
        capture.feed(raw[start : start + size])
    text, notes = capture.text()
    assert notes == []
    head, _, tail = text.partition(f"\n[… {len(raw) - 2 * HALF:,} bytes left out …]\n")
    assert head == "x" * shift + "🙂" * ((HALF - shift) // 4)
    assert tail == "🙂" * ((HALF - shift) // 4) + "y" * shift


def test_a_capture_of_exactly_its_room_drops_nothing() -> None:
    capture = Capture()
    raw = ("ä" * HALF).encode()
    capture.feed(raw[:-1])
    capture.feed(raw[-1:])
    assert capture.dropped == 0
    assert capture.text() == ("ä" * HALF, [])


def test_a_capture_of_rubbish_says_where() -> None:
    capture = Capture()
    capture.feed(b"\x80" * 3 * HALF)
    text, notes = capture.text()
    assert text.count("\ufffd") == 2 * HALF
    assert [note.partition(":")[0] for note in notes] == ["Near the beginning", "Near the end"]
