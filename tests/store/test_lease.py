"""One process at a time works on a Job; whoever is refused is told who does."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store import lease as module
from orchestrator.store.lease import Holder, JobHeldError, JobLease, Standing, holder, standing

ROOT = Path(__file__).parents[2]

HOLD = """
import signal, subprocess, sys
from pathlib import Path
from orchestrator.store.lease import JobLease
lease = JobLease.take(Path(sys.argv[1]))
if "announce" in sys.argv:
    lease.announce()
child = subprocess.Popen(["sleep", "60"], close_fds=False) if "child" in sys.argv else None
print(lease.token, child.pid if child else 0, flush=True)
signal.pause()
"""

LOOK = """
import sys
from pathlib import Path
from orchestrator.store.lease import Standing, holder, standing
folder, token = Path(sys.argv[1]), sys.argv[2]
print("looking", flush=True)
while True:
    holder(folder)
    assert standing(folder, token) is not Standing.UNKNOWN
"""

LOOK_AT_NOBODY = """
import sys
from pathlib import Path
from orchestrator.store.lease import holder
print("looking", flush=True)
sys.exit(sum(holder(Path(sys.argv[1])) is not None for _ in range(5_000)) > 0)
"""

TAKE_TURNS = """
import sys, time
from pathlib import Path
from orchestrator.store.lease import JobHeldError, JobLease, holder
folder, turns = Path(sys.argv[1]), 0
inside = folder / "inside"
deadline = time.monotonic() + 60
while turns < 50 and time.monotonic() < deadline:
    holder(folder)
    try:
        lease = JobLease.take(folder)
    except JobHeldError:
        continue
    inside.touch(exist_ok=False)
    lease.announce()
    inside.unlink()
    lease.release()
    turns += 1
