"""Events: the record of what happened.

A RunEvent is one transition of a Run's state machine; a RuntimeEvent is something that happened around a Run; a
StreamEvent is a piece of an answer while it is written. Run and runtime events form the history; stream events pass by.

Each content stands in exactly one event of the history:

* the model's text and reasoning in `newMessage` of the first event after the answer, its calls in that event's
  `toolCalls`;
* a tool's result in `resolveToolResults`, `attemptCompletion` or (a delegate's, the user's) `resumeToolCalls`;
* everything else refers to those by id (see :mod:`expert_runner.contract.messages`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from expert_runner.contract.checkpoints import BranchedFrom, CheckpointHeader, RunError, Step
from expert_runner.contract.messages import (
    ExpertMessage,
    InstructionMessage,
    MessageRef,
    ThinkingPart,
    UserMessage,
)
from expert_runner.contract.model import Model
from expert_runner.contract.todos import TodoChange
from expert_runner.contract.tools import ToolCall, ToolCallRef, ToolResult
from expert_runner.contract.usage import Usage


class BaseEvent(Model):
    """What all events have. `timestamp` is Unix milliseconds by the orchestrator's clock.

    `prev` is the SHA-256 (hex) of the line before this one in the Run's log; it is absent from events that are not
    stored.
    """

    id: str
    timestamp: int
    job_id: str
    run_id: str
    prev: str | None = None


class BaseRunEvent(BaseEvent):
    """An event of a Run's own step. `step_number` counts within the Run, from 1."""

    expert_key: str
    step_number: int = Field(ge=1)


# --- transitions


class StartRun(BaseRunEvent):
    """The Run begins; or it goes on with a next step, after an end or at the end of a step, with `input_messages`
    added: a further query, or none.
    """

    type: Literal["startRun"] = "startRun"
    initial_checkpoint: CheckpointHeader
    input_messages: tuple[Annotated[InstructionMessage | UserMessage, Field(discriminator="type")], ...]


class StartGeneration(BaseRunEvent):
    """The model is asked. `messages` are those added since it was asked last; it gets all of the Run's."""

    type: Literal["startGeneration"] = "startGeneration"
    messages: tuple[MessageRef, ...]


class Retry(BaseRunEvent):
    """The answer could not be used and the model is asked again, after `delay_ms`, with `new_messages` added."""

    type: Literal["retry"] = "retry"
    reason: str
    status_code: int | None = None
    attempt: int = Field(ge=1)
    delay_ms: int = Field(default=0, ge=0)
    new_messages: tuple[UserMessage, ...] = ()
    usage: Usage = Usage()


class Answer(BaseRunEvent):
    """What the three events that bring a model's answer have in common.

    `new_message` is absent when an earlier event of the step brought the answer; `tool_calls` are then references.
    """

    new_message: ExpertMessage | None = None
    tool_calls: tuple[ToolCall | ToolCallRef, ...]
    usage: Usage = Usage()
    cost: float | None = None


class CallTools(Answer):
    """The answer's calls; those of the Expert's own tools are carried out now."""

    type: Literal["callTools"] = "callTools"


class CallDelegate(Answer):
    type: Literal["callDelegate"] = "callDelegate"


class CallInteractiveTool(Answer):
    """The user is asked: `tool_call` is the one of `tool_calls` that waits for the answer."""

    type: Literal["callInteractiveTool"] = "callInteractiveTool"
    tool_call: ToolCallRef


class ResolveToolResults(BaseRunEvent):
    type: Literal["resolveToolResults"] = "resolveToolResults"
    tool_results: tuple[ToolResult, ...]
    todo_change: TodoChange | None = None


class AttemptCompletion(BaseRunEvent):
    """The Expert says that it is done and has no open todos; its result is generated next."""

    type: Literal["attemptCompletion"] = "attemptCompletion"
    tool_result: ToolResult


class FinishToolCall(BaseRunEvent):
    """All calls of the answer have results: `new_messages` is the message that tells them to the model."""

    type: Literal["finishToolCall"] = "finishToolCall"
    new_messages: tuple[MessageRef, ...]


class FinishAllToolCalls(BaseRunEvent):
    """As `finishToolCall`, after a stop."""

    type: Literal["finishAllToolCalls"] = "finishAllToolCalls"
    new_messages: tuple[MessageRef, ...]


class ResumeToolCalls(BaseRunEvent):
    """A stopped Run goes on, as `checkpoint_id`: `partial_tool_results` are the results that came from outside."""

    type: Literal["resumeToolCalls"] = "resumeToolCalls"
    checkpoint_id: str
    pending_tool_calls: tuple[ToolCallRef, ...]
    partial_tool_results: tuple[ToolResult, ...]


class ContinueToNextStep(BaseRunEvent):
    type: Literal["continueToNextStep"] = "continueToNextStep"
    checkpoint: CheckpointHeader
    step: Step
    next_checkpoint: CheckpointHeader


class Stop(BaseRunEvent):
    """What all ends of a Run have in common."""

    checkpoint: CheckpointHeader
    step: Step


class StopRunByInteractiveTool(Stop):
    type: Literal["stopRunByInteractiveTool"] = "stopRunByInteractiveTool"


class StopRunByDelegate(Stop):
    type: Literal["stopRunByDelegate"] = "stopRunByDelegate"


class StopRunByExceededMaxSteps(Stop):
    type: Literal["stopRunByExceededMaxSteps"] = "stopRunByExceededMaxSteps"


