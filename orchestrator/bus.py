"""The orchestrator's end of the bus: one ZeroMQ ROUTER for a Job, encrypted and authenticated with CURVE.

Each Run gets a key pair of its own; a frame counts as that Run's only if it came with its key (ZAP) on the connection
that first said hello with it. Everything a runner sends is bounded and checked here; what breaks the rules fails its
own
:class:`Peer` and nothing else.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from expert_runner.contract.channel import Channel, Frame
from expert_runner.contract.errors import ContractError, WireError
from expert_runner.contract.model import Model
from expert_runner.contract.wire import (
    HEARTBEAT_S,
    LEASE_S,
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Header,
    Hello,
    Identity,
    Kind,
    Reject,
    decode_header,
    encode_header,
    hello,
    parse,
    reports,
)
from expert_runner.version import RUNTIME_VERSION
from orchestrator.errors import SandboxError
from orchestrator.sandbox.backend import SandboxOwner, Transport

SOCKET_NAME = "s"
IDENTITY_NAME = "identity"
MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path that the system allows."""

QUEUE = 64
"""Frames that may wait in the socket for each runner, in each direction."""

MAX_QUEUED_BYTES = 4 * MAX_FRAME_BYTES
"""Bytes of one runner's reports that may wait to be dealt with."""

FRAMES_PER_S = 2_000
"""Frames a runner may send a second, averaged over :data:`BURST`. A real one sends about five a step."""

BURST = 4_000

BYTES_PER_S = 32 * 1024 * 1024
"""Bytes a runner may send a second, averaged over :data:`BURST_BYTES`. A real one sends what its tools
said, and that again while it is not acknowledged."""

BURST_BYTES = 4 * MAX_QUEUED_BYTES

FRAMES_A_TURN = 64
"""Frames received before other tasks get their turn."""


class PeerSilent(SandboxError):
    """A runner gave no sign of life for longer than the lease."""


class PeerViolation(ContractError):
    """A runner sent what the protocol forbids."""


