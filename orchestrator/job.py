"""A Job: what its Runs share, the limits over all of them, and its end."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus
from expert_runner.contract.experts import Expert
from expert_runner.contract.jobs import Job, JobStatus
from expert_runner.contract.usage import Usage
from expert_runner.version import RUNTIME_VERSION
from orchestrator.bus import Bus
from orchestrator.model.gateway import Gateway
from orchestrator.runs.actor import DelegationRefused, RunActor, RunOrder
from orchestrator.runs.ledger import Emit, new_id, now_ms
from orchestrator.sandbox.backend import SandboxBackend
from orchestrator.sandbox.policy import SandboxPolicy
from orchestrator.store.layout import Store

MAX_DEPTH = 16
"""How deep delegates may delegate."""

CLEANERS = 2
"""Ended Runs that are cleaned up at the same time; more would slow the starts of others down."""

CLEANING_DELAY_S = 3.0
"""Seconds that cleaning up lets the starts of other Runs go first."""

_STATUS = {
    CheckpointStatus.COMPLETED: JobStatus.COMPLETED,
    CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS: JobStatus.STOPPED_BY_MAX_STEPS,
    CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL: JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    CheckpointStatus.STOPPED_BY_CANCELLATION: JobStatus.STOPPED_BY_CANCELLATION,
}


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A Job to be run, with everything decided and checked.

    Attributes:
        make_backend: makes the Job's sandbox backend, given the folder for what it keeps while the Job runs.
        env: what commands in the sandboxes find in their environment.
        timeout_ms: milliseconds a generation may take.
    """

    job_id: str
    expert: Expert
    query: str
    experts: Mapping[str, Expert]
    model: str
    gateway: Gateway
    store: Store
    make_backend: Callable[[Path], SandboxBackend]
    max_steps: int | None = None
    max_retries: int = 5
    timeout_ms: int = 60_000
    env: dict[str, str] = field(default_factory=dict)
    policy: SandboxPolicy = field(default_factory=SandboxPolicy)


class JobRunner:
    """Runs one Job. It is what :class:`orchestrator.runs.actor.Surroundings` asks for."""

    def __init__(self, plan: JobPlan, emit: Emit) -> None:
        self.job_id = plan.job_id
        self.experts = dict(plan.experts)
        self.model = plan.model
        self.max_steps = plan.max_steps
        self.max_retries = plan.max_retries
        self.timeout_ms = plan.timeout_ms
        self.env = plan.env
        self.policy = plan.policy
        self.store = plan.store
        self.gateway = plan.gateway
        self.backend: SandboxBackend
        self.bus: Bus
        self._plan = plan
        self._told = emit
        self._steps = 0
        self._usage = Usage()
        self._cost: float | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._beginning: set[asyncio.Task[Any]] = set()
        self._cleaners = asyncio.Semaphore(CLEANERS)

    async def run(self) -> Checkpoint:
        """Run the Job to its end and remove everything it started; returns the coordinator's last checkpoint.

        Cancelling it ends every Run with `stopRunByCancellation`; it then returns as usual.

        Raises:
            SandboxError: no sandbox can be started at all.
            StoreError: the history cannot be written.
        """
        order = RunOrder(run_id=new_id(), expert=self._plan.expert, query=self._plan.query)
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(_RuntimeFolder())
            self.backend = self._plan.make_backend(folder)
            stack.push_async_callback(self.backend.close)
            transport = await self.backend.open()
            self.bus = await stack.enter_async_context(
                Bus(transport, self.backend.owner, folder, self.backend.bus_path)
            )
            job = Job(
                id=self.job_id,
                status=JobStatus.RUNNING,
                coordinator_expert_key=order.expert.key,
                coordinator_run_id=order.run_id,
                runtime_version=RUNTIME_VERSION,
                max_steps=self.max_steps,
                started_at=now_ms(),
            )
            self.store.create_job(job)
            status = JobStatus.STOPPED_BY_ERROR
            try:
                end = await RunActor(self, order).run()
                status = _STATUS.get(end.status, JobStatus.STOPPED_BY_ERROR)
                return end
            finally:
                try:
                    await self._settle()
                finally:
                    totals = {"total_steps": self._steps, "usage": self._usage, "cost": self._cost}
                    self.store.write_job(job.model_copy(update={"status": status, "finished_at": now_ms(), **totals}))

    # --- what Runs ask for

    def emit(self, event: Any, line: bytes) -> None:
        if isinstance(event, e.Answer | e.Retry | e.CompleteRun):
            self._usage += event.usage
            cost = getattr(event, "cost", None)
            if cost is not None:
                self._cost = (self._cost or 0.0) + cost
        self._told(event, line)

    def reserve_step(self) -> bool:
        if self.max_steps is not None and self._steps >= self.max_steps:
            return False
        self._steps += 1
        return True

    def start_delegate(self, order: RunOrder) -> "asyncio.Task[Checkpoint]":
        if order.depth > MAX_DEPTH:
            raise DelegationRefused(f"delegates may delegate {MAX_DEPTH} levels deep")
        actor = RunActor(self, order)
        beginning = asyncio.create_task(actor.began.wait())
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)
        return asyncio.create_task(actor.run())

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._clean(work))
        self._background.add(task)

    async def _clean(self, work: Coroutine[Any, Any, None]) -> None:
        """Removing a sandbox competes with starting others, and only the starts are waited for by anybody."""
        if self._beginning:
            await asyncio.wait(set(self._beginning), timeout=CLEANING_DELAY_S)
        async with self._cleaners:
            await work

    async def _settle(self) -> None:
        """Wait for what goes on in the background; raises the first of its failures once all of it has ended."""
        outcomes = await asyncio.gather(*self._background, return_exceptions=True)
        for beginning in self._beginning:
            # Of a Run that was cancelled before its first moment.
            beginning.cancel()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


class _RuntimeFolder:
    """The folder for what exists only while a Job runs: sockets, keys and mount points. Only its owner can enter it.

    Each thing in it is removed by name by whoever made it, never recursively: a workspace may be mounted there.
    """

    async def __aenter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix="perstack-"))
        return self._path

    async def __aexit__(self, *_: object) -> None:
        self._path.rmdir()
