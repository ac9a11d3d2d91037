"""Transitions whose cause lies outside the sandbox: the model, a delegate or the user answered, or the sandbox is gone.

The orchestrator records them the moment it knows, before any runner is told: what was answered and paid for is then on
disk, whatever dies next.
"""

from collections.abc import Collection, Iterable

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, DelegationTarget, State
from expert_runner.contract.fold import next_message_id, tool_message
from expert_runner.contract.machine import answer_event
from expert_runner.contract.messages import ExpertMessage, InstructionMessage, TextPart, UserMessage
from expert_runner.contract.tools import BASE_SKILL, EFFECTS_UNKNOWN, SkillType, ToolCall, ToolResult
from expert_runner.skills.base.definitions import REPEATABLE_TOOLS
from orchestrator.runs.generation import ModelAnswer
from orchestrator.runs.ledger import Ledger, new_id


def start(ledger: Ledger, messages: tuple[InstructionMessage | UserMessage, ...], context_window: int | None) -> None:
    """The Run begins, or goes on with its next step, and `messages` are added."""
    checkpoint = ledger.checkpoint
    changes: dict[str, object] = {"context_window": context_window}
    if checkpoint.state is not State.INIT:
        changes |= {"id": new_id(), "step_number": checkpoint.step_number + 1}
    ledger.record(e.StartRun, initial_checkpoint=checkpoint.model_copy(update=changes), input_messages=messages)


def user_message(checkpoint: Checkpoint, text: str) -> UserMessage:
    return UserMessage(id=next_message_id(checkpoint), contents=(TextPart(text=text),))


def answered(ledger: Ledger, answer: ModelAnswer) -> None:
    """The model has answered: its calls come next, or the Run is complete."""
    message_id = next_message_id(ledger.checkpoint)
    spent = {"usage": answer.usage, "cost": answer.cost}
    if not answer.calls:
        ledger.record(e.CompleteRun, text=answer.text, thinking=answer.thinking, message_id=message_id, **spent)
        return
    text = (TextPart(text=answer.text),) if answer.text else ()
    message = ExpertMessage(id=message_id, contents=(*answer.thinking, *text))
    payload = {"new_message": message, "tool_calls": answer.calls, **spent}
    match answer_event(answer.calls):
        case "callTools":
            ledger.record(e.CallTools, **payload)
        case "callDelegate":
            ledger.record(e.CallDelegate, **payload)
        case _:
            asked = next(call for call in answer.calls if call.skill_type is SkillType.INTERACTIVE)
            ledger.record(e.CallInteractiveTool, tool_call=asked, **payload)


def stopped_by_delegate(ledger: Ledger, targets: tuple[DelegationTarget, ...]) -> None:
    """The Run waits for those of its delegates that could be called."""
    waiting = ledger.checkpoint.model_copy(update={"delegate_to": targets})
    ledger.record(e.StopRunByDelegate, checkpoint=waiting)


def resumed(ledger: Ledger, results: Iterable[ToolResult]) -> None:
    """A stopped Run goes on with `results`."""
    pending = ledger.checkpoint.pending_tool_calls or ()
    ledger.record(
        e.ResumeToolCalls, checkpoint_id=new_id(), pending_tool_calls=pending, partial_tool_results=tuple(results)
    )


def told_all(ledger: Ledger) -> None:
    """After a stop, all calls have results: the message that tells them."""
    checkpoint = ledger.checkpoint
    message = tool_message(checkpoint, next_message_id(checkpoint))
    ledger.record(e.FinishAllToolCalls, new_messages=(message,))


def unknown_effects(checkpoint: Checkpoint, why: str, given: Collection[str] | None = None) -> tuple[ToolResult, ...]:
    """What is told of the calls that were being carried out when the sandbox was gone: of those with ids in `given`,
    or, where nobody knows what it was given, of all that wait.

    Those that change nothing but the Run's own record are left out: they are carried out again.
    """
    if checkpoint.state not in (
        State.CALLING_MCP_TOOLS,
        State.RESUMING_FROM_STOP,
        State.STOPPED_BY_ERROR,
        State.STOPPED_BY_CANCELLATION,
    ):
        return ()
    return tuple(
        ToolResult.of(
            call,
            f"{why} while this call was being carried out. {EFFECTS_UNKNOWN}",
            is_error=True,
        )
        for call in checkpoint.pending_tool_calls or ()
        if call.skill_type is SkillType.MCP and not _is_repeatable(call) and (given is None or call.id in given)
    )


def _is_repeatable(call: ToolCall) -> bool:
    # A call of a tool that nobody offers, or with arguments that are no object, is refused again.
    if not call.skill_name or call.args is None:
        return True
    return call.skill_name == BASE_SKILL and call.tool_name in REPEATABLE_TOOLS


def interrupted(ledger: Ledger, why: str, given: Collection[str] | None = None) -> None:
    """Record :func:`unknown_effects` of a Run that has not stopped."""
    results = unknown_effects(ledger.checkpoint, why, given)
    if results:
        ledger.record(e.ResolveToolResults, tool_results=results)


def left_off(checkpoint: Checkpoint, why: str) -> tuple[ToolResult, ...]:
    """Results for all calls that wait, so that something else can be asked of the Run."""
    unknown = unknown_effects(checkpoint, why)
    known = {result.id for result in unknown}
    return (
        *unknown,
        *(
            ToolResult.of(call, f"{why} before this call was answered.", is_error=True)
            for call in checkpoint.pending_tool_calls or ()
            if call.id not in known
        ),
    )
