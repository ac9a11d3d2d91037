"""The runner's end of the bus: one encrypted connection, kept alive, over which commands come and reports go."""

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any

import zmq
import zmq.asyncio

from expert_runner.concurrency import race
from expert_runner.contract.channel import Channel, Frame
from expert_runner.contract.errors import WireError
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
    command,
    decode_header,
    encode_header,
    parse,
)
from expert_runner.version import RUNTIME_VERSION

QUEUE = 64
"""Frames that may wait in the socket in each direction."""


class LeaseLost(Exception):
    """The orchestrator gave no sign of life for longer than the lease."""


class Rejected(Exception):
    """The orchestrator does not talk to this runner."""


class Link:
    """A connection to the orchestrator. Use as an async context manager; `run` keeps it alive."""

    def __init__(self, identity: Identity) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # The name of this connection on the bus, kept over reconnects: the orchestrator binds the Run to the first one
        # that says hello, so that a key alone, once used, opens nothing.
        self._socket.setsockopt(zmq.ROUTING_ID, b"r" + secrets.token_bytes(16))
        self._socket.setsockopt(zmq.SNDHWM, QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, QUEUE)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        self._socket.curve_serverkey = identity.server_key.encode()
        self._socket.curve_publickey = identity.public_key.encode()
        self._socket.curve_secretkey = identity.secret_key.encode()
        self._socket.connect(identity.endpoint)
        self._channel = Channel()
        self._commands: asyncio.Queue[Any] = asyncio.Queue(QUEUE)
        self._settled = asyncio.Event()
        self._settled.set()
        self._accepted = False
        self._silence_s = 0.0

    async def __aenter__(self) -> "Link":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close(0)
        self._context.term()

    async def report(self, *messages: Model) -> None:
        """Hand `messages` to the orchestrator as one frame, in order and exactly once."""
        self._settled.clear()
        body = b"[" + b",".join(message.encode() for message in messages) + b"]"
        await self._send(self._channel.send(body, time.monotonic()))

    async def next_command(self) -> Any:
        """The next command, one of :data:`expert_runner.contract.wire.Command`."""
        return await self._commands.get()

    async def settle(self, within_s: float) -> None:
        """Wait until the orchestrator has taken every report, at most `within_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._settled.wait()

    async def run(self) -> None:
        """Receive, acknowledge, repeat and keep the lease, for as long as the orchestrator does.

        Raises:
            LeaseLost: no sign of life for :data:`~expert_runner.contract.wire.LEASE_S`.
            Rejected: the orchestrator refused this runner.
            WireError: what arrived is not of this protocol.
        """
        await self._say_hello()
        await race(self._receive(), self._keep_up())

    async def _receive(self) -> None:
        while True:
            parts = await self._socket.recv_multipart()
            self._silence_s = 0.0
            if len(parts) != 2:
                raise WireError(f"a frame has two parts, not {len(parts)}")
            await self._take(decode_header(parts[0]), parts[1], time.monotonic())

    async def _keep_up(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            now = time.monotonic()
            # However late this turn comes, it counts for little more than a heartbeat: a sandbox that was frozen or a
            # machine that slept finds its lease as it left it.
            self._silence_s += min(now - before, 2 * HEARTBEAT_S)
            before = now
            if self._silence_s > LEASE_S:
                raise LeaseLost(f"no sign of life from the orchestrator for {LEASE_S:.0f} s")
            if not self._accepted:
                await self._say_hello()
                continue
            await self._send(self._channel.beat())
            for frame in self._channel.due(now):
                await self._send(frame)

    async def _take(self, header: Header, body: bytes, now: float) -> None:
        match header.kind:
            case Kind.ACCEPT:
                self._accepted = True
            case Kind.REJECT:
                raise Rejected(Reject.model_validate_json(body).message)
            case Kind.BEAT:
                self._acknowledged(header.ack, now)
            case Kind.DATA:
                self._acknowledged(header.ack, now)
                if self._channel.take(header.seq):
                    await self._commands.put(parse(command, body))
                    self._channel.dealt_with()
            case Kind.HELLO:
                raise WireError("an orchestrator does not say hello")

    def _acknowledged(self, ack: int, now: float) -> None:
        self._channel.acknowledged(ack, now)
        if self._channel.is_settled:
            self._settled.set()

    async def _say_hello(self) -> None:
        hello = Hello(runtime_version=RUNTIME_VERSION, protocol_version=PROTOCOL_VERSION)
        await self._send((encode_header(Header(Kind.HELLO, 0, 0)), hello.encode()))

    async def _send(self, frame: Frame) -> None:
        try:
            await self._socket.send_multipart(frame, zmq.NOBLOCK)
        except zmq.Again:
            # The socket's queue is full because nobody takes from it; data is sent again by `due`, the rest is not
            # missed.
            return
