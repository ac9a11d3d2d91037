"""A runner that sends all it can: what is kept of it is bounded, and the Runs beside it do not wait."""

import asyncio
import itertools
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq

from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.channel import WINDOW
from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.errors import WireError
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall
from expert_runner.contract.wire import Header, Kind, encode_header
from expert_runner.link import Link
from orchestrator.bus import FRAMES_PER_S, IDENTITY_NAME, MAX_QUEUED_BYTES, QUEUE, Bus, Peer, PeerViolation
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxOwner, Transport
from tests.jobs.hostile import named, raw_runner
from tests.jobs.puppets import Ended, Puppet, PuppetBackend, drive, over_link, play_puppets, script
from tests.jobs.stage import Played, Stage, call, done, talk, turn

ROOT = Path(__file__).parents[2]

STEPS = 40
"""Steps of the Run whose latency is measured."""

FACTOR = 3.0
SLACK_S = 0.020
"""A step beside a flood takes at most this many times what it takes without, and this much: half of it is the
processor's, which the flooding process shares.
"""

REMOVAL_S = 1.0
"""Seconds that the flooding sandbox's removal takes: it goes on until then, whatever became of its Run."""

EXPERTS = {"boss": {"delegates": ["bad", "good"]}, "bad": {}, "good": {}}
MODEL = script(
    talk("boss", turn(call("bad", query="b"), call("good", query="g")), *done("all in")),
    talk("bad", turn(call("healthCheck")), turn(text="done")),
    talk("good", turn(call("healthCheck"), repeat=STEPS), turn(text="good answer")),
)


class SlowToStop(PuppetBackend):
    async def stop(self, sandbox: Sandbox) -> None:
        if sandbox.spec.expert_key == "bad":
            await asyncio.sleep(REMOVAL_S)
        await super().stop(sandbox)


