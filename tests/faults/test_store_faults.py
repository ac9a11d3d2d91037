"""A disk that fails, at every write of a Job's history: the Job ends at once with an error that says so, and goes on
once the disk is well again.
"""

import asyncio
import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, StoreError
from orchestrator.store.log import GENESIS, EventLog, read_lines
from tests.faults import outcome, scenario
from tests.faults.outcome import Outcome
from tests.jobs.puppets import PuppetBackend, play_puppets
from tests.jobs.stage import Stage

STRIDE = 1 if os.environ.get("PERSTACK_FAULTS") == "all" else 8
"""Every so many points have a fault; with `PERSTACK_FAULTS=all` all of them have."""

JOB = "job"


class Disk:
    """The disk under the history: what the store asks of `os`, which works until the write number `point`.

    Args:
        fail: what then happens: called with the disk and what was to be written, from that write on. What it returns
            is what the write returns.
        point: which write (or, with `syncs`, which sync) is the first to fail; None: none.
    """

    def __init__(
        self, fail: Callable[["Disk", int, bytes], int] | None = None, point: int | None = None, *, syncs: bool = False
    ) -> None:
        self.writes = 0
        self.syncs = 0
        self._fail = fail
        self._point = point
        self._of_syncs = syncs

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @property
    def has_failed(self) -> bool:
        return self._point is not None and (self.syncs if self._of_syncs else self.writes) >= self._point

    def write(self, file: int, data: bytes) -> int:
        self.writes += 1
        if self._fail is not None and not self._of_syncs and self.has_failed:
            return self._fail(self, file, data)
        return os.write(file, data)

    def fdatasync(self, file: int) -> None:
        self.syncs += 1
        if self._fail is not None and self.has_failed:
            self._fail(self, file, b"")
        os.fdatasync(file)

    def ftruncate(self, file: int, size: int) -> None:
        if self._fail is not None and self.has_failed:
            self._fail(self, file, b"")
        os.ftruncate(file, size)

    @property
    def is_first(self) -> bool:
        """Whether what fails now is the first to."""
        return self._point == (self.syncs if self._of_syncs else self.writes)


