"""One sandbox of a Run, from its start to its removal. A Run whose sandbox is lost goes on in another session."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import State
from expert_runner.contract.tools import BASE_SKILL, ToolCall
from orchestrator.bus import PeerSilent
from orchestrator.errors import SandboxError
from orchestrator.runs.ledger import Ledger
from orchestrator.runs.surroundings import RunOrder, Surroundings
from orchestrator.runs.tools import ToolBox
from orchestrator.runs.witness import Witness
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxSpec

T = TypeVar("T")

START_DEADLINE_S = 60.0
"""Seconds from a sandbox's start to its runner's hello."""

ENGINE_PATIENCE_S = 60.0
"""Seconds that a Run waits for a backend that does not answer, as one that is being restarted."""

_ASK_AGAIN_S = 0.5


class SandboxLost(SandboxError):
    """A Run's sandbox ended before the Run did. `how` says why, as far as the backend knows."""

    def __init__(self, how: Exit) -> None:
        text = f"the sandbox ended before its Run: {how.cause} ({how.evidence})"
        log = how.log.strip()
        super().__init__(f"{text}; its log ends: {log[-1000:]}" if log else text)
        self.how = how


class Session:
    """A sandbox of the Run `order`. It begins to start at once, beside whatever else is to be done.

    Args:
        ledger: takes what its runner reports.
        number: which of the Run's sandboxes this is, from 1.
    """

    def __init__(self, job: Surroundings, order: RunOrder, ledger: Ledger, number: int) -> None:
        self._job = job
        self._order = order
        self._ledger = ledger
        self.witness = Witness(ledger)
        self.peer = job.bus.add(order.run_id if number == 1 else f"{order.run_id}.{number}")
        self.sandbox_id: str | None = None
        self.given: set[str] = set()
        """The ids of the calls that this sandbox was given to carry out."""
        self._sandbox: Sandbox | None = None
        self._closing: asyncio.Task[None] | None = None
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> Sandbox:
        job, order = self._job, self._order
        self._tell("starting")
        spec = SandboxSpec(
            job_id=job.job_id,
            run_id=order.run_id,
            expert_key=order.expert.key,
            bus_folder=self.peer.folder,
            policy=job.policy,
        )
        self._sandbox = sandbox = await job.backend.start(spec)
        self.sandbox_id = sandbox.id
        self._tell("running", container_id=sandbox.id)
        return sandbox

    def assign(self, tools: ToolBox) -> None:
        """Tell the runner who it is and where its Run stands."""
        job, checkpoint = self._job, self._ledger.checkpoint
        self.given |= {call.id for call in checkpoint.pending_tool_calls or ()}
        self.peer.send(
            wire.Assign(
                job_id=job.job_id,
                run_id=self._order.run_id,
                expert_key=self._order.expert.key,
                # A new Run begins with what its runner reports first: that it is about to ask the model.
                state=State.PREPARING_FOR_STEP if checkpoint.state is State.INIT else checkpoint.state,
                pending_tool_calls=checkpoint.pending_tool_calls or (),
                todos=checkpoint.todos,
                base_tools=tools.base_tools,
                workspace=job.backend.workspace_path,
                env=job.env,
            )
        )

    def answer(self, calls: tuple[ToolCall, ...]) -> None:
        """Give the runner the model's calls."""
        self.given |= {call.id for call in calls}
        self.peer.send(wire.Answered(tool_calls=calls))

    async def watch(self, on_hello: Callable[[], None]) -> None:
        """Watch over the sandbox for as long as it lives; `on_hello` is called when its runner speaks first.

        Raises:
            SandboxLost: it ended, or its runner is silent.
            SandboxError: it could not be started, or its image is of another version.
            PeerViolation: the runner broke the protocol.
        """
        sandbox = await asyncio.shield(self._starting)
        ending = asyncio.create_task(self._job.backend.wait(sandbox))
        watched: set[asyncio.Future[Any]] = {ending, self.peer.failed}
        try:
            done, _ = await asyncio.wait(
                {*watched, self.peer.greeted}, timeout=START_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise SandboxLost(
                    Exit(ExitCause.SILENT, None, f"no hello for {START_DEADLINE_S:.0f} s after its start")
                )
            if self.peer.greeted.done():
                on_hello()
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if self.peer.failed.done():
                self.peer.failed.result()
            raise SandboxLost(await ending)
        except PeerSilent as silence:
            raise SandboxLost(Exit(ExitCause.SILENT, None, str(silence))) from None
        finally:
            ending.cancel()
            with suppress(asyncio.CancelledError, SandboxError):
                await ending

    async def parked(self, until: Awaitable[T]) -> T:
        """Await `until` while everything in the sandbox is frozen."""
        sandbox = await asyncio.shield(self._starting)
        await asyncio.shield(self.peer.greeted)
        self.peer.is_parked = True
        parking = asyncio.create_task(self._job.backend.park(sandbox))
        try:
            return await until
        finally:
            await parking
            await self._job.backend.unpark(sandbox)
            self.peer.is_parked = False

    async def close(self) -> None:
        """Remove the sandbox and all that was its own. Once begun it goes on, whoever is cancelled meanwhile.

        Raises:
            SandboxError: it could not be removed.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._remove()
        finally:
            self.peer.close()

    async def _remove(self) -> None:
        try:
            sandbox = await self._starting
            if self.witness.skill_is_up:
                self._ledger.note(e.SkillDisconnected, skill_name=BASE_SKILL)
        except SandboxError:
            return  # There is none.
        finally:
            # Also where the history cannot be written: nothing goes on unrecorded.
            if (started := self._sandbox) is not None:
                await patiently(lambda: self._job.backend.stop(started))
        self._tell("removed", container_id=sandbox.id)

    def _tell(self, status: str, **facts: Any) -> None:
        if self._job.backend.isolates:
            self._ledger.note(e.DockerContainerStatus, status=status, service=self._order.expert.key, **facts)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat `call` while the backend does not answer, for at most :data:`ENGINE_PATIENCE_S`.

    Raises:
        SandboxError: it still does not, or it answered with an error.
    """
    deadline = asyncio.get_running_loop().time() + ENGINE_PATIENCE_S
    while True:
        try:
            return await call()
        except SandboxError as error:
            if not error.is_retryable or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_ASK_AGAIN_S)
