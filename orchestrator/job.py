"""A Job: what its Runs share, the limits over all of them, its beginning or its going on, and its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, Step
from expert_runner.contract.experts import Expert
from expert_runner.contract.jobs import Job, JobStatus
from expert_runner.contract.standing import Standing
from expert_runner.version import RUNTIME_VERSION
from orchestrator.bus import Bus
from orchestrator.earlier import Continuation, Earlier, resume
from orchestrator.errors import ConfigError
from orchestrator.gc import sweep
from orchestrator.model.gateway import ModelSource
from orchestrator.runs.actor import RunActor, undo_cancellation
from orchestrator.runs.ledger import Emit, Ledger, new_id, now_ms
from orchestrator.runs.surroundings import DelegationRefused, RunOrder
from orchestrator.runtime_folder import RuntimeFolder
from orchestrator.sandbox.backend import SandboxBackend
from orchestrator.sandbox.policy import SandboxPolicy
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from orchestrator.store.lease import JobLease
from orchestrator.store.log import EventLog
from orchestrator.store.totals import Totals

MAX_DEPTH = 16
"""How deep delegates may delegate."""

CLEANERS = 2
"""Ended Runs that are cleaned up at the same time; more would slow the starts of others down."""

CLEANING_DELAY_S = 3.0
"""Seconds that cleaning up lets the starts of other Runs go first."""

SWEEP_GRACE_S = 1.0
"""Seconds that a Job which is over waits for its sweep, which takes a tenth of that where little is left."""

_STATUS = {
    CheckpointStatus.COMPLETED: JobStatus.COMPLETED,
    CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS: JobStatus.STOPPED_BY_MAX_STEPS,
    CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL: JobStatus.STOPPED_BY_INTERACTIVE_TOOL,
    CheckpointStatus.STOPPED_BY_CANCELLATION: JobStatus.STOPPED_BY_CANCELLATION,
    # Its delegates have ended and their results wait for the Job to go on.
    CheckpointStatus.STOPPED_BY_DELEGATE: JobStatus.RUNNING,
}


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A Job to be run, with everything decided and checked that can be before its history is held.

    Attributes:
        expert: the coordinator.
        query: what it is asked; None where a Job goes on without a further query.
        continuation: how an earlier Job goes on; None: this is a new one.
        make_backend: makes the Job's sandbox backend, given the folder for what it keeps while the Job runs and the
            token of the Job's lease.
        env: what commands in the sandboxes find in their environment.
        timeout_ms: milliseconds a generation may take.
        returns_on_delegation: end when the coordinator's delegates have, instead of going on with their results.
        should_continue_run: asked after each step of each Run; False ends that Run as cancelled.
        store_checkpoint: told of each checkpoint, whole: at the end of each step and at each stop.
    """

    job_id: str
    expert: Expert
    query: str | None
    experts: Mapping[str, Expert]
    model_name: str
    models: ModelSource
    store: Store
    make_backend: Callable[[Path, str], SandboxBackend]
    continuation: Continuation | None = None
    max_steps: int | None = None
    max_retries: int = 5
    timeout_ms: int = 60_000
    env: dict[str, str] = field(default_factory=dict)
    policy: SandboxPolicy = field(default_factory=SandboxPolicy)
    returns_on_delegation: bool = False
    should_continue_run: Callable[[Checkpoint, Step], bool | Awaitable[bool]] | None = None
    store_checkpoint: Callable[[Checkpoint], None] | None = None


