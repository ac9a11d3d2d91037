"""Who works on a Job: one process at a time, by a lock on `lease.json` in the Job's folder.

The lock is flock(2)'s, which ends with its holder however that ends, and is seen by every container that shares the
file system. The file also holds the lease's token, which labels everything that is ever started for the Job: while
nobody holds the lease, whatever carries its token is a leftover.

A copy of a Job's folder is another Job: its token would name what the original has started. So the record says which
file it was written to, and in any other it does not count.
"""

import errno
import fcntl
import logging
import os
import random
import secrets
import socket
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from expert_runner.contract.model import Model
from orchestrator.errors import StoreError
from orchestrator.sandbox.process_identity import is_provably_dead, process_identity
from orchestrator.store.layout import LEASE_NAME

logger = logging.getLogger(__name__)

_PATIENCE_S = 2.0
"""How long `take` waits for others who only look whether the lease is held, which takes them microseconds."""

_MAX_RECORD_BYTES = 4096
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Holder(Model):
    """The process that holds a lease; without any fact if it has not announced itself.

    Attributes:
        process: its identity (:mod:`orchestrator.sandbox.process_identity`).
        since: when it announced itself first, in Unix milliseconds.
        runtime_folder: where its sockets and mounts are.
    """

    process: str = ""
    pid: int | None = None
    host: str = ""
    since: int | None = None
    runtime_folder: str | None = None

    def __str__(self) -> str:
        if self.pid is None or self.since is None:
            return "a process that has just begun"
        return f"process {self.pid} on {self.host} since {datetime.fromtimestamp(self.since / 1000, UTC):%F %T} UTC"


class JobHeldError(StoreError):
    """Another process works on the Job. `holder` tells which."""

    is_retryable = True

    def __init__(self, job_id: str, holder: Holder) -> None:
        end = f"end it (on {holder.host}: kill {holder.pid})" if holder.pid is not None else "end it"
        super().__init__(f"Job {job_id} is being worked on by {holder}: wait until it has ended, or {end}")
        self.holder = holder


class Standing(StrEnum):
    """What a lease says of the things that carry a token."""

    HELD = "held"
    FREE = "free"
    UNKNOWN = "unknown"


class _Record(Model):
    token: str
    inode: int
    holder: Holder | None = None


class JobLease:
    """A Job that this process alone works on, until `release` or its death.

    Attributes:
        token: labels all that is started for the Job; the same for all its holders.
    """

    def __init__(self, job_folder: Path, file: int, token: str) -> None:
        self.token = token
        self._path = job_folder / LEASE_NAME
        self._file = file
        self._since: int | None = None

    @classmethod
    def take(cls, job_folder: Path) -> "JobLease":
        """Take the lease of the Job in `job_folder`. A file that exists is not changed.

        Raises:
            JobHeldError: another process holds it (or another lease of this one).
            StoreError: there is no such Job, or its folder cannot be written or knows no locks.
        """
        path = job_folder / LEASE_NAME
        file = _open_locked(path)
        try:
            record = _read(file, path)
            lease = cls(job_folder, file, record.token if record else secrets.token_hex(16))
            if os.fstat(file).st_size == 0:
                lease._write(None)
        except BaseException:
            os.close(file)
            raise
        return lease

    def announce(self, runtime_folder: Path | None = None) -> None:
        """Write down who holds the lease. Anything that carries the token may be started after this.

        Raises:
            StoreError: it cannot be written.
        """
        self._since = self._since or time.time_ns() // 1_000_000
        self._write(
            Holder(
                process=process_identity(),
                pid=os.getpid(),
                host=socket.gethostname(),
                since=self._since,
                runtime_folder=str(runtime_folder) if runtime_folder else None,
            )
        )

    def release(self) -> None:
        """Let others work on the Job. What was started for it has to be gone before. Does nothing the second time."""
        if self._file < 0:
            return
        try:
            if self._since is not None:
                self._write(None)
        except StoreError as error:
            # The lock is what counts, and nobody asks who held it once it is free.
            logger.debug("%s", error)
        finally:
            os.close(self._file)
            self._file = -1

    def _write(self, holder: Holder | None) -> None:
        """In one call, over what was there, and read up to the line's end: a kill leaves the old record or the new."""
        line = _Record(token=self.token, inode=os.fstat(self._file).st_ino, holder=holder).encode() + b"\n"
        try:
            written = os.pwrite(self._file, line, 0)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error
        if written != len(line):
            raise StoreError(f"cannot write {self._path}: only {written} of {len(line)} bytes fit")


