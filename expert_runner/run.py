"""The loop of one Run: the state machine driven from inside the sandbox.

Each turn looks at where the Run stands and does the one thing that comes next: carry tools out, wait for what only the
orchestrator can give (it has recorded that transition already), or report the transition that follows by itself.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import State
from expert_runner.contract.errors import ContractError
from expert_runner.contract.machine import Progress, Waiting, advance, answer_event
from expert_runner.contract.messages import TextPart
from expert_runner.contract.model import Model
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall
from expert_runner.skills.base.skill import BaseSkill, Outcome

MAX_PARALLEL_CALLS = 16
"""Tool calls of one answer that are carried out at the same time; the others wait for a free place."""

MAX_BATCH_BYTES = wire.MAX_FRAME_BYTES // 4
"""Bytes of results that are reported together."""


class Orchestrator(Protocol):
    """What a Run needs of the link."""

    async def report(self, *messages: Model) -> None: ...

    async def next_command(self) -> Any: ...


class Run:
    """One Run, from its assignment to its end."""

    def __init__(self, assignment: wire.Assign, orchestrator: Orchestrator, base: BaseSkill) -> None:
        self._orchestrator = orchestrator
        self._base = base
        self._progress = Progress(assignment.state, assignment.pending_tool_calls)
        self._calls: dict[str, ToolCall] = {call.id: call for call in assignment.pending_tool_calls}
        self._places = asyncio.Semaphore(MAX_PARALLEL_CALLS)
        self._untold: list[Model] = []

    async def drive(self) -> None:
        """Go on until the orchestrator ends the Run, or removes the sandbox with everything in it.

        Raises:
            ContractError: the orchestrator sent a command that cannot follow here.
        """
        while await self._next_move():
            pass

    async def _next_move(self) -> bool:
        """One transition. False if the orchestrator ended the Run."""
        match self._progress.state:
            case State.PREPARING_FOR_STEP:
                self._move("startGeneration")
            case State.CALLING_MCP_TOOLS | State.RESUMING_FROM_STOP:
                await self._work_on(Waiting.of(self._progress.pending))
            case State.RESOLVING_TOOL_RESULT:
                self._move("finishToolCall")
            case State.FINISHING_STEP:
                self._move("continueToNextStep")
            case _:
                return await self._be_told()
        return True

    def _move(self, event: Any, report: Model | None = None, **facts: Any) -> None:
        """Make the transition `event`, with what :func:`advance` has to know of it, and have it told by `report`."""
        self._follow(event, **facts)
        self._untold.append(report or wire.Moved(type=event))

    def _follow(self, event: str, **facts: Any) -> None:
        """Make a transition that the orchestrator has recorded."""
        self._progress = advance(self._progress, event, **facts)

    async def _tell(self) -> None:
        """Report what has happened. Done before anything is waited for: what needs no waiting is told together."""
        if self._untold:
            untold, self._untold = self._untold, []
            await self._orchestrator.report(*untold)

    async def _be_told(self) -> bool:
        """Wait for what comes from outside the sandbox. False if it is the Run's end."""
        await self._tell()
        match await self._orchestrator.next_command():
            case wire.End():
                return False
            case wire.Answered(tool_calls=calls):
                self._calls = {call.id: call for call in calls}
                self._follow(answer_event(calls), calls=calls)
            case wire.Resume(resolved=resolved):
                self._follow("stopRunByDelegate")
                self._follow("resumeToolCalls", resolved=resolved)
            case command:
                raise ContractError(f"{command.type} cannot follow in state {self._progress.state}")
        return True

    async def _work_on(self, waiting: Waiting) -> None:
        """The next of an answer's calls, in the order the machine's table demands."""
        own = [self._calls[call.id] for call in self._progress.pending if call.skill_type is SkillType.MCP]
        last = [call for call in own if call.is_completion][-1:]
        # Only the last attemptCompletion of an answer counts; one before it is answered as a tool like any other.
        tools = [call for call in own if call not in last]
        if tools:
            await self._resolve(tools)
        elif waiting.delegates:
            self._move("callDelegate")
        elif waiting.interactive:
            self._move("callInteractiveTool")
        elif last:
            await self._complete(last[0])
        else:
            self._move("finishAllToolCalls")

    async def _resolve(self, calls: list[ToolCall]) -> None:
        await self._tell()
        outcomes = await asyncio.gather(*(self._call(call) for call in calls))
        results = [_result(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]
        for batch in batches(results):
            await self._tell()
            self._resolved(batch)

    def _resolved(self, results: tuple[wire.WireResult, ...]) -> None:
        report = wire.Resolved(tool_results=results, todo_change=self._base.drain_changes())
        self._move("resolveToolResults", report, resolved=[result.id for result in results])

    async def _complete(self, call: ToolCall) -> None:
        await self._tell()
        outcome = await self._call(call)
        result = _result(call, outcome)
        if not outcome.completes:
            self._resolved((result,))
            return
        self._move("attemptCompletion", wire.CompletionAttempted(tool_result=result), resolved=[call.id])

    async def _call(self, call: ToolCall) -> Outcome:
        if call.args is None:
            return _refusal(
                f"The arguments of {call.tool_name} are not a JSON object: {(call.invalid_args or '')[:200]!r}"
            )
        if call.skill_name != BASE_SKILL:
            offered = ", ".join(sorted(self._base.tools))
            return _refusal(f"There is no tool {call.tool_name!r}. The tools of this Expert's sandbox: {offered}")
        async with self._places:
            return await self._base.call(call.tool_name, call.args)


def batches(results: list[wire.WireResult]) -> Iterator[tuple[wire.WireResult, ...]]:
    """`results` in order, as many together as fit a frame well; the tools bound each of them."""
    batch: list[wire.WireResult] = []
    size = 0
    for result in results:
        length = len(result.encode())
        if batch and size + length > MAX_BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(result)
        size += length
    yield tuple(batch)


def _result(call: ToolCall, outcome: Outcome) -> wire.WireResult:
    return wire.WireResult(id=call.id, result=outcome.parts, is_error=outcome.is_error)


def _refusal(text: str) -> Outcome:
    return Outcome(parts=(TextPart(text=text),), is_error=True)
