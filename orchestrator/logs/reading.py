"""A Job's events as they are stored, as far as the logs are whole."""

import json
from collections import deque
from collections.abc import Container, Iterator
from functools import cached_property
from heapq import heappop, heappush
from typing import Any, NamedTuple

from orchestrator.errors import StoreError
from orchestrator.store.history import HistoryEvent, JobHistory, Told


class Entry:
    """One event of a Run's log: its place there (from 1), the bytes that are stored, and what they say."""

    def __init__(self, position: int, line: bytes, event: HistoryEvent) -> None:
        self.position = position
        self.line = line
        self.event = event

    @property
    def run_id(self) -> str:
        return self.event.run_id

    @cached_property
    def data(self) -> Any:
        """The event as JSON has it."""
        return json.loads(self.line)


class _Head(NamedTuple):
    """The next event of a Run. Ordered by time, then by the Runs' order."""

    timestamp: int
    order: int
    entry: Entry
    rest: Iterator[Entry]


class JobReader:
    """Reads the logs of a Job. Where one is damaged it gives what comes before, and goes on with the others.

    Attributes:
        damages: by Run, where its log is damaged and how, as far as it was read.
    """

    def __init__(self, history: JobHistory) -> None:
        self.history = history
        self.damages: dict[str, str] = {}

    def entries(self, run_id: str) -> Iterator[Entry]:
        """A Run's events, in order."""
        try:
            for position, (line, event) in enumerate(self.history.records(run_id), start=1):
                yield Entry(position, line, event)
        except StoreError as error:
            self.damages[run_id] = str(error)

    def interleaved(self, run_ids: Container[str] | None = None) -> Iterator[Entry]:
        """The events of all Runs, or of those in `run_ids`, in the order of their time. Those of one Run keep their
        order whatever the clock did.

        A log is open from the beginning of its Run to its last event: no more at a time than Runs went on at a time.
        """
        runs = [r for r in self.history.runs.values() if run_ids is None or r.id in run_ids]
        waiting = deque(enumerate(runs))
        heads: list[_Head] = []
        while waiting or heads:
            while waiting and (not heads or waiting[0][1].created_at <= heads[0].timestamp):
                order, record = waiting.popleft()
                self._push(heads, order, self.entries(record.id))
            if heads:
                _, order, entry, rest = heappop(heads)
                yield entry
                self._push(heads, order, rest)

    def _push(self, heads: list[_Head], order: int, rest: Iterator[Entry]) -> None:
        entry = next(rest, None)
        if entry is not None:
            heappush(heads, _Head(entry.event.timestamp, order, entry, rest))

    def checkpoint(self, checkpoint_id: str, run_id: str | None = None) -> Told:
        """The checkpoint of that id, and the event that told of it.

        Raises:
            StoreError: no Run, or not `run_id`, told of it, as far as the logs can be read.
        """
        history = self.history
        for candidate in (history.run(run_id).id,) if run_id is not None else tuple(history.runs):
            try:
                for told in history.told(candidate):
                    if told.standing.checkpoint.id == checkpoint_id:
                        return told
            except StoreError as error:
                self.damages[candidate] = str(error)
        where = f"Job {history.job.id}" if run_id is None else f"Run {run_id}"
        raise StoreError(
            f"{where} has no checkpoint {checkpoint_id}: `perstack log --job {history.job.id} --type "
            "continueToNextStep` shows those of finished steps, and the summary the last of each Run"
        )
