"""A Run's record as a Job makes it, without a Job: the real ledger and checks, and words put into the mouths of model
and runner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.stage import COORDINATOR, MODEL, QUERY
from expert_runner.contract import events as e
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, ExpertRef, State
from expert_runner.contract.experts import Expert
from expert_runner.contract.messages import TextPart, UserMessage
from expert_runner.contract.model import Model
from expert_runner.contract.standing import Standing
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall
from expert_runner.contract.usage import Usage
from expert_runner.version import RUNTIME_VERSION
from orchestrator.runs import outside
from orchestrator.runs.actor import SYNC_DELAY_S
from orchestrator.runs.generation import ModelAnswer
from orchestrator.runs.instruction import instruction_message
from orchestrator.runs.ledger import Emit, Ledger, new_id, now_ms
from orchestrator.runs.tools import ToolBox
from orchestrator.runs.witness import Witness
from orchestrator.store.layout import RunRecord, Store
from orchestrator.store.log import EventLog

EVENTS_A_STEP = 5

RESULT = "x" * 1_850
"""What the tool of each step gives: as long as makes a step's events 1 KB each on average."""

_SPENT = Usage(input_tokens=1_000, output_tokens=50, total_tokens=1_050)


def reports(call_id: str) -> tuple[Model, ...]:
    """What a runner tells of a step, in one frame: the result of its call, and that the next step begins."""
    result = wire.WireResult(id=call_id, result=(TextPart(text=RESULT),))
    return (
        wire.Resolved(tool_results=(result,)),
        wire.Moved(type="finishToolCall"),
        wire.Moved(type="continueToNextStep"),
        wire.Moved(type="startGeneration"),
    )


class RecordedRun:
    """The coordinator's Run of the Job `job_id`. It begins at once, as far as the first question to the model.

    Attributes:
        path: of its log.
    """

    def __init__(self, store: Store, job_id: str, emit: Emit) -> None:
        expert = Expert(key=COORDINATOR, instruction="Be quick.")
        record = RunRecord(id=new_id(), job_id=job_id, expert_key=expert.key, query=QUERY, created_at=now_ms())
        checkpoint = Checkpoint(
            id=new_id(),
            job_id=job_id,
            run_id=record.id,
            status=CheckpointStatus.INIT,
            state=State.INIT,
            step_number=1,
            expert=ExpertRef(key=expert.key, name=expert.name, version=expert.version),
        )
        self.id = record.id
        self.path = store.open_run(record)
        self.ledger = Ledger(Standing.at(checkpoint, now_ms()), EventLog(self.path), emit)
        self._witness = Witness(self.ledger)
        self._begin(expert)

    def _begin(self, expert: Expert) -> None:
        self.ledger.note(
            e.InitializeRuntime,
            runtime_version=RUNTIME_VERSION,
            runtime="docker",
            expert_name=expert.name,
            experts=(expert.key,),
            model=MODEL,
            max_retries=5,
            timeout=60_000,
            query=QUERY,
        )
        definitions = ToolBox(expert, {expert.key: expert}, is_coordinator=True).definitions
        instruction = instruction_message(expert, f"{self.id}.1", "/workspace", definitions)
        query = UserMessage(id=f"{self.id}.2", contents=(TextPart(text=QUERY),))
        outside.start(self.ledger, (instruction, query), None)
        self.take(wire.Moved(type="startGeneration"))

    def answer(self) -> ToolCall:
        """The model's answer: one event. Returns its call."""
        call = ToolCall(
            id=f"call_{self.ledger.checkpoint.step_number}",
            skill_name=BASE_SKILL,
            skill_type=SkillType.MCP,
            tool_name="exec",
            args={"command": "bash", "args": ["-c", "grep -rn TODO src | head"]},
        )
        outside.answered(self.ledger, ModelAnswer("", (), (call,), _SPENT))
        return call

    def take(self, report: Any) -> None:
        """One of the runner's reports: one event."""
        self._witness.take(report)

    def step(self) -> Iterator[Callable[[], object]]:
        """What makes the events of one step: to be called in this order, each before the next is asked for."""
        yield self.answer
        call, *_ = self.ledger.checkpoint.tool_calls
        for report in reports(call.id):
            yield partial(self.take, report)

    def complete(self) -> None:
        """The model's last answer."""
        outside.answered(self.ledger, ModelAnswer("done", (), (), _SPENT))


class SyncBeside:
    """Calls `sync` beside the writing, as seldom as Runs do.

    Args:
        sync: brings to the disk what has been written.
    """

    def __init__(self, sync: Callable[[], Awaitable[None]]) -> None:
        self._sync = sync
        self._syncing: asyncio.Task[None] | None = None

    def step_ended(self) -> None:
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        self._syncing = asyncio.create_task(self._soon())

    async def _soon(self) -> None:
        await asyncio.sleep(SYNC_DELAY_S)
        await self._sync()

    async def settle(self) -> None:
        """Wait for what is under way, and bring the rest there."""
        if self._syncing is not None:
            await self._syncing
        await self._sync()
