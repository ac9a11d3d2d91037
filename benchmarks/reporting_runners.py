"""Runners without tools, in a process of their own: the real link, and reports as fast as they are acknowledged.

`python -m benchmarks.reporting_runners STEPS IDENTITY…`: one runner for each identity file. Each takes STEPS answers,
reports on each at once, and waits until that is acknowledged. Prints the seconds that took, as a JSON list.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from benchmarks.recorded import reports
from benchmarks.stage import RUN_S
from expert_runner.concurrency import race
from expert_runner.contract import wire
from expert_runner.link import Link


async def main(steps: int, identities: list[wire.Identity]) -> None:
    times: list[float] = []
    await asyncio.gather(*(_live(identity, steps, times) for identity in identities))
    print(json.dumps(times))


async def _live(identity: wire.Identity, steps: int, times: list[float]) -> None:
    async with Link(identity) as link:
        await race(link.run(), _report(link, steps, times))


async def _report(link: Link, steps: int, times: list[float]) -> None:
    for _ in range(steps):
        answered: wire.Answered = await link.next_command()
        told = reports(answered.tool_calls[0].id)
        began = time.perf_counter()
        await link.report(*told)
        await link.settle(RUN_S)
        times.append(time.perf_counter() - began)


if __name__ == "__main__":
    found = [wire.Identity.model_validate_json(Path(path).read_bytes()) for path in sys.argv[2:]]
    asyncio.run(main(int(sys.argv[1]), found))