print(turns, lease.token)
"""

Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and gives it with the first line it says; all are killed in the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_token_is_made_once_and_kept(tmp_path: Path) -> None:
    first = JobLease.take(tmp_path)
    first.announce(tmp_path / "runtime")
    first.release()
    first.release()
    second = JobLease.take(tmp_path)
    assert second.token == first.token
    assert len(first.token) == 32
    second.release()


def test_a_second_one_is_refused_told_who_holds_it_and_changes_nothing(tmp_path: Path, start: Start) -> None:
    process, _ = start(HOLD, tmp_path, "announce")
    before = (tmp_path / "lease.json").read_bytes()
    with pytest.raises(JobHeldError) as refused:
        JobLease.take(tmp_path)
    assert f"process {process.pid} on {socket.gethostname()} since 2" in str(refused.value)
    assert f"kill {process.pid}" in str(refused.value)
    assert refused.value.holder.pid == process.pid
    assert (tmp_path / "lease.json").read_bytes() == before
    assert holder(tmp_path) == refused.value.holder


def test_two_leases_of_one_process_are_two(tmp_path: Path) -> None:
    lease = JobLease.take(tmp_path)
    lease.announce(tmp_path / "r")
    with pytest.raises(JobHeldError):
        JobLease.take(tmp_path)
    now = holder(tmp_path)
    assert now is not None
    assert (now.pid, now.runtime_folder) == (os.getpid(), str(tmp_path / "r"))
    lease.release()
    assert holder(tmp_path) is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_any_death_ends_it_also_where_children_live_on(tmp_path: Path, start: Start, how: signal.Signals) -> None:
    process, said = start(HOLD, tmp_path, "announce", "child")
    token, child = said.split()
    assert standing(tmp_path, token) is Standing.HELD
    process.send_signal(how)
    process.wait()
    os.kill(int(child), 0)
    try:
        assert holder(tmp_path) is None
        assert standing(tmp_path, token) is Standing.FREE
        lease = JobLease.take(tmp_path)
        assert lease.token == token
        lease.release()
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_stopped_process_still_holds_it(tmp_path: Path, start: Start) -> None:
    process, token = start(HOLD, tmp_path, "announce")
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert standing(tmp_path, token.split()[0]) is Standing.HELD
    with pytest.raises(JobHeldError):
        JobLease.take(tmp_path)


def test_a_holder_that_has_not_announced_itself_is_not_taken_for_its_dead_predecessor(
    tmp_path: Path, start: Start
) -> None:
    predecessor, _ = start(HOLD, tmp_path, "announce")
    predecessor.kill()
    predecessor.wait()
    start(HOLD, tmp_path)
    assert holder(tmp_path) == Holder()
    with pytest.raises(JobHeldError, match="a process that has just begun"):
        JobLease.take(tmp_path)


def test_a_copy_of_a_job_is_another_job(tmp_path: Path) -> None:
    original = JobLease.take(make(tmp_path / "a"))
    original.announce()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert standing(tmp_path / "b", original.token) is Standing.UNKNOWN
    before = (tmp_path / "b" / "lease.json").read_bytes()
    copy = JobLease.take(tmp_path / "b")
    assert copy.token != original.token
    assert (tmp_path / "b" / "lease.json").read_bytes() == before
    copy.announce()
    copy.release()
    again = JobLease.take(tmp_path / "b")
    assert again.token == copy.token
    for lease in (original, again):
        lease.release()


@pytest.mark.parametrize("content", [b"\0" * 200, b'{"token":"abc', b"[]\n", b"\xff\n"])
def test_a_damaged_record_gets_a_new_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease.json").write_bytes(content)
    assert holder(tmp_path) is None
    lease = JobLease.take(tmp_path)
    lease.announce()
    assert standing(tmp_path, lease.token) is Standing.HELD
    lease.release()
    assert standing(tmp_path, lease.token) is Standing.FREE


def test_a_job_that_is_not_there_has_no_holder_and_cannot_be_held(tmp_path: Path) -> None:
    assert holder(tmp_path / "none") is None
    assert standing(tmp_path / "none", "token") is Standing.UNKNOWN
    with pytest.raises(StoreError, match="no Job none in"):
        JobLease.take(tmp_path / "none")
    (tmp_path / "odd" / "lease.json").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot open .*lease\.json"):
        JobLease.take(tmp_path / "odd")


def test_another_jobs_token_says_nothing(tmp_path: Path) -> None:
    lease = JobLease.take(tmp_path)
    assert standing(tmp_path, "other") is Standing.UNKNOWN
    lease.release()
    assert standing(tmp_path, "other") is Standing.UNKNOWN


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=r"knows no locks .*PERSTACK_STORAGE_PATH"):
        JobLease.take(tmp_path)
    with pytest.raises(StoreError, match="knows no locks"):
        holder(tmp_path)
    assert standing(tmp_path, "token") is Standing.UNKNOWN


def test_a_full_disk_is_told_and_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match="No space left"):
            JobLease.take(tmp_path)
    assert holder(tmp_path) is None
    JobLease.take(tmp_path).release()


def test_what_was_locked_is_what_others_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Job's folder was removed and made again between the opening of the file and the lock."""
    real, calls = module._lock_alone, 0

    def replaced_meanwhile(file: int, path: Path) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            path.rename(path.with_suffix(".old"))
        return real(file, path)

    monkeypatch.setattr(module, "_lock_alone", replaced_meanwhile)
    lease = JobLease.take(tmp_path)
    assert calls == 2
    assert standing(tmp_path, lease.token) is Standing.HELD
    lease.release()


def test_those_who_look_never_keep_anybody_from_taking_it(tmp_path: Path, start: Start) -> None:
    first = JobLease.take(tmp_path)
    first.release()
    watchers = [start(LOOK, tmp_path, first.token)[0] for _ in range(4)]
    for _ in range(300):
        lease = JobLease.take(tmp_path)
        lease.announce()
        lease.release()
    assert [watcher.poll() for watcher in watchers] == [None] * 4


def test_those_who_look_do_not_take_each_other_for_a_holder(tmp_path: Path, start: Start) -> None:
    JobLease.take(tmp_path).release()
    watchers = [start(LOOK_AT_NOBODY, tmp_path)[0] for _ in range(4)]
    assert [watcher.wait() for watcher in watchers] == [0] * 4


def test_of_many_that_want_it_only_one_ever_has_it(tmp_path: Path, start: Start) -> None:
    # Each fails if it finds another inside.
    said = [line.split() for _, line in contest(tmp_path, 6)]
    assert [turns for turns, _ in said] == ["50"] * 6
    assert len({token for _, token in said}) == 1


def contest(folder: Path, count: int) -> list[tuple[int, str]]:
    command = [sys.executable, "-c", TAKE_TURNS, str(folder)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    ended = [(process.communicate(), process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * count, [err for (_, err), _ in ended]
    return [(code, out) for (out, _), code in ended]


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder
