"""Remove what dead orchestrators left: containers, networks, processes, and folders with their mounts.

Two things prove an orchestrator dead: that its process has ended, by its identity; and, where that cannot be known (it
ran in another container), that nobody holds the lease of the Job that it worked on. A thing without proof stays. What
there is gets listed first and judged afterwards: whoever started what was seen held the lease then, so a lease that is
free now proves that one gone, even if the Job has gone on in another process the moment after.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from expert_runner.contract.model import Model
from orchestrator.errors import ConfigError, SandboxError, StoreError
from orchestrator.runtime_folder import FoundFolder, remove_dead, runtime_folders
from orchestrator.sandbox.docker_engine import EngineAwayError
from orchestrator.sandbox.docker_leftovers import DockerLeftovers, Found
from orchestrator.sandbox.labels import Marks
from orchestrator.sandbox.local_processes import FoundRun, end_run, find_runs
from orchestrator.sandbox.process_identity import Life, ProcessIdentity, life_of
from orchestrator.store.layout import Store
from orchestrator.store.lease import Standing, holder, standing

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0
"""How long a sweep may take, besides the call to an engine that is under way then."""


class LeftoverKind(StrEnum):
    PROCESSES = "processes"
    CONTAINER = "container"
    NETWORK = "network"
    RUNTIME_FOLDER = "runtimeFolder"


class Leftover(Model):
    """A thing whose orchestrator is dead.

    Attributes:
        id: the engine's, the ids of the processes, or the folder's path.
        run_id: None for what all Runs of a Job shared.
        age_s: seconds since it was made; None where that is not known.
        why: what proves that its orchestrator is dead.
        removed: False if it was only looked for, or could not be removed: then `problem` says why.
    """

    kind: LeftoverKind
    id: str
    job_id: str
    run_id: str | None = None
    age_s: int | None = None
    why: str
    removed: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """What was found, and `notes` on what could not be looked at."""

    leftovers: tuple[Leftover, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Suspect:
    """Something of an orchestrator, dead or alive. `made_at` is in Unix seconds."""

    kind: LeftoverKind
    id: str
    marks: Marks
    made_at: float | None
    remove: Callable[[], Awaitable[None]]


async def collect(store_root: Path, *, dry_run: bool, engine: bool = True) -> Collection:
    """Find what dead orchestrators left, and remove it unless `dry_run`. Nothing of a live one is ever touched.

    Args:
        store_root: where the Jobs are whose leases are believed; things of Jobs elsewhere need the other proof.
        engine: whether to look into the Docker Engine too.
    """
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        suspects = [_of_run(run) for run in await asyncio.to_thread(find_runs)]
        if engine:
            docker = DockerLeftovers()
            stack.push_async_callback(docker.close)
            try:
                suspects += [_of_docker(docker, found) for found in await docker.find()]
            except EngineAwayError as error:
                notes.append(f"Containers and networks were not looked for: {error}")
            except SandboxError as error:
                notes.append(f"Containers and networks could not be looked for: {error}")
        suspects += [_of_folder(folder) for folder in await asyncio.to_thread(lambda: list(runtime_folders()))]
        store = Store(store_root)
        reasons = await asyncio.to_thread(lambda: [_why_dead(suspect.marks, store) for suspect in suspects])
        dead = [(suspect, why) for suspect, why in zip(suspects, reasons, strict=True) if why is not None]
        leftovers: list[Leftover] = []
        # Kind by kind: a container is in its network, and uses what is mounted in the folder.
        for kind in LeftoverKind:
            leftovers += await asyncio.gather(
                *(_deal_with(suspect, why, dry_run=dry_run) for suspect, why in dead if suspect.kind is kind)
            )
    return Collection(tuple(leftovers), tuple(notes))


async def sweep(store_root: Path, *, engine: bool = True) -> None:
    """:func:`collect` for an orchestrator that starts: in the background, bounded in time, and never an error.

    Args:
        engine: whether the Job uses the Docker Engine; another would wait for it, or load its SDK, for nothing.
    """
    try:
        async with asyncio.timeout(SWEEP_SECONDS):
            collection = await collect(store_root, dry_run=False, engine=engine)
    except TimeoutError:
        logger.warning("Not all that earlier perstack processes left could be removed in time. Try: perstack gc")
        return
    except Exception as error:  # noqa: BLE001 - a Job does not fail because of what another left
        logger.warning("What earlier perstack processes left could not be removed: %s. Try: perstack gc", error)
        return
    for note in collection.notes:
        logger.debug("%s", note)
    for leftover in collection.leftovers:
        if leftover.problem is None:
            logger.info("Removed %s %s of Job %s: %s", leftover.kind, leftover.id, leftover.job_id, leftover.why)
        else:
            logger.warning("%s %s of Job %s: %s", leftover.kind, leftover.id, leftover.job_id, leftover.problem)


def _why_dead(marks: Marks, store: Store) -> str | None:
    """What proves that whoever started this is dead; None without a proof."""
    try:
        folder = store.job_folder(marks.job_id)
    except ConfigError:
        folder = None
    lease = standing(folder, marks.lease) if folder is not None else Standing.UNKNOWN
    if folder is not None and lease is Standing.HELD and _may_hold(folder, marks.owner):
        return None
    match life_of(marks.owner):
        case Life.DEAD:
            process = ProcessIdentity.parse(marks.owner)
            return f"process {process.pid if process else '?'}, which started it, has ended"
        case Life.UNKNOWN if lease is Standing.FREE:
            return "nobody works on its Job any more"
        case _:
            return None


def _may_hold(folder: Path, owner: str) -> bool:
    """Whether the one who holds the lease is `owner`, whatever else is believed of it."""
    try:
        now = holder(folder)
    except StoreError:
        return True
    return now is None or now.process == owner


async def _deal_with(suspect: _Suspect, why: str, *, dry_run: bool) -> Leftover:
    age = None if suspect.made_at is None else max(0, round(time.time() - suspect.made_at))
    leftover = Leftover(
        kind=suspect.kind,
        id=suspect.id,
        job_id=suspect.marks.job_id,
        run_id=suspect.marks.run_id or None,
        age_s=age,
        why=why,
    )
    if dry_run:
        return leftover
    try:
        await suspect.remove()
    except SandboxError as error:
        return leftover.model_copy(update={"problem": str(error)})
    return leftover.model_copy(update={"removed": True})


def _of_run(run: FoundRun) -> _Suspect:
    ids = " ".join(map(str, run.runners + run.commands))
    return _Suspect(LeftoverKind.PROCESSES, ids, run.marks, None, lambda: asyncio.to_thread(end_run, run.marks))


def _of_docker(docker: DockerLeftovers, found: Found) -> _Suspect:
    kind = LeftoverKind.NETWORK if found.is_network else LeftoverKind.CONTAINER
    return _Suspect(kind, found.id, found.marks, found.made_at, lambda: docker.remove(found))


def _of_folder(folder: FoundFolder) -> _Suspect:
    kind = LeftoverKind.RUNTIME_FOLDER
    return _Suspect(
        kind, str(folder.path), folder.marks, folder.made_at, lambda: asyncio.to_thread(remove_dead, folder)
    )
