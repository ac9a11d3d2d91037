"""Where a Job's history lies: `jobs/{jobId}/job.json`, `runs/{runId}/run.json`, `runs/{runId}/events.jsonl`."""

import os
import re
from pathlib import Path

from pydantic import ValidationError

from expert_runner.contract.checkpoints import DelegatedBy
from expert_runner.contract.jobs import Job
from expert_runner.contract.model import Model
from orchestrator.errors import ConfigError, StoreError

STORAGE_VARIABLE = "PERSTACK_STORAGE_PATH"
DEFAULT_STORAGE = "perstack"

_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")


class RunRecord(Model):
    """What is known of a Run when it begins. Times are Unix milliseconds."""

    id: str
    job_id: str
    expert_key: str
    query: str
    delegated_by: DelegatedBy | None = None
    created_at: int


def check_id(kind: str, value: str) -> str:
    """`value`, if it can be the id of a Job or a Run.

    Raises:
        ConfigError: it cannot; ids become names of folders and containers.
    """
    if not _ID.fullmatch(value):
        raise ConfigError(f"{kind} {value!r}: use 1 to 64 letters, digits, - and _, beginning with a letter or digit")
    return value


class Store:
    """The history of all Jobs under one folder, which nothing in a sandbox can reach."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def jobs_folder(self) -> Path:
        return self.root / "jobs"

    def job_folder(self, job_id: str) -> Path:
        return self.jobs_folder / check_id("job id", job_id)

    def run_folder(self, job_id: str, run_id: str) -> Path:
        return self.job_folder(job_id) / "runs" / check_id("run id", run_id)

    def events_path(self, job_id: str, run_id: str) -> Path:
        return self.run_folder(job_id, run_id) / "events.jsonl"

    def create_job(self, job: Job) -> None:
        """Begin the history of a new Job.

        Raises:
            StoreError: there is one with this id already, or the folder cannot be written.
        """
        folder = self.job_folder(job.id)
        try:
            folder.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            raise StoreError(f"Job {job.id} exists already in {folder}: choose another --job-id") from None
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror}") from error
        self.write_job(job)

    def write_job(self, job: Job) -> None:
        """Replace the Job's record, whole or not at all."""
        _replace(self.job_folder(job.id) / "job.json", job)

    def read_job(self, job_id: str) -> Job:
        """The Job's record.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        path = self.job_folder(job_id) / "job.json"
        try:
            return Job.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"there is no Job {job_id} in {self.jobs_folder}") from None
        except (OSError, ValidationError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error

    def create_run(self, record: RunRecord) -> Path:
        """Begin the history of a new Run; returns the path of its event log, which does not exist yet."""
        folder = self.run_folder(record.job_id, record.id)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror}") from error
        _replace(folder / "run.json", record)
        return self.events_path(record.job_id, record.id)


def _replace(path: Path, record: Model) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(record.encode() + b"\n")
            stream.flush()
            os.fdatasync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def default_root() -> Path:
    """`$PERSTACK_STORAGE_PATH`, else `./perstack`."""
    return Path(os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE).absolute()
