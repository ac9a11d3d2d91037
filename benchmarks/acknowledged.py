"""From a frame of reports that a runner sends to its acknowledgement, over the real bus, recorded as a Job does."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import BenchmarkError
from benchmarks.recorded import EVENTS_A_STEP, RecordedRun, SyncBeside
from benchmarks.stage import RUN_S, temporary_folder
from expert_runner.concurrency import race
from expert_runner.contract import wire
from expert_runner.contract.errors import ContractError
from orchestrator.bus import IDENTITY_NAME, Bus, Peer
from orchestrator.errors import PerstackError
from orchestrator.sandbox.backend import SandboxOwner, Transport
from orchestrator.store.layout import Store
from orchestrator.store.totals import Totals

STEPS = 2_000


@dataclass(frozen=True, slots=True)
class Reported:
    """Seconds from each frame of reports to its acknowledgement, as the runners saw them; and events a second."""

    acknowledged: list[float]
    per_s: float


def measure_over_the_bus(number: int) -> Reported:
    """
    Args:
        number: how many Runs of one Job have runners that report at the same time.

    Raises:
        BenchmarkError: a runner could not be talked to.
    """
    with temporary_folder() as folder:
        try:
            return asyncio.run(_serve_all(folder, number))
        except TimeoutError:
            raise BenchmarkError(f"the reporting runners were not through after {RUN_S:.0f} s") from None


async def _serve_all(folder: Path, number: int) -> Reported:
    """`number` Runs that make STEPS steps in all; their runners share a process."""
    steps = STEPS // number
    store = Store(folder / "history")
    totals = Totals()
    bus_folder = folder / "bus"
    bus_folder.mkdir()
    owner = SandboxOwner(os.geteuid(), os.getegid())
    async with asyncio.timeout(RUN_S), Bus(Transport("ipc"), owner, bus_folder, None) as bus:
        peers = [bus.add(str(at)) for at in range(number)]
        async with _runners(peers, steps) as process:
            await asyncio.gather(*(peer.greeted for peer in peers))
            runs = [RecordedRun(store, "bench", lambda event, _: totals.add(event)) for _ in peers]
            began = time.perf_counter()
            await asyncio.gather(*(_watched(peer, run, steps) for peer, run in zip(peers, runs, strict=True)))
            wall_s = time.perf_counter() - began
            told, _ = await process.communicate()
    if process.returncode != 0:
        raise BenchmarkError(f"the reporting runners ended with code {process.returncode}; what they said is above")
    return Reported(json.loads(told), number * steps * EVENTS_A_STEP / wall_s)


@asynccontextmanager
async def _runners(peers: list[Peer], steps: int) -> AsyncIterator[asyncio.subprocess.Process]:
    identities = (str(peer.folder / IDENTITY_NAME) for peer in peers)
    command = (sys.executable, "-m", "benchmarks.reporting_runners", str(steps), *identities)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _watched(peer: Peer, run: RecordedRun, steps: int) -> None:
    """
    Raises:
        BenchmarkError: the runner cannot be talked to any more.
    """
    try:
        await race(_serve(peer, run, steps), _failing(peer))
    except (PerstackError, ContractError) as error:
        raise BenchmarkError(f"a reporting runner failed: {error}") from error


async def _failing(peer: Peer) -> None:
    # Shielded: whoever stops waiting must not cancel it.
    await asyncio.shield(peer.failed)


async def _serve(peer: Peer, run: RecordedRun, steps: int) -> None:
    """What a Job does with a runner; the model answers at once. Each answer acknowledges the reports before it."""
    beside = SyncBeside(run.ledger.sync)
    for _ in range(steps):
        peer.send(wire.Answered(tool_calls=(run.answer(),)))
        for _ in range(EVENTS_A_STEP - 1):
            run.take(await peer.next_report())
            peer.dealt_with()
        beside.step_ended()
    peer.send(wire.End())
    await beside.settle()
    run.ledger.close()
