"""The check of what a runner reports: each report becomes the event the record tells, or a violation.

Nothing in an event is taken from a sandbox but tool results. The model's answer, the conversation, the delegates'
results and the time are the orchestrator's own; a report only says that a transition happens now, and the state
machine decides whether it may.
"""

from dataclasses import dataclass, field
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import DelegationTarget, State
from expert_runner.contract.errors import ContractError
from expert_runner.contract.fold import next_message_id, tool_message
from expert_runner.contract.messages import ExpertMessage, InstructionMessage, TextPart, ThinkingPart, UserMessage
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall, ToolResult
from expert_runner.contract.usage import Usage
from orchestrator.runs.ledger import Ledger

MAX_RESULT_CHARACTERS = 1_000_000
"""Characters of all parts of one tool result; tools bound their output far below."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A model's answer that can be used. `cost` is in US dollars, None where the price is not known."""

    text: str
    thinking: tuple[ThinkingPart, ...]
    calls: tuple[ToolCall, ...]
    usage: Usage
    cost: float | None = None


@dataclass(slots=True)
class Expected:
    """What the orchestrator holds ready for the reports to come."""

    input_messages: tuple[InstructionMessage | UserMessage, ...] = ()
    answer: ModelAnswer | None = None
    delegates: tuple[DelegationTarget, ...] = ()
    outside_results: tuple[ToolResult, ...] = field(default=())


class Witness:
    """Turns a Run's reports into its record."""

    def __init__(self, ledger: Ledger, expected: Expected) -> None:
        self._ledger = ledger
        self._expected = expected
        self._generated_from = 0
        self.skill_is_up = False

    def take(self, report: Any) -> Any:
        """Record what `report` (one of :data:`expert_runner.contract.wire.Report`) says; returns the event.

        Raises:
            ContractError: the report cannot be true here.
            StoreError: the event could not be stored.
        """
        match report:
            case wire.SkillUp():
                return self._skill_up(report)
            case wire.Resolved():
                results = tuple(self._result(result) for result in report.tool_results)
                return self._ledger.record(e.ResolveToolResults, tool_results=results, todo_change=report.todo_change)
            case wire.CompletionAttempted():
                return self._ledger.record(e.AttemptCompletion, tool_result=self._result(report.tool_result))
            case wire.Failed():
                return self._ledger.record(e.StopRunByError, error=report.error)
            case wire.Moved():
                return self._moved(report.type)
        raise ContractError(f"no such report: {report!r}")

    def _moved(self, event: str) -> Any:
        record, expected, checkpoint = self._ledger.record, self._expected, self._ledger.checkpoint
        match event:
            case "startRun":
                return record(e.StartRun, initial_checkpoint=checkpoint, input_messages=expected.input_messages)
            case "startGeneration":
                messages = checkpoint.messages[self._generated_from :]
                self._generated_from = checkpoint.message_count
                return record(e.StartGeneration, messages=messages)
            case "callTools":
                return record(e.CallTools, **self._answer())
            case "callDelegate":
                return record(e.CallDelegate, **self._answer(SkillType.DELEGATE))
            case "callInteractiveTool":
                payload = self._answer(SkillType.INTERACTIVE)
                asked = [call for call in payload["tool_calls"] if call.skill_type is SkillType.INTERACTIVE]
                if not asked:
                    raise ContractError("no interactive tool was called")
                return record(e.CallInteractiveTool, tool_call=asked[0], **payload)
            case "finishToolCall" | "finishAllToolCalls":
                message = tool_message(checkpoint, next_message_id(checkpoint))
                return record(
                    e.FinishToolCall if event == "finishToolCall" else e.FinishAllToolCalls, new_messages=(message,)
                )
            case "resumeToolCalls":
                if not expected.outside_results:
                    raise ContractError("resumeToolCalls before there is a result")
                results, expected.outside_results = expected.outside_results, ()
                pending = checkpoint.pending_tool_calls or ()
                return record(e.ResumeToolCalls, pending_tool_calls=pending, partial_tool_results=results)
            case "continueToNextStep":
                return record(e.ContinueToNextStep)
            case "stopRunByDelegate":
                return record(
                    e.StopRunByDelegate, checkpoint=checkpoint.model_copy(update={"delegate_to": expected.delegates})
                )
            case "stopRunByInteractiveTool":
                return record(e.StopRunByInteractiveTool)
            case "completeRun":
                answer = self._take_answer()
                if answer.calls:
                    raise ContractError("completeRun would drop the calls of the model's answer")
                return record(
                    e.CompleteRun,
                    text=answer.text,
                    thinking=answer.thinking,
                    message_id=next_message_id(checkpoint),
                    usage=answer.usage,
                    cost=answer.cost,
                )
        raise ContractError(f"no such transition: {event}")

    def _answer(self, waiting_for: SkillType | None = None) -> dict[str, Any]:
        """What an event that carries an answer out says: the answer itself, or references to its calls if it is
        recorded.
        """
        checkpoint = self._ledger.checkpoint
        if checkpoint.state is not State.GENERATING_TOOL_CALL:
            waiting = [call for call in checkpoint.pending_tool_calls or () if call.skill_type is waiting_for]
            return {"tool_calls": tuple(call.reference() for call in waiting)}
        answer = self._take_answer()
        text = (TextPart(text=answer.text),) if answer.text else ()
        return {
            "new_message": ExpertMessage(id=next_message_id(checkpoint), contents=(*answer.thinking, *text)),
            "tool_calls": answer.calls,
            "usage": answer.usage,
            "cost": answer.cost,
        }

    def _take_answer(self) -> ModelAnswer:
        answer, self._expected.answer = self._expected.answer, None
        if answer is None:
            raise ContractError("the model has not answered")
        return answer

    def _result(self, result: wire.WireResult) -> ToolResult:
        call = next((c for c in self._ledger.checkpoint.pending_tool_calls or () if c.id == result.id), None)
        if call is None:
            raise ContractError("a result for a call that does not wait for one")
        size = sum(len(part.text) if isinstance(part, TextPart) else len(part.encoded_data) for part in result.result)
        if size > MAX_RESULT_CHARACTERS:
            raise ContractError(f"a result of {size} characters; at most {MAX_RESULT_CHARACTERS} are taken")
        return ToolResult(
            id=call.id,
            skill_name=call.skill_name,
            tool_name=call.tool_name,
            result=result.result,
            is_error=result.is_error,
        )

    def _skill_up(self, report: wire.SkillUp) -> e.SkillConnected:
        if self.skill_is_up or report.skill_name != BASE_SKILL:
            raise ContractError(f"skill {report.skill_name!r} cannot connect here")
        self.skill_is_up = True
        return self._ledger.note(
            e.SkillConnected, skill_name=report.skill_name, total_duration_ms=report.total_duration_ms
        )