class Peer:
    """One Run's runner on the bus."""

    def __init__(self, bus: "Bus", folder: Path, public_key: str) -> None:
        self.folder = folder
        self.public_key = public_key
        self.is_parked = False
        """While its sandbox is frozen a runner cannot give signs of life."""
        self.is_cut = False
        self._bus = bus
        self._channel = Channel()
        self._frames: asyncio.Queue[tuple[list[Any], int]] = asyncio.Queue()
        self._reports: list[Any] = []
        self._queued_bytes = 0
        self._route: bytes | None = None
        self._heard_at: float | None = None
        self._frames_left = float(BURST)
        self._bytes_left = float(BURST_BYTES)
        self._spent_at = 0.0
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = loop.create_future()
        """Ends with an exception when this runner cannot be talked to any more."""
        self.greeted: asyncio.Future[None] = loop.create_future()
        """Done when the runner has said hello and was accepted."""

    async def next_report(self) -> Any:
        """The runner's next report, one of :data:`expert_runner.contract.wire.Report`. Follow it by `dealt_with`."""
        if not self._reports:
            self._reports, size = await self._frames.get()
            self._queued_bytes -= size
        return self._reports.pop()

    def dealt_with(self) -> None:
        """The last report has been stored: once all of its frame have, that is acknowledged with the next frame."""
        if not self._reports:
            self._channel.dealt_with()

    def send(self, message: Model) -> None:
        """Hand `message` to the runner, in order and exactly once."""
        try:
            frame = self._channel.send(message.encode(), time.monotonic())
        except WireError as error:
            self._fail(PeerViolation(str(error)))
            return
        self._bus.send(self._route, frame)

    def close(self) -> None:
        """Forget this runner: its key opens nothing any more and its folder is removed."""
        self._bus.forget(self)

    # --- called by the bus

    def receive(self, route: bytes, parts: list[zmq.Frame], now: float) -> None:
        if self.failed.done():
            return
        try:
            self._spend(sum(len(part) for part in parts), now)
            if len(parts) != 2:
                raise WireError(f"a frame has two parts, not {len(parts)}")
            header = decode_header(parts[0].bytes)
            if header.kind is Kind.HELLO and self._route is None:
                self._route = route
            if route != self._route:
                return  # The key on another connection than the one it was first used on.
            self._heard_at = now
            self._take(header, parts[1].bytes, now)
        except WireError as error:
            self._fail(PeerViolation(str(error)))
            # Whatever it goes on sending until its sandbox is gone costs nobody anything.
            self._bus.cut(self)

    def keep_up(self, now: float) -> None:
        if self._route is None or self.failed.done():
            return
        if self.is_parked:
            self._heard_at = now
            return
        if self._heard_at is not None and now - self._heard_at > LEASE_S:
            self._fail(PeerSilent(f"the runner gave no sign of life for {LEASE_S:.0f} s"))
            return
        self._bus.send(self._route, self._channel.beat())
        for frame in self._channel.due(now):
            self._bus.send(self._route, frame)

    def _take(self, header: Header, body: bytes, now: float) -> None:
        match header.kind:
            case Kind.HELLO:
                self._greet(parse(hello, body))
            case Kind.BEAT:
                self._channel.acknowledged(header.ack, now)
            case Kind.DATA:
                if not self.greeted.done():
                    raise WireError("data before hello")
                self._channel.acknowledged(header.ack, now)
                if self._channel.take(header.seq):
                    self._queued_bytes += len(body)
                    if self._queued_bytes > MAX_QUEUED_BYTES:
                        raise WireError(f"more than {MAX_QUEUED_BYTES} bytes of reports wait")
                    told = parse(reports, body)
                    # Taken from the end, one by one.
                    self._frames.put_nowait((list(told[::-1]), len(body)))
            case Kind.ACCEPT | Kind.REJECT:
                raise WireError(f"a runner does not send {header.kind.name}")

    def _greet(self, words: Hello) -> None:
        if words.protocol_version != PROTOCOL_VERSION or words.runtime_version != RUNTIME_VERSION:
            message = (
                f"the sandbox's image holds runtime {words.runtime_version} (protocol {words.protocol_version}), the "
                f"orchestrator is {RUNTIME_VERSION} (protocol {PROTOCOL_VERSION}): "
                "build the image again, by `make images`"
            )
            self._bus.send(self._route, (encode_header(Header(Kind.REJECT, 0, 0)), Reject(message=message).encode()))
            self._fail(SandboxError(message))
            return
        self._bus.send(self._route, (encode_header(Header(Kind.ACCEPT, 0, 0)), b""))
        if not self.greeted.done():
            (self.folder / IDENTITY_NAME).unlink(missing_ok=True)
            self.greeted.set_result(None)
            for frame in self._channel.unacknowledged():
                self._bus.send(self._route, frame)

    def _spend(self, size: int, now: float) -> None:
        passed, self._spent_at = now - self._spent_at, now
        self._frames_left = min(BURST, self._frames_left + passed * FRAMES_PER_S) - 1
        self._bytes_left = min(BURST_BYTES, self._bytes_left + passed * BYTES_PER_S) - size
        if self._frames_left < 0:
            raise WireError(f"more than {FRAMES_PER_S} frames a second")
        if self._bytes_left < 0:
            raise WireError(f"more than {BYTES_PER_S} bytes a second")

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
            # Whoever waits on it sees it; nobody may be waiting yet.
            self.failed.exception()