def holder(job_folder: Path) -> Holder | None:
    """Who works on the Job now; None if nobody does, or there is no such Job.

    Raises:
        StoreError: that cannot be told.
    """
    file = _open_to_look(job_folder)
    if file is None:
        return None
    try:
        return _who(file, job_folder / LEASE_NAME) if _is_held(file, job_folder / LEASE_NAME) else None
    finally:
        os.close(file)


def standing(job_folder: Path, token: str) -> Standing:
    """Whether whoever started what carries `token` may still be at work: HELD if somebody holds the lease, FREE if
    nobody does, UNKNOWN if this is not that lease or cannot be read.

    FREE tells of what was seen **before** this call: it may have a holder again, who starts new things, right after.
    """
    try:
        file = _open_to_look(job_folder)
    except StoreError:
        return Standing.UNKNOWN
    if file is None:
        return Standing.UNKNOWN
    try:
        record = _read(file, job_folder / LEASE_NAME)
        if record is None or record.token != token:
            return Standing.UNKNOWN
        return Standing.HELD if _is_held(file, job_folder / LEASE_NAME) else Standing.FREE
    except StoreError:
        return Standing.UNKNOWN
    finally:
        os.close(file)


def _open_locked(path: Path) -> int:
    """The file, which this process alone holds; made if it is missing."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise StoreError(f"there is no Job {path.parent.name} in {path.parent.parent}") from None
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}") from error
        try:
            if not _lock_alone(file, path):
                raise JobHeldError(path.parent.name, _who(file, path))
            # A Job that never began is removed with its lease: what was locked must be what others will find.
            if os.path.samestat(path.stat(), os.fstat(file)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _open_to_look(job_folder: Path) -> int | None:
    try:
        return os.open(job_folder / LEASE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot open {job_folder / LEASE_NAME}: {error.strerror}") from error


def _lock_alone(file: int, path: Path) -> bool:
    """Take the holder's lock; False if another has it.

    Who only looks takes a shared lock for a moment. A shared lock can be had beside that, but not beside a holder's,
    which tells the two apart.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not _try_lock(file, fcntl.LOCK_EX, path):
        if _is_held(file, path):
            return False
        if time.monotonic() > deadline:
            raise StoreError(f"{path} stays locked by processes that only look at it: try again")
        # By chance, so that two who do the same do not meet again.
        time.sleep(random.uniform(0.0002, 0.002))  # noqa: S311
    return True


def _is_held(file: int, path: Path) -> bool:
    """Whether somebody else has the holder's lock. Those who ask do not disturb each other."""
    if not _try_lock(file, fcntl.LOCK_SH, path):
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _try_lock(file: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise StoreError(
                f"the file system of {path} knows no locks (flock), so two processes could work on one Job: "
                "keep Jobs on another one (PERSTACK_STORAGE_PATH)"
            ) from error
        raise StoreError(f"cannot lock {path}: {error.strerror}") from error
    return True


def _who(file: int, path: Path) -> Holder:
    """Who announced themselves last, unless that one is dead: the lock is held, so its holder is another."""
    record = _read(file, path)
    if record is None or record.holder is None or is_provably_dead(record.holder.process):
        return Holder()
    return record.holder


def _read(file: int, path: Path) -> _Record | None:
    """The record; None if there is none yet, it is a copy of another lease's, or a power cut or a hand damaged it.

    What a damaged one named can then no longer be found by its token, only by the identity of the process it was of.
    """
    try:
        content = os.pread(file, _MAX_RECORD_BYTES, 0)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    try:
        record = _Record.model_validate_json(content.partition(b"\n")[0])
    except ValidationError:
        return None
    return record if record.inode == os.fstat(file).st_ino else None
