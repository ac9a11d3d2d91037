"""A Run's event log: append-only lines of JSON, each of which carries the SHA-256 of the line before it."""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from expert_runner.contract.events import RunEvent, RuntimeEvent, history_event
from expert_runner.contract.model import first_problem
from orchestrator.errors import StoreError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is not one of ours."""

GENESIS = hashlib.sha256(b"").hexdigest()
"""What the first line carries."""


class EventLog:
    """One Run's log, open for appending. A torn last line, as a crash leaves it, is cut off when it is opened.

    Raises:
        StoreError: the log cannot be opened, or it is broken before its last line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._prev = _repair(path)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            raise StoreError(f"cannot open {path}: {error.strerror}") from error
        self._is_dirty = False
        self._is_torn = False
        self._lost: str | None = None

    def append(self, event: RunEvent | RuntimeEvent) -> bytes:
        """Write `event` as the next line; after this it survives the death of any process. Returns the line, without
        its end.

        Raises:
            StoreError: the line could not be written whole; nothing of it is left, or the log takes no further line
                until it is opened again.
        """
        if self._is_torn:
            raise StoreError(f"cannot write {self._path}: it ends in half a line")
        body = event.encode()
        line = b'{"prev":"' + self._prev.encode() + b'",' + body[1:]
        data = line + b"\n"
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error
        if written != len(data):
            self._cut_off()
            raise StoreError(f"cannot write {self._path}: only {written} of {len(data)} bytes fit")
        self._prev = hashlib.sha256(line).hexdigest()
        self._size += written
        self._is_dirty = True
        return line

    async def sync(self) -> None:
        """Wait until what was appended survives the loss of power too.

        Raises:
            StoreError: the disk reports an error; what it holds is unknown.
        """
        if self._lost is not None:
            raise StoreError(self._lost)
        if not self._is_dirty:
            return
        self._is_dirty = False
        try:
            await asyncio.to_thread(os.fdatasync, self._file)
        except OSError as error:
            # Not asked again: some kernels forget what they could not write, and would say that all is well.
            self._lost = f"cannot sync {self._path}: {error.strerror}"
            raise StoreError(self._lost) from error

    def close(self) -> None:
        os.close(self._file)

    def _cut_off(self) -> None:
        """Remove half a line: what came after it, once there is room again, would be on that line too."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._is_torn = True


def read_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a log, without their ends. A torn last line is left out.

    Raises:
        StoreError: the file cannot be read or a line is too long.
    """
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise StoreError(f"{path}: a line is longer than {MAX_LINE_BYTES} bytes")
                if line.endswith(b"\n"):
                    yield line[:-1]
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def read_records(path: Path) -> Iterator[tuple[bytes, RunEvent | RuntimeEvent]]:
    """The lines of a log with the events they are, in order.

    Raises:
        StoreError: a line is not an event, or does not follow the one before it.
    """
    prev = GENESIS
    for number, line in enumerate(read_lines(path), start=1):
        try:
            event = history_event.validate_json(line)
        except ValueError as error:
            raise StoreError(f"{path}:{number}: not an event: {first_problem(error)}") from error
        if event.prev != prev:
            raise StoreError(f"{path}:{number}: does not follow the line before it; the log was altered")
        prev = hashlib.sha256(line).hexdigest()
        yield line, event


def _repair(path: Path) -> str:
    """Cut off a torn last line; returns the hash that the next line carries."""
    if not path.exists():
        return GENESIS
    whole = 0
    last = None
    for line in read_lines(path):
        whole += len(line) + 1
        last = line
    if path.stat().st_size != whole:
        os.truncate(path, whole)
    if last is None:
        return GENESIS
    try:
        json.loads(last)
    except ValueError as error:
        raise StoreError(f"{path}: the last line is not JSON; the log was altered") from error
    return hashlib.sha256(last).hexdigest()
