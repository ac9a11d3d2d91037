"""The bus over real sockets: who gets in, what arrives, and what a hostile runner can do to others (nothing)."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from expert_runner.contract import wire
from expert_runner.contract.wire import Header, Hello, Identity, Kind, encode_header
from expert_runner.link import LeaseLost, Link, Rejected
from expert_runner.version import RUNTIME_VERSION
from orchestrator.bus import IDENTITY_NAME, SOCKET_NAME, Bus, Peer, PeerSilent, PeerViolation
from orchestrator.errors import SandboxError
from orchestrator.sandbox.backend import SandboxOwner, Transport

IPC = Transport("ipc")
TCP = Transport("tcp", bind_host="127.0.0.1", advertised_host="127.0.0.1")
SHORT_S = 0.4
"""Long enough for a frame to cross loopback many times over; what has not arrived by then is not coming."""


@pytest.fixture(params=[IPC, TCP], ids=["ipc", "tcp"])
def transport(request: pytest.FixtureRequest) -> Transport:
    value: Transport = request.param
    return value


@pytest.fixture
async def bus(transport: Transport, short_path: Path) -> AsyncIterator[Bus]:
    async with Bus(transport, SandboxOwner(os.geteuid(), os.getegid()), short_path, None) as bus:
        yield bus


def identity_of(peer: Peer) -> Identity:
    return Identity.model_validate_json((peer.folder / IDENTITY_NAME).read_bytes())


@asynccontextmanager
async def linked(identity: Identity) -> AsyncIterator[Link]:
    async with Link(identity) as link:
        running = asyncio.create_task(link.run())
        try:
            yield link
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, LeaseLost, Rejected):
                await running


@asynccontextmanager
async def raw(identity: Identity, *, greet: bool = True, **keys: str) -> AsyncIterator[zmq.asyncio.Socket]:
    """A socket of a runner that does as it likes."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    secret = {
        "server_key": identity.server_key,
        "public_key": identity.public_key,
        "secret_key": identity.secret_key,
        **keys,
    }
    if secret["secret_key"]:
        socket.curve_serverkey = secret["server_key"].encode()
        socket.curve_publickey = secret["public_key"].encode()
        socket.curve_secretkey = secret["secret_key"].encode()
    socket.connect(identity.endpoint)
    try:
        if greet:
            await socket.send_multipart(hello())
        yield socket
    finally:
        socket.close(0)
        context.term()


def hello(version: str = RUNTIME_VERSION, protocol: int = wire.PROTOCOL_VERSION) -> list[bytes]:
    body = Hello(runtime_version=version, protocol_version=protocol).encode()
    return [encode_header(Header(Kind.HELLO, 0, 0)), body]


def data(seq: int, body: bytes = b'[{"type":"startGeneration"}]', ack: int = 0) -> list[bytes]:
    return [encode_header(Header(Kind.DATA, seq, ack)), body]


async def hears_nothing(peer: Peer) -> bool:
    try:
        async with asyncio.timeout(SHORT_S):
            await peer.next_report()
    except TimeoutError:
        return not peer.greeted.done()
    return False


async def test_reports_and_commands_cross_in_order(bus: Bus) -> None:
    peer = bus.add("r1")
    async with linked(identity_of(peer)) as link:
        for n in range(100):
            peer.send(wire.Resume(resolved=(str(n),)))
            await link.report(wire.SkillUp(skill_name=str(n), total_duration_ms=n))
        async with asyncio.timeout(10):
            for n in range(100):
                assert (await peer.next_report()).skill_name == str(n)
                peer.dealt_with()
                assert (await link.next_command()).resolved == (str(n),)


async def test_the_identity_file_is_private_and_gone_after_hello(bus: Bus) -> None:
    peer = bus.add("r1")
    file = peer.folder / IDENTITY_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert stat.S_IMODE(peer.folder.stat().st_mode) == 0o700
    async with linked(identity_of(peer)):
        async with asyncio.timeout(10):
            await peer.greeted
        assert not file.exists()


