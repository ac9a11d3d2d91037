"""From start to removal: causes of an end, parking, many at once, and an engine that goes away."""

import asyncio
import time

import pytest

from orchestrator.errors import SandboxError
from orchestrator.sandbox import docker_watch
from orchestrator.sandbox.backend import ExitCause, Sandbox
from orchestrator.sandbox.docker_exit import LOG_BYTES
from orchestrator.sandbox.policy import MIB, SandboxPolicy
from tests.sandbox.docker_lab import Lab
from tests.sandbox.engine_relay import EngineRelay

pytestmark = pytest.mark.docker

IGNORE_SIGTERM = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork(), os.fork()
print("ready", flush=True)
while True:
    signal.pause()
"""

CHILD_EATS_MEMORY = """
import os, sys
if os.fork() == 0:
    food = []
    while True:
        food.append(b"x" * 2**20)
os.wait()
sys.exit(7)
"""


async def ready(lab: Lab, sandbox: Sandbox) -> None:
    """Until its process 1 has said so."""
    stream = lab.engine.containers.get(sandbox.id).logs(stream=True, follow=True)
    await asyncio.to_thread(next, stream)
    stream.close()


async def test_a_runner_that_exits_is_told_with_its_code_and_last_words(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec("import sys; print('out'); sys.exit('the last words')"))
    ended = await backend.wait(sandbox)
    assert (ended.cause, ended.exit_code) == (ExitCause.EXITED, 1)
    assert ended.log == "the last words\n"
    assert "exit code 1" in ended.evidence
    assert await backend.wait(sandbox) == ended


async def test_a_long_log_is_cut_to_its_end(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(
        lab.spec(
            "import sys; sys.stderr.write('x' * 300_000 + '\\n\\xe9end\\n')", policy=SandboxPolicy(log_bytes=100_000)
        )
    )
    ended = await backend.wait(sandbox)
    assert ended.log.endswith("éend\n")
    assert len(ended.log) <= LOG_BYTES


async def test_out_of_memory_is_told_when_it_killed_the_runner(lab: Lab) -> None:
    backend = await lab.opened()
    spec = lab.spec("food = b'x' * 10**9", policy=SandboxPolicy(memory_bytes=64 * MIB))
    ended = await backend.wait(await backend.start(spec))
    assert (ended.cause, ended.exit_code) == (ExitCause.OUT_OF_MEMORY, 137)


async def test_a_runner_that_outlives_a_child_without_memory_ends_in_its_own_way(lab: Lab) -> None:
    backend = await lab.opened()
    spec = lab.spec(CHILD_EATS_MEMORY, policy=SandboxPolicy(memory_bytes=64 * MIB))
    ended = await backend.wait(await backend.start(spec))
    assert (ended.cause, ended.exit_code) == (ExitCause.EXITED, 7)
    assert "out of memory" in ended.evidence


async def test_a_kill_from_outside_is_told(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    waiting = asyncio.create_task(backend.wait(sandbox))
    await asyncio.to_thread(lab.engine.containers.get(sandbox.id).kill)
    ended = await waiting
    assert (ended.cause, ended.exit_code) == (ExitCause.KILLED, 137)


async def test_a_removal_from_outside_is_told(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    await backend.park(sandbox)
    await asyncio.to_thread(lab.engine.containers.get(sandbox.id).remove, force=True)
    assert (await backend.wait(sandbox)).cause in (ExitCause.GONE, ExitCause.KILLED)
    # What is gone is no error.
    await backend.park(sandbox)
    await backend.unpark(sandbox)
    await backend.stop(sandbox)


async def test_a_stop_is_told_to_everyone_who_waits(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    waiting = [asyncio.create_task(backend.wait(sandbox)) for _ in range(3)]
    await backend.stop(sandbox)
    assert [ended.cause for ended in await asyncio.gather(*waiting)] == [ExitCause.STOPPED] * 3
    await backend.stop(sandbox)


async def test_stops_at_the_same_time_all_end_with_it_gone(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    await asyncio.gather(*(backend.stop(sandbox) for _ in range(6)))
    assert lab.containers() == []


async def test_what_ignores_sigterm_is_stopped_within_three_seconds(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(IGNORE_SIGTERM))
    await ready(lab, sandbox)
    began = time.monotonic()
    await backend.stop(sandbox)
    assert time.monotonic() - began < 3
    assert lab.containers() == []


async def test_a_parked_sandbox_is_frozen_goes_on_and_can_be_stopped(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    container = lab.engine.containers.get(sandbox.id)
    await backend.park(sandbox)
    await backend.park(sandbox)
    container.reload()
    assert container.status == "paused"
    await backend.unpark(sandbox)
    await backend.unpark(sandbox)
    assert (await lab.inside(sandbox, "print('alive')")).text == "alive\n"
    await backend.park(sandbox)
    began = time.monotonic()
    await backend.stop(sandbox)
    assert time.monotonic() - began < 3
    assert lab.containers() == []


async def test_sixteen_start_at_once_each_in_a_container_of_its_own(lab: Lab) -> None:
    backend = await lab.opened()
    sandboxes = await asyncio.gather(*(backend.start(lab.spec()) for _ in range(16)))
    running = lab.containers()
    assert {sandbox.id for sandbox in sandboxes} == {container.id for container in running}
    assert len(running) == 16
    waiting = [asyncio.create_task(backend.wait(sandbox)) for sandbox in sandboxes]
    await asyncio.gather(*(backend.stop(sandbox) for sandbox in sandboxes))
    assert {ended.cause for ended in await asyncio.gather(*waiting)} == {ExitCause.STOPPED}


async def test_a_run_can_have_a_second_sandbox_while_the_first_is_still_there(lab: Lab) -> None:
    backend = await lab.opened()
    spec = lab.spec()
    first, second = await backend.start(spec), await backend.start(spec)
    names = {str(lab.engine.containers.get(sandbox.id).name) for sandbox in (first, second)}
    assert len(names) == 2


async def test_a_start_that_is_cancelled_leaves_nothing(lab: Lab) -> None:
    backend = await lab.opened()
    starting = asyncio.create_task(backend.start(lab.spec()))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await backend.close()
    assert lab.leftovers() == []


async def test_a_start_that_is_refused_leaves_nothing(lab: Lab) -> None:
    backend = await lab.opened()
    spec = lab.spec()
    spec.bus_folder.rmdir()
    with pytest.raises(SandboxError, match="bind source path does not exist"):
        await backend.start(spec)
    with pytest.raises(SandboxError, match=r"[Mm]inimum memory limit"):
        await backend.start(lab.spec(policy=SandboxPolicy(memory_bytes=1)))
    assert lab.containers() == []


async def test_a_process_that_cannot_be_started_leaves_nothing(lab: Lab) -> None:
    lab.engine.containers.create(lab.image, name=f"perstack-test-{lab.job_id}").commit(
        f"perstack-test-{lab.job_id}", conf={"Entrypoint": ["/missing"]}
    )
    lab.engine.containers.get(f"perstack-test-{lab.job_id}").remove()
    try:
        backend = await lab.opened(image=f"perstack-test-{lab.job_id}")
        with pytest.raises(SandboxError, match="/missing"):
            await backend.start(lab.spec())
        assert lab.containers() == []
    finally:
        await backend.close()
        lab.engine.images.remove(f"perstack-test-{lab.job_id}", force=True)


async def test_close_leaves_sandboxes_of_other_owners_alone(lab: Lab) -> None:
    other = lab.engine.containers.create(
        lab.image, labels={"perstack.job": lab.job_id, "perstack.owner": "another-boot:1:1:1"}
    )
    try:
        backend = await lab.opened()
        await backend.start(lab.spec())
        await backend.close()
        assert [container.id for container in lab.containers()] == [other.id]
    finally:
        other.remove(force=True)


async def test_an_end_is_told_although_the_engines_events_broke_off(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EngineRelay(lab.folder / "relay") as relay:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
        backend = await lab.opened()
        sandbox = await backend.start(lab.spec())
        waiting = asyncio.create_task(backend.wait(sandbox))
        await relay.cut()
        await asyncio.to_thread(lab.engine.containers.get(sandbox.id).kill)
        assert not waiting.done()
        await relay.join()
        assert (await waiting).cause is ExitCause.KILLED
        await backend.close()


async def test_a_broken_stream_does_not_end_what_still_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EngineRelay(lab.folder / "relay") as relay:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
        backend = await lab.opened()
        sandbox = await backend.start(lab.spec())
        waiting = asyncio.create_task(backend.wait(sandbox))
        relay.break_all()
        await relay.next_connection()
        assert not waiting.done()
        await asyncio.to_thread(lab.engine.containers.get(sandbox.id).kill)
        assert (await waiting).cause is ExitCause.KILLED
        await backend.close()


async def test_an_engine_that_stays_away_is_told_and_close_still_unmounts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_watch, "LOST_AFTER_SECONDS", 0.2)
    (lab.workspace / "precious").write_text("x")
    async with EngineRelay(lab.folder / "relay") as relay:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
        backend = await lab.opened()
        sandbox = await backend.start(lab.spec())
        await relay.cut()
        ended = await backend.wait(sandbox)
        assert ended.cause is ExitCause.GONE
        assert "Docker Engine" in ended.evidence
        with pytest.raises(SandboxError, match=f"docker ps .*{lab.job_id}"):
            await backend.close()
    assert (lab.workspace / "precious").read_text() == "x"
    assert list(lab.runtime_folder.iterdir()) == []
    lab.engine.containers.get(sandbox.id).remove(force=True)
