"""`python -m tests.faults [--runtime local|docker] [--every N]`: every fault at every write, and what became of each.

Exit code 1 if anything did not hold. It takes about 2 s a fault point with local processes, 6 s with Docker.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter

from tests.faults.campaign import Campaign, Verdict, Warm


async def main(runtime: str, every: int) -> int:
    started = time.monotonic()
    failed: list[Verdict] = []
    kinds: Counter[str] = Counter()
    continued = 0
    async with Warm.started() as warm:
        campaign = Campaign(warm, runtime)
        await campaign.prepare()
        print(f"{runtime}: writes by Run: {campaign.writes}", flush=True)
        for fault in itertools.islice(campaign.points(), 0, None, every):
            verdict = await campaign.strike(fault)
            kinds[f"{fault.signal_name} {fault.victim} {fault.moment}"] += 1
            continued += verdict.continued
            if verdict.problems:
                failed.append(verdict)
                print(f"FAILED {fault} (exit {verdict.code}):", *verdict.problems, sep="\n    ", flush=True)
    for kind, count in kinds.items():
        print(f"  {kind} each write: {count} fault points")
    total = kinds.total()
    took = time.monotonic() - started
    print(f"{total} fault points, {continued} continued, {len(failed)} failed, {took:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--runtime", choices=["local", "docker"], default="local")
    parser.add_argument("--every", type=int, default=1, help="only every N-th fault point")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.runtime, arguments.every)))
