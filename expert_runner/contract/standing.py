"""Where a Run stands: its checkpoint, and what its present step has added and cost so far.

Folded from the same events as the checkpoint alone (:mod:`expert_runner.contract.fold`), and as pure: the record of a
step, too, is the same whenever and wherever the history is folded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, Step
from expert_runner.contract.errors import ContractError
from expert_runner.contract.fold import apply, begin
from expert_runner.contract.tools import ToolCallRef, ToolResultRef
from expert_runner.contract.usage import NO_USAGE, Usage


@dataclass(frozen=True, slots=True)
class Standing:
    """A Run between two events.

    Attributes:
        checkpoint: its state.
        began_at: Unix milliseconds at which its step began.
        messages_before, usage_before: what the Run had when its step began.
        calls, results: of its step.
        asked_with: how many messages the model had been sent when it was asked last.
        is_asked: whether the model has been asked in this step; from then on the step counts.
    """

    checkpoint: Checkpoint
    began_at: int
    messages_before: int = 0
    usage_before: Usage = NO_USAGE
    calls: tuple[ToolCallRef, ...] = ()
    results: tuple[ToolResultRef, ...] = ()
    asked_with: int = 0
    is_asked: bool = False

    @classmethod
    def at(cls, checkpoint: Checkpoint, now: int) -> "Standing":
        """A Run that begins with `checkpoint`."""
        return cls(checkpoint, now)

    def branch(self, run_id: str) -> "Standing":
        """Where the new Run `run_id` stands that goes on from here. Delegates that were called are not its own."""
        changes = {"run_id": run_id, "delegate_to": None}
        return replace(self, checkpoint=self.checkpoint.model_copy(update=changes))

    def after(self, event: e.RunEvent) -> "Standing":
        """Where the Run stands after `event`. Raises as :func:`expert_runner.contract.fold.apply`."""
        before, after = self.checkpoint, apply(self.checkpoint, event)
        match event:
            case e.StartRun():
                return Standing(after, event.timestamp, before.message_count, before.usage, asked_with=self.asked_with)
            case e.ContinueToNextStep():
                return Standing(after, event.timestamp, after.message_count, after.usage, asked_with=self.asked_with)
            case e.StartGeneration():
                return replace(self, checkpoint=after, asked_with=before.message_count, is_asked=True)
            case e.Answer() if event.new_message is not None:
                return replace(self, checkpoint=after, calls=event.tool_calls)
            case e.ResolveToolResults():
                return replace(self, checkpoint=after, results=(*self.results, *event.tool_results))
            case e.ResumeToolCalls():
                return replace(self, checkpoint=after, results=(*self.results, *event.partial_tool_results))
            case e.AttemptCompletion():
                return replace(self, checkpoint=after, results=(*self.results, event.tool_result))
        return replace(self, checkpoint=after)

    def step(self, now: int) -> Step:
        """The present step, as it is told when it ends or the Run stops at `now`."""
        checkpoint = self.checkpoint
        return Step(
            step_number=checkpoint.step_number,
            new_messages=checkpoint.messages[self.messages_before :],
            tool_calls=self.calls,
            tool_results=self.results,
            usage=checkpoint.usage - self.usage_before,
            started_at=self.began_at,
            finished_at=now,
        )


class Passage(NamedTuple):
    """An event, and where its Run stood before and after it."""

    event: e.RunEvent
    before: Standing
    after: Standing


def follow(history: Iterable[e.RunEvent | e.RuntimeEvent], base: Standing | None = None) -> Iterator[Passage]:
    """The transitions of a Run's history one by one; a branch's go on from `base`.

    Raises:
        ContractError: the history does not begin with `startRun`.
        ForbiddenTransition: an event cannot follow those before it.
    """
    standing: Standing | None = None
    for event in history:
        if not isinstance(event, e.BaseRunEvent):
            continue
        if standing is None:
            standing = base or Standing.at(_beginning(event), event.timestamp)
        after = standing.after(event)
        yield Passage(event, standing, after)
        standing = after


def _beginning(event: e.RunEvent) -> Checkpoint:
    if not isinstance(event, e.StartRun):
        raise ContractError(f"a history begins with startRun, not with {event.type}")
    return begin(event.initial_checkpoint)


def fold(history: Iterable[e.RunEvent | e.RuntimeEvent], base: Standing | None = None) -> Standing:
    """Where a Run stands after its whole history. Raises as :func:`follow`, and ContractError for an empty one."""
    standing = None
    for passage in follow(history, base):
        standing = passage.after
    if standing is None:
        raise ContractError("an empty history has no checkpoint")
    return standing
