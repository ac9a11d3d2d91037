"""A Run's record as it grows: every event is applied to the checkpoint, written to the log and handed on, in that
order.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.fold import step_of
from expert_runner.contract.standing import Standing
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
        standing: where the Run stands when the record goes on.
        log: where the history goes.
        emit: told of every event after it was stored.
    """

    def __init__(self, standing: Standing, log: EventLog, emit: Emit) -> None:
        self.standing = standing
        self._log = log
        self._emit = emit

    @property
    def checkpoint(self) -> Checkpoint:
        return self.standing.checkpoint

    def record(self, kind: type[Any], **payload: Any) -> Any:
        """A transition: make it, apply it, store it, hand it on.

        Raises:
            ForbiddenTransition: it cannot happen here; nothing was stored.
            StoreError: it could not be stored.
        """
        before, identity = self.checkpoint, self._identity()
        now: int = identity["timestamp"]
        is_stop = issubclass(kind, e.Stop)
        is_turn = kind is e.ContinueToNextStep
        if is_stop:
            payload = {"checkpoint": self._stopped(), "step": self.standing.step(now)} | payload
        elif is_turn:
            following = before.model_copy(update={"id": new_id(), "step_number": before.step_number + 1})
            payload |= {"checkpoint": before, "step": self.standing.step(now), "next_checkpoint": following}
        step_number = step_of(before, kind.model_fields["type"].default)
        event = kind(**identity, step_number=step_number, expert_key=before.expert.key, **payload)
        after = self.standing.after(event)
        # What an event says of the checkpoint is how it is after the event, which only applying it tells.
        if is_stop:
            event = event.model_copy(update={"checkpoint": after.checkpoint, "step": after.step(now)})
        elif is_turn:
            event = event.model_copy(update={"next_checkpoint": after.checkpoint})
        line = self._log.append(event)
        self.standing = after
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

    def _stopped(self) -> Checkpoint:
        """The checkpoint that a stop tells of. The one of a Run that waits was told when it began to."""
        before = self.checkpoint
        return before.model_copy(update={"id": new_id()}) if before.state.is_waiting else before