@asynccontextmanager
async def flooding(identity: wire.Identity, kind: str, rate: float, size: int) -> AsyncIterator[None]:
    """A flood that has begun."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).with_name("flooder.py"),
        *(kind, str(rate), str(size)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(identity.encode())
        process.stdin.close()
        assert await process.stdout.readline() == b"go\n"
        yield
    finally:
        process.kill()
        await process.wait()


async def steps_beside(stage: Stage, kind: str | None, rate: float = 0, size: int = 0) -> tuple[Played, list[float]]:
    """A Job with a flood of `kind` in it, and the seconds that each step of the Run beside it took.

    The flood goes on from before its first step until after its last, or until the sandbox is removed.
    """
    begun, over = asyncio.Event(), asyncio.Event()
    finished: list[float] = []

    def listen(event: object) -> None:
        if getattr(event, "expert_key", None) == "good":
            if isinstance(event, e.ContinueToNextStep):
                finished.append(time.monotonic())
            elif isinstance(event, e.CompleteRun):
                over.set()

    async def floods(identity: wire.Identity) -> None:
        if kind is None or over.is_set():
            begun.set()
            await over_link(drive)(identity)
        else:
            async with flooding(identity, kind, rate, size):
                begun.set()
                await over.wait()
            raise Ended(Exit(ExitCause.KILLED, 137, "the flood is over"))

    async def waits_for_the_flood(link: Link) -> None:
        await begun.wait()
        await drive(link)

    puppets: dict[str, Puppet] = {"bad": floods, "good": over_link(waits_for_the_flood)}
    backend = SlowToStop(stage.workspace, puppets)
    played = await play_puppets(stage, EXPERTS, MODEL, backend, event_listener=listen)
    assert len(finished) == STEPS
    return played, [after - before for before, after in itertools.pairwise(finished)]


def check_latency(quiet: list[float], flooded: list[float]) -> None:
    assert statistics.median(flooded) <= FACTOR * statistics.median(quiet) + SLACK_S


FRAMES: dict[str, tuple[str, float, int]] = {
    "frames within the limit": ("beats", FRAMES_PER_S * 0.9, 0),
    "large frames within the limit": ("repeats", 10, 1_000_000),
}
"""Kind, frames a second (0: all that go), and bytes."""

TOO_MANY: dict[str, tuple[str, float, int]] = {
    "frames": ("beats", 0, 0),
    "hellos": ("hellos", 0, 0),
}

TOO_LARGE: dict[str, tuple[str, float, int]] = {
    "repeated frames": ("repeats", 0, 1_000_000),
    "frames after a gap": ("gaps", 0, 1_000_000),
    "beats": ("beats", 0, 1_000_000),
    "hellos": ("hellos", 0, 1_000_000),
    "the largest frames": ("repeats", 0, wire.MAX_FRAME_BYTES - 1024),
}


@pytest.mark.parametrize(("kind", "rate", "size"), **named({**FRAMES, **TOO_MANY, **TOO_LARGE}))
async def test_a_run_beside_a_flood_does_not_wait(local_stage: Stage, kind: str, rate: float, size: int) -> None:
    _, quiet = await steps_beside(local_stage, None)
    played, flooded = await steps_beside(local_stage, kind, rate, size)
    check_latency(quiet, flooded)
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert played.of("stopRunByError", "good") == []


async def test_a_runner_may_send_as_much_as_the_limit(local_stage: Stage) -> None:
    played, _ = await steps_beside(local_stage, *FRAMES["frames within the limit"])
    assert played.of("stopRunByError") == []


@pytest.mark.parametrize(("kind", "rate", "size"), **named(TOO_MANY))
async def test_a_runner_that_sends_too_many_frames_ends_its_own_run_alone(
    local_stage: Stage, kind: str, rate: float, size: int
) -> None:
    played, _ = await steps_beside(local_stage, kind, rate, size)
    (stop,) = played.of("stopRunByError")
    assert (stop.expert_key, stop.error.name) == ("bad", "PeerViolation")
    assert "frames a second" in stop.error.message


@pytest.mark.parametrize(("kind", "rate", "size"), **named(TOO_LARGE))
async def test_a_runner_that_sends_too_many_bytes_ends_its_own_run_alone(
    local_stage: Stage, kind: str, rate: float, size: int
) -> None:
    played, _ = await steps_beside(local_stage, kind, rate, size)
    (stop,) = played.of("stopRunByError")
    assert (stop.expert_key, stop.error.name) == ("bad", "PeerViolation")


async def test_the_check_finds_a_bus_that_a_flood_holds_up(local_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that thinks about each frame, with no limit on them, makes the check above fail."""
    take = Peer.receive

    def ponder(self: Peer, route: bytes, parts: list[zmq.Frame], now: float) -> None:
        until = time.monotonic() + 0.0001
        while time.monotonic() < until:
            pass
        take(self, route, parts, now)

    _, quiet = await steps_beside(local_stage, None)
    monkeypatch.setattr("orchestrator.bus.BURST", 1_000_000)
    monkeypatch.setattr(Peer, "receive", ponder)
    _, flooded = await steps_beside(local_stage, *TOO_MANY["frames"])
    with pytest.raises(AssertionError):
        check_latency(quiet, flooded)


# --- what is kept


@pytest.fixture
async def bus(short_path: Path) -> AsyncIterator[Bus]:
    async with Bus(Transport("ipc"), SandboxOwner(os.geteuid(), os.getegid()), short_path, None) as bus:
        yield bus


def identity_of(peer: Peer) -> wire.Identity:
    return wire.Identity.model_validate_json((peer.folder / IDENTITY_NAME).read_bytes())


def kept(peer: Peer) -> tuple[int, int]:
    """Frames and bytes that wait to be dealt with."""
    return peer._frames.qsize(), peer._queued_bytes


async def test_frames_that_wait_are_bounded_in_number(bus: Bus) -> None:
    peer = bus.add("r1")
    async with raw_runner(identity_of(peer)) as runner, asyncio.timeout(30):
        await runner.hello()
        for _ in range(WINDOW):
            await runner.data(b'[{"type":"startGeneration"}]')
        while kept(peer)[0] < WINDOW:
            await asyncio.sleep(0.01)
        assert not peer.failed.done()
        await runner.data(b'[{"type":"startGeneration"}]')
        with pytest.raises(PeerViolation, match="outside the window"):
            await peer.failed
        assert kept(peer)[0] == WINDOW


