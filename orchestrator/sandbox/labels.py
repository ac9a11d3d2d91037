"""What everything that is started for a Job carries, so that it can be found and told from everything else."""

from collections.abc import Mapping
from dataclasses import dataclass

LABEL_JOB = "perstack.job"
LABEL_RUN = "perstack.run"
LABEL_EXPERT = "perstack.expert"
LABEL_OWNER = "perstack.owner"
LABEL_LEASE = "perstack.lease"


@dataclass(frozen=True, slots=True)
class Marks:
    """Whose a thing is, as its labels say.

    Attributes:
        owner: the identity of the process that started it (:mod:`orchestrator.sandbox.process_identity`); empty where
            that is not told.
        lease: the token of the Job's lease.
        run_id: empty for what all Runs share.
    """

    owner: str
    lease: str
    job_id: str
    run_id: str = ""

    @classmethod
    def read(cls, labels: Mapping[str, str]) -> "Marks":
        return cls(*(labels.get(name, "") for name in (LABEL_OWNER, LABEL_LEASE, LABEL_JOB, LABEL_RUN)))
