"""What one Run says of others, gathered while its log is read."""

from dataclasses import dataclass, field
from typing import NamedTuple

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, DelegationTarget
from expert_runner.contract.machine import INTERRUPTED
from expert_runner.contract.standing import Passage
from expert_runner.contract.tools import SkillType, ToolCall, ToolResult
from orchestrator.replay.report import Place
from orchestrator.store.layout import RunRecord


class Given(NamedTuple):
    """A delegate's result as its caller was told: the one at `at` of the event's.

    `was_interrupted`: the caller had been stopped before its delegates had ended, and may have been told that instead.
    """

    place: Place
    at: int
    result: ToolResult
    was_interrupted: bool


class Named(NamedTuple):
    """A delegate that a Run said it waits for."""

    place: Place
    at: int
    target: DelegationTarget


@dataclass(slots=True)
class Facts:
    """One Run's.

    Attributes:
        end: its checkpoint after all that is recorded; None: it has not begun.
        calls: the delegating calls of its answers by id.
        waited_as: the ids of the checkpoints under which each of those calls waited for its delegate.
    """

    record: RunRecord
    end: Checkpoint | None = None
    calls: dict[str, ToolCall] = field(default_factory=dict)
    waited_as: dict[str, list[str]] = field(default_factory=dict)
    named: list[Named] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)

    def add(self, place: Place, passage: Passage) -> None:
        event, before, after = passage
        if self.end is None:
            # A branch may begin while delegates are waited for.
            self._wait(before.checkpoint)
        self.end = after.checkpoint
        match event:
            case e.Answer() if event.new_message is not None:
                self._wait(after.checkpoint)
            case e.StopRunByDelegate():
                self._wait(after.checkpoint)
                targets = event.checkpoint.delegate_to or ()
                self.named += [Named(place, index, target) for index, target in enumerate(targets)]
            case e.ResumeToolCalls():
                was_interrupted = before.checkpoint.state in INTERRUPTED
                self.given += [
                    Given(place, index, result, was_interrupted)
                    for index, result in enumerate(event.partial_tool_results)
                    if result.id in self.calls
                ]

    def _wait(self, checkpoint: Checkpoint) -> None:
        for call in checkpoint.pending_tool_calls or ():
            if call.skill_type is SkillType.DELEGATE:
                self.calls[call.id] = call
                self.waited_as.setdefault(call.id, []).append(checkpoint.id)
