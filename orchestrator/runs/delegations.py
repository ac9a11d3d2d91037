"""The delegates of one Run: begun at once, taken up again where an earlier process left them, their ends as results."""

import asyncio

from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, DelegatedBy, DelegationTarget
from expert_runner.contract.standing import Standing
from expert_runner.contract.tools import SkillType, ToolCall, ToolResult
from orchestrator.runs.ledger import Ledger, new_id
from orchestrator.runs.surroundings import DelegationRefused, RunOrder, Surroundings
from orchestrator.runs.tools import delegate_query


class Delegations:
    """What became of the delegating calls of one Run's present answer."""

    def __init__(self, job: Surroundings, order: RunOrder, ledger: Ledger) -> None:
        self._job = job
        self._order = order
        self._ledger = ledger
        self._outcomes: dict[str, asyncio.Task[Checkpoint] | ToolResult] = {}

    def begin(self, *, only_earlier: bool = False) -> tuple[DelegationTarget, ...]:
        """Begin the Runs of all delegates that wait, at once; those that an earlier process began go on.

        With `only_earlier` no new ones are begun. Returns those that run; a call that the Job refuses has its failure
        as result.
        """
        targets = []
        # A process that was killed before it made the Runs has named them.
        named = {target.tool_call_id: target.run_id for target in self._ledger.checkpoint.delegate_to or ()}
        for call in self._waiting():
            if call.id in self._outcomes:
                continue
            earlier = self._job.earlier_delegate(self._order.run_id, call.id)
            if earlier is None and only_earlier:
                continue
            run_id, standing = earlier or (named.get(call.id) or new_id(), None)
            try:
                self._outcomes[call.id] = self._job.start_delegate(self._order_for(call, run_id, standing))
            except DelegationRefused as error:
                self._outcomes[call.id] = failed(call, str(error))
                continue
            targets.append(
                DelegationTarget(
                    expert_key=call.skill_name, tool_call_id=call.id, tool_name=call.tool_name, run_id=run_id
                )
            )
        return tuple(targets)

    async def results(self) -> tuple[ToolResult, ...]:
        """Wait for all that run; what they ended with, in call order."""
        running = [task for task in self._outcomes.values() if isinstance(task, asyncio.Task)]
        if running:
            await asyncio.wait(running)
        results = []
        for call in self._waiting():
            outcome = self._outcomes.get(call.id)
            if isinstance(outcome, asyncio.Task):
                results.append(_result(call, outcome.result()))
            elif outcome is not None:
                results.append(outcome)
        return tuple(results)

    def forget(self) -> None:
        """The results are recorded."""
        self._outcomes.clear()

    async def cancel(self) -> None:
        """End those that still run, and wait until they have."""
        running = [task for task in self._outcomes.values() if isinstance(task, asyncio.Task)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _waiting(self) -> list[ToolCall]:
        pending = self._ledger.checkpoint.pending_tool_calls or ()
        return [call for call in pending if call.skill_type is SkillType.DELEGATE]

    def _order_for(self, call: ToolCall, run_id: str, standing: Standing | None) -> RunOrder:
        query = delegate_query(call)
        if query is None:
            raise DelegationRefused("the call has no `query`: a text with everything the Expert needs to know")
        checkpoint = self._ledger.checkpoint
        return RunOrder(
            run_id=run_id,
            expert=self._job.experts[call.skill_name],
            query=query,
            lineage=(*self._order.lineage, call.id),
            delegated_by=DelegatedBy(
                expert=checkpoint.expert,
                run_id=checkpoint.run_id,
                checkpoint_id=checkpoint.id,
                tool_call_id=call.id,
                tool_name=call.tool_name,
            ),
            standing=standing,
        )


def failed(call: ToolCall, why: str) -> ToolResult:
    """The result of a delegation that came to nothing."""
    return ToolResult.of(call, f"Delegation failed: {why}", is_error=True)


def _result(call: ToolCall, end: Checkpoint) -> ToolResult:
    match end.status:
        case CheckpointStatus.COMPLETED:
            return ToolResult.of(call, end.text or "")
        case CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS:
            return failed(call, "the Job reached its limit of steps")
        case CheckpointStatus.STOPPED_BY_ERROR if end.error is not None:
            return failed(call, f"{end.error.name}: {end.error.message}")
        case status:
            return failed(call, f"the Expert ended as {status}")