async def test_a_closed_peer_leaves_nothing_and_its_key_opens_nothing(bus: Bus) -> None:
    peer = bus.add("r1")
    identity = identity_of(peer)
    peer.close()
    assert not peer.folder.exists()
    other = bus.add("r2")
    async with raw(Identity(**{**identity.model_dump(by_alias=False), "endpoint": identity_of(other).endpoint})):
        assert await hears_nothing(peer)
        assert await hears_nothing(other)


async def test_a_wrong_key_gets_nowhere(bus: Bus) -> None:
    peer = bus.add("r1")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    async with raw(identity_of(peer), public_key=public, secret_key=secret):
        assert await hears_nothing(peer)


async def test_no_key_gets_nowhere(bus: Bus) -> None:
    peer = bus.add("r1")
    async with raw(identity_of(peer), secret_key=""):
        assert await hears_nothing(peer)


async def test_a_server_with_another_key_is_not_talked_to(bus: Bus) -> None:
    peer = bus.add("r1")
    public, _ = (key.decode() for key in zmq.curve_keypair())
    async with raw(identity_of(peer), server_key=public):
        assert await hears_nothing(peer)


async def test_a_key_that_is_in_use_opens_nothing_on_another_connection(bus: Bus) -> None:
    peer = bus.add("r1")
    identity = identity_of(peer)
    async with linked(identity) as link:
        async with asyncio.timeout(10):
            await peer.greeted
        async with raw(identity) as thief:
            await thief.send_multipart(
                data(1, b"[" + wire.SkillUp(skill_name="forged", total_duration_ms=0).encode() + b"]")
            )
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_S):
                    await peer.next_report()
            await link.report(wire.SkillUp(skill_name="true", total_duration_ms=0))
            async with asyncio.timeout(10):
                assert (await peer.next_report()).skill_name == "true"
            peer.send(wire.End())
            assert not await thief.poll(SHORT_S * 1000), "a command reached another connection than the Run's own"


async def test_a_runner_cannot_speak_for_another(bus: Bus) -> None:
    one, other = bus.add("r1"), bus.add("r2")
    async with raw(identity_of(one)) as socket:
        await socket.send_multipart(data(1))
        async with asyncio.timeout(10):
            await one.next_report()
        assert await hears_nothing(other)


