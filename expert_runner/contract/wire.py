"""The wire: what crosses the bus between a runner and the orchestrator.

A frame is two ZeroMQ parts: a header of 18 bytes and a body of JSON. The header is, in network order, the protocol's
version (1 byte), the kind (1), the frame's sequence number (8; 0 when the kind has none) and the sequence number of
the last frame taken from the other side (8).

Whoever knows of a transition first makes it. What the runner cannot but be told (the Run begins, the model or a
delegate has answered, the Run stops) the orchestrator has recorded before the runner hears of it. What happens in the
sandbox the runner reports, by reference: the orchestrator already has the model's answer, the conversation and the
clock, so there is nothing in a report to forge but tool results.
"""

import struct
from enum import IntEnum
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import FailFast, Field, TypeAdapter, field_validator

from expert_runner.contract.checkpoints import RunError, State
from expert_runner.contract.errors import WireError
from expert_runner.contract.messages import ResultPart
from expert_runner.contract.model import Model, first_problem
from expert_runner.contract.todos import Todo, TodoChange
from expert_runner.contract.tools import MAX_TOOL_CALLS, ToolCall

T = TypeVar("T")

PROTOCOL_VERSION = 2

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""A larger frame is refused by the socket itself."""

HEARTBEAT_S = 1.0
"""Seconds between two signs of life, in both directions."""

LEASE_S = 15.0
"""Seconds without a sign of life after which a runner exits and an orchestrator gives a runner up."""

MAX_REPORTS = 16
"""Reports in one frame: what happens without waiting for anything is told together."""

MAX_ERROR_CHARACTERS = 10_000
"""Characters of a runner's own error."""

HEADER = struct.Struct("!BBQQ")


class Kind(IntEnum):
    """`DATA` is sequenced, acknowledged and repeated until it is; the others are neither."""

    HELLO = 1
    ACCEPT = 2
    REJECT = 3
    DATA = 4
    BEAT = 5


class Header(NamedTuple):
    kind: Kind
    seq: int
    ack: int


def encode_header(header: Header) -> bytes:
    return HEADER.pack(PROTOCOL_VERSION, header.kind, header.seq, header.ack)


def decode_header(raw: bytes) -> Header:
    """The header in `raw`.

    Raises:
        WireError: it is not one, or of another version.
    """
    if len(raw) != HEADER.size:
        raise WireError(f"a header has {HEADER.size} bytes, not {len(raw)}")
    version, kind, seq, ack = HEADER.unpack(raw)
    if version != PROTOCOL_VERSION:
        raise WireError(f"protocol version {version}; this side speaks {PROTOCOL_VERSION}")
    try:
        return Header(Kind(kind), seq, ack)
    except ValueError:
        raise WireError(f"unknown kind of frame: {kind}") from None


class Identity(Model):
    """The file a runner finds at its start: who it is on the bus, and whom to call. Keys are Z85 text.

    `endpoint` is a ZeroMQ address as the sandbox sees it.
    """

    endpoint: str
    server_key: str
    public_key: str
    secret_key: str


class Hello(Model):
    """The runner's first words, repeated until they are answered."""

    runtime_version: str = Field(max_length=64)
    protocol_version: int


hello: TypeAdapter[Hello] = TypeAdapter(Hello)


class Reject(Model):
    """Why the orchestrator does not talk to this runner."""

    message: str


# --- orchestrator to runner


class Assign(Model):
    """What a runner is: its Run, and where that Run stands (a new one: about to begin its first step). `base_tools` are
    the base tools its Expert may call.
    """

    type: Literal["assign"] = "assign"
    job_id: str
    run_id: str
    expert_key: str
    state: State = State.PREPARING_FOR_STEP
    pending_tool_calls: tuple[ToolCall, ...] = ()
    todos: tuple[Todo, ...] = ()
    base_tools: tuple[str, ...]
    workspace: str
    env: dict[str, str] = Field(default_factory=dict)
    """What commands find in their environment besides a minimal one."""


class Answered(Model):
    """The model has answered with these calls. An answer without any ends the Run: nobody need tell its runner."""

    type: Literal["answered"] = "answered"
    tool_calls: Annotated[tuple[ToolCall, ...], Field(min_length=1, max_length=MAX_TOOL_CALLS)]


class Resume(Model):
    """Results came from outside for the calls with these ids: the Run goes on."""

    type: Literal["resume"] = "resume"
    resolved: tuple[str, ...]


class End(Model):
    """The Run is over: clean up and exit."""

    type: Literal["end"] = "end"


Command = Annotated[Assign | Answered | Resume | End, Field(discriminator="type")]
command: TypeAdapter[Assign | Answered | Resume | End] = TypeAdapter(Command)

# --- runner to orchestrator (each frame carries one or more reports)

Name = Annotated[str, Field(max_length=256)]


class WireResult(Model):
    """What call `id` gave; the orchestrator knows the rest of the call."""

    id: Name
    result: Annotated[tuple[ResultPart, ...], Field(max_length=64), FailFast()]
    is_error: bool = False


class Moved(Model):
    """A transition that carries nothing of its own."""

    type: Literal[
        "startGeneration",
        "callDelegate",
        "callInteractiveTool",
        "finishToolCall",
        "finishAllToolCalls",
        "continueToNextStep",
    ]


class Resolved(Model):
    type: Literal["resolveToolResults"] = "resolveToolResults"
    tool_results: Annotated[tuple[WireResult, ...], Field(max_length=MAX_TOOL_CALLS), FailFast()]
    todo_change: TodoChange | None = None


class CompletionAttempted(Model):
    type: Literal["attemptCompletion"] = "attemptCompletion"
    tool_result: WireResult


class Failed(Model):
    """The runner itself cannot go on."""

    type: Literal["stopRunByError"] = "stopRunByError"
    error: RunError

    @field_validator("error")
    @classmethod
    def _is_brief(cls, error: RunError) -> RunError:
        if len(error.name) > 256 or len(error.message) > MAX_ERROR_CHARACTERS:
            raise ValueError(f"an error has a name and at most {MAX_ERROR_CHARACTERS} characters")
        return error


class SkillUp(Model):
    type: Literal["skillConnected"] = "skillConnected"
    skill_name: Name
    total_duration_ms: float = Field(ge=0, allow_inf_nan=False)


Report = Annotated[
    Moved | Resolved | CompletionAttempted | Failed | SkillUp,
    Field(discriminator="type"),
]
# Lists that a sandbox fills are given up at their first problem: to find millions of them would take seconds, in which
# nothing else goes on.
Reports = Annotated[tuple[Report, ...], Field(min_length=1, max_length=MAX_REPORTS), FailFast()]
reports: TypeAdapter[tuple[Moved | Resolved | CompletionAttempted | Failed | SkillUp, ...]] = TypeAdapter(Reports)


def parse(adapter: TypeAdapter[T], body: bytes) -> T:
    """The message in `body`.

    Raises:
        WireError: it is not JSON or not such a message.
    """
    try:
        return adapter.validate_json(body)
    except ValueError as error:
        raise WireError(f"not a message of this protocol: {first_problem(error)}") from None
