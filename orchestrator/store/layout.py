"""Where a Job's history lies: `jobs/{jobId}/job.json`, `runs/{runId}/run.json`, `runs/{runId}/events.jsonl`."""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from expert_runner.contract.checkpoints import BranchedFrom, Checkpoint, DelegatedBy
from expert_runner.contract.jobs import HISTORY_VERSION, Job
from expert_runner.contract.model import Model
from expert_runner.version import RUNTIME_VERSION
from orchestrator.errors import ConfigError, StoreError

LEASE_NAME = "lease.json"
"""The file in a Job's folder by whose lock the Job is held; see :mod:`orchestrator.store.lease`."""

STORAGE_VARIABLE = "PERSTACK_STORAGE_PATH"
DEFAULT_STORAGE = "perstack"

_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")


class RunRecord(Model):
    """What is known of a Run when it begins. Times are Unix milliseconds.

    A coordinator's Run that goes on from an earlier checkpoint is a branch: `branched_from` says of what. `base` is
    that checkpoint where it came from outside the history.
    """

    id: str
    job_id: str
    expert_key: str
    query: str
    delegated_by: DelegatedBy | None = None
    branched_from: BranchedFrom | None = None
    base: Checkpoint | None = None
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
    """The history of all Jobs under one folder, which nothing in a sandbox can reach.

    Args:
        root: that folder.
        run_dir: says, by the ids of Job and Run, where the folder of a new Run is made instead of in its Job's.
    """

    def __init__(self, root: Path, run_dir: Callable[[str, str], Path] | None = None) -> None:
        self.root = root
        self._run_dir = run_dir

    @property
    def jobs_folder(self) -> Path:
        return self.root / "jobs"

    def job_folder(self, job_id: str) -> Path:
        return self.jobs_folder / check_id("job id", job_id)

    def run_folder(self, job_id: str, run_id: str) -> Path:
        return self.job_folder(job_id) / "runs" / check_id("run id", run_id)

    def events_path(self, job_id: str, run_id: str) -> Path:
        return self.run_folder(job_id, run_id) / "events.jsonl"

    def make_job_folder(self, job_id: str) -> Path:
        """The folder of a Job that is to begin.

        Raises:
            StoreError: it cannot be made.
        """
        folder = self.job_folder(job_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror}") from error
        return folder

    def check_new(self, job_id: str) -> None:
        """
        Raises:
            StoreError: there is a Job with this id already.
        """
        folder = self.job_folder(job_id)
        if (folder / "job.json").exists() or (folder / "runs").exists():
            raise StoreError(f"Job {job_id} exists already in {folder}: choose another --job-id")

    def discard_unbegun(self, job_id: str) -> None:
        """Remove the folder of a Job that never got a record, and the history's if it is empty without it. The caller
        holds its lease.
        """
        folder = self.job_folder(job_id)
        if (folder / "job.json").exists():
            return
        (folder / LEASE_NAME).unlink(missing_ok=True)
        try:
            for run in folder.glob("runs/*"):
                # The coordinator's, which the Job's record would have named.
                (run / "run.json").unlink(missing_ok=True)
                run.unlink() if run.is_symlink() else run.rmdir()
            for made in (folder / "runs", folder, self.jobs_folder, self.root):
                if made.exists():
                    made.rmdir()
        except OSError:
            return  # Others are in it.

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
            content = path.read_bytes()
            _check_version(path, content)
            return Job.model_validate_json(content)
        except FileNotFoundError:
            raise StoreError(f"there is no Job {job_id} in {self.jobs_folder}") from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error

    def job_ids(self) -> list[str]:
        """The ids of all Jobs, in no order. Folders without a record are none."""
        return [path.parent.name for path in self.jobs_folder.glob("*/job.json")]

    def run_records(self, job_id: str) -> list[RunRecord]:
        """The records of a Job's Runs, oldest first. A Run that was killed before it had one never began.

        Raises:
            StoreError: a record cannot be read.
        """
        records = []
        for path in self.job_folder(job_id).glob("runs/*/run.json"):
            try:
                records.append(RunRecord.model_validate_json(path.read_bytes()))
            except (OSError, ValueError) as error:
                raise StoreError(f"{path} cannot be read: {error}") from error
        return sorted(records, key=lambda record: (record.created_at, record.id))

    def open_run(self, record: RunRecord) -> Path:
        """Begin the history of a new Run, or go on with that of an earlier one, whose record stays as it is.

        Returns the path of its event log, which does not exist yet if the Run is new.
        """
        folder = self.run_folder(record.job_id, record.id)
        if not (folder / "run.json").exists():
            try:
                self._make_run_folder(folder, record)
            except OSError as error:
                raise StoreError(f"cannot make {folder}: {error.strerror}") from error
            _replace(folder / "run.json", record)
        return self.events_path(record.job_id, record.id)

    def _make_run_folder(self, folder: Path, record: RunRecord) -> None:
        if self._run_dir is None:
            folder.mkdir(parents=True, exist_ok=True)
            return
        elsewhere = self._run_dir(record.job_id, record.id).absolute()
        elsewhere.mkdir(parents=True, exist_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whatever reads the Job finds all of its Runs in one place.
        folder.symlink_to(elsewhere, target_is_directory=True)


def _check_version(path: Path, content: bytes) -> None:
    """
    Raises:
        StoreError: a later version of the runtime wrote this.
    """
    record = json.loads(content)
    version = record.get("historyVersion") if isinstance(record, dict) else None
    if isinstance(version, int) and version > HISTORY_VERSION:
        raise StoreError(
            f"{path} is of history version {version}, written by runtime {record.get('runtimeVersion')}; this is "
            f"{RUNTIME_VERSION}, which reads version {HISTORY_VERSION}: use a newer perstack"
        )


def _replace(path: Path, record: Model) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(record.encode() + b"\n")
            stream.flush()
            os.fdatasync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def default_root() -> Path:
    """`$PERSTACK_STORAGE_PATH`, else `./perstack`."""
    return Path(os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE).absolute()