def full(disk: Disk, file: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nearly_full(disk: Disk, file: int, data: bytes) -> int:
    """Half a line still fits."""
    if disk.is_first and data:
        return os.write(file, data[: len(data) // 2])
    return full(disk, file, data)


def full_for_a_moment(disk: Disk, file: int, data: bytes) -> int:
    """Half a line fits; by the next write somebody has made room."""
    return os.write(file, data[: len(data) // 2] if disk.is_first else data) if data else 0


def read_only(disk: Disk, file: int, data: bytes) -> int:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def broken(disk: Disk, file: int, data: bytes) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def play(stage: Stage, monkeypatch: pytest.MonkeyPatch, disk: Disk, **more: Any) -> Counter[str]:
    """Run the Job on `disk`; returns how many answers the model gave, by Expert."""
    try:
        with monkeypatch.context() as patched:
            patched.setattr("orchestrator.store.log.os", disk)
            patched.setattr("orchestrator.store.layout.os", disk)
            async with asyncio.timeout(60):
                backend = PuppetBackend(stage.workspace, {})
                await play_puppets(stage, scenario.EXPERTS, scenario.SCRIPT, backend, **more)
    finally:
        assert stage.model is not None
        asked = Counter(request.expert_key or "" for request in stage.model.requests)
    return asked


def new_stage(tmp_path: Path, name: str) -> Stage:
    folder = tmp_path / name
    folder.mkdir()
    return Stage(folder, "local")


async def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Outcome, Disk]:
    stage, disk = new_stage(tmp_path, "undisturbed"), Disk()
    await play(stage, monkeypatch, disk, jobId=JOB)
    return outcome.read(stage.folder, JOB), disk


def check_what_was_told_is_on_disk(stage: Stage) -> None:
    assert stage.played is not None
    told = {event.id for event in stage.played.events if "stream" not in event.type.lower()}
    assert told <= outcome.read(stage.folder, JOB).stored


async def fail(stage: Stage, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> Counter[str]:
    """A Job whose disk fails."""
    before = asyncio.all_tasks()
    with pytest.raises(StoreError, match=r"cannot (write|sync|make|open)"):
        await play(stage, monkeypatch, disk, jobId=JOB)
    assert disk.has_failed
    assert asyncio.all_tasks() <= before, "something runs on"
    assert open_logs(stage) == []
    if stage.store.job_ids():
        check_what_was_told_is_on_disk(stage)
    assert stage.model is not None
    return Counter(request.expert_key or "" for request in stage.model.requests)


def open_logs(stage: Stage) -> list[str]:
    """The logs that are open in this process."""
    files = Path("/proc/self/fd")
    targets = [str(file.readlink()) for file in files.iterdir() if file.is_symlink()] if files.exists() else []
    return [target for target in targets if str(stage.storage) in target]


async def go_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """One continue, now that the disk is well again."""
    if JOB not in stage.store.job_ids():
        # It never began, and nothing is left of it.
        assert not stage.storage.exists()
        return await play(stage, monkeypatch, Disk(), jobId=JOB)
    try:
        return await play(stage, monkeypatch, Disk(), query=None, continueJob=JOB)
    except ConfigError as error:
        # It had come to its end, and only a Run's last words could not be written any more.
        if "is completed" not in str(error):
            raise
        return Counter()


async def fail_and_go_on(stage: Stage, monkeypatch: pytest.MonkeyPatch, disk: Disk, calm: Outcome) -> None:
    asked = await fail(stage, monkeypatch, disk) + await go_on(stage, monkeypatch)
    # Of each Run the answer can be lost that could not be written down.
    lost = Counter(scenario.EXPERTS.keys())
    assert outcome.differences(calm, outcome.read(stage.folder, JOB), asked, lost) == []


FAULTS = (full, nearly_full, full_for_a_moment, read_only)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_job_whose_disk_fails_at_any_write_ends_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[Disk, int, bytes], int],
) -> None:
    calm, disk = await undisturbed(tmp_path, monkeypatch)
    # Each kind of fault meets other writes.
    points = range(1 + FAULTS.index(fault) * STRIDE // len(FAULTS), disk.writes + 1, STRIDE)
    for point in points:
        try:
            stage = new_stage(tmp_path, f"write-{point}")
            await fail_and_go_on(stage, monkeypatch, Disk(fault, point), calm)
        except BaseException as error:
            error.add_note(f"{fault.__name__} at write {point} of {disk.writes}")
            raise
    with capsys.disabled():
        print(f" {len(points)} of {disk.writes} writes", end="")


@pytest.mark.timeout(300)
async def test_a_job_whose_disk_loses_what_it_was_given_ends_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every sync of a log and of a record, for as many as there are: how many steps are brought to the disk together
    is a matter of time.
    """
    calm, _ = await undisturbed(tmp_path, monkeypatch)
    point = 0
    while True:
        point += 1
        stage, disk = new_stage(tmp_path, f"sync-{point}"), Disk(broken, point, syncs=True)
        try:
            await fail_and_go_on(stage, monkeypatch, disk, calm)
        except pytest.fail.Exception:
            if disk.has_failed:
                raise
            break
        except BaseException as error:
            error.add_note(f"at sync {point}")
            raise
    assert point > len(scenario.EXPERTS)
    with capsys.disabled():
        print(f" {point - 1} syncs", end="")


@pytest.mark.parametrize("in_the_way", ["history", "history/jobs", "history/jobs/job"])
async def test_a_job_whose_history_cannot_be_made_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str
) -> None:
    stage = new_stage(tmp_path, "stage")
    (stage.folder / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (stage.folder / in_the_way).write_text("a file")
    with pytest.raises(StoreError, match=r"cannot (make|open)"):
        await play(stage, monkeypatch, Disk(), jobId=JOB)
    assert stage.played is not None
    assert stage.played.events == []
    assert stage.model is not None
    assert stage.model.requests == []
    assert (stage.folder / in_the_way).read_text() == "a file"


async def test_a_history_that_became_read_only_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there can be read, and a Job that cannot go on changes nothing."""
    stage = new_stage(tmp_path, "stage")
    await fail(stage, monkeypatch, Disk(read_only, 12))
    before = {path: path.read_bytes() for path in stage.storage.rglob("*.json*") if path.name != "lease.json"}
    with pytest.raises(StoreError, match="Read-only file system"):
        await play(stage, monkeypatch, Disk(read_only, 1, syncs=True), query=None, continueJob=JOB)
    after = {path: path.read_bytes() for path in stage.storage.rglob("*.json*") if path.name != "lease.json"}
    assert after == before


async def test_a_log_that_is_torn_anywhere_in_any_line_is_whole_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of the longest log as the last, each cut off after each of its bytes."""
    stage = new_stage(tmp_path, "stage")
    await play(stage, monkeypatch, Disk(), jobId=JOB)
    source = max(stage.store.job_folder(JOB).glob("runs/*/events.jsonl"), key=lambda path: path.stat().st_size)
    torn, whole, count = tmp_path / "torn", b"", 0
    for number, line in enumerate(source.read_bytes().splitlines(keepends=True)):
        for length in range(len(line) if number % STRIDE == 0 else 0):
            torn.write_bytes(whole + line[:length])
            if length in (1, len(line) // 2, len(line) - 1):
                assert b"".join(found + b"\n" for found in read_lines(torn)) == whole
            EventLog(torn).close()
            assert torn.read_bytes() == whole
            count += 1
        whole += line
    with capsys.disabled():
        print(f" {count} cuts", end="")


def repair_nothing(path: Path) -> str:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return hashlib.sha256(lines[-1]).hexdigest() if lines else GENESIS


append = EventLog.append


def carry_on(self: EventLog, event: Any) -> bytes:
    """Tells of events that could not be written."""
    try:
        return append(self, event)
    except StoreError:
        return bytes(event.encode())


@pytest.mark.parametrize(
    ("target", "broken_one", "fault"),
    [
        ("orchestrator.store.log.EventLog.append", carry_on, full),
        ("orchestrator.store.log._repair", repair_nothing, nearly_full),
        ("orchestrator.store.log.EventLog._cut_off", lambda self: None, full_for_a_moment),
        ("orchestrator.runs.outside.unknown_effects", lambda *_: (), full),
    ],
    ids=["it tells what is not on disk", "no repair", "lines after half a line", "calls are repeated silently"],
)
async def test_the_check_finds_a_store_that_is_broken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    broken_one: Callable[..., Any],
    fault: Callable[[Disk, int, bytes], int],
) -> None:
    calm, disk = await undisturbed(tmp_path, monkeypatch)
    monkeypatch.setattr(target, broken_one)

    async def all_points_pass() -> None:
        for point in range(2, disk.writes, 4):
            stage = new_stage(tmp_path, f"write-{point}")
            await fail_and_go_on(stage, monkeypatch, Disk(fault, point), calm)

    with pytest.raises((AssertionError, pytest.fail.Exception, StoreError)):
        await all_points_pass()