class JobRunner:
    """Runs one Job. It is what :class:`orchestrator.runs.surroundings.Surroundings` asks for."""

    def __init__(self, plan: JobPlan, emit: Emit) -> None:
        self.job_id = plan.job_id
        self.experts = dict(plan.experts)
        self.model_name = plan.model_name
        self.max_steps = plan.max_steps
        self.max_retries = plan.max_retries
        self.timeout_ms = plan.timeout_ms
        self.env = plan.env
        self.policy = plan.policy
        self.store = plan.store
        self.returns_on_delegation = plan.returns_on_delegation
        asks = plan.should_continue_run is not None
        self.may_go_on: Callable[[Checkpoint, Step], Coroutine[Any, Any, bool]] | None = (
            self._ask_program if asks else None
        )
        self.model = plan.models.of_run
        self.backend: SandboxBackend
        self.bus: Bus
        self._plan = plan
        self._told = emit
        self._totals = Totals()
        self._reserved = 0
        self._earlier: Earlier | None = None
        self._coordinator: asyncio.Task[Checkpoint] | None = None
        self._is_cancelled = False
        self._background: set[asyncio.Task[None]] = set()
        self._beginning: set[asyncio.Task[Any]] = set()
        self._cleaners = asyncio.Semaphore(CLEANERS)

    async def run(self) -> Checkpoint:
        """Run the Job to its end and remove everything it started; returns the coordinator's last checkpoint.

        Cancelling it ends every Run with `stopRunByCancellation`; it then returns as usual. A further cancellation, or
        one that comes when the Runs have ended, changes nothing: what was started is removed in any case.

        Raises:
            ConfigError: the Job cannot go on like this; nothing was changed.
            SandboxError: no sandbox can be started at all.
            StoreError: the history cannot be written or is damaged, or another process holds the Job.
        """
        whole = asyncio.create_task(self._run())
        while True:
            try:
                return await asyncio.shield(whole)
            except asyncio.CancelledError:
                if whole.done():
                    raise  # Before its first Run began.
                self._cancel(whole)
                undo_cancellation()

    def _cancel(self, whole: "asyncio.Task[Checkpoint]") -> None:
        """Once, and nothing but what works: what cleans up after it is left to come to its end."""
        if not self._is_cancelled:
            self._is_cancelled = True
            (self._coordinator or whole).cancel()

    async def _run(self) -> Checkpoint:
        async with AsyncExitStack() as stack:
            lease = JobLease.take(self._folder())
            stack.callback(lease.release)
            continuation = self._plan.continuation
            job, order = self._new(stack) if continuation is None else self._continued(continuation)
            folder = await stack.enter_async_context(RuntimeFolder(self.job_id, lease.token))
            # Before anything carries the lease's token: what a kill leaves can be told whose it was.
            lease.announce(folder)
            self.backend = self._plan.make_backend(folder, lease.token)
            stack.push_async_callback(self.backend.close)
            transport = await self.backend.open()
            if self._earlier is not None:
                await self.backend.remove_earlier(job.started_at)
            self.bus = await stack.enter_async_context(
                Bus(transport, self.backend.owner, folder, self.backend.bus_path)
            )
            # First the Run, then the Job that names it: a Job can go on from wherever it is killed.
            self.store.open_run(order.record(self.job_id))
            self.store.write_job(job)
            coordinator = RunActor(self, order)
            await stack.enter_async_context(_meanwhile(self._sweep(coordinator)))
            status = JobStatus.STOPPED_BY_ERROR
            try:
                self._coordinator = asyncio.create_task(coordinator.run())
                end = await self._coordinator
                status = _STATUS.get(end.status, JobStatus.STOPPED_BY_ERROR)
                return end
            finally:
                try:
                    await self._settle()
                finally:
                    self.store.write_job(self._ended(job, status))

    async def _sweep(self, coordinator: RunActor) -> None:
        """Remove what dead orchestrators left, once nobody waits for this Job's own start any more."""
        await coordinator.began.wait()
        await sweep(self.store.root, engine=self.backend.name == "docker")

    # --- what it begins with

    def _folder(self) -> Path:
        if self._plan.continuation is None:
            return self.store.make_job_folder(self.job_id)
        self.store.read_job(self.job_id)
        return self.store.job_folder(self.job_id)

    def _new(self, stack: AsyncExitStack) -> tuple[Job, RunOrder]:
        self.store.check_new(self.job_id)
        # Until there is a record the Job does not exist, and what could not be started leaves nothing behind.
        stack.callback(self.store.discard_unbegun, self.job_id)
        query = self._plan.query
        if query is None:
            raise ConfigError("a new Job needs a query")
        order = RunOrder(run_id=new_id(), expert=self._plan.expert, query=query)
        job = Job(
            id=self.job_id,
            status=JobStatus.RUNNING,
            coordinator_expert_key=order.expert.key,
            coordinator_run_id=order.run_id,
            runtime_version=RUNTIME_VERSION,
            max_steps=self.max_steps,
            started_at=now_ms(),
        )
        return job, order

    def _continued(self, continuation: Continuation) -> tuple[Job, RunOrder]:
        self._earlier = earlier = Earlier.read(JobHistory(self.store, self.job_id))
        if self.max_steps is None:
            self.max_steps = earlier.job.max_steps
        order = resume(earlier, continuation, self.max_steps, self._plan.expert)
        self._totals = earlier.totals
        self._reserved = earlier.totals.steps
        changes = {
            "status": JobStatus.RUNNING,
            "coordinator_run_id": order.run_id,
            "runtime_version": RUNTIME_VERSION,
            "max_steps": self.max_steps,
            "continued_at": now_ms(),
            "finished_at": None,
        }
        return earlier.job.model_copy(update=changes), order

    def _ended(self, job: Job, status: JobStatus) -> Job:
        totals = self._totals
        changes = {"total_steps": totals.steps, "usage": totals.usage, "cost": totals.cost}
        finished_at = None if status is JobStatus.RUNNING else now_ms()
        return job.model_copy(update={"status": status, "finished_at": finished_at, **changes})

    # --- what Runs ask for

    def emit(self, event: Any, line: bytes) -> None:
        self._totals.add(event)
        self._told(event, line)
        if self._plan.store_checkpoint is not None and isinstance(event, e.ContinueToNextStep | e.Stop):
            self._plan.store_checkpoint(event.checkpoint)  # type: ignore[arg-type]

    def reserve_step(self) -> bool:
        if self.max_steps is not None and self._reserved >= self.max_steps:
            return False
        self._reserved += 1
        return True

    async def _ask_program(self, checkpoint: Checkpoint, step: Step) -> bool:
        answer = self._plan.should_continue_run is None or self._plan.should_continue_run(checkpoint, step)
        return await answer if isinstance(answer, Awaitable) else answer

    def earlier_delegate(self, run_id: str, call_id: str) -> tuple[str, Standing | None] | None:
        if self._earlier is None:
            return None
        delegate = self._earlier.delegates.get((run_id, call_id))
        return None if delegate is None else (delegate, self._earlier.standings[delegate])

    def abandon(self, run_id: str, call_ids: Collection[str]) -> None:
        if self._earlier is None:
            return
        for (caller, call_id), delegate in self._earlier.delegates.items():
            standing = self._earlier.standings[delegate]
            if caller == run_id and call_id in call_ids and standing is not None:
                self._abandon(delegate, standing)

    def _abandon(self, run_id: str, standing: Standing) -> None:
        state = standing.checkpoint.state
        self.abandon(run_id, {call.id for call in standing.checkpoint.pending_tool_calls or ()})
        if not state.is_end or state.is_waiting:
            log = EventLog(self.store.events_path(self.job_id, run_id))
            try:
                Ledger(standing, log, self.emit).record(e.StopRunByCancellation)
            finally:
                log.close()

    def start_delegate(self, order: RunOrder) -> "asyncio.Task[Checkpoint]":
        if len(order.lineage) > MAX_DEPTH:
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


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let `work` go on beside the block, and :data:`SWEEP_GRACE_S` longer; what is left of it then is cancelled."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await asyncio.wait({task}, timeout=SWEEP_GRACE_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
