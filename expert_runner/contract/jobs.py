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


class Job(Model):
    """Totals over all Runs of a Job. Times are Unix milliseconds; `cost` is in US dollars, where prices are known."""

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
    finished_at: int | None = None