async def test_nothing_is_readable_on_the_way(short_path: Path) -> None:
    """A relay between runner and bus sees every byte and none of the words."""
    seen = bytearray()
    async with Bus(TCP, SandboxOwner(os.geteuid(), os.getegid()), short_path, None) as bus:
        peer = bus.add("r1")
        identity = identity_of(peer)
        host, port = identity.endpoint.removeprefix("tcp://").split(":")

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(65536):
                seen.extend(piece)
                writer.write(piece)
            writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_connection(host, int(port))
            with suppress(ConnectionError):
                await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        through = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with linked(identity.model_copy(update={"endpoint": through})) as link:
            peer.send(wire.Resume(resolved=("the-canary-out",)))
            await link.report(wire.SkillUp(skill_name="the-canary-in", total_duration_ms=0))
            async with asyncio.timeout(10):
                assert (await link.next_command()).resolved == ("the-canary-out",)
                assert (await peer.next_report()).skill_name == "the-canary-in"
        server.close()
    assert len(seen) > 500
    assert b"canary" not in seen
    assert identity.secret_key.encode() not in seen


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ([b"short", b""], "header"),
        ([encode_header(Header(Kind.DATA, 1, 0))], "two parts"),
        ([encode_header(Header(Kind.DATA, 1, 0)), b"{}", b"more"], "two parts"),
        (data(1, b"not json"), "not a message"),
        (data(1, b'[{"type":"launchMissiles"}]'), "not a message"),
        (data(1, b'[{"type":"startGeneration","extra":1}]'), "not a message"),
        (data(1, b'{"type":"startGeneration"}'), "not a message"),
        (data(1, b'[{"type":"startRun"}]'), "not a message"),
        (data(1, b"[]"), "not a message"),
        (data(1, b"[" + b",".join([b'{"type":"startGeneration"}'] * 100) + b"]"), "not a message"),
        (data(0), "window"),
        (data(100_000), "window"),
        (data(1, ack=7), "acknowledged"),
        ([encode_header(Header(Kind.ACCEPT, 0, 0)), b""], "does not send"),
        ([b"\x09" + encode_header(Header(Kind.BEAT, 0, 0))[1:], b""], "version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_malformed_frame_fails_its_own_peer_alone(bus: Bus, frame: list[bytes], words: str) -> None:
    bad, good = bus.add("r1"), bus.add("r2")
    async with raw(identity_of(bad)) as socket, linked(identity_of(good)) as link:
        await socket.send_multipart(frame)
        async with asyncio.timeout(10):
            with pytest.raises(PeerViolation, match=words):
                await bad.failed
            await link.report(wire.SkillUp(skill_name="still here", total_duration_ms=0))
            assert (await good.next_report()).skill_name == "still here"
        assert not good.failed.done()


async def test_data_before_hello_counts_for_nothing(bus: Bus) -> None:
    peer = bus.add("r1")
    async with raw(identity_of(peer), greet=False) as socket:
        await socket.send_multipart(data(1))
        assert await hears_nothing(peer)


async def test_a_flood_of_frames_fails_its_own_peer_alone(bus: Bus) -> None:
    bad, good = bus.add("r1"), bus.add("r2")
    async with raw(identity_of(bad)) as socket, linked(identity_of(good)) as link:
        beat = [encode_header(Header(Kind.BEAT, 0, 0)), b""]

        async def flood() -> None:
            # Its connection is cut in the end: then nobody takes what it sends.
            while True:
                await socket.send_multipart(beat)

        async with asyncio.timeout(30):
            flooding = asyncio.create_task(flood())
            with pytest.raises(PeerViolation, match="frames a second"):
                await bad.failed
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            await link.report(wire.SkillUp(skill_name="still here", total_duration_ms=0))
            assert (await good.next_report()).skill_name == "still here"


async def test_reports_that_nobody_takes_are_bounded(bus: Bus) -> None:
    peer = bus.add("r1")
    async with raw(identity_of(peer)) as socket:
        text = b'{"type":"textPart","text":"' + b"y" * 4_000_000 + b'"}'
        big = b'[{"type":"resolveToolResults","toolResults":[{"id":"c","result":[' + text + b"]}]}]"
        async with asyncio.timeout(60):
            for seq in range(1, 20):
                await socket.send_multipart(data(seq, big))
            with pytest.raises(PeerViolation, match="bytes of reports wait"):
                await peer.failed


async def test_an_oversized_frame_never_arrives(bus: Bus) -> None:
    bad, good = bus.add("r1"), bus.add("r2")
    async with raw(identity_of(bad)) as socket, linked(identity_of(good)) as link:
        async with asyncio.timeout(10):
            await bad.greeted
        with suppress(zmq.ZMQError):
            await socket.send_multipart(data(1, b'"' + b"x" * (wire.MAX_FRAME_BYTES + 1) + b'"'))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT_S):
                await bad.next_report()
        await link.report(wire.SkillUp(skill_name="still here", total_duration_ms=0))
        async with asyncio.timeout(10):
            assert (await good.next_report()).skill_name == "still here"


