"""An event as the fold would have it: whatever it says that follows from earlier ones is derived anew."""

from collections.abc import Sequence
from typing import Any, TypeVar, assert_never

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import CheckpointHeader, CheckpointStatus, DelegationTarget, State
from expert_runner.contract.fold import next_message_id
from expert_runner.contract.messages import MessageRef, TextPart, UserMessage
from expert_runner.contract.standing import Passage, Standing
from expert_runner.contract.tools import SkillType, ToolCall, ToolCallRef, ToolResult
from orchestrator.store.history import HistoryEvent
from orchestrator.store.layout import RunRecord

MessageT = TypeVar("MessageT", bound=MessageRef)


def folded(event: HistoryEvent, passage: Passage | None, record: RunRecord) -> HistoryEvent:
    """What `event` of the Run `record` has to be, where it is recorded in `passage`.

    What an event is the first to tell (texts, arguments, results, usage, new ids, times) is taken from it.
    """
    changes: dict[str, Any] = {}
    if passage is not None:
        changes = {"expert_key": record.expert_key} | _derived(passage, record)
    elif isinstance(event, e.InitializeRuntime):
        changes = {"query": record.query, "branched_from": record.branched_from}
    return event.model_copy(update=changes)


def _derived(passage: Passage, record: RunRecord) -> dict[str, Any]:
    event, standing, after = passage
    before = standing.checkpoint
    match event:
        case e.StartRun():
            return {
                "initial_checkpoint": _beginning(event, standing, record),
                "input_messages": _input(event.input_messages, standing, record),
            }
        case e.StartGeneration():
            return {"messages": before.messages[standing.asked_with :]}
        case e.Retry():
            return {"attempt": before.retry_count + 1, "new_messages": _numbered(event.new_messages, standing)}
        case e.Answer():
            return _answer(event, standing, after)
        case e.ResolveToolResults():
            return {"tool_results": _named(event.tool_results, standing)}
        case e.AttemptCompletion():
            return {"tool_result": _named((event.tool_result,), standing)[0]}
        case e.ResumeToolCalls():
            return {
                "pending_tool_calls": tuple(call.reference() for call in before.pending_tool_calls or ()),
                "partial_tool_results": _named(event.partial_tool_results, standing),
            }
        case e.FinishToolCall() | e.FinishAllToolCalls():
            return {"new_messages": _numbered(event.new_messages, standing)}
        case e.ContinueToNextStep():
            return {
                "checkpoint": before,
                "step": standing.step(event.timestamp),
                "next_checkpoint": after.checkpoint,
            }
        case e.StopRunByDelegate():
            targets = _targets(event.checkpoint.delegate_to or (), standing)
            waiting = after.checkpoint.model_copy(update={"delegate_to": targets})
            return {"checkpoint": waiting, "step": after.step(event.timestamp)}
        case e.CompleteRun():
            stopped = {"checkpoint": after.checkpoint, "step": after.step(event.timestamp)}
            return {"message_id": next_message_id(before)} | stopped
        case e.Stop():
            return {"checkpoint": after.checkpoint, "step": after.step(event.timestamp)}
        case _:
            assert_never(event)


def _beginning(event: e.StartRun, standing: Standing, record: RunRecord) -> CheckpointHeader:
    told, before = event.initial_checkpoint, standing.checkpoint
    if before.state is not State.INIT:
        changes = {"id": told.id, "step_number": before.step_number + 1, "context_window": told.context_window}
        return before.model_copy(update=changes)
    return CheckpointHeader(
        id=told.id,
        job_id=event.job_id,
        run_id=event.run_id,
        status=CheckpointStatus.INIT,
        state=State.INIT,
        step_number=1,
        expert=told.expert.model_copy(update={"key": record.expert_key}),
        delegated_by=record.delegated_by,
        context_window=told.context_window,
        metadata=told.metadata,
    )


def _input(messages: Sequence[Any], standing: Standing, record: RunRecord) -> tuple[Any, ...]:
    """What is added when a Run begins: the Expert's instruction and the query; when it goes on: a query, if any."""
    numbered = _numbered(messages, standing)
    if standing.checkpoint.state is not State.INIT:
        return numbered
    query = UserMessage(id=next_message_id(standing.checkpoint, 1), contents=(TextPart(text=record.query),))
    return (*numbered[:1], query)


def _answer(event: e.Answer, standing: Standing, after: Standing) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    pending = after.checkpoint.pending_tool_calls or ()
    if event.new_message is not None:
        changes["new_message"] = _numbered((event.new_message,), standing)[0]
    elif isinstance(event, e.CallDelegate):
        changes["tool_calls"] = _references(pending, SkillType.DELEGATE)
    elif isinstance(event, e.CallInteractiveTool):
        changes["tool_calls"] = _references(pending, SkillType.INTERACTIVE)
    if isinstance(event, e.CallInteractiveTool):
        # The state machine has seen to it that one waits.
        changes["tool_call"] = _references(pending, SkillType.INTERACTIVE)[0]
    return changes


def _references(calls: Sequence[ToolCall], kind: SkillType) -> tuple[ToolCallRef, ...]:
    return tuple(call.reference() for call in calls if call.skill_type is kind)


def _numbered(messages: Sequence[MessageT], standing: Standing) -> tuple[MessageT, ...]:
    """`messages` with the ids that messages have here: their places in the Run's conversation."""
    return tuple(
        message.model_copy(update={"id": next_message_id(standing.checkpoint, ahead)})
        for ahead, message in enumerate(messages)
    )


def _named(results: Sequence[ToolResult], standing: Standing) -> tuple[ToolResult, ...]:
    """`results` with the names of the calls they answer; the state machine has seen to it that those wait."""
    calls = {call.id: call for call in standing.checkpoint.pending_tool_calls or ()}
    return tuple(
        result.model_copy(update={"skill_name": calls[result.id].skill_name, "tool_name": calls[result.id].tool_name})
        for result in results
    )


def _targets(targets: Sequence[DelegationTarget], standing: Standing) -> tuple[DelegationTarget, ...]:
    """`targets` with what their calls say; those that no waiting call of a delegate's began are left out."""
    pending = standing.checkpoint.pending_tool_calls or ()
    calls = {call.id: call for call in pending if call.skill_type is SkillType.DELEGATE}
    return tuple(
        target.model_copy(
            update={
                "expert_key": calls[target.tool_call_id].skill_name,
                "tool_name": calls[target.tool_call_id].tool_name,
            }
        )
        for target in targets
        if target.tool_call_id in calls
    )
