"""What Runs say of each other, and the Job's record of all of them, compared."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from expert_runner.contract.checkpoints import Checkpoint, DelegatedBy, State
from expert_runner.contract.jobs import JobStatus
from expert_runner.contract.tools import ToolResult
from orchestrator.replay.facts import Facts, Given, Named
from orchestrator.replay.report import Difference, Unlike, compared, first_unlike, of_record
from orchestrator.runs.tools import delegate_query
from orchestrator.store.history import JobHistory
from orchestrator.store.totals import Totals

_ENDED_AS = {
    JobStatus.COMPLETED: State.COMPLETED,
    JobStatus.STOPPED_BY_MAX_STEPS: State.STOPPED_BY_EXCEEDED_MAX_STEPS,
    JobStatus.STOPPED_BY_INTERACTIVE_TOOL: State.STOPPED_BY_INTERACTIVE_TOOL,
    JobStatus.STOPPED_BY_CANCELLATION: State.STOPPED_BY_CANCELLATION,
}
"""How the coordinator ended. A Job can also end by an error that its Runs do not have."""


def differences(history: JobHistory, facts: Mapping[str, Facts], totals: Totals) -> Iterator[Difference]:
    """What does not fit: in the Runs' records, then in what their events say of each other, then in the Job's record.

    Args:
        facts: of all Runs, in that order.
        totals: counted from the events.
    """
    began = {(by.run_id, by.tool_call_id): run for run in facts.values() if (by := run.record.delegated_by)}
    for run in facts.values():
        yield from _record(history, run, facts, began)
    for run in facts.values():
        for named in run.named:
            yield from _target(run, named, facts, began)
        for given in run.given:
            yield from _result(run, given, began.get((run.record.id, given.result.id)))
    yield from _job(history, facts, totals)


def _record(
    history: JobHistory, run: Facts, facts: Mapping[str, Facts], began: Mapping[tuple[str, str], Facts]
) -> Iterator[Difference]:
    """Whether the Run was called as its record says; the coordinator's, whether it is the Job's."""
    record, job = run.record, history.job
    by = record.delegated_by
    expected = record.model_copy(update={"job_id": job.id})
    if by is None:
        expected = expected.model_copy(update={"expert_key": job.coordinator_expert_key})
    else:
        caller = facts.get(by.run_id)
        if caller is None:
            yield of_record(history, record, Unlike("delegatedBy.runId", by.run_id, None))
            return
        call = caller.calls.get(by.tool_call_id)
        if call is None or caller.end is None or began[by.run_id, by.tool_call_id] is not run:
            yield of_record(history, record, Unlike("delegatedBy.toolCallId", by.tool_call_id, None))
            return
        waited_as = caller.waited_as[call.id]
        called_by = DelegatedBy(
            expert=caller.end.expert,
            run_id=by.run_id,
            checkpoint_id=by.checkpoint_id if by.checkpoint_id in waited_as else waited_as[-1],
            tool_call_id=call.id,
            tool_name=call.tool_name,
        )
        called = {"expert_key": call.skill_name, "query": delegate_query(call) or "", "delegated_by": called_by}
        expected = expected.model_copy(update=called)
    if unlike := compared(record, expected):
        yield of_record(history, record, unlike)


def _target(
    caller: Facts, named: Named, facts: Mapping[str, Facts], began: Mapping[tuple[str, str], Facts]
) -> Iterator[Difference]:
    """Whether the Run that its caller names is the one that its call began. One that was never made began nothing."""
    target = named.target
    field = f"checkpoint.delegateTo[{named.at}].runId"
    theirs = began.get((caller.record.id, target.tool_call_id))
    if theirs is not None and theirs.record.id != target.run_id:
        yield named.place.difference(Unlike(field, target.run_id, theirs.record.id))
    if theirs is None:
        has_answered = any(g.result.id == target.tool_call_id and not g.result.is_error for g in caller.given)
        if has_answered or target.run_id in facts:
            yield named.place.difference(Unlike(field, target.run_id, None))


def _result(caller: Facts, given: Given, run: Facts | None) -> Iterator[Difference]:
    """Whether the result is what the delegate's Run ended with; of one that came to nothing, that it says so."""
    end = run.end if run is not None else None
    call = caller.calls[given.result.id]
    is_completed = end is not None and end.state is State.COMPLETED
    if is_completed and not (given.was_interrupted and given.result.is_error):
        expected = ToolResult.of(call, (end.text if end is not None else None) or "")
        unlike = compared(given.result, expected)
    else:
        unlike = _failure(given, end)
    if unlike is not None:
        field = f"partialToolResults[{given.at}].{unlike.field}"
        yield given.place.difference(unlike._replace(field=field))


def _failure(given: Given, end: Checkpoint | None) -> Unlike | None:
    if not given.result.is_error:
        return Unlike("isError", False, True)
    if given.was_interrupted or end is None:
        return None
    if not end.state.is_end:
        return Unlike("result", _json(given.result)["result"], None)
    told = "".join(getattr(part, "text", "") for part in given.result.result)
    if end.error is not None and end.error.message not in told:
        return Unlike("result", told, end.error.message)
    return None


def _job(history: JobHistory, facts: Mapping[str, Facts], totals: Totals) -> Iterator[Difference]:
    """Whether the Job's record is what its Runs come to, if it has ended: of one that goes on the events alone tell."""
    job = history.job
    if job.finished_at is None:
        return
    changes: dict[str, Any] = {"total_steps": totals.steps, "usage": totals.usage}
    # The order in which costs were added up is that of the moment.
    if not _same_cost(job.cost, totals.cost):
        changes["cost"] = totals.cost
    coordinator = facts.get(job.coordinator_run_id)
    expected_state = _ENDED_AS.get(job.status)
    if expected_state is not None:
        state = coordinator.end.state if coordinator is not None and coordinator.end is not None else None
        if state is not expected_state:
            yield _of_job(history, Unlike("status", job.status, state))
    expected = job.model_copy(update=changes)
    if unlike := first_unlike(_json(job), _json(expected)):
        yield _of_job(history, unlike)


def _same_cost(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9)


def _of_job(history: JobHistory, unlike: Unlike) -> Difference:
    file = history.store.job_folder(history.job.id) / "job.json"
    return Difference(file=str(file), field=unlike.field, recorded=unlike.recorded, replayed=unlike.replayed)


def _json(record: Any) -> Any:
    return json.loads(record.encode())