@pytest.mark.parametrize("words", [hello("0.0.0"), hello(protocol=99)], ids=["runtime", "protocol"])
async def test_another_version_is_told_so(bus: Bus, words: list[bytes]) -> None:
    peer = bus.add("r1")
    async with raw(identity_of(peer), greet=False) as socket:
        await socket.send_multipart(words)
        async with asyncio.timeout(10):
            header, body = await socket.recv_multipart()
            assert wire.decode_header(header).kind is Kind.REJECT
            assert b"make images" in body
            with pytest.raises(SandboxError, match="build the image again"):
                await peer.failed


async def test_a_broken_connection_loses_nothing(short_path: Path) -> None:
    """Frames that were on a connection when it broke arrive over the next one, once and in order."""
    async with Bus(TCP, SandboxOwner(os.geteuid(), os.getegid()), short_path, None) as bus:
        peer = bus.add("r1")
        identity = identity_of(peer)
        host, port = identity.endpoint.removeprefix("tcp://").split(":")
        writers: list[asyncio.StreamWriter] = []

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with suppress(ConnectionError):
                while piece := await reader.read(512):
                    writer.write(piece)
                    await writer.drain()
            writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        through = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with linked(identity.model_copy(update={"endpoint": through})) as link, asyncio.timeout(40):
            await peer.greeted
            for n in range(60):
                await link.report(wire.SkillUp(skill_name=str(n), total_duration_ms=0))
                peer.send(wire.Resume(resolved=(str(n),)))
                if n in (20, 40):
                    for writer in writers:
                        writer.transport.abort()
                    writers.clear()
            for n in range(60):
                assert (await peer.next_report()).skill_name == str(n)
                peer.dealt_with()
                assert (await link.next_command()).resolved == (str(n),)
        server.close()


async def test_a_silent_runner_is_given_up(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.bus.LEASE_S", 1.0)
    peer = bus.add("r1")
    async with raw(identity_of(peer)), asyncio.timeout(10):
        with pytest.raises(PeerSilent):
            await peer.failed


async def test_a_parked_runner_may_be_silent(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.bus.LEASE_S", 0.5)
    monkeypatch.setattr("orchestrator.bus.HEARTBEAT_S", 0.1)
    peer = bus.add("r1")
    async with raw(identity_of(peer)):
        async with asyncio.timeout(10):
            await peer.greeted
        peer.is_parked = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.shield(peer.failed)


async def test_a_runner_whose_orchestrator_is_gone_ends(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expert_runner.link.LEASE_S", 1.0)
    async with Bus(IPC, SandboxOwner(os.geteuid(), os.getegid()), short_path, None) as bus:
        identity = identity_of(bus.add("r1"))
    async with Link(identity) as link, asyncio.timeout(10):
        with pytest.raises(LeaseLost):
            await link.run()


async def test_a_socket_path_that_is_too_long_is_refused_with_the_way_out(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    async with Bus(IPC, SandboxOwner(os.geteuid(), os.getegid()), long, None) as bus:
        with pytest.raises(SandboxError, match="TMPDIR"):
            bus.add("r1")


async def test_the_path_inside_the_sandbox_is_what_the_runner_is_told(short_path: Path) -> None:
    async with Bus(IPC, SandboxOwner(os.geteuid(), os.getegid()), short_path, "/perstack/bus") as bus:
        assert identity_of(bus.add("r1")).endpoint == f"ipc:///perstack/bus/{SOCKET_NAME}"


async def test_reports_of_one_frame_are_acknowledged_together(bus: Bus) -> None:
    peer = bus.add("r1")
    async with raw(identity_of(peer)) as socket, asyncio.timeout(10):
        await socket.recv_multipart()
        await socket.send_multipart(data(1, b'[{"type":"finishToolCall"},{"type":"continueToNextStep"}]'))
        for expected, ack in (("finishToolCall", 0), ("continueToNextStep", 1)):
            assert (await peer.next_report()).type == expected
            peer.dealt_with()
            peer.send(wire.End())
            while (header := wire.decode_header((await socket.recv_multipart())[0])).kind is not Kind.DATA:
                pass
            assert header.ack == ack
