"""The life of one Run: its sandbox, its runner's reports, its generations and its delegates, to its end."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expert_runner.concurrency import race
from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import (
    Checkpoint,
    CheckpointStatus,
    DelegatedBy,
    DelegationTarget,
    ExpertRef,
    RunError,
    State,
)
from expert_runner.contract.errors import ContractError
from expert_runner.contract.experts import Expert
from expert_runner.contract.messages import TextPart, UserMessage
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall, ToolResult
from expert_runner.version import RUNTIME_VERSION
from orchestrator.bus import Bus, Peer
from orchestrator.errors import PerstackError, SandboxError
from orchestrator.model.gateway import Gateway, ModelError
from orchestrator.runs.generation import Generator
from orchestrator.runs.instruction import instruction_message
from orchestrator.runs.ledger import Ledger, new_id, now_ms
from orchestrator.runs.tools import ToolBox, delegate_query
from orchestrator.runs.witness import Expected, Witness
from orchestrator.sandbox.backend import Exit, Sandbox, SandboxBackend, SandboxSpec
from orchestrator.sandbox.policy import SandboxPolicy
from orchestrator.store.layout import RunRecord, Store
from orchestrator.store.log import EventLog

START_DEADLINE_S = 60.0
"""Seconds from a sandbox's start to its runner's hello."""

SYNC_DELAY_S = 0.05
"""Seconds of steps that are brought to the disk together. A power cut may take the last of them, a kill cannot."""


class SandboxLost(SandboxError):
    """A Run's sandbox ended before the Run did."""


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A Run to be made. `depth` is 0 for the coordinator."""

    run_id: str
    expert: Expert
    query: str
    depth: int = 0
    delegated_by: DelegatedBy | None = None


class Surroundings(Protocol):
    """What a Run needs of its Job."""

    job_id: str
    experts: dict[str, Expert]
    model: str
    max_steps: int | None
    max_retries: int
    timeout_ms: int
    env: dict[str, str]
    policy: SandboxPolicy
    store: Store
    backend: SandboxBackend
    bus: Bus
    gateway: Gateway

    def emit(self, event: Any, line: bytes, /) -> None:
        """Tell whoever listens of an event."""
        ...

    def reserve_step(self) -> bool:
        """Whether the Job's limit allows one more step; if so, it is counted."""
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


class DelegationRefused(PerstackError):
    """A delegation that the Job does not allow."""


