"""From a coordinator's answer that calls delegates to its next request, beside starting their sandboxes alone."""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.figures import BenchmarkError, Figure, median
from benchmarks.sandboxes import opened
from benchmarks.scripted import ModelProcess, call, gaps_ms
from benchmarks.stage import COORDINATOR, Stage, temporary_folder

NUMBERS = (1, 2, 4, 8, 16)
REPEATS = 3
LIMIT_RATIO = 1.5
"""At the largest of NUMBERS."""

PAUSE_MS = 4_000
"""How long the model thinks before it calls the next delegates: those of before are removed meanwhile."""


def measure() -> list[Figure]:
    floors: dict[int, list[float]] = defaultdict(list)
    times: dict[int, list[float]] = defaultdict(list)
    for _ in range(REPEATS):
        with temporary_folder() as folder:
            for number, seconds in asyncio.run(_start_alone(folder)).items():
                floors[number].append(seconds)
        with temporary_folder() as folder:
            for number, seconds in _delegate(folder).items():
                times[number].append(seconds)
    return [
        Figure(
            f"{number} parallel delegate{'s' if number > 1 else ''}",
            median(times[number]),
            "s",
            median(floors[number]),
            limit_ratio=LIMIT_RATIO if number == max(NUMBERS) else None,
        )
        for number in NUMBERS
    ]


async def _start_alone(folder: Path) -> dict[int, float]:
    """Seconds until each number of sandboxes, started at once, has said hello."""
    found = {}
    async with opened(folder) as sandboxes:
        # A Job's delegates are started beside the coordinator's sandbox, and on an engine that has just started one.
        coordinator = await sandboxes.start(1)
        await sandboxes.backend.park(coordinator[0].sandbox)
        coordinator[0].peer.is_parked = True
        for number in NUMBERS:
            started = await sandboxes.start(number)
            found[number] = max(one.greeted_at for one in started) - min(one.began_at for one in started)
            await sandboxes.stop(started)
        await sandboxes.stop(coordinator)
    return found


def _delegate(folder: Path) -> dict[int, float]:
    """The same with a Job: one whose coordinator calls each number of delegates in turn."""
    turns: list[dict[str, Any]] = [
        {"toolCalls": [call("worker", query=f"{at} of {number}") for at in range(number)], "delayMs": PAUSE_MS}
        for number in NUMBERS
    ]
    coordinator = {"expert": COORDINATOR, "turns": [*turns, {"text": "done"}]}
    worker = {"expert": "worker", "turns": [{"text": "done"}]}
    experts: dict[str, dict[str, Any]] = {
        COORDINATOR: {"instruction": "Be quick.", "delegates": ["worker"]},
        "worker": {"instruction": "Be quick.", "description": "Works."},
    }
    with ModelProcess(folder, coordinator, worker) as model:
        (folder / "stage").mkdir()
        Stage(folder / "stage", model.url, experts).run()
        requests = model.take()
    if len(requests) != sum(NUMBERS) + len(NUMBERS) + 1:
        raise BenchmarkError(f"{len(requests)} requests are not one for each delegate")
    gaps = gaps_ms([request for request in requests if request.expert_key == COORDINATOR])
    return {number: gap / 1000 for number, gap in zip(NUMBERS, gaps, strict=True)}
