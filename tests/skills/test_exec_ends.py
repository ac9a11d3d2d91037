"""What a command started is gone when its call has ended, however it ended."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from expert_runner.process import zombies_of
from expert_runner.skills.base import processes
from expert_runner.skills.base.process_tree import group_runs
from expert_runner.skills.base.skill import BaseSkill, Outcome

Call = Callable[..., Awaitable[str]]

SLEEP = "sleep 1000 >/dev/null 2>&1"


def bash(line: str) -> dict[str, object]:
    return {"command": "bash", "args": ["-c", line]}


def state(pid: int) -> str | None:
    """The letter the kernel gives the process's state; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def gone(*pids: int) -> None:
    """A zombie counts as gone: an orphan is collected by whoever is process 1 here."""
    await until(lambda: all(state(pid) in (None, "Z", "X") for pid in pids))


def pids_in(folder: Path) -> dict[str, int]:
    return {file.stem: int(file.read_text()) for file in folder.glob("*.pid") if file.read_text().endswith("\n")}


def running_in(folder: Path) -> set[int]:
    """The processes, zombies aside, whose working directory is `folder`."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.add(int(process.name))
    return found


@pytest.fixture(autouse=True)
def no_leftovers(workspace: Path) -> Iterator[None]:
    yield
    for pid in running_in(workspace):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# Each writes its number to a file and waits: one in the group, one in a session of its own, a daemon (the same, and its
# parent is gone), and one in a session of its own that dropped its environment.
FAMILY = f"""
say() {{ echo $BASHPID > $1.new && mv $1.new $1.pid; }}
(say group; exec {SLEEP}) &
setsid bash -c 'echo $$ > session.new; mv session.new session.pid; exec {SLEEP}' &
setsid bash -c '(echo $BASHPID > daemon.new; mv daemon.new daemon.pid; exec {SLEEP}) &' &
env -i /usr/bin/setsid /bin/bash -c 'echo $$ > bare.new; mv bare.new bare.pid; exec {SLEEP}' &
say main
echo started
wait; sleep 1000
"""
NAMES = {"main", "group", "session", "daemon", "bare"}


async def test_a_timeout_kills_everything_and_keeps_the_output(refused: Call, workspace: Path) -> None:
    started = time.monotonic()
    text = await refused("exec", bash(FAMILY), timeout=2_000)
    assert 2 <= time.monotonic() - started < 10
    assert "Timed out: it ran longer than 2,000 ms and was killed with all it started." in text
    assert "stdout:\nstarted\n" in text
    pids = pids_in(workspace)
    assert set(pids) == NAMES
    assert state(pids["main"]) is None
    await gone(*pids.values())
    await until(lambda: not running_in(workspace))


async def test_a_timeout_kills_what_dropped_its_environment_from_the_start(refused: Call, workspace: Path) -> None:
    line = "/usr/bin/setsid /bin/sleep 1000 & wait; sleep 1000"
    await refused("exec", command="env", args=["-i", "/bin/bash", "-c", line], timeout=700)
    await until(lambda: not running_in(workspace))


async def test_cancellation_kills_everything(skill: BaseSkill, workspace: Path) -> None:
    task = asyncio.create_task(skill.call("exec", bash(FAMILY)))
    await until(lambda: set(pids_in(workspace)) == NAMES)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pids = pids_in(workspace)
    await gone(*pids.values())
    await until(lambda: state(pids["main"]) is None)


CHAIN = """
import os, signal, time
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
print("started", flush=True)
if os.fork():
    time.sleep(1000)
while True:  # always a new number, a new session and no parent
    time.sleep(0.05)
    if os.fork():
        os._exit(0)
    os.setsid()
