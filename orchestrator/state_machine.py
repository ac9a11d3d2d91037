"""The state machine of a Run, for programs that fold, check or draw histories themselves.

Pure: no I/O, no clock. :func:`apply` takes a checkpoint and an event to the next checkpoint; :func:`follow` and
:func:`fold` take a whole history; :data:`TRANSITIONS` is the machine as data and :func:`diagram` draws it (Mermaid)::

    from orchestrator import get_event_contents
    from orchestrator.state_machine import fold

    standing = fold(await get_event_contents(job_id, run_id))
    print(standing.checkpoint.status, standing.checkpoint.messages[-1])
"""

from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, State, Step
from expert_runner.contract.errors import ContractError, ForbiddenTransition
from expert_runner.contract.fold import apply
from expert_runner.contract.machine import (
    CONTINUABLE,
    TRANSITIONS,
    Progress,
    Transition,
    Waiting,
    advance,
    allowed,
    answer_event,
    diagram,
)
from expert_runner.contract.standing import Passage, Standing, fold, follow

__all__ = [
    "CONTINUABLE",
    "TRANSITIONS",
    "Checkpoint",
    "CheckpointStatus",
    "ContractError",
    "ForbiddenTransition",
    "Passage",
    "Progress",
    "Standing",
    "State",
    "Step",
    "Transition",
    "Waiting",
    "advance",
    "allowed",
    "answer_event",
    "apply",
    "diagram",
    "fold",
    "follow",
]
