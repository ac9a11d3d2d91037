"""The fold of a Run's events into its checkpoint: `apply(checkpoint, event) -> checkpoint`.

Pure: no I/O, no clock, no ids of its own. Every fact comes from the event, so that folding a log again gives the same
checkpoint on any machine at any time.
"""

from typing import Any, assert_never

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, CheckpointHeader, CheckpointStatus, State
from expert_runner.contract.errors import ContractError, ForbiddenTransition
from expert_runner.contract.machine import Progress, advance
from expert_runner.contract.messages import (
    ExpertMessage,
    MessageRef,
    TextPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
)
from expert_runner.contract.todos import change_todos
from expert_runner.contract.tools import ToolCall, ToolCallRef, ToolResult


def begin(header: CheckpointHeader) -> Checkpoint:
    """The checkpoint a Run's first event applies to, from that event's `initialCheckpoint`."""
    if header.message_count:
        raise ContractError(f"Run {header.run_id} begins with {header.message_count} messages that no event brought")
    return Checkpoint.model_construct(**{name: getattr(header, name) for name in CheckpointHeader.model_fields})


def progress_of(checkpoint: Checkpoint) -> Progress:
    """The part of `checkpoint` that decides what may come next."""
    return Progress(checkpoint.state, checkpoint.pending_tool_calls or ())


def step_of(checkpoint: Checkpoint, event: str) -> int:
    """The step that `event` belongs to if it happens now: a Run that goes on by `startRun` begins its next one."""
    return checkpoint.step_number + (event == "startRun" and checkpoint.state is not State.INIT)


def apply(checkpoint: Checkpoint, event: e.RunEvent) -> Checkpoint:
    """The checkpoint after `event`.

    Raises:
        ForbiddenTransition: the machine has no such transition, or the event is not of this Run and step.
        ContractError: the event's contents do not fit (an unknown todo, a result without its call).
    """
    if event.run_id != checkpoint.run_id:
        raise ForbiddenTransition(f"an event of Run {event.run_id} cannot happen in Run {checkpoint.run_id}")
    if event.step_number != step_of(checkpoint, event.type):
        raise ForbiddenTransition(
            f"{event.type} of step {event.step_number} cannot happen in step {checkpoint.step_number}"
        )
    after = advance(progress_of(checkpoint), event.type, calls=_new_calls(event), resolved=_resolved(event))
    changes: dict[str, Any] = {"state": after.state, "status": CheckpointStatus.of(after.state)}
    changes |= _contents(checkpoint, event)
    if after.pending != (checkpoint.pending_tool_calls or ()):
        changes["pending_tool_calls"] = after.pending or None
    return checkpoint.model_copy(update=changes)


def _new_calls(event: e.RunEvent) -> tuple[ToolCall, ...]:
    if isinstance(event, e.Answer) and event.new_message is not None:
        if not event.tool_calls:
            raise ForbiddenTransition(f"{event.type} brings an answer without calls")
        calls = tuple(call for call in event.tool_calls if isinstance(call, ToolCall))
        if len(calls) != len(event.tool_calls):
            raise ContractError(f"{event.type} brings an answer without the arguments of its calls")
        return calls
    return ()


def _results(event: e.RunEvent) -> tuple[ToolResult, ...]:
    match event:
        case e.ResolveToolResults():
            return event.tool_results
        case e.AttemptCompletion():
            return (event.tool_result,)
        case e.ResumeToolCalls():
            return event.partial_tool_results
        case _:
            return ()


def _resolved(event: e.RunEvent) -> tuple[str, ...]:
    return tuple(result.id for result in _results(event))