class Bus:
    """A Job's bus. Use as an async context manager.

    Args:
        transport: how sandboxes reach it.
        owner: whom the files that a sandbox reads must belong to.
        folder: where each Run's own folder is made.
        path_inside: where a Run's folder is as its sandbox sees it; None: at its own path.
    """

    def __init__(self, transport: Transport, owner: SandboxOwner, folder: Path, path_inside: str | None) -> None:
        self._transport = transport
        self._owner = owner
        self._folder = folder
        self._path_inside = path_inside
        self._context = zmq.asyncio.Context()
        self._authenticator = AsyncioAuthenticator(self._context)
        self._socket = self._context.socket(zmq.ROUTER)
        public, secret = zmq.curve_keypair()
        self._server_key = public.decode()
        self._server_secret = secret
        self._peers: dict[str, Peer] = {}
        self._port = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Bus":
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", self)
        socket = self._socket
        socket.curve_server = True
        socket.curve_secretkey = self._server_secret
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.RCVHWM, QUEUE)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
        if self._transport.scheme == "tcp":
            self._port = socket.bind_to_random_port(f"tcp://{self._transport.bind_host}")
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._keep_up())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in list(self._peers.values()):
            self.forget(peer)
        self._authenticator.stop()
        self._socket.close(0)
        self._context.term()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this public key (Z85) may connect; called by the authenticator."""
        return key.decode() in self._peers

    def add(self, name: str) -> Peer:
        """Make a key pair and a folder for a new Run. `name` is the folder's, unique in the Job and short.

        Raises:
            SandboxError: the folder cannot be made, or the socket's path would be too long.
        """
        public, secret = (key.decode() for key in zmq.curve_keypair())
        folder = self._folder / name
        try:
            folder.mkdir(mode=0o700)
            identity = Identity(
                endpoint=self._bind(folder), server_key=self._server_key, public_key=public, secret_key=secret
            )
            file = os.open(folder / IDENTITY_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(file, "wb") as stream:
                stream.write(identity.encode())
            self._give_away(folder)
        except OSError as error:
            raise SandboxError(f"cannot make the bus folder {folder}: {error.strerror}") from error
        peer = Peer(self, folder, public)
        self._peers[public] = peer
        return peer

    def forget(self, peer: Peer) -> None:
        """See :meth:`Peer.close`."""
        if self._peers.pop(peer.public_key, None) is None:
            return
        self.cut(peer)
        for name in (IDENTITY_NAME, SOCKET_NAME):
            (peer.folder / name).unlink(missing_ok=True)
        peer.folder.rmdir()

    def cut(self, peer: Peer) -> None:
        """End a runner's connection, where it has an endpoint of its own."""
        if self._transport.scheme == "ipc" and not peer.is_cut:
            peer.is_cut = True
            self._socket.unbind(f"ipc://{peer.folder / SOCKET_NAME}")

    def send(self, route: bytes | None, frame: Frame) -> None:
        """Send `frame` if the runner is there. What matters is sent again; the rest is not missed."""
        if route is None:
            return
        # Without waiting, what comes back is a future that is already done.
        sent: Any = self._socket.send_multipart((route, *frame), zmq.NOBLOCK)
        sent.exception()

    def _bind(self, folder: Path) -> str:
        if self._transport.scheme == "tcp":
            return f"tcp://{self._transport.advertised_host}:{self._port}"
        path = folder / SOCKET_NAME
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise SandboxError(
                f"the socket's path {path} is longer than {MAX_SOCKET_PATH} bytes: set TMPDIR to a shorter one"
            )
        self._socket.bind(f"ipc://{path}")
        inside = f"{self._path_inside}/{SOCKET_NAME}" if self._path_inside else str(path)
        return f"ipc://{inside}"

    def _give_away(self, folder: Path) -> None:
        if self._owner.uid == os.geteuid():
            return
        for path in (*folder.iterdir(), folder):
            os.chown(path, self._owner.uid, self._owner.gid)

    async def _receive(self) -> None:
        received = 0
        while True:
            frames = await self._socket.recv_multipart(copy=False)
            self._dispatch(frames, time.monotonic())
            received += 1
            if received % FRAMES_A_TURN == 0:
                await asyncio.sleep(0)

    def _dispatch(self, frames: list[zmq.Frame], now: float) -> None:
        if len(frames) < 2:
            return
        peer = self._peers.get(str(frames[1].get("User-Id")))
        if peer is not None:
            peer.receive(frames[0].bytes, frames[1:], now)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            now = time.monotonic()
            for peer in list(self._peers.values()):
                peer.keep_up(now)