"""


async def test_cancellation_after_the_programs_own_end_kills_everything(
    skill: BaseSkill, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 60.0)
    line = "setsid bash -c 'echo $$ > server.new; mv server.new server.pid; exec sleep 1000' & echo $$ > main.pid"
    task = asyncio.create_task(skill.call("exec", bash(line)))
    await until(lambda: set(pids_in(workspace)) == {"main", "server"})
    await until(lambda: state(pids_in(workspace)["main"]) is None)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not running_in(workspace))


async def test_a_group_of_zombies_does_not_run() -> None:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)  # noqa: ASYNC220 - not waited for is the point
    assert group_runs(process.pid)
    process.kill()
    await until(lambda: state(process.pid) == "Z")
    assert not group_runs(process.pid)
    process.wait()
    assert not group_runs(process.pid)


async def test_a_chain_of_daemons_that_ignores_signals_is_killed(refused: Call, workspace: Path) -> None:
    text = await refused("exec", command=sys.executable, args=["-c", CHAIN], timeout=700)
    assert "stdout:\nstarted\n" in text
    await until(lambda: not running_in(workspace))


async def test_a_server_in_its_own_session_goes_on_until_the_skill_is_closed(skill: BaseSkill, workspace: Path) -> None:
    outcome = await skill.call("exec", bash(f"setsid bash -c 'echo $$ > server.pid; exec {SLEEP}' >/dev/null 2>&1 &"))
    assert not outcome.is_error
    await until(lambda: "server" in pids_in(workspace))
    pid = pids_in(workspace)["server"]
    assert state(pid) in ("S", "R", "D")
    await skill.call("exec", bash("true"))
    assert state(pid) in ("S", "R", "D")
    skill.close()
    await gone(pid)


async def test_a_background_child_is_killed_when_the_program_ends(ok: Call, workspace: Path) -> None:
    line = f"({SLEEP}) & echo $! > child.pid; echo done"
    started = time.monotonic()
    assert await ok("exec", bash(line)) == "Exit code 0.\n\nstdout:\ndone\n"
    assert time.monotonic() - started < 10
    await gone(pids_in(workspace)["child"])


async def test_a_background_child_that_ended_costs_nothing(ok: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 20.0)
    started = time.monotonic()
    await ok("exec", bash("true & sleep 0.05"))
    assert time.monotonic() - started < 10


async def test_a_background_child_that_holds_the_output_delays_the_end_only_shortly(ok: Call, workspace: Path) -> None:
    started = time.monotonic()
    text = await ok("exec", bash("sleep 1000 & echo $! > child.pid; echo done"))
    assert time.monotonic() - started < 10
    assert "background still held its output" in text
    assert "stdout:\ndone\n" in text
    await gone(pids_in(workspace)["child"])


async def test_output_that_comes_just_after_the_end_is_kept(ok: Call) -> None:
    assert "late" in await ok("exec", bash("(sleep 0.1; echo late) & exit 0"))


async def test_a_killed_program_that_does_not_die_is_told(
    refused: Call, monkeypatch: pytest.MonkeyPatch, workspace: Path
) -> None:
    monkeypatch.setattr(processes, "kill_tree", lambda *_: None)  # as if it waited for a broken disk
    monkeypatch.setattr(processes, "KILL_GRACE_S", 0.05)
    text = await refused("exec", bash("echo $$ > main.pid; exec sleep 1000"), timeout=300)
    assert "was told to die but has not yet" in text


async def test_calls_run_side_by_side(skill: BaseSkill, read: Callable[[Outcome], str], workspace: Path) -> None:
    # Each waits for the file that the other makes: one after the other they would never end.
    first = skill.call("exec", bash("touch a; until [ -e b ]; do sleep 0.01; done; echo one") | {"timeout": 10_000})
    second = skill.call("exec", bash("touch b; until [ -e a ]; do sleep 0.01; done; echo two") | {"timeout": 10_000})
    outcomes = await asyncio.gather(first, second)
    assert ["one" in read(outcomes[0]), "two" in read(outcomes[1])] == [True, True]


async def test_a_timeout_kills_nothing_of_a_call_beside_it(skill: BaseSkill, read: Callable[[Outcome], str]) -> None:
    short, long = await asyncio.gather(
        skill.call("exec", bash("sleep 1000") | {"timeout": 200}),
        skill.call("exec", bash("setsid sleep 0.6; echo survived")),
    )
    assert short.is_error
    assert "survived" in read(long)


async def test_many_calls_leave_neither_descriptors_nor_children(skill: BaseSkill) -> None:
    async def rounds() -> None:
        await asyncio.gather(*(skill.call("exec", bash("echo x; echo y >&2")) for _ in range(16)))

    await rounds()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        await rounds()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    await until(lambda: not zombies_of(os.getpid()))


async def test_the_loop_goes_on_while_a_program_floods(skill: BaseSkill) -> None:
    longest, last = 0.0, time.monotonic()
    task = asyncio.create_task(skill.call("exec", bash("yes | head -c 300M")))
    while not task.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert longest < 1
