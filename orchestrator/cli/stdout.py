"""Standard output for events alone: whatever a library prints goes to standard error."""

import os
import sys
from types import TracebackType
from typing import Any


class EventOutput:
    """Takes standard output over while in use; `write` is then the only way to it.

    A reader that went away does not end the Job: its history is on disk, so events are dropped from then on.
    """

    def __enter__(self) -> "EventOutput":
        sys.stdout.flush()
        self._file: int | None = os.dup(1)
        self._saved = os.dup(1)
        os.dup2(2, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.stdout.flush()
        os.dup2(self._saved, 1)
        os.close(self._saved)
        if self._file is not None:
            os.close(self._file)

    def write(self, event: Any, line: bytes) -> None:
        """One event as one line. A reader that is slow slows the Job down rather than filling memory."""
        if self._file is None:
            return
        data = memoryview(line + b"\n")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except BrokenPipeError:
            os.close(self._file)
            self._file = None
