"""What earlier processes left of a Job that goes on: where each of its Runs stands, and what it has cost."""

import json
from dataclasses import dataclass, field, replace

from expert_runner.contract.checkpoints import BranchedFrom, Checkpoint, State
from expert_runner.contract.experts import Expert
from expert_runner.contract.jobs import Job, JobStatus
from expert_runner.contract.machine import CONTINUABLE
from expert_runner.contract.standing import Standing
from expert_runner.contract.tools import SkillType, ToolCall
from orchestrator.errors import ConfigError
from orchestrator.runs.ledger import new_id, now_ms
from orchestrator.runs.surroundings import FurtherInput, RunOrder
from orchestrator.store.history import JobHistory
from orchestrator.store.totals import Totals


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a Job is to go on.

    Attributes:
        query: a further query for the coordinator.
        answer: the user's answer to the call that the coordinator waits for, and that call's id if it was named.
        resume_from: a coordinator's checkpoint to branch from; None: the newest branch goes on.
        base: that checkpoint, where it does not come from the history.
    """

    query: str | None = None
    answer: str | None = None
    answers_call: str | None = None
    resume_from: str | None = None
    base: Checkpoint | None = None


@dataclass(slots=True)
class Earlier:
    """A Job as earlier processes left it.

    Attributes:
        standings: of all Runs; None for one that was made and never began.
        delegates: which Run a call began, by caller and call.
    """

    history: JobHistory
    totals: Totals = field(default_factory=Totals)
    standings: dict[str, Standing | None] = field(default_factory=dict)
    delegates: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def read(cls, history: JobHistory) -> "Earlier":
        """
        Raises:
            StoreError: a log is damaged; nothing was changed.
        """
        earlier = cls(history)
        for run_id, record in history.runs.items():
            standing = None
            for passage in history.passages(run_id):
                earlier.totals.add(passage.event)
                standing = passage.after
            earlier.standings[run_id] = standing
            if record.delegated_by is not None:
                earlier.delegates[record.delegated_by.run_id, record.delegated_by.tool_call_id] = run_id
        return earlier

    @property
    def job(self) -> Job:
        return self.history.job


def resume(earlier: Earlier, continuation: Continuation, max_steps: int | None, expert: Expert) -> RunOrder:
    """How the coordinator's Run goes on, or a branch of it begins, in a Job of at most `max_steps` steps.

    Raises:
        ConfigError: the Job cannot go on like this; the text says how it can.
        StoreError: there is no such checkpoint.
    """
    order = _newest(earlier, expert) if continuation.resume_from is None else _branch(earlier, continuation, expert)
    _check(earlier.job, continuation, order.standing)
    if max_steps is not None and earlier.totals.steps >= max_steps and _needs_a_step(order):
        used = earlier.totals.steps
        raise ConfigError(
            f"Job {earlier.job.id} has used {used} steps and its limit is {max_steps}: raise it with --max-steps"
        )
    return replace(order, further=FurtherInput(query=continuation.query, answer=continuation.answer))


def _newest(earlier: Earlier, expert: Expert) -> RunOrder:
    record = earlier.history.run(earlier.job.coordinator_run_id)
    # A branch that was made and never began begins where it was made from.
    standing = earlier.standings[record.id] or earlier.history.base(record.id)
    return RunOrder(record.id, expert, record.query, branched_from=record.branched_from, standing=standing)


def _branch(earlier: Earlier, continuation: Continuation, expert: Expert) -> RunOrder:
    history, base, run_id = earlier.history, continuation.base, new_id()
    created_at = now_ms()
    origin = Standing.at(base, created_at) if base else history.standing_at(continuation.resume_from or "")
    checkpoint = origin.checkpoint
    if checkpoint.job_id != earlier.job.id:
        raise ConfigError(f"checkpoint {checkpoint.id} is of Job {checkpoint.job_id}, not {earlier.job.id}")
    if checkpoint.delegated_by is not None:
        raise ConfigError(
            f"checkpoint {checkpoint.id} is of {checkpoint.expert.key}, a delegate: only the coordinator's can be "
            "resumed from"
        )
    return RunOrder(
        run_id,
        expert,
        history.run(checkpoint.run_id).query,
        branched_from=BranchedFrom(run_id=checkpoint.run_id, checkpoint_id=checkpoint.id),
        base=base,
        standing=origin.branch(run_id),
        created_at=created_at,
    )


def _needs_a_step(order: RunOrder) -> bool:
    """Whether the first thing to happen is a further step, rather than what is left of one."""
    if order.standing is None:
        return False
    checkpoint = order.standing.checkpoint
    return checkpoint.state in CONTINUABLE and not checkpoint.pending_tool_calls


def _check(job: Job, continuation: Continuation, standing: Standing | None) -> None:
    state = standing.checkpoint.state if standing is not None else State.INIT
    # Where only its Run is recorded as completed, its orchestrator was killed while it cleaned up.
    is_to_end = job.status is not JobStatus.COMPLETED and continuation.resume_from is None
    if continuation.answer is not None:
        _check_answer(job, continuation, standing)
    elif standing is not None and state is State.STOPPED_BY_INTERACTIVE_TOOL:
        asked = _asked(standing)
        raise ConfigError(
            f"Job {job.id} waits for the answer to {asked.tool_name} {json.dumps(asked.args)}: give it as QUERY with "
            "-i (--interactive-tool-call-result)"
        )
    elif continuation.query is not None and standing is None:
        raise ConfigError(f"Job {job.id} has not begun with its first query: continue it without a QUERY first")
    elif continuation.query is None and state is State.COMPLETED and not is_to_end:
        raise ConfigError(f"Job {job.id} is completed: give a QUERY to go on with")


def _check_answer(job: Job, continuation: Continuation, standing: Standing | None) -> None:
    if standing is None or standing.checkpoint.state is not State.STOPPED_BY_INTERACTIVE_TOOL:
        raise ConfigError(f"Job {job.id} waits for no answer: leave -i (--interactive-tool-call-result) out")
    asked = _asked(standing).id
    if continuation.answers_call not in (None, asked):
        raise ConfigError(f"Job {job.id} waits for the answer to call {asked}, not {continuation.answers_call}")


def _asked(standing: Standing) -> ToolCall:
    """The call whose answer a Run waits for: of several, the first that has none."""
    pending = standing.checkpoint.pending_tool_calls or ()
    return next(call for call in pending if call.skill_type is SkillType.INTERACTIVE)