async def test_frames_that_wait_are_bounded_in_bytes(bus: Bus) -> None:
    peer = bus.add("r1")
    text = b'{"type":"textPart","text":"' + b"y" * 4_000_000 + b'"}'
    body = b'[{"type":"resolveToolResults","toolResults":[{"id":"c","result":[' + text + b"]}]}]"
    async with raw_runner(identity_of(peer)) as runner, asyncio.timeout(60):
        await runner.hello()
        for _ in range(20):
            await runner.data(body)
        with pytest.raises(PeerViolation, match="bytes of reports wait"):
            await peer.failed
        frames, bytes_kept = kept(peer)
        assert frames == MAX_QUEUED_BYTES // len(body)
        assert bytes_kept <= MAX_QUEUED_BYTES + len(body)


async def test_commands_that_nobody_takes_are_bounded_and_hold_nobody_up(bus: Bus) -> None:
    bad, good = bus.add("r1"), bus.add("r2")
    async with (
        raw_runner(identity_of(bad), rcvhwm=1) as deaf,
        raw_runner(identity_of(good)) as other,
        asyncio.timeout(30),
    ):
        await deaf.hello()
        await other.hello()
        await asyncio.gather(bad.greeted, good.greeted)
        command = wire.Answered(tool_calls=(tool_call("x" * 100_000),))
        for _ in range(WINDOW):
            bad.send(command)
        assert not bad.failed.done()
        # In the socket there is room for few; the rest waits here, to be sent again, and would be a violation.
        bad.send(command)
        with pytest.raises(PeerViolation, match=f"{WINDOW} frames are unacknowledged"):
            await bad.failed
        assert len(bad._channel.unacknowledged()) == WINDOW
        good.send(wire.End())
        assert isinstance(await other.command(), wire.End)
        in_the_socket = 0
        while await deaf.socket.poll(500):
            await deaf.socket.recv_multipart()
            in_the_socket += 1
        # Both ends' queues, the acceptance, and what the kernel holds of bytes between them.
        assert in_the_socket <= QUEUE + 16


def tool_call(text: str) -> ToolCall:
    return ToolCall(id="c", skill_name=BASE_SKILL, skill_type=SkillType.MCP, tool_name="todo", args={"x": text})


def results(body: bytes) -> bytes:
    return b'[{"type":"resolveToolResults","toolResults":[' + body + b"]}]"


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"{}," * 600_000 + b"{}]",
        b"[" + b"1," * 900_000 + b"1]",
        results(b"{}," * 600_000 + b"{}"),
        results(b'{"id":"c","result":[' + b"{}," * 600_000 + b"{}]}"),
        results(b"")[:-2] + b',"todoChange":{"completed":[' + b"{}," * 600_000 + b"{}]}}]",
        results(b"")[:-2] + b',"todoChange":{"added":[' + b"{}," * 600_000 + b"{}]}}]",
        b'[{"type":"startGeneration",' + b",".join(b'"%d":0' % n for n in range(180_000)) + b"}]",
    ],
    ids=["reports", "numbers", "results", "parts", "ticked todos", "added todos", "fields"],
)
async def test_a_frame_full_of_problems_is_refused_at_once(body: bytes) -> None:
    """Nothing else goes on meanwhile, for any Run. Of a frame four times as large it takes four times as long."""
    begun = time.monotonic()
    with pytest.raises(WireError):
        wire.parse(wire.reports, body)
    assert time.monotonic() - begun < 1.0


async def test_a_message_of_many_parts_is_not_copied(bus: Bus) -> None:
    peer = bus.add("r1")
    async with raw_runner(identity_of(peer)) as runner, asyncio.timeout(60):
        await runner.hello()
        await peer.greeted
        tracemalloc.start()
        try:
            await runner.send(encode_header(Header(Kind.BEAT, 0, 0)), *[bytes(1_000_000)] * 50)
            with pytest.raises(PeerViolation, match="two parts"):
                await peer.failed
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()
