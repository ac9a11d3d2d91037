"""The life of one sandbox by itself."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable

from benchmarks.figures import Figure, median
from benchmarks.sandboxes import opened
from benchmarks.stage import temporary_folder

REPEATS = 7

CREATED = "create and start → started"
GREETED = "create and start → hello"
PARKED = "park"
UNPARKED = "unpark"
STOPPED = "stop and remove"


def measure() -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    times: dict[str, list[float]] = defaultdict(list)
    with temporary_folder() as folder:
        async with opened(folder) as sandboxes:
            backend = sandboxes.backend
            for _ in range(REPEATS):
                (one,) = await sandboxes.start(1)
                times[CREATED].append((one.started_at - one.began_at) * 1000)
                times[GREETED].append((one.greeted_at - one.began_at) * 1000)
                times[PARKED].append(await _timed(backend.park(one.sandbox)))
                times[UNPARKED].append(await _timed(backend.unpark(one.sandbox)))
                times[STOPPED].append(await _timed(sandboxes.stop([one])))
    return [
        Figure(f"{name}, median of {REPEATS}", median(times[name]), "ms")
        for name in (CREATED, GREETED, PARKED, UNPARKED, STOPPED)
    ]


async def _timed(work: Awaitable[None]) -> float:
    began = time.monotonic()
    await work
    return (time.monotonic() - began) * 1000
