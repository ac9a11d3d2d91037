"""The event log: what was appended is there, in a chain, whatever ended the process."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from expert_runner.contract.events import SkillDisconnected
from expert_runner.contract.jobs import Job, JobStatus
from orchestrator.errors import ConfigError, StoreError
from orchestrator.store.layout import RunRecord, Store
from orchestrator.store.log import GENESIS, EventLog, read_records

ROOT = Path(__file__).parents[2]


def event(n: int) -> SkillDisconnected:
    return SkillDisconnected(id=str(n), timestamp=n, job_id="j", run_id="r", skill_name=f"skill {n} ✓")


def write(path: Path, count: int, first: int = 0) -> None:
    log = EventLog(path)
    for n in range(first, first + count):
        log.append(event(n))
    log.close()


def test_each_line_carries_the_hash_of_the_one_before(tmp_path: Path) -> None:
    write(tmp_path / "log", 3)
    prev = GENESIS
    for line in (tmp_path / "log").read_bytes().splitlines():
        assert json.loads(line)["prev"] == prev
        prev = hashlib.sha256(line).hexdigest()


def test_what_was_appended_is_read_back_and_can_be_gone_on_with(tmp_path: Path) -> None:
    write(tmp_path / "log", 3)
    write(tmp_path / "log", 2, first=3)
    assert [e.id for _, e in read_records(tmp_path / "log")] == ["0", "1", "2", "3", "4"]


def test_the_line_that_append_returns_is_the_line_in_the_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    line = log.append(event(1))
    log.close()
    assert (tmp_path / "log").read_bytes() == line + b"\n"


@pytest.mark.parametrize("torn", [b'{"prev":"', b"\xff\xfe", b'{"whole":"but without its line end"}'])
def test_a_torn_last_line_is_cut_off_and_gone_on_from(tmp_path: Path, torn: bytes) -> None:
    write(tmp_path / "log", 2)
    with (tmp_path / "log").open("ab") as stream:
        stream.write(torn)
    assert [e.id for _, e in read_records(tmp_path / "log")] == ["0", "1"]
    write(tmp_path / "log", 1, first=2)
    assert [e.id for _, e in read_records(tmp_path / "log")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "alter",
    [
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], lines[1].replace(b"skill 1", b"skill 9"), lines[2]],
        lambda lines: [lines[0], lines[0], lines[1], lines[2]],
        lambda lines: [b"[]", *lines],
    ],
    ids=["deleted", "reordered", "edited", "repeated", "not an event"],
)
def test_an_altered_log_is_refused(tmp_path: Path, alter: object) -> None:
    write(tmp_path / "log", 3)
    lines = (tmp_path / "log").read_bytes().splitlines()
    (tmp_path / "log").write_bytes(b"\n".join(alter(lines)) + b"\n")  # type: ignore[operator]
    with pytest.raises(StoreError, match=r"log:\d"):
        list(read_records(tmp_path / "log"))


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.store.test_event_log import write; "
        f"write(Path({str(tmp_path / 'log')!r}), 50); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert killed.returncode == -9
    assert len(list(read_records(tmp_path / "log"))) == 50


async def test_a_disk_that_fails_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path / "log")
    log.append(event(0))

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreError, match="No space left"):
            await log.sync()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(StoreError, match="No space left"):
            log.append(event(1))
    log.close()
    assert [e.id for _, e in read_records(tmp_path / "log")] == ["0"]


@pytest.mark.parametrize("can_be_cut_off", [True, False])
def test_a_line_that_fits_by_half_spoils_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_be_cut_off: bool
) -> None:
    log = EventLog(tmp_path / "log")
    log.append(event(0))
    whole_write = os.write

    def no_truncate(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: whole_write(file, data[:3]))
        if not can_be_cut_off:
            patched.setattr(os, "ftruncate", no_truncate)
        with pytest.raises(StoreError, match="only 3 of"):
            log.append(event(1))
    if can_be_cut_off:
        log.append(event(2))
    else:
        with pytest.raises(StoreError, match="half a line"):
            log.append(event(2))
    log.close()
    write(tmp_path / "log", 1, first=3)
    expected = ["0", "2", "3"] if can_be_cut_off else ["0", "3"]
    assert [e.id for _, e in read_records(tmp_path / "log")] == expected


async def test_a_disk_that_failed_once_is_not_believed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path / "log")
    log.append(event(0))

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreError, match="cannot sync"):
            await log.sync()
    with pytest.raises(StoreError, match="cannot sync"):
        await log.sync()
    log.close()


async def test_a_log_that_did_not_change_is_not_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    log = EventLog(tmp_path / "log")
    log.append(event(0))
    await asyncio.gather(log.sync(), log.sync())
    await log.sync()
    log.close()
    assert len(synced) == 1


def job(**more: object) -> Job:
    fields = {
        "id": "j1",
        "status": JobStatus.RUNNING,
        "coordinatorExpertKey": "a",
        "coordinatorRunId": "r1",
        "runtimeVersion": "0",
        "startedAt": 1,
        **more,
    }
    return Job.model_validate(fields)


def test_a_job_begins_once_and_is_replaced_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.make_job_folder("j1") == store.job_folder("j1")
    store.check_new("j1")
    store.write_job(job())
    with pytest.raises(StoreError, match="exists already"):
        store.check_new("j1")
    store.write_job(job(status=JobStatus.COMPLETED))
    assert store.read_job("j1").status is JobStatus.COMPLETED
    assert [p.name for p in store.job_folder("j1").iterdir()] == ["job.json"]
    with pytest.raises(StoreError, match="no Job j2"):
        store.read_job("j2")


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../x", "-x", "x" * 65, "a\0b", "a\n"])
def test_an_id_that_is_no_folder_name_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError):
        Store(tmp_path).job_folder(bad)


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("in the way")
    with pytest.raises(StoreError):
        Store(tmp_path).make_job_folder("j1")
    with pytest.raises(StoreError):
        Store(tmp_path).write_job(job())
    with pytest.raises(StoreError):
        Store(tmp_path).open_run(RunRecord(id="r1", job_id="j1", expert_key="a", query="q", created_at=1))


def test_a_run_that_goes_on_keeps_its_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = RunRecord(id="r1", job_id="j1", expert_key="a", query="q", created_at=1)
    path = store.open_run(first)
    assert path == store.events_path("j1", "r1")
    assert not path.exists()
    assert store.open_run(first.model_copy(update={"query": "another", "created_at": 2})) == path
    assert store.run_records("j1") == [first]


def test_the_folder_of_a_job_that_never_began_is_discarded_and_no_other(tmp_path: Path) -> None:
    store = Store(tmp_path / "history")
    store.make_job_folder("begun")
    store.write_job(job(id="begun"))
    store.make_job_folder("unbegun")
    for job_id in ("begun", "unbegun"):
        store.discard_unbegun(job_id)
    assert [path.name for path in store.jobs_folder.iterdir()] == ["begun"]
    assert store.read_job("begun").id == "begun"
    alone = Store(tmp_path / "empty")
    alone.make_job_folder("unbegun")
    alone.discard_unbegun("unbegun")
    assert not alone.root.exists()
