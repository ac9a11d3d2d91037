"""The schema of `perstack log --json`: a Job in sum. Names and meanings stay; further fields may come."""

from expert_runner.contract.checkpoints import BranchedFrom, CheckpointStatus, RunError
from expert_runner.contract.jobs import JobStatus
from expert_runner.contract.model import Model
from expert_runner.contract.tools import ToolCall
from expert_runner.contract.usage import Usage


class Worker(Model):
    """The process that works on a Job; without any fact if it has only just begun. `since` is Unix milliseconds."""

    pid: int | None = None
    host: str | None = None
    since: int | None = None


class LastError(RunError):
    """What stopped a Run last, whether or not it or its Job went on. `timestamp` is Unix milliseconds."""

    run_id: str
    expert_key: str
    step_number: int
    timestamp: int


class RunSummary(Model):
    """One Run. Times are Unix milliseconds.

    Attributes:
        depth: 0 for a coordinator, 1 for its delegates, and so on.
        caller_run_id, tool_call_id: of a delegate.
        branched_from: of a coordinator that goes on from an earlier checkpoint.
        is_newest: whether this is the coordinator that the Job goes on with.
        further_queries: what it was asked after `query`.
        steps, usage, cost: of this Run alone; `cost` in US dollars, absent where prices are unknown.
        duration_ms: the time at work, waiting for its delegates included.
        created_at, last_at: when it was made, and when its last event happened.
        checkpoint_id: the last checkpoint it told of.
        error: why it is stopped.
        sandboxes_lost: how often it went on in a new sandbox, or was to.
        damage: where its log cannot be read further.
    """

    run_id: str
    expert_key: str
    depth: int
    caller_run_id: str | None = None
    tool_call_id: str | None = None
    branched_from: BranchedFrom | None = None
    is_newest: bool = False
    status: CheckpointStatus
    query: str
    further_queries: tuple[str, ...] = ()
    steps: int
    usage: Usage
    cost: float | None = None
    duration_ms: int
    created_at: int
    last_at: int | None = None
    events: int
    checkpoint_id: str | None = None
    text: str | None = None
    error: RunError | None = None
    sandboxes_lost: int = 0
    damage: str | None = None


class JobSummary(Model):
    """One Job. `runs` are those of the tree, each after its caller.

    Attributes:
        is_interrupted: whether it says that it runs, and nobody works on it.
        worked_on_by: who does.
        query, text: the first question, and the result once completed; of the newest branch.
        steps, usage, cost: of all Runs; while the Job runs or is interrupted, counted from the events.
        duration_ms: the time at work, of all branches.
        question: the interactive call whose answer it waits for.
        continue_command: how it goes on; absent while somebody works on it.
    """

    job_id: str
    status: JobStatus
    is_interrupted: bool
    worked_on_by: Worker | None = None
    coordinator_expert_key: str
    coordinator_run_id: str
    query: str | None = None
    text: str | None = None
    steps: int
    max_steps: int | None = None
    usage: Usage
    cost: float | None = None
    duration_ms: int
    started_at: int
    continued_at: int | None = None
    finished_at: int | None = None
    runtime_version: str
    question: ToolCall | None = None
    last_error: LastError | None = None
    continue_command: str | None = None
    runs: tuple[RunSummary, ...]


class Counts(Model):
    """How many of a Job's events were selected, in all and by type, the most frequent first."""

    job_id: str
    events: int
    by_type: dict[str, int]
