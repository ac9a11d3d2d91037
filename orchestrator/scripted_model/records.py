"""What a scripted model remembers of the requests it was sent."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_RECORDS = 10_000
"""Requests that are remembered: the latest."""

MAX_BODY_BYTES = 256 * 1024 * 1024
"""Size of all request bodies that are kept together: the latest."""


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request, filled in as it is answered; what is not known (yet) is None.

    Times are seconds of `time.monotonic()`: `arrived_at` when the head of the request was read, `answered_at` when the
    last byte of a complete answer was written. `turn` is an index from 0, `messages` a number.
    `has_key` says whether there was an Authorization header, which itself is not kept.
    """

    arrived_at: float
    has_key: bool
    expert_key: str | None = None
    turn: int | None = None
    messages: int | None = None
    status: int | None = None
    answered_at: float | None = None
    raw_body: bytes | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The request's JSON. Raises LookupError where bodies are not kept or this one was dropped for newer ones."""
        if self.raw_body is None:
            raise LookupError("the body was not kept: use ScriptedModel(..., keep_bodies=True)")
        body: dict[str, Any] = json.loads(self.raw_body)
        return body


class RequestLog:
    """The latest requests, oldest first, within bounds."""

    def __init__(self, *, keep_bodies: bool) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=MAX_RECORDS)
        self._keep_bodies = keep_bodies
        self._with_body: deque[RequestRecord] = deque()
        self._body_bytes = 0
        self.total = 0

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self._records)

    def add(self, record: RequestRecord) -> None:
        """Remembers a request that has just arrived."""
        self._records.append(record)
        self.total += 1

    def keep_body(self, record: RequestRecord, body: bytes) -> None:
        """Remembers a request's body, if bodies are to be kept."""
        if not self._keep_bodies:
            return
        record.raw_body = body
        self._with_body.append(record)
        self._body_bytes += len(body)
        while self._body_bytes > MAX_BODY_BYTES:
            oldest = self._with_body.popleft()
            self._body_bytes -= len(oldest.raw_body or b"")
            oldest.raw_body = None
