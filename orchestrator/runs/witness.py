"""The check of what a runner reports: each report becomes the event the record tells, or a violation.

Nothing in an event is taken from a sandbox but tool results. A report only says that a transition happens now, and the
state machine decides whether it may.
"""

from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import RunError
from expert_runner.contract.errors import ContractError
from expert_runner.contract.fold import next_message_id, tool_message
from expert_runner.contract.messages import TextPart, ToolMessage
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCallRef, ToolResult
from orchestrator.runs.ledger import Ledger

MAX_RESULT_CHARACTERS = 1_000_000
"""Characters of all parts of one tool result; tools bound their output far below."""


class Witness:
    """Turns a Run's reports into its record."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
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
                # Statuses and retries are the gateway's to tell.
                error = RunError(name=report.error.name, message=report.error.message)
                return self._ledger.record(e.StopRunByError, error=error)
            case wire.Moved():
                return self._moved(report.type)
        raise ContractError(f"no such report: {report!r}")

    def _moved(self, event: str) -> Any:
        record, checkpoint = self._ledger.record, self._ledger.checkpoint
        match event:
            case "startGeneration":
                return record(e.StartGeneration, messages=checkpoint.messages[self._ledger.standing.asked_with :])
            case "callDelegate":
                return record(e.CallDelegate, tool_calls=self._waiting(SkillType.DELEGATE))
            case "callInteractiveTool":
                asked = self._waiting(SkillType.INTERACTIVE)
                return record(e.CallInteractiveTool, tool_call=asked[0], tool_calls=asked)
            case "finishToolCall":
                return record(e.FinishToolCall, new_messages=(self._tool_message(),))
            case "finishAllToolCalls":
                return record(e.FinishAllToolCalls, new_messages=(self._tool_message(),))
            case "continueToNextStep":
                return record(e.ContinueToNextStep)
        raise ContractError(f"no such transition: {event}")

    def _waiting(self, kind: SkillType) -> tuple[ToolCallRef, ...]:
        pending = self._ledger.checkpoint.pending_tool_calls or ()
        waiting = tuple(call.reference() for call in pending if call.skill_type is kind)
        if not waiting:
            raise ContractError(f"no {kind} call waits")
        return waiting

    def _tool_message(self) -> ToolMessage:
        checkpoint = self._ledger.checkpoint
        return tool_message(checkpoint, next_message_id(checkpoint))

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
