"""What a Run is made from, and what it needs of its Job."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from expert_runner.contract.checkpoints import BranchedFrom, Checkpoint, DelegatedBy, Step
from expert_runner.contract.experts import Expert
from expert_runner.contract.standing import Standing
from orchestrator.bus import Bus
from orchestrator.errors import PerstackError
from orchestrator.model.gateway import ChatModel
from orchestrator.runs.ledger import now_ms
from orchestrator.sandbox.backend import SandboxBackend
from orchestrator.sandbox.policy import SandboxPolicy
from orchestrator.store.layout import RunRecord, Store


class DelegationRefused(PerstackError):
    """A delegation that the Job does not allow."""


@dataclass(frozen=True, slots=True)
class FurtherInput:
    """What a Run that goes on is given: a further query, or the user's answer to the call it waits for."""

    query: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A Run to be made, or to go on.

    Attributes:
        lineage: the ids of the delegating calls from the coordinator (which has none) down to this Run.
        branched_from, base: of a branch; see :class:`orchestrator.store.layout.RunRecord`.
        standing: where it stands after an earlier process, or as a branch begins; None: it has not begun.
        further: for the coordinator's alone.
    """

    run_id: str
    expert: Expert
    query: str
    lineage: tuple[str, ...] = ()
    delegated_by: DelegatedBy | None = None
    branched_from: BranchedFrom | None = None
    base: Checkpoint | None = None
    standing: Standing | None = None
    further: FurtherInput = FurtherInput()
    created_at: int = field(default_factory=now_ms)

    @property
    def is_coordinator(self) -> bool:
        return self.delegated_by is None

    def record(self, job_id: str) -> RunRecord:
        """What is known of the Run when it begins."""
        return RunRecord(
            id=self.run_id,
            job_id=job_id,
            expert_key=self.expert.key,
            query=self.query,
            delegated_by=self.delegated_by,
            branched_from=self.branched_from,
            base=self.base,
            created_at=self.created_at,
        )


class Surroundings(Protocol):
    """What a Run needs of its Job."""

    job_id: str
    experts: dict[str, Expert]
    model_name: str
    max_steps: int | None
    max_retries: int
    timeout_ms: int
    env: dict[str, str]
    policy: SandboxPolicy
    store: Store
    backend: SandboxBackend
    bus: Bus
    returns_on_delegation: bool
    """Whether the Job ends when the coordinator's delegates have, instead of going on with their results."""
    may_go_on: Callable[[Checkpoint, Step], Coroutine[Any, Any, bool]] | None
    """Asks the embedding program whether a Run may begin its next step; None: it does not want to be asked."""

    def model(self, lineage: tuple[str, ...]) -> ChatModel:
        """Who answers the Run with this lineage."""
        ...

    def emit(self, event: Any, line: bytes, /) -> None:
        """Tell whoever listens of an event."""
        ...

    def reserve_step(self) -> bool:
        """Whether the Job's limit allows one more step; if so, it is counted."""
        ...

    def earlier_delegate(self, run_id: str, call_id: str) -> tuple[str, Standing | None] | None:
        """The Run that this call began in an earlier process, and where it stands."""
        ...

    def abandon(self, run_id: str, call_ids: Collection[str]) -> None:
        """Record the unfinished Runs that these calls began in an earlier process, and theirs, as cancelled."""
        ...

    def start_delegate(self, order: RunOrder) -> "asyncio.Task[Checkpoint]":
        """Begin a delegate's Run.

        Raises:
            DelegationRefused: the Job allows no such delegation.
        """
        ...

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on after the Run; the Job's end waits for it."""
        ...
