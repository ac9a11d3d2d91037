"""A Job: one request, with the tree of Runs that works on it."""

from enum import StrEnum

from pydantic import Field

from expert_runner.contract.model import Model
from expert_runner.contract.usage import Usage


class JobStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED_BY_MAX_STEPS = "stoppedByMaxSteps"
    STOPPED_BY_INTERACTIVE_TOOL = "stoppedByInteractiveTool"
    STOPPED_BY_ERROR = "stoppedByError"
    STOPPED_BY_CANCELLATION = "stoppedByCancellation"


HISTORY_VERSION = 1
"""The version of the history that this runtime writes. It reads this one and no later one."""


class Job(Model):
    """Totals over all Runs of a Job. Times are Unix milliseconds; `cost` is in US dollars, where prices are known.

    Totals are those of the last time the Job ended: of a Job that runs, or whose orchestrator was killed, the events
    tell. `coordinator_run_id` is the newest branch; `continued_at` is when the Job last went on.
    """

    history_version: int = HISTORY_VERSION
    id: str
    status: JobStatus
    coordinator_expert_key: str
    coordinator_run_id: str
    runtime_version: str
    total_steps: int = Field(default=0, ge=0)
    max_steps: int | None = None
    usage: Usage = Usage()
    cost: float | None = None
    started_at: int
    continued_at: int | None = None
    finished_at: int | None = None
