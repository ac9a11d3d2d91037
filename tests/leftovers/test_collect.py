"""What a killed orchestrator leaves is removed, and nothing of one that lives."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from expert_runner.proc import processes
from expert_runner.skills.base.process_tree import VARIABLE
from orchestrator import gc
from orchestrator.gc import LeftoverKind
from orchestrator.sandbox.idmap import is_mounted
from orchestrator.sandbox.labels import Marks
from orchestrator.sandbox.local_processes import arguments, find_runs, run_mark
from orchestrator.sandbox.process_identity import Life, life_of, process_identity
from tests.leftovers.conftest import NEW_NAMESPACE, Site
from tests.leftovers.orchestrator import Made

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs procfs")
in_docker = pytest.mark.docker

Spawn = Callable[..., subprocess.Popen[bytes]]


def there(engine: docker.DockerClient, job_id: str) -> set[str]:
    """The Job's containers."""
    return {str(c.id) for c in engine.containers.list(all=True, filters={"label": f"perstack.job={job_id}"})}


def networks(engine: docker.DockerClient, job_id: str) -> list[Any]:
    return engine.networks.list(filters={"label": f"perstack.job={job_id}"})


def folders(site: Site) -> list[str]:
    """The runtime folders that are there."""
    return sorted(str(path) for path in site.temporary.iterdir())


def runs(pid: str) -> bool:
    return any(process.pid == int(pid) and not process.has_ended for process in processes())


def all_there(engine: docker.DockerClient, made: Made) -> bool:
    containers = [engine.containers.get(container) for container in made.sandboxes]
    return [c.status for c in containers] == ["running", *["paused"] * (len(containers) - 1)]


@in_docker
async def test_what_a_killed_orchestrator_left_is_removed(
    site: Site, engine: docker.DockerClient, probe_image: str
) -> None:
    (site.folder / "workspace" / "precious").write_text("mine")
    made = site.killed(replace(site.order, image=probe_image))
    mount_point = Path(made.runtime_folder) / "workspace"
    assert sys.platform != "linux" or is_mounted(mount_point) == (os.geteuid() == 0)

    shown = await site.collect(dry_run=True)
    assert [leftover.kind for leftover in shown] == [
        LeftoverKind.CONTAINER,
        LeftoverKind.CONTAINER,
        LeftoverKind.RUNTIME_FOLDER,
    ]
    assert {leftover.id for leftover in shown} == {*made.sandboxes, made.runtime_folder}
    assert not any(leftover.removed or leftover.problem for leftover in shown)
    assert all(f"process {made.pid}" in leftover.why for leftover in shown)
    assert all(leftover.age_s is not None and leftover.age_s < 60 for leftover in shown)
    assert all_there(engine, made)

    removed = await site.collect()
    assert [(leftover.id, leftover.removed) for leftover in removed] == [(leftover.id, True) for leftover in shown]
    assert there(engine, site.job_id) == set()
    assert folders(site) == []
    assert sys.platform != "linux" or not is_mounted(mount_point)
    assert (site.folder / "workspace" / "precious").read_text() == "mine"
    assert await site.collect() == []


@in_docker
async def test_nothing_of_a_live_orchestrator_is_touched(
    site: Site, engine: docker.DockerClient, probe_image: str
) -> None:
    made = site.started(replace(site.order, image=probe_image))
    assert await site.collect() == []
    site.stop(made)
    assert await site.collect() == []
    assert all_there(engine, made)
    assert folders(site) == [made.runtime_folder]


