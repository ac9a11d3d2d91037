"""From an event to its line on disk: recorded alone, and as a runner sees it over the bus, until it is acknowledged.

Recorded is what a Run's record is made by: the check of the transition, the checkpoint, the line, its hash, the write.
Syncs go on beside it, as in a Job.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.acknowledged import measure_over_the_bus
from benchmarks.figures import Figure, median, p99
from benchmarks.recorded import EVENTS_A_STEP, RecordedRun, SyncBeside
from benchmarks.stage import temporary_folder
from orchestrator.store.layout import Store
from orchestrator.store.log import read_lines
from orchestrator.store.totals import Totals

STEPS = 4_000
RUNS = 8
"""Runs of one Job whose runners report at the same time."""

LIMIT_MS = 2.0
LIMIT_P99_MS = 10.0
LEAST_PER_S = 5_000.0


@dataclass(slots=True)
class Written:
    """Seconds from the beginning of each write until it had returned and until it was synced, and of all; and bytes."""

    writes: list[float] = field(default_factory=list)
    synced: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    size: int = 0

    @property
    def per_s(self) -> float:
        return len(self.writes) / self.wall_s


class Stopwatch:
    """Times writes, and the syncs that go on beside them."""

    def __init__(self) -> None:
        self.times = Written()
        self._unsynced: list[float] = []
        self._began = time.perf_counter()

    def wrote(self, began: float) -> None:
        """A write that began at `began` has returned."""
        self.times.writes.append(time.perf_counter() - began)
        self._unsynced.append(began)

    def syncing(self) -> list[float]:
        """A sync begins; returns when the writes that it covers began."""
        covered, self._unsynced = self._unsynced, []
        return covered

    def synced(self, covered: list[float]) -> None:
        now = time.perf_counter()
        self.times.synced += (now - began for began in covered)

    def stop(self, path: Path) -> Written:
        """All is written and synced, to the file `path`."""
        self.times.wall_s = time.perf_counter() - self._began
        self.times.size = path.stat().st_size
        return self.times


def measure() -> list[Figure]:
    with temporary_folder() as folder:
        recorded, path = asyncio.run(_record(Store(folder)))
        bare = asyncio.run(_write_alone(path, folder / "bare"))
    one = measure_over_the_bus(1)
    many = measure_over_the_bus(RUNS)
    kb = recorded.size / len(recorded.writes) / 1000
    return [
        _in_ms(f"event of {kb:.2f} KB → written, median", median, recorded.writes, bare.writes, LIMIT_MS),
        _in_ms("event → written, 99th percentile", p99, recorded.writes, bare.writes, LIMIT_P99_MS),
        _in_ms("event → synced, median", median, recorded.synced, bare.synced),
        Figure("events a second, one Run", recorded.per_s, "/s", bare.per_s, least=LEAST_PER_S),
        _in_ms("bus: reported → acknowledged, median", median, one.acknowledged, limit=LIMIT_MS),
        _in_ms("bus: reported → acknowledged, 99th percentile", p99, one.acknowledged, limit=LIMIT_P99_MS),
        Figure("bus: events a second, one Run", one.per_s, "/s"),
        Figure(f"bus: events a second, {RUNS} Runs at once", many.per_s, "/s", least=LEAST_PER_S),
    ]


def _in_ms(
    name: str,
    of: Callable[[Sequence[float]], float],
    seconds: Sequence[float],
    floor: Sequence[float] | None = None,
    limit: float | None = None,
) -> Figure:
    return Figure(name, of(seconds) * 1000, "ms", of(floor) * 1000 if floor else None, limit)


async def _record(store: Store) -> tuple[Written, Path]:
    """Record STEPS steps of a Run; also returns the path of its log."""
    totals = Totals()
    run = RecordedRun(store, "bench", lambda event, _: totals.add(event))
    watch = Stopwatch()

    async def sync() -> None:
        covered = watch.syncing()
        await run.ledger.sync()
        watch.synced(covered)

    beside = SyncBeside(sync)
    for _ in range(STEPS):
        for record in run.step():
            began = time.perf_counter()
            record()
            watch.wrote(began)
        beside.step_ended()
        # A Run waits between its steps, too: others get their turn.
        await asyncio.sleep(0)
    await beside.settle()
    times = watch.stop(run.path)
    run.ledger.close()
    return times, run.path


async def _write_alone(log: Path, path: Path) -> Written:
    """The lines of `log` written to `path`, and nothing else."""
    lines = [line + b"\n" for line in read_lines(log)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    watch = Stopwatch()

    async def sync() -> None:
        covered = watch.syncing()
        await asyncio.to_thread(os.fdatasync, file)
        watch.synced(covered)

    beside = SyncBeside(sync)
    for number, line in enumerate(lines, start=1):
        began = time.perf_counter()
        os.write(file, line)
        watch.wrote(began)
        if number % EVENTS_A_STEP == 0:
            beside.step_ended()
            await asyncio.sleep(0)
    await beside.settle()
    times = watch.stop(path)
    os.close(file)
    return times
