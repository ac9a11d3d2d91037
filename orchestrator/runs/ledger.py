"""A Run's record as it grows: every event is applied to the checkpoint, written to the log and handed on, in that
order.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, Step
from expert_runner.contract.fold import apply
from expert_runner.contract.tools import ToolCallRef, ToolResultRef
from expert_runner.contract.usage import Usage
from orchestrator.store.log import EventLog

Emit = Callable[[Any, bytes], None]
"""Takes an event and its line: the bytes that are stored, or would be."""

RuntimeT = TypeVar("RuntimeT", bound=e.BaseEvent)


def new_id() -> str:
    return secrets.token_hex(8)


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Ledger:
    """The one place that makes a Run's events: it gives them their ids, their time and what they say about the
    checkpoint.

    Args:
        checkpoint: what the Run begins with.
        log: where the history goes.
        emit: told of every event after it was stored.
    """

    def __init__(self, checkpoint: Checkpoint, log: EventLog, emit: Emit) -> None:
        self.checkpoint = checkpoint
        self._log = log
        self._emit = emit
        self._begin_step()

    def record(self, kind: type[Any], **payload: Any) -> Any:
        """A transition: make it, apply it, store it, hand it on.

        Raises:
            ForbiddenTransition: it cannot happen here; nothing was stored.
            StoreError: it could not be stored.
        """
        before = self.checkpoint
        is_stop = issubclass(kind, e.Stop)
        is_turn = kind is e.ContinueToNextStep
        if is_stop:
            payload = {"checkpoint": before, "step": self._step(before)} | payload
        elif is_turn:
            following = before.model_copy(update={"id": new_id(), "step_number": before.step_number + 1})
            payload |= {"checkpoint": before, "step": self._step(before), "next_checkpoint": following}
        event = kind(**self._identity(), step_number=before.step_number, expert_key=before.expert.key, **payload)
        after = apply(before, event)
        self._account(event)
        # What an event says of the checkpoint is how it is after the event, which only applying it tells.
        if is_stop:
            event = event.model_copy(update={"checkpoint": after, "step": self._step(after)})
        elif is_turn:
            event = event.model_copy(update={"next_checkpoint": after})
        line = self._log.append(event)
        self.checkpoint = after
        if is_turn:
            self._begin_step()
        self._emit(event, line)
        return event

    def note(self, kind: type[RuntimeT], **payload: Any) -> RuntimeT:
        """Something that happened around the Run: stored and handed on."""
        event = kind(**self._identity(), **payload)
        self._emit(event, self._log.append(event))  # type: ignore[arg-type]
        return event

    def pass_on(self, kind: type[Any], **payload: Any) -> None:
        """A piece of an answer: handed on, not stored."""
        step_number, expert_key = self.checkpoint.step_number, self.checkpoint.expert.key
        event = kind(**self._identity(), step_number=step_number, expert_key=expert_key, **payload)
        self._emit(event, event.encode())

    async def sync(self) -> None:
        """See :meth:`EventLog.sync`."""
        await self._log.sync()

    def close(self) -> None:
        self._log.close()

    def _identity(self) -> dict[str, Any]:
        return {
            "id": new_id(),
            "timestamp": now_ms(),
            "job_id": self.checkpoint.job_id,
            "run_id": self.checkpoint.run_id,
        }

    def _begin_step(self) -> None:
        self._started_at = now_ms()
        self._messages_before = self.checkpoint.message_count
        self._usage_before = self.checkpoint.usage
        self._calls: tuple[ToolCallRef, ...] = ()
        self._results: list[ToolResultRef] = []

    def _account(self, event: Any) -> None:
        match event:
            case e.Answer() if event.new_message is not None:
                self._calls = event.tool_calls
            case e.ResolveToolResults():
                self._results += event.tool_results
            case e.ResumeToolCalls():
                self._results += event.partial_tool_results
            case e.AttemptCompletion():
                self._results.append(event.tool_result)

    def _step(self, checkpoint: Checkpoint) -> Step:
        now, before = checkpoint.usage, self._usage_before
        spent = {name: getattr(now, name) - getattr(before, name) for name in Usage.model_fields}
        return Step(
            step_number=checkpoint.step_number,
            new_messages=checkpoint.messages[self._messages_before :],
            tool_calls=self._calls,
            tool_results=tuple(self._results),
            usage=Usage(**spent),
            started_at=self._started_at,
            finished_at=now_ms(),
        )
