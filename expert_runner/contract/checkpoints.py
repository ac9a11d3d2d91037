"""The state of a Run, whole and by reference.

A :class:`Checkpoint` is what the state machine folds events into. Events carry a :class:`CheckpointHeader`, which has
everything but texts: messages, tool arguments, tool results and todos are named, not repeated (see
:mod:`expert_runner.contract.messages` on references).
"""

from enum import StrEnum
from typing import Any

from pydantic import Field

from expert_runner.contract.messages import Message, MessageRef
from expert_runner.contract.model import Model
from expert_runner.contract.todos import Todo
from expert_runner.contract.tools import ToolCall, ToolCallRef, ToolResult, ToolResultRef
from expert_runner.contract.usage import Usage


class State(StrEnum):
    """Where a Run stands. The last six are ends; from some of them a Run can be continued."""

    INIT = "Init"
    PREPARING_FOR_STEP = "PreparingForStep"
    GENERATING_TOOL_CALL = "GeneratingToolCall"
    CALLING_MCP_TOOLS = "CallingMcpTools"
    CALLING_DELEGATES = "CallingDelegates"
    CALLING_INTERACTIVE_TOOLS = "CallingInteractiveTools"
    RESUMING_FROM_STOP = "ResumingFromStop"
    RESOLVING_TOOL_RESULT = "ResolvingToolResult"
    GENERATING_RUN_RESULT = "GeneratingRunResult"
    FINISHING_STEP = "FinishingStep"
    COMPLETED = "completed"
    STOPPED_BY_ERROR = "stoppedByError"
    STOPPED_BY_EXCEEDED_MAX_STEPS = "stoppedByExceededMaxSteps"
    STOPPED_BY_INTERACTIVE_TOOL = "stoppedByInteractiveTool"
    STOPPED_BY_DELEGATE = "stoppedByDelegate"
    STOPPED_BY_CANCELLATION = "stoppedByCancellation"

    @property
    def is_end(self) -> bool:
        return self in ENDS

    @property
    def is_waiting(self) -> bool:
        """A stop that somebody else's answer ends."""
        return self in (State.STOPPED_BY_DELEGATE, State.STOPPED_BY_INTERACTIVE_TOOL)


ENDS = frozenset(State(value) for value in list(State)[list(State).index(State.COMPLETED) :])


class CheckpointStatus(StrEnum):
    """The states as users see them: every state that is not an end is `init` or `proceeding`."""

    INIT = "init"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    STOPPED_BY_ERROR = "stoppedByError"
    STOPPED_BY_EXCEEDED_MAX_STEPS = "stoppedByExceededMaxSteps"
    STOPPED_BY_INTERACTIVE_TOOL = "stoppedByInteractiveTool"
    STOPPED_BY_DELEGATE = "stoppedByDelegate"
    STOPPED_BY_CANCELLATION = "stoppedByCancellation"

    @classmethod
    def of(cls, state: State) -> "CheckpointStatus":
        if state is State.INIT:
            return cls.INIT
        return cls(state.value) if state.is_end else cls.PROCEEDING


class ExpertRef(Model):
    key: str
    name: str
    version: str


class DelegationTarget(Model):
    """A delegate that was called: which Expert, by which tool call. Its query is the call's argument."""

    expert_key: str
    tool_call_id: str
    tool_name: str
    run_id: str


class DelegatedBy(Model):
    """The caller of a delegate."""

    expert: ExpertRef
    run_id: str
    checkpoint_id: str
    tool_call_id: str
    tool_name: str


class BranchedFrom(Model):
    """Where a coordinator's Run begins that goes on from an earlier checkpoint of its Job."""

    run_id: str
    checkpoint_id: str


class RunError(Model):
    """Why a Run stopped. `name` is the error's type, `status_code` the provider's HTTP status where there is one."""

    name: str
    message: str
    status_code: int | None = None
    is_retryable: bool = False


class CheckpointHeader(Model):
    """A checkpoint without its texts. `message_count` and `last_message_id` say which messages belong to it.

    `id` names the state that the event which ends the step, or stops the Run, tells of: it is told once and never
    changes after. A Run that goes on after a stop does so under a new id.
    """

    id: str
    job_id: str
    run_id: str
    status: CheckpointStatus
    state: State
    step_number: int = Field(ge=1)
    expert: ExpertRef
    message_count: int = Field(default=0, ge=0)
    last_message_id: str | None = None
    delegate_to: tuple[DelegationTarget, ...] | None = None
    delegated_by: DelegatedBy | None = None
    usage: Usage = Usage()
    context_window: int | None = None
    context_window_usage: float | None = None
    """The share of the model's context window that the last request and its answer took (0 to 1)."""
    pending_tool_calls: tuple[ToolCallRef, ...] | None = None
    partial_tool_results: tuple[ToolResultRef, ...] | None = None
    metadata: dict[str, Any] | None = None
    error: RunError | None = None
    retry_count: int = Field(default=0, ge=0)


class Checkpoint(CheckpointHeader):
    """A checkpoint whole. What its step has in progress (`tool_calls` in call order, results so far) is part of it."""

    messages: tuple[Message, ...] = ()
    pending_tool_calls: tuple[ToolCall, ...] | None = None
    partial_tool_results: tuple[ToolResult, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """All calls of the answer being worked on, in call order."""
    todos: tuple[Todo, ...] = ()
    text: str | None = None
    """The Run's result, once completed."""

    @property
    def open_todos(self) -> tuple[Todo, ...]:
        return tuple(todo for todo in self.todos if not todo.completed)


class Step(Model):
    """One turn of the loop: what it added, by reference, and what it cost. Times are Unix milliseconds."""

    step_number: int = Field(ge=1)
    new_messages: tuple[MessageRef, ...] = ()
    tool_calls: tuple[ToolCallRef, ...] = ()
    tool_results: tuple[ToolResultRef, ...] = ()
    usage: Usage = Usage()
    started_at: int
    finished_at: int
