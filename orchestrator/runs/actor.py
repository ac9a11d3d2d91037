"""The life of one Run: its sandboxes, its runner's reports, its generations and its delegates, to its end.

Nothing here remembers where the Run stands but its record. Each turn looks at that and does what comes next, so that a
Run goes on from any point of its record: in the next sandbox when one is lost, in the next process when one is killed.
"""

import asyncio
from contextlib import suppress
from typing import Any

from expert_runner.concurrency import race
from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, ExpertRef, RunError, State
from expert_runner.contract.errors import ContractError
from expert_runner.contract.machine import CONTINUABLE, INTERRUPTED
from expert_runner.contract.messages import InstructionMessage, TextPart, UserMessage
from expert_runner.contract.standing import Standing
from expert_runner.contract.tools import SkillType, ToolResult
from expert_runner.version import RUNTIME_VERSION
from orchestrator.errors import SandboxError
from orchestrator.model.gateway import ModelError
from orchestrator.runs import outside
from orchestrator.runs.delegations import Delegations
from orchestrator.runs.generation import Generator
from orchestrator.runs.instruction import instruction_message
from orchestrator.runs.ledger import Ledger, new_id, now_ms
from orchestrator.runs.session import ENGINE_PATIENCE_S, SandboxLost, Session
from orchestrator.runs.surroundings import FurtherInput, RunOrder, Surroundings
from orchestrator.runs.tools import ToolBox
from orchestrator.sandbox.backend import Exit, ExitCause
from orchestrator.store.log import EventLog

SYNC_DELAY_S = 0.05
"""Seconds of steps that are brought to the disk together. A power cut may take the last of them, a kill cannot."""

MAX_LOSSES = 3
"""Sandboxes that a Run may lose without finishing a step in between; the next loss ends it."""

RESTART_DELAY_S = 1.0
"""Seconds before a Run asks again for a sandbox when the backend does not answer."""

GENERATING = (State.GENERATING_TOOL_CALL, State.GENERATING_RUN_RESULT)


