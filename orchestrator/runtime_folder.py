"""The folder for what exists only while a Job runs: sockets, keys and mount points. Only its owner can enter it.

Each thing in it is removed by name, never recursively: a workspace may be mounted there. What a killed orchestrator
left is removed the same way, once the note of its owner proves that it is dead. A kill between the making of the folder
and of the note, or between their removals, leaves an empty folder that proves nothing and stays.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from expert_runner.contract.model import Model
from orchestrator.bus import IDENTITY_NAME, SOCKET_NAME
from orchestrator.errors import SandboxError
from orchestrator.sandbox.idmap import is_mounted
from orchestrator.sandbox.labels import Marks
from orchestrator.sandbox.process_identity import process_identity
from orchestrator.sandbox.workspace_mount import WorkspaceMount

PREFIX = "perstack-"
OWNER_NAME = "owner"
WORKSPACE_NAME = "workspace"

_MAX_NOTE_BYTES = 4096


class _Owner(Model):
    """The note: whose the folder is."""

    process: str
    lease: str
    job_id: str


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A runtime folder of this user, dead or alive. `made_at` is in Unix seconds."""

    path: Path
    marks: Marks
    made_at: float


class RuntimeFolder:
    """A new folder for one Job's life, as an async context manager; gives its path, with links resolved.

    Args:
        lease: the token of the Job's lease.

    Raises:
        SandboxError: the folder cannot be made; or, at the end, something is left in it.
    """

    def __init__(self, job_id: str, lease: str) -> None:
        self._note = _Owner(process=process_identity(), lease=lease, job_id=job_id)

    async def __aenter__(self) -> Path:
        try:
            self._path = _make()
            try:
                (self._path / OWNER_NAME).write_bytes(self._note.encode())
            except OSError:
                self._remove()
                raise
        except OSError as error:
            raise SandboxError(f"no folder for sockets can be made: {error} (TMPDIR names another place)") from error
        return self._path

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            left = sorted({entry.name for entry in self._path.iterdir()} - {OWNER_NAME})
            if not left:
                self._remove()
        except FileNotFoundError:
            return  # somebody cleans up temporary folders
        # With its note, so that it can be removed later. An error that is on its way to the caller already says why.
        if left and kind is None:
            raise SandboxError(f"{self._path} still holds {', '.join(left)}, so it was left")

    def _remove(self) -> None:
        (self._path / OWNER_NAME).unlink(missing_ok=True)
        self._path.rmdir()


def _make() -> Path:
    return Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()


def runtime_folders() -> Iterator[FoundFolder]:
    """The runtime folders of this user's orchestrators, those that live too."""
    for path in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
        try:
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            note = path / OWNER_NAME
            owner = _read_note(note)
            made_at = note.lstat().st_mtime
        except (OSError, ValidationError):
            continue  # gone meanwhile, or not one of ours
        yield FoundFolder(path, Marks(owner.process, owner.lease, owner.job_id), made_at)


def remove_dead(folder: FoundFolder) -> None:
    """Remove the folder of an orchestrator that is dead, and what it had mounted in it. It may be gone already.

    Raises:
        SandboxError: something in it is mounted or is not ours, so it was left with whatever is around it.
    """
    path = folder.path
    try:
        _end_mount(WorkspaceMount(path / WORKSPACE_NAME))
        for entry in sorted(path.iterdir()):
            if entry.name != OWNER_NAME:
                _remove_run_folder(entry)
        # Last, so that what is left after an error, or a kill, is still known to be dead.
        (path / OWNER_NAME).unlink(missing_ok=True)
        path.rmdir()
    except FileNotFoundError:
        return  # another sweep was faster
    except OSError as error:
        raise SandboxError(f"{path} cannot be removed: {error}") from error


def _end_mount(mount: WorkspaceMount) -> None:
    try:
        mount.detach()
    except SandboxError:
        if is_mounted(mount.point):
            raise
        # Another sweep was faster; or it was not the mount that failed, which is told now.
        mount.detach()


def _remove_run_folder(folder: Path) -> None:
    """A Run's folder on the bus: its socket, its key and nothing else.

    Raises:
        SandboxError: it is no such folder.
    """
    try:
        is_folder = stat.S_ISDIR(folder.lstat().st_mode)
        if not is_folder or (sys.platform == "linux" and is_mounted(folder)):
            raise SandboxError(f"{folder} is nothing that perstack makes there, so it was left")
        for name in (IDENTITY_NAME, SOCKET_NAME):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        return  # as above


def _read_note(path: Path) -> _Owner:
    """Without following a link, and no more than a note can have."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as stream:
        return _Owner.model_validate_json(stream.read(_MAX_NOTE_BYTES))