@in_docker
async def test_a_live_orchestrators_container_would_go_if_the_proof_were_wrong(
    site: Site, engine: docker.DockerClient, probe_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test above can fail: here the proof is given away, for this orchestrator only."""
    made = site.started(replace(site.order, image=probe_image))

    def wrong(identity: str) -> Life:
        return Life.DEAD if identity.split(":")[3:4] == [str(made.pid)] else life_of(identity)

    monkeypatch.setattr(gc, "life_of", wrong)
    assert await site.collect() == [], "the lease's holder is believed to live, whatever else is believed of it"
    monkeypatch.setattr(gc, "_may_hold", lambda *_: False)
    await site.collect()
    assert there(engine, site.job_id) == set()


@in_docker
async def test_a_network_that_was_left_is_removed_after_its_containers(
    site: Site, engine: docker.DockerClient, probe_image: str
) -> None:
    order = replace(site.order, image=probe_image)
    site.killed(order, PERSTACK_BUS="tcp")
    live = site.started(replace(order, job_id=site.another_job().job_id), PERSTACK_BUS="tcp")
    removed = await site.collect()
    assert [leftover.kind for leftover in removed if leftover.removed] == [
        LeftoverKind.CONTAINER,
        LeftoverKind.CONTAINER,
        LeftoverKind.NETWORK,
        LeftoverKind.RUNTIME_FOLDER,
    ]
    assert networks(engine, site.job_id) == []
    assert all_there(engine, live)
    assert len(networks(engine, site.orders[-1].job_id)) == 1


@in_docker
@pytest.mark.parametrize("bus", ["ipc", "tcp"])
async def test_who_continues_a_job_removes_what_goes_on_in_its_workspace_at_once(
    site: Site, engine: docker.DockerClient, probe_image: str, bus: str
) -> None:
    order = replace(site.order, image=probe_image)
    first = site.killed(order, PERSTACK_BUS=bus)
    stranger = site.started(replace(order, job_id=site.another_job().job_id), PERSTACK_BUS=bus)
    second = site.started(replace(order, is_continued=True), PERSTACK_BUS=bus)
    assert second.lease == first.lease
    assert there(engine, site.job_id) == set(second.sandboxes)
    assert len(networks(engine, site.job_id)) == (1 if bus == "tcp" else 0)
    assert all_there(engine, stranger)
    # The sweep finds the rest, and sees that the Job is alive again.
    assert [leftover.id for leftover in await site.collect()] == [first.runtime_folder]
    assert all_there(engine, second)


@in_docker
@as_root
async def test_who_cannot_be_judged_by_its_process_is_by_its_lease(
    site: Site, engine: docker.DockerClient, probe_image: str
) -> None:
    # Nothing has to be mounted there: the id of a process cannot be found in the host's /proc.
    os.chown(site.folder / "workspace", 12345, 12345)
    process = site.start(replace(site.order, image=probe_image), prefix=NEW_NAMESPACE)
    made = site.made(process)
    assert await site.collect() == []
    process.kill()
    process.wait()
    stranger = gc.collect(site.folder / "another history", dry_run=False)
    assert site.mine(await stranger) == [], "without the lease there is no proof"
    assert all_there(engine, made)
    removed = await site.collect()
    assert {leftover.why for leftover in removed if leftover.removed} == {"nobody works on its Job any more"}
    assert there(engine, site.job_id) == set()
    assert folders(site) == []


@in_docker
async def test_orchestrators_that_start_meanwhile_keep_everything(
    site: Site, engine: docker.DockerClient, probe_image: str
) -> None:
    orders = [replace(site.another_job(), image=probe_image) for _ in range(4)]
    site.killed(replace(site.order, image=probe_image))
    starting = [site.start(order) for order in orders]
    waiting = asyncio.gather(*(asyncio.to_thread(site.made, process) for process in starting))
    rounds = 0
    while not waiting.done():
        assert {leftover.job_id for leftover in await site.collect()} <= {site.job_id}
        rounds += 1
    assert rounds > 1
    made = await waiting
    assert all(all_there(engine, each) for each in made)
    await site.collect()
    assert all(all_there(engine, each) for each in made)
    assert folders(site) == sorted(each.runtime_folder for each in made)


@in_docker
async def test_two_who_collect_at_once_do_not_disturb_each_other(
    site: Site, engine: docker.DockerClient, probe_image: str
) -> None:
    site.killed(replace(site.order, image=probe_image, sandboxes=4))
    both = await asyncio.gather(*(site.collect() for _ in range(2)))
    assert [leftover.problem for leftovers in both for leftover in leftovers if leftover.problem] == []
    assert there(engine, site.job_id) == set()
    assert folders(site) == []


@on_linux
async def test_local_runners_of_a_killed_orchestrator_are_ended(site: Site) -> None:
    live = site.started(site.another_job())
    made = site.killed(site.order)
    assert all(runs(pid) for pid in made.sandboxes)
    shown = await site.collect(dry_run=True, engine=False)
    assert {leftover.id for leftover in shown} == {*made.sandboxes, made.runtime_folder}
    assert all(leftover.removed for leftover in await site.collect(engine=False))
    assert not any(runs(pid) for pid in made.sandboxes)
    assert all(runs(pid) for pid in live.sandboxes)


@on_linux
async def test_who_continues_a_local_job_ends_the_runners_of_before(site: Site) -> None:
    first = site.killed(site.order)
    stranger = site.started(site.another_job())
    second = site.started(replace(site.order, is_continued=True))
    assert not any(runs(pid) for pid in first.sandboxes)
    assert all(runs(pid) for pid in (*second.sandboxes, *stranger.sandboxes))


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a process in a session of its own; all are killed in the end."""
    spawned: list[subprocess.Popen[bytes]] = []

    def spawn(*command: str, **environment: str) -> subprocess.Popen[bytes]:
        spawned.append(
            subprocess.Popen(
                command, env={"PATH": os.defpath, **environment}, stdin=subprocess.PIPE, start_new_session=True
            )
        )
        return spawned[-1]

    yield spawn
    for process in spawned:
        process.kill()
        process.communicate()


@on_linux
async def test_commands_that_outlived_their_runner_are_ended(site: Site, spawn: Spawn) -> None:
    made = site.killed(site.order)
    (owner,) = {run.marks.owner for run in find_runs() if run.marks.lease == made.lease}
    of_the_dead = Marks(owner, made.lease, site.job_id, "gone")
    of_the_living = Marks(process_identity(), made.lease, site.job_id, "there")
    orphan, command = (
        spawn("sleep", "60", **{VARIABLE: f"{run_mark(marks)}0.1."}) for marks in (of_the_dead, of_the_living)
    )
    await site.collect(engine=False)
    assert orphan.wait(10) == -signal.SIGKILL
    assert command.poll() is None


@on_linux
async def test_what_only_looks_like_a_runner_is_left_alone(site: Site, spawn: Spawn) -> None:
    made = site.killed(site.order)
    (marks, *_) = [run.marks for run in find_runs() if run.marks.lease == made.lease]
    search = spawn("sh", "-c", "read line", "grep", "expert_runner", *arguments(marks)[:3])
    await site.collect(engine=False)
    assert search.poll() is None


async def test_without_an_engine_the_rest_is_still_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = site.killed(site.order)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{site.folder}/nobody.sock")
    collection = await gc.collect(site.history, dry_run=False)
    assert "were not looked for" in collection.notes[0]
    assert made.runtime_folder in {leftover.id for leftover in collection.leftovers if leftover.removed}
    assert folders(site) == []


async def test_a_sweep_removes_and_never_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{site.folder}/nobody.sock")
    site.killed(site.order)
    await gc.sweep(site.history)
    assert folders(site) == []

    def broken(*_: object) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(gc, "runtime_folders", broken)
        await gc.sweep(site.history)
    with monkeypatch.context() as patched:
        patched.setattr(gc, "SWEEP_SECONDS", 0)
        await gc.sweep(site.history)