def _contents(checkpoint: Checkpoint, event: e.RunEvent) -> dict[str, Any]:
    """What `event` changes besides where the Run stands."""
    match event:
        case e.StartRun():
            # A further query goes on from the last checkpoint under a new id; a result given before stays in the
            # messages.
            return {
                "id": event.initial_checkpoint.id,
                "step_number": event.step_number,
                "context_window": event.initial_checkpoint.context_window,
                "text": None,
                "error": None,
                "retry_count": 0,
            } | _with_messages(checkpoint, event.input_messages)
        case e.StartGeneration() | e.StopRunByInteractiveTool():
            return {}
        case e.StopRunByCancellation():
            return {"id": event.checkpoint.id} | _told_what_is_known(checkpoint)
        case e.StopRunByExceededMaxSteps():
            return {}
        case e.Retry():
            return {
                "usage": checkpoint.usage + event.usage,
                "retry_count": checkpoint.retry_count + 1,
            } | _with_messages(checkpoint, event.new_messages)
        case e.CallTools() | e.CallDelegate() | e.CallInteractiveTool():
            return _answer(checkpoint, event)
        case e.ResolveToolResults():
            changes = _with_results(checkpoint, event)
            if event.todo_change is not None:
                changes["todos"] = change_todos(checkpoint.todos, event.todo_change)
            return changes
        case e.ResumeToolCalls():
            return _with_results(checkpoint, event) | {
                "id": event.checkpoint_id,
                "delegate_to": None,
                "error": None,
            }
        case e.AttemptCompletion():
            if checkpoint.open_todos:
                raise ForbiddenTransition(f"attemptCompletion with {len(checkpoint.open_todos)} open todos")
            with_results = checkpoint.model_copy(update=_with_results(checkpoint, event))
            message = tool_message(with_results, next_message_id(checkpoint))
            return _with_messages(checkpoint, (message,)) | {"partial_tool_results": None, "tool_calls": ()}
        case e.FinishToolCall() | e.FinishAllToolCalls():
            if [reference.type for reference in event.new_messages] != ["toolMessage"]:
                raise ContractError(f"{event.type} brings one tool message")
            (reference,) = event.new_messages
            message = tool_message(checkpoint, reference.id)
            return _with_messages(checkpoint, (message,)) | {"partial_tool_results": None, "tool_calls": ()}
        case e.ContinueToNextStep():
            if event.next_checkpoint.step_number != checkpoint.step_number + 1:
                raise ForbiddenTransition(
                    f"step {event.next_checkpoint.step_number} cannot follow step {checkpoint.step_number}"
                )
            return {"id": event.next_checkpoint.id, "step_number": event.next_checkpoint.step_number}
        case e.StopRunByDelegate():
            return {"delegate_to": event.checkpoint.delegate_to}
        case e.StopRunByError():
            return {"id": event.checkpoint.id, "error": event.error} | _told_what_is_known(checkpoint)
        case e.CompleteRun():
            answer = ExpertMessage(id=event.message_id, contents=(*event.thinking, TextPart(text=event.text)))
            return (
                {"text": event.text, "retry_count": 0}
                | _spent(checkpoint, event)
                | _with_messages(checkpoint, (answer,))
            )
        case _:
            assert_never(event)


def _told_what_is_known(checkpoint: Checkpoint) -> dict[str, Any]:
    """Where every call has a result, the message that tells them: a further query cannot come between the two."""
    if not checkpoint.tool_calls or checkpoint.pending_tool_calls:
        return {}
    message = tool_message(checkpoint, next_message_id(checkpoint))
    return _with_messages(checkpoint, (message,)) | {"partial_tool_results": None, "tool_calls": ()}


def _answer(checkpoint: Checkpoint, event: e.CallTools | e.CallDelegate | e.CallInteractiveTool) -> dict[str, Any]:
    if event.new_message is None:
        return {}
    calls = _new_calls(event)
    parts = tuple(
        ToolCallPart(tool_call_id=call.id, tool_name=call.tool_name, args=call.args, invalid_args=call.invalid_args)
        for call in calls
    )
    message = event.new_message.model_copy(update={"contents": (*event.new_message.contents, *parts)})
    return (
        {"tool_calls": calls, "partial_tool_results": None, "retry_count": 0}
        | _spent(checkpoint, event)
        | _with_messages(checkpoint, (message,))
    )


def _spent(checkpoint: Checkpoint, event: e.Answer | e.CompleteRun) -> dict[str, Any]:
    changes: dict[str, Any] = {"usage": checkpoint.usage + event.usage}
    if checkpoint.context_window:
        # What the window holds now, not what the Run has used so far.
        changes["context_window_usage"] = round(
            (event.usage.input_tokens + event.usage.output_tokens) / checkpoint.context_window, 6
        )
    return changes


def _with_messages(checkpoint: Checkpoint, messages: tuple[MessageRef, ...]) -> dict[str, Any]:
    if not messages:
        return {}
    return {
        "messages": (*checkpoint.messages, *messages),
        "message_count": checkpoint.message_count + len(messages),
        "last_message_id": messages[-1].id,
    }


def _with_results(checkpoint: Checkpoint, event: e.RunEvent) -> dict[str, Any]:
    return {"partial_tool_results": (*(checkpoint.partial_tool_results or ()), *_results(event))}


def next_message_id(checkpoint: Checkpoint, ahead: int = 0) -> str:
    """The id of the message that comes next (or `ahead` after it): its place in the Run's conversation."""
    return f"{checkpoint.run_id}.{checkpoint.message_count + ahead + 1}"


def tool_message(checkpoint: Checkpoint, message_id: str) -> ToolMessage:
    """The message that tells the model all results of the current answer, in call order.

    Raises:
        ContractError: a call has no result.
    """
    results = {result.id: result for result in checkpoint.partial_tool_results or ()}
    missing = [call.id for call in checkpoint.tool_calls if call.id not in results]
    if missing:
        raise ContractError(f"calls without a result: {', '.join(missing)}")
    return ToolMessage(
        id=message_id,
        contents=tuple(_result_part(call, results[call.id]) for call in checkpoint.tool_calls),
    )


def _result_part(call: ToolCallRef, result: ToolResult) -> ToolResultPart:
    return ToolResultPart(
        tool_call_id=call.id, tool_name=call.tool_name, contents=result.result, is_error=result.is_error
    )