class RunActor:
    """One Run. `run` lives it and returns its last checkpoint; a Run's own failure is an end, never an exception."""

    def __init__(self, job: Surroundings, order: RunOrder) -> None:
        self._job = job
        self._order = order
        self._tools = ToolBox(order.expert, job.experts, is_coordinator=order.is_coordinator)
        self.began = asyncio.Event()
        """Set once a runner has said hello, or the Run has ended without one."""
        self._session: Session | None = None
        self._sessions = 0
        self._losses = 0
        self._away_since: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._deciding: asyncio.Task[bool] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._returns = False

    async def run(self) -> Checkpoint:
        """Live the Run, from where its record stands.

        Raises:
            StoreError: the history cannot be written; the Job cannot go on.
        """
        standing = self._order.standing
        if standing is not None and self._is_final(standing.checkpoint):
            self.began.set()
            return standing.checkpoint
        self._open()
        try:
            self._say_where()
            await self._live()
        except asyncio.CancelledError:
            undo_cancellation()
            self._end(e.StopRunByCancellation)
        except (SandboxError, ModelError, ContractError) as error:
            self._end(e.StopRunByError, error=_run_error(error))
        except Exception as error:
            # The Job cannot go on: its history cannot be written, or a listener failed. The record says why if it can.
            # A delegate has not failed by that: it goes on when the Job does.
            with suppress(Exception):
                if self._order.is_coordinator:
                    self._end(e.StopRunByError, error=_run_error(error))
                else:
                    self._end(e.StopRunByCancellation)
            raise
        finally:
            self.began.set()
            await self._stop_asking()
            await self._delegations.cancel()
            self._job.in_background(self._clean_up())
        return self._ledger.checkpoint

    def _is_final(self, checkpoint: Checkpoint) -> bool:
        """Whether a Run of an earlier process has nothing left to do. A delegate that was only cancelled goes on."""
        if self._order.is_coordinator:
            return checkpoint.state is State.COMPLETED and self._order.further.query is None
        return checkpoint.state in CONTINUABLE and checkpoint.state is not State.STOPPED_BY_CANCELLATION

    @property
    def _checkpoint(self) -> Checkpoint:
        return self._ledger.checkpoint

    # --- beginning

    def _open(self) -> None:
        job, order = self._job, self._order
        log = EventLog(job.store.open_run(order.record(job.job_id)))
        self._ledger = Ledger(order.standing or self._not_begun(), log, job.emit)
        self._generator = Generator(job.model(order.lineage), self._ledger, self._tools, job.max_retries)
        self._delegations = Delegations(job, order, self._ledger)

    def _say_where(self) -> None:
        job, order = self._job, self._order
        self._ledger.note(
            e.InitializeRuntime,
            runtime_version=RUNTIME_VERSION,
            runtime=job.backend.name,
            expert_name=order.expert.name,
            experts=tuple(job.experts),
            model=job.model_name,
            max_steps=job.max_steps,
            max_retries=job.max_retries,
            timeout=job.timeout_ms,
            query=order.query,
            branched_from=order.branched_from,
        )

    def _not_begun(self) -> Standing:
        expert, now = self._order.expert, now_ms()
        checkpoint = Checkpoint(
            id=new_id(),
            job_id=self._job.job_id,
            run_id=self._order.run_id,
            status=CheckpointStatus.INIT,
            state=State.INIT,
            step_number=1,
            expert=ExpertRef(key=expert.key, name=expert.name, version=expert.version),
            delegated_by=self._order.delegated_by,
        )
        return Standing.at(checkpoint, now)

    def _first_messages(self) -> tuple[InstructionMessage, UserMessage]:
        order = self._order
        workspace = self._job.backend.workspace_path
        return (
            instruction_message(order.expert, f"{order.run_id}.1", workspace, self._tools.definitions),
            UserMessage(id=f"{order.run_id}.2", contents=(TextPart(text=order.query),)),
        )

    async def _start(self, *messages: InstructionMessage | UserMessage) -> None:
        """Begin the Run's first step, or its next one after a stop, within the Job's limit."""
        model = self._job.model(self._order.lineage)
        await model.ready()
        may_begin = self._job.reserve_step()
        outside.start(self._ledger, messages, model.context_window)
        if not may_begin:
            self._ledger.record(e.StopRunByExceededMaxSteps)

    # --- going on after an earlier process

    async def _go_on(self) -> None:
        """Bring a Run that was stopped or killed to where a runner can take it over."""
        state, further = self._checkpoint.state, self._order.further
        if further.answer is not None:
            self._take_answer(further.answer)
        elif further.query is not None:
            self._leave_off()
            await self._start(outside.user_message(self._checkpoint, further.query))
        elif state in INTERRUPTED and self._checkpoint.pending_tool_calls:
            unknown = outside.unknown_effects(self._checkpoint, "The Run was stopped")
            self._delegations.begin(only_earlier=True)
            outside.resumed(self._ledger, (*unknown, *await self._delegations.results()))
            self._delegations.forget()
        elif state in CONTINUABLE:
            await self._start()
        elif state is State.PREPARING_FOR_STEP and not self._ledger.standing.is_asked:
            if not self._job.reserve_step():
                self._ledger.record(e.StopRunByExceededMaxSteps)
        else:
            outside.interrupted(self._ledger, "The orchestrator ended")

    def _take_answer(self, text: str) -> None:
        """The user's answer to the interactive call that was asked: the first that waits."""
        pending = self._checkpoint.pending_tool_calls or ()
        asked = next(call for call in pending if call.skill_type is SkillType.INTERACTIVE)
        outside.resumed(self._ledger, (ToolResult.of(asked, text),))

    def _leave_off(self) -> None:
        """Make room for a further query: whatever was under way is recorded as cancelled, every call as answered."""
        if self._checkpoint.state is not State.FINISHING_STEP:
            self._end(e.StopRunByCancellation)
        pending = self._checkpoint.pending_tool_calls
        if pending:
            self._job.abandon(self._order.run_id, {call.id for call in pending})
            why = "The user went on with a further query"
            outside.resumed(self._ledger, outside.left_off(self._checkpoint, why))
            outside.told_all(self._ledger)

    # --- living

    async def _live(self) -> None:
        if self._order.standing is not None:
            if self._begins_a_step():
                # Its sandbox starts beside what it waits for first: the model library.
                self._session = self._new_session()
            await self._go_on()
        while not self._is_over:
            match self._checkpoint.state:
                case State.CALLING_DELEGATES | State.STOPPED_BY_DELEGATE:
                    await self._await_delegates()
                case State.CALLING_INTERACTIVE_TOOLS:
                    self._ledger.record(e.StopRunByInteractiveTool)
                case _:
                    await self._live_in_sandbox()

    @property
    def _is_over(self) -> bool:
        state = self._checkpoint.state
        return self._returns or (state.is_end and state is not State.STOPPED_BY_DELEGATE)

    def _begins_a_step(self) -> bool:
        """Whether a Run that goes on waits for no delegates before it does."""
        is_given_something = self._order.further != FurtherInput()
        return is_given_something or (self._checkpoint.state in CONTINUABLE and not self._checkpoint.pending_tool_calls)

    def _new_session(self) -> Session:
        self._sessions += 1
        return Session(self._job, self._order, self._ledger, self._sessions)

    async def _live_in_sandbox(self) -> None:
        """Go on in a sandbox until the Run is over or the sandbox is lost."""
        self._session = session = self._session or self._new_session()
        session.assign(self._tools)
        try:
            await race(session.watch(self._greeted), self._follow(session))
        except SandboxLost as lost:
            if not self._is_over:
                await self._replace(session, lost)
        except SandboxError as error:
            if not error.is_retryable:
                raise
            await self._outlast(session, error)

    async def _outlast(self, session: Session, error: SandboxError) -> None:
        """The backend does not answer, as while it is restarted: ask it again soon, for a while.

        Raises:
            SandboxError: it has not answered for too long.
        """
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
            self._tell_lost(session, Exit(ExitCause.GONE, None, str(error)))
        elif now - self._away_since > ENGINE_PATIENCE_S:
            raise error
        await self._put_away(session)
        await asyncio.sleep(RESTART_DELAY_S)

    def _greeted(self) -> None:
        self._away_since = None
        self.began.set()

    async def _replace(self, session: Session, lost: SandboxLost) -> None:
        """Record why the sandbox was lost, and remove what is left of it.

        Raises:
            SandboxLost: the Run has lost too many.
        """
        self._losses += 1
        self._tell_lost(session, lost.how)
        await self._put_away(session)
        if self._losses > MAX_LOSSES:
            raise lost

    def _tell_lost(self, session: Session, how: Exit) -> None:
        """Record why a sandbox is lost, and what that means for the calls in it."""
        self._ledger.note(
            e.SandboxLost,
            sandbox_id=session.sandbox_id,
            cause=how.cause,
            exit_code=how.exit_code,
            evidence=how.evidence,
            log=how.log,
            losses=self._losses,
        )
        outside.interrupted(self._ledger, f"The sandbox was lost ({how.cause})", session.given)

    async def _put_away(self, session: Session) -> None:
        """Not in the background: what is left of it must not go on in the workspace beside the next one."""
        await session.close()
        self._session = None

    async def _follow(self, session: Session) -> None:
        """Do what comes next, and take the runner's reports in between, until the Run is over."""
        await self._decided()
        while not self._is_over:
            match self._checkpoint.state:
                case State.GENERATING_TOOL_CALL | State.GENERATING_RUN_RESULT:
                    await self._ask()
                    if calls := self._checkpoint.pending_tool_calls:
                        session.answer(calls)
                case State.CALLING_DELEGATES | State.STOPPED_BY_DELEGATE:
                    resolved = await session.parked(self._await_delegates())
                    session.peer.send(wire.Resume(resolved=resolved))
                case State.CALLING_INTERACTIVE_TOOLS:
                    self._ledger.record(e.StopRunByInteractiveTool)
                case _:
                    await self._take_report(session)

    async def _take_report(self, session: Session) -> None:
        report = await session.peer.next_report()
        event = report.type
        ends_step = event == "continueToNextStep" and self._checkpoint.state is State.FINISHING_STEP
        if event in ("startGeneration", "stopRunByError") and self._checkpoint.state is State.INIT:
            await self._start(*self._first_messages())
        elif ends_step and not self._job.reserve_step():
            # The limit is the Job's, so it is decided here, before the next step begins: it is never overshot.
            self._ledger.record(e.StopRunByExceededMaxSteps)
        if not self._is_over:
            told = session.witness.take(report)
            if isinstance(told, e.ContinueToNextStep):
                await self._finished_step(told)
        session.peer.dealt_with()

    async def _finished_step(self, event: e.ContinueToNextStep) -> None:
        self._losses = 0
        self._sync_step()
        checkpoint = event.checkpoint
        if self._job.may_go_on is not None and isinstance(checkpoint, Checkpoint):
            self._deciding = asyncio.create_task(self._job.may_go_on(checkpoint, event.step))
            await self._decided()

    async def _decided(self) -> None:
        """The embedding program's decision after the last step. It is asked once, however many sandboxes are lost
        meanwhile.
        """
        if self._deciding is not None:
            may_go_on = await asyncio.shield(self._deciding)
            self._deciding = None
            if not may_go_on:
                self._ledger.record(e.StopRunByCancellation)

    async def _ask(self) -> None:
        """The model's answer, recorded. It is asked once, however many sandboxes are lost meanwhile."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._answer())
        await asyncio.shield(self._asking)
        self._asking = None

    async def _answer(self) -> None:
        outside.answered(self._ledger, await self._generator.answer())

    async def _await_delegates(self) -> tuple[str, ...]:
        """Record that the Run waits for its delegates, wait, and record their results; returns the calls' ids."""
        targets = self._delegations.begin()
        if self._checkpoint.state is State.CALLING_DELEGATES:
            outside.stopped_by_delegate(self._ledger, targets)
        results = await self._delegations.results()
        if self._order.is_coordinator and self._job.returns_on_delegation:
            self._returns = True
        else:
            outside.resumed(self._ledger, results)
            self._delegations.forget()
        return tuple(result.id for result in results)

    # --- bringing steps to the disk

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

    # --- end

    def _end(self, kind: type[e.Stop], **payload: Any) -> None:
        state = self._checkpoint.state
        if state.is_end and not state.is_waiting:
            return
        if state is State.INIT:
            # A history begins with what was asked, also where the sandbox never came to ask for it.
            outside.start(self._ledger, self._first_messages(), None)
        self._ledger.record(kind, **payload)

    async def _stop_asking(self) -> None:
        asked = [task for task in (self._asking, self._deciding) if task is not None]
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _clean_up(self) -> None:
        """Remove the sandbox and all that was its own, then close the record."""
        try:
            if self._session is not None:
                await self._session.close()
        finally:
            try:
                if self._syncing is not None:
                    await self._syncing
                await self._ledger.sync()
            finally:
                self._ledger.close()


def undo_cancellation() -> None:
    """Being cancelled is dealt with by ending the Run as cancelled; what follows runs as usual."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _run_error(error: Exception) -> RunError:
    return RunError(
        name=type(error).__name__,
        message=str(error),
        status_code=getattr(error, "status_code", None),
        is_retryable=getattr(error, "is_retryable", False),
    )
