"""What every test of a hostile runner has in common: a Job in which it runs beside an honest one, what has to hold of
that Job, and the wire in the hands of somebody who does as they like.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import zmq
import zmq.asyncio

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.messages import TextPart
from expert_runner.contract.wire import Header, Hello, Kind, decode_header, encode_header
from expert_runner.version import RUNTIME_VERSION
from tests.jobs.puppets import Puppet, PuppetBackend, play_puppets, script
from tests.jobs.stage import Played, Stage, call, done, talk, turn

MODEL = script(
    talk("boss", turn(call("bad", query="b"), call("good", query="g")), *done("all in")),
    talk("bad", turn(call("healthCheck"), call("todo", newTodos=["x"])), turn(text="I am done")),
    talk("good", turn(call("healthCheck")), turn(text="good answer")),
)
EXPERTS = {"boss": {"delegates": ["bad", "good"]}, "bad": {"delegates": ["good"]}, "good": {}}


async def play_beside(stage: Stage, bad: Puppet, **more: Any) -> Played:
    """The Job with `bad` in the place of one delegate's runner."""
    return await play_puppets(stage, EXPERTS, MODEL, PuppetBackend(stage.workspace, {"bad": bad}), **more)


def check_it_ended_alone(played: Played, *names: str) -> str:
    """`bad` ended with an error of one of these types, and everybody else as if it had not been there.

    Returns the error's message.
    """
    stops = played.of("stopRunByError")
    assert [stop.expert_key for stop in stops] == ["bad"]
    assert stops[0].error.name in names
    assert stops[0].error.message
    assert played.of("completeRun", "bad") == []
    bad, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert bad.is_error
    assert bad.result[0].text.startswith("Delegation failed: ")
    assert good.result[0].text == "good answer"
    assert played.end is not None
    assert (played.end.status, played.end.text) == (CheckpointStatus.COMPLETED, "all in")
    return str(stops[0].error.message)


def moved(kind: Any) -> wire.Moved:
    return wire.Moved(type=kind)


def result(call_id: str, text: str = "forged") -> wire.WireResult:
    return wire.WireResult(id=call_id, result=(TextPart(text=text),))


class RawRunner:
    """A runner's end of the bus without any of its manners: frames are sent as they are given.

    It numbers what it reports, so that a test can go as far as it likes before it breaks a rule.
    """

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket
        self.seq = 0
        self.taken = 0

    async def send(self, header: bytes, *bodies: bytes) -> None:
        await self.socket.send_multipart((header, *bodies))

    async def hello(self, version: str = RUNTIME_VERSION, protocol: int = wire.PROTOCOL_VERSION) -> None:
        words = Hello(runtime_version=version, protocol_version=protocol)
        await self.send(encode_header(Header(Kind.HELLO, 0, 0)), words.encode())

    async def beat(self, ack: int | None = None, body: bytes = b"") -> None:
        await self.send(encode_header(Header(Kind.BEAT, 0, self.taken if ack is None else ack)), body)

    async def data(self, body: bytes, *, seq: int | None = None, ack: int | None = None) -> None:
        """A frame of reports; without `seq` the next one."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        await self.send(encode_header(Header(Kind.DATA, seq, self.taken if ack is None else ack)), body)

    async def command(self) -> Any:
        """The next command; what else comes is passed over."""
        while True:
            header, body = await self.socket.recv_multipart()
            frame = decode_header(header)
            if frame.kind is Kind.DATA and frame.seq == self.taken + 1:
                self.taken += 1
                return wire.parse(wire.command, body)

    async def begin(self) -> tuple[Any, ...]:
        """Say hello and ask the model, as any runner; the calls of its first answer."""
        await self.hello()
        await self.command()
        await self.data(b'[{"type":"startGeneration"}]')
        return tuple((await self.command()).tool_calls)


@asynccontextmanager
async def raw_runner(identity: wire.Identity, **options: int) -> AsyncIterator[RawRunner]:
    """A raw runner with the real key of `identity`; `options` are the socket's, by their names in lower case."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    for name, value in options.items():
        setattr(socket, name, value)
    socket.curve_serverkey = identity.server_key.encode()
    socket.curve_publickey = identity.public_key.encode()
    socket.curve_secretkey = identity.secret_key.encode()
    socket.connect(identity.endpoint)
    try:
        yield RawRunner(socket)
    finally:
        socket.close(0)
        context.term()


def over_frames(act: Callable[[RawRunner], Awaitable[None]]) -> Puppet:
    """A puppet that does `act` with raw frames, and goes on to give signs of life."""

    async def puppet(identity: wire.Identity) -> None:
        async with raw_runner(identity) as runner:
            await act(runner)
            while True:
                await asyncio.sleep(wire.HEARTBEAT_S)
                await runner.beat(ack=0)

    return puppet


def named(cases: Mapping[str, Any]) -> dict[str, Any]:
    """`cases` as the arguments of `pytest.mark.parametrize` after the argument's name."""
    return {"argvalues": list(cases.values()), "ids": list(cases)}