class RunActor:
    """One Run. `run` lives it and returns its last checkpoint; a Run's own failure is an end, never an exception."""

    def __init__(self, job: Surroundings, order: RunOrder) -> None:
        self._job = job
        self._order = order
        self._tools = ToolBox(order.expert, job.experts, is_coordinator=order.delegated_by is None)
        self._expected = Expected()
        self._delegations: dict[str, asyncio.Task[Checkpoint] | ToolResult] = {}
        self.began = asyncio.Event()
        """Set once the runner has said hello, or the Run has ended without one."""
        self._peer: Peer | None = None
        self._starting: asyncio.Task[Sandbox] | None = None
        self._syncing: asyncio.Task[None] | None = None

    async def run(self) -> Checkpoint:
        """Live the Run.

        Raises:
            StoreError: the history cannot be written; the Job cannot go on.
        """
        self._open()
        try:
            await self._live()
        except asyncio.CancelledError:
            _undo_cancellation()
            self._end(e.StopRunByCancellation)
        except (SandboxError, ModelError, ContractError) as error:
            self._end(e.StopRunByError, error=_run_error(error))
        except Exception as error:
            # The Job cannot go on: its history cannot be written, or a listener failed. The record says why if it can.
            with suppress(Exception):
                self._end(e.StopRunByError, error=_run_error(error))
            raise
        finally:
            self.began.set()
            await self._end_delegations()
            self._job.in_background(self._clean_up())
        return self._ledger.checkpoint

    # --- beginning

    def _open(self) -> None:
        job, order = self._job, self._order
        record = RunRecord(
            id=order.run_id,
            job_id=job.job_id,
            expert_key=order.expert.key,
            query=order.query,
            delegated_by=order.delegated_by,
            created_at=now_ms(),
        )
        expert = ExpertRef(key=order.expert.key, name=order.expert.name, version=order.expert.version)
        checkpoint = Checkpoint(
            id=new_id(),
            job_id=job.job_id,
            run_id=order.run_id,
            status=CheckpointStatus.INIT,
            state=State.INIT,
            step_number=1,
            expert=expert,
            delegated_by=order.delegated_by,
        )
        self._ledger = Ledger(checkpoint, EventLog(job.store.create_run(record)), job.emit)
        self._witness = Witness(self._ledger, self._expected)
        self._generator = Generator(job.gateway, self._ledger, self._tools, job.max_retries)
        self._expected.input_messages = (
            instruction_message(order.expert, f"{order.run_id}.1", job.backend.workspace_path, self._tools.definitions),
            UserMessage(id=f"{order.run_id}.2", contents=(TextPart(text=order.query),)),
        )
        self._ledger.note(
            e.InitializeRuntime,
            runtime_version=RUNTIME_VERSION,
            runtime=job.backend.name,
            expert_name=order.expert.name,
            experts=tuple(job.experts),
            model=job.model,
            max_steps=job.max_steps,
            max_retries=job.max_retries,
            timeout=job.timeout_ms,
            query=order.query,
        )

    async def _start_sandbox(self, bus_folder: Path) -> Sandbox:
        job, order = self._job, self._order
        self._container("starting")
        spec = SandboxSpec(
            job_id=job.job_id,
            run_id=order.run_id,
            expert_key=order.expert.key,
            bus_folder=bus_folder,
            policy=job.policy,
        )
        sandbox = await job.backend.start(spec)
        self._container("running", container_id=sandbox.id)
        return sandbox

    def _container(self, status: str, **facts: Any) -> None:
        if self._job.backend.isolates:
            self._ledger.note(e.DockerContainerStatus, status=status, service=self._order.expert.key, **facts)

    # --- living

    async def _live(self) -> None:
        job, order = self._job, self._order
        self._peer = peer = job.bus.add(order.run_id)
        peer.send(
            wire.Assign(
                job_id=job.job_id,
                run_id=order.run_id,
                expert_key=order.expert.key,
                base_tools=self._tools.base_tools,
                workspace=job.backend.workspace_path,
                env=job.env,
            )
        )
        self._starting = starting = asyncio.create_task(self._start_sandbox(peer.folder))
        await race(self._watch_sandbox(starting), self._watch_peer(peer), self._follow(peer, starting))

    async def _watch_sandbox(self, starting: "asyncio.Task[Sandbox]") -> None:
        """Raises SandboxLost when the sandbox ends."""
        how = await self._job.backend.wait(await asyncio.shield(starting))
        raise SandboxLost(_loss(how))

    async def _watch_peer(self, peer: Peer) -> None:
        await asyncio.shield(peer.failed)

    async def _follow(self, peer: Peer, starting: "asyncio.Task[Sandbox]") -> None:
        """Take the runner's reports until the Run is over."""
        sandbox = await asyncio.shield(starting)
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await asyncio.shield(peer.greeted)
        except TimeoutError:
            raise SandboxLost(
                f"the runner said nothing for {START_DEADLINE_S:.0f} s after its sandbox was started"
            ) from None
        self.began.set()
        await self._job.gateway.ready()
        self._ledger.checkpoint = self._ledger.checkpoint.model_copy(
            update={"context_window": self._job.gateway.context_window}
        )
        while True:
            report = await peer.next_report()
            event = self._take(report)
            peer.dealt_with()
            if isinstance(event, e.Stop) and not isinstance(event, e.StopRunByDelegate):
                return
            await self._react(event, peer, sandbox)

    def _take(self, report: Any) -> Any:
        if isinstance(report, wire.Moved):
            if report.type == "startRun":
                started = self._witness.take(report)
                return started if self._job.reserve_step() else self._ledger.record(e.StopRunByExceededMaxSteps)
            ends_step = report.type == "continueToNextStep" and self._ledger.checkpoint.state is State.FINISHING_STEP
            # The limit is the Job's, so it is decided here, before the next step begins: it is never overshot.
            if ends_step and not self._job.reserve_step():
                return self._ledger.record(e.StopRunByExceededMaxSteps)
        return self._witness.take(report)

    async def _react(self, event: Any, peer: Peer, sandbox: Sandbox) -> None:
        match event:
            case e.StartGeneration() | e.AttemptCompletion():
                answer = await self._generator.answer()
                self._expected.answer = answer
                peer.send(wire.Answered(tool_calls=answer.calls))
            case e.CallDelegate():
                self._delegate()
            case e.StopRunByDelegate():
                results = await self._await_delegates(peer, sandbox)
                self._expected.outside_results = results
                peer.send(wire.Resume(resolved=tuple(result.id for result in results)))
            case e.ContinueToNextStep():
                self._sync_step()

    def _sync_step(self) -> None:
        """Bring the step to the disk while the next ones go on.

        Raises:
            StoreError: an earlier step could not be brought there.
        """
        if self._syncing is not None:
            if not self._syncing.done():
                return  # It takes this step along, or has begun: then the next step, or the Run's end, does.
            self._syncing.result()
        self._syncing = asyncio.create_task(self._sync_soon())

    async def _sync_soon(self) -> None:
        await asyncio.sleep(SYNC_DELAY_S)
        await self._ledger.sync()

    # --- delegates

    def _delegate(self) -> None:
        """Begin the Runs of all delegates that were called, at once."""
        checkpoint = self._ledger.checkpoint
        targets = []
        for call in checkpoint.pending_tool_calls or ():
            if call.skill_type is not SkillType.DELEGATE:
                continue
            run_id = new_id()
            try:
                self._delegations[call.id] = self._job.start_delegate(self._order_for(call, run_id))
            except DelegationRefused as error:
                self._delegations[call.id] = _failed(call, str(error))
                continue
            targets.append(
                DelegationTarget(
                    expert_key=call.skill_name, tool_call_id=call.id, tool_name=call.tool_name, run_id=run_id
                )
            )
        self._expected.delegates = tuple(targets)

    def _order_for(self, call: ToolCall, run_id: str) -> RunOrder:
        query = delegate_query(call)
        if query is None:
            raise DelegationRefused("the call has no `query`: a text with everything the Expert needs to know")
        checkpoint = self._ledger.checkpoint
        return RunOrder(
            run_id=run_id,
            expert=self._job.experts[call.skill_name],
            query=query,
            depth=self._order.depth + 1,
            delegated_by=DelegatedBy(
                expert=checkpoint.expert,
                run_id=checkpoint.run_id,
                checkpoint_id=checkpoint.id,
                tool_call_id=call.id,
                tool_name=call.tool_name,
            ),
        )

    async def _await_delegates(self, peer: Peer, sandbox: Sandbox) -> tuple[ToolResult, ...]:
        """The results of all delegates, in call order. Meanwhile this Run's sandbox is parked."""
        running = [task for task in self._delegations.values() if isinstance(task, asyncio.Task)]
        if running:
            await self._parked(peer, sandbox, asyncio.wait(running))
        results = []
        for call in self._ledger.checkpoint.pending_tool_calls or ():
            delegation = self._delegations.get(call.id)
            if isinstance(delegation, asyncio.Task):
                results.append(_delegate_result(call, delegation.result()))
            elif delegation is not None:
                results.append(delegation)
        self._delegations.clear()
        return tuple(results)

    async def _parked(self, peer: Peer, sandbox: Sandbox, until: Coroutine[Any, Any, Any]) -> None:
        peer.is_parked = True
        parking = asyncio.create_task(self._job.backend.park(sandbox))
        try:
            await until
        finally:
            await parking
            await self._job.backend.unpark(sandbox)
            peer.is_parked = False

    async def _end_delegations(self) -> None:
        running = [task for task in self._delegations.values() if isinstance(task, asyncio.Task)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # --- end

    def _end(self, kind: type[e.Stop], **payload: Any) -> None:
        state = self._ledger.checkpoint.state
        if state.is_end and not state.is_waiting:
            return
        if state is State.INIT:
            # A history begins with what was asked, also where the sandbox never came to ask for it.
            self._witness.take(wire.Moved(type="startRun"))
        self._ledger.record(kind, **payload)

    async def _clean_up(self) -> None:
        """Remove the sandbox and all that was its own, then close the record."""
        try:
            if self._starting is not None:
                await self._remove_sandbox(self._starting)
        finally:
            if self._peer is not None:
                self._peer.close()
            if self._syncing is not None:
                await self._syncing
            await self._ledger.sync()
            self._ledger.close()

    async def _remove_sandbox(self, starting: "asyncio.Task[Sandbox]") -> None:
        try:
            sandbox = await starting
        except SandboxError:
            return
        if self._witness.skill_is_up:
            self._ledger.note(e.SkillDisconnected, skill_name=BASE_SKILL)
        await self._job.backend.stop(sandbox)
        self._container("removed", container_id=sandbox.id)


def _undo_cancellation() -> None:
    """Being cancelled is dealt with by ending the Run as cancelled; what follows runs as usual."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _failed(call: ToolCall, why: str) -> ToolResult:
    return ToolResult.of(call, f"Delegation failed: {why}", is_error=True)


def _delegate_result(call: ToolCall, end: Checkpoint) -> ToolResult:
    match end.status:
        case CheckpointStatus.COMPLETED:
            return ToolResult.of(call, end.text or "")
        case CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS:
            return _failed(call, "the Job reached its limit of steps")
        case CheckpointStatus.STOPPED_BY_ERROR if end.error is not None:
            return _failed(call, f"{end.error.name}: {end.error.message}")
        case status:
            return _failed(call, f"the Expert ended as {status}")


def _loss(how: Exit) -> str:
    text = f"the sandbox ended before its Run: {how.cause} ({how.evidence})"
    log = how.log.strip()
    return f"{text}; its log ends: {log[-1000:]}" if log else text


def _run_error(error: Exception) -> RunError:
    return RunError(
        name=type(error).__name__,
        message=str(error),
        status_code=getattr(error, "status_code", None),
        is_retryable=getattr(error, "is_retryable", False),
    )