class StopRunByCancellation(Stop):
    type: Literal["stopRunByCancellation"] = "stopRunByCancellation"


class StopRunByError(Stop):
    type: Literal["stopRunByError"] = "stopRunByError"
    error: RunError


class CompleteRun(Stop):
    """The Run's result. `message_id` names the message that holds `thinking` and `text` from now on."""

    type: Literal["completeRun"] = "completeRun"
    text: str
    thinking: tuple[ThinkingPart, ...] = ()
    message_id: str
    usage: Usage = Usage()
    cost: float | None = None


RunEvent = (
    StartRun
    | StartGeneration
    | Retry
    | CallTools
    | CallDelegate
    | CallInteractiveTool
    | ResolveToolResults
    | AttemptCompletion
    | FinishToolCall
    | FinishAllToolCalls
    | ResumeToolCalls
    | ContinueToNextStep
    | StopRunByInteractiveTool
    | StopRunByDelegate
    | StopRunByExceededMaxSteps
    | StopRunByCancellation
    | StopRunByError
    | CompleteRun
)

# --- what passes by


class StartStreamingReasoning(BaseRunEvent):
    type: Literal["startStreamingReasoning"] = "startStreamingReasoning"


class StreamReasoning(BaseRunEvent):
    type: Literal["streamReasoning"] = "streamReasoning"
    delta: str


class CompleteStreamingReasoning(BaseRunEvent):
    type: Literal["completeStreamingReasoning"] = "completeStreamingReasoning"
    text: str


class StartStreamingRunResult(BaseRunEvent):
    type: Literal["startStreamingRunResult"] = "startStreamingRunResult"


class StreamRunResult(BaseRunEvent):
    type: Literal["streamRunResult"] = "streamRunResult"
    delta: str


class CompleteStreamingRunResult(BaseRunEvent):
    type: Literal["completeStreamingRunResult"] = "completeStreamingRunResult"
    text: str


StreamEvent = (
    StartStreamingReasoning
    | StreamReasoning
    | CompleteStreamingReasoning
    | StartStreamingRunResult
    | StreamRunResult
    | CompleteStreamingRunResult
)

# --- around a Run


class InitializeRuntime(BaseEvent):
    """A Run's surroundings as they were decided, also each time it goes on in another process. `timeout` is
    milliseconds a generation may take.
    """

    type: Literal["initializeRuntime"] = "initializeRuntime"
    runtime_version: str
    runtime: str
    expert_name: str
    experts: tuple[str, ...]
    model: str
    max_steps: int | None = None
    max_retries: int
    timeout: int
    query: str | None = None
    branched_from: BranchedFrom | None = None


class SkillStarting(BaseEvent):
    type: Literal["skillStarting"] = "skillStarting"
    skill_name: str
    command: str | None = None
    args: tuple[str, ...] = ()


class SkillConnected(BaseEvent):
    """A skill's tools can be called. Durations are milliseconds."""

    type: Literal["skillConnected"] = "skillConnected"
    skill_name: str
    server_info: dict[str, str] | None = None
    spawn_duration_ms: float | None = None
    handshake_duration_ms: float | None = None
    tool_discovery_duration_ms: float | None = None
    total_duration_ms: float | None = None


class SkillStderr(BaseEvent):
    type: Literal["skillStderr"] = "skillStderr"
    skill_name: str
    message: str


class SkillDisconnected(BaseEvent):
    type: Literal["skillDisconnected"] = "skillDisconnected"
    skill_name: str


class DockerBuildProgress(BaseEvent):
    type: Literal["dockerBuildProgress"] = "dockerBuildProgress"
    stage: Literal["pulling", "building", "complete", "error"]
    service: str
    message: str
    progress: float | None = None


class DockerContainerStatus(BaseEvent):
    """What became of a Run's container. `service` is the Expert's key; `details` are facts for that status."""

    type: Literal["dockerContainerStatus"] = "dockerContainerStatus"
    status: Literal["starting", "running", "parked", "resumed", "stopped", "removed", "error"]
    service: str
    message: str | None = None
    container_id: str | None = None
    details: dict[str, Any] | None = None


class SandboxLost(BaseEvent):
    """The Run's sandbox ended before the Run did: why, as the backend tells it, and the last of its runner's stderr.

    `losses` counts those since the Run last finished a step; the Run goes on in a new sandbox unless they are too many.
    A backend that does not answer is told of once, until it does again, and is none of them.
    """

    type: Literal["sandboxLost"] = "sandboxLost"
    sandbox_id: str | None = None
    cause: str
    exit_code: int | None = None
    evidence: str
    log: str = ""
    losses: int = Field(ge=0)


class ProxyAccess(BaseEvent):
    type: Literal["proxyAccess"] = "proxyAccess"
    action: Literal["allowed", "blocked"]
    domain: str
    port: int
    reason: str | None = None


RuntimeEvent = (
    InitializeRuntime
    | SkillStarting
    | SkillConnected
    | SkillStderr
    | SkillDisconnected
    | DockerBuildProgress
    | DockerContainerStatus
    | SandboxLost
    | ProxyAccess
)

HistoryEvent = Annotated[RunEvent | RuntimeEvent, Field(discriminator="type")]
Event = Annotated[RunEvent | RuntimeEvent | StreamEvent, Field(discriminator="type")]

history_event: TypeAdapter[RunEvent | RuntimeEvent] = TypeAdapter(HistoryEvent)
"""Reads one line of a Run's log."""
