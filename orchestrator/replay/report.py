"""What a replay finds: nothing, or the first thing that differs and where it stands."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from expert_runner.contract.events import RunEvent, RuntimeEvent
from expert_runner.contract.model import Model
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import RunRecord

MAX_SHOWN = 300
"""Characters of a value in a text for people; from a little before where two values part."""

_BEFORE = 40


class Difference(Model):
    """What is not as it should be.

    Attributes:
        run_id, expert_key: of which Run; None: of the Job's record.
        file, line: where what was recorded stands; a record has one line.
        event_id, event: the event there and its type.
        field: the path of the value in that event or record.
        recorded: the value that stands there; None: it is absent.
        replayed: what it would have to be, or was when the Job was run again; None: absent.
        problem: what is wrong, where it is not one value.
    """

    run_id: str | None = None
    expert_key: str | None = None
    file: str
    line: int | None = None
    event_id: str | None = None
    event: str | None = None
    field: str | None = None
    recorded: Any = None
    replayed: Any = None
    problem: str | None = None

    def describe(self) -> str:
        """Lines for people."""
        of_run = f" in Run {self.run_id} ({self.expert_key})" if self.run_id else ""
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        event = f", {self.event} {self.event_id}" if self.event else ""
        lines = [f"First difference{of_run}:", f"  {place}{event}"]
        if self.problem is not None:
            lines.append(f"  {self.problem}")
        if self.field is not None:
            recorded, replayed = _shown(self.recorded), _shown(self.replayed)
            start = max(0, _parting(recorded, replayed) - _BEFORE)
            lines += [
                f"  {self.field}",
                f"    recorded: {_cut(recorded, start)}",
                f"    replayed: {_cut(replayed, start)}",
            ]
        return "\n".join(lines)


class Report(Model):
    """A replay's outcome.

    Attributes:
        runs, events, steps: what was looked at, up to the difference if there is one. Of a Job that was run again, what
            was recorded.
    """

    job_id: str
    runs: int = 0
    events: int = 0
    steps: int = 0
    difference: Difference | None = None

    def describe(self) -> str:
        """Text for people: one line where nothing differs."""
        if self.difference is not None:
            return self.difference.describe()
        return f"Job {self.job_id}: {self.runs} Runs, {self.events} events, {self.steps} steps: nothing differs"


class Place(NamedTuple):
    """Where an event is recorded."""

    file: str
    line: int
    record: RunRecord
    event: RunEvent | RuntimeEvent

    def difference(self, unlike: "Unlike") -> Difference:
        """That a value in this event differs."""
        return self._here(field=unlike.field, recorded=unlike.recorded, replayed=unlike.replayed)

    def problem(self, text: str) -> Difference:
        """That this event cannot be."""
        return self._here(problem=text)

    def _here(self, **what: Any) -> Difference:
        return Difference(
            run_id=self.record.id,
            expert_key=self.record.expert_key,
            file=self.file,
            line=self.line,
            event_id=self.event.id,
            event=self.event.type,
            **what,
        )


class Unlike(NamedTuple):
    """Two values that differ, and their path in what was compared."""

    field: str
    recorded: Any
    replayed: Any


def first_unlike(recorded: Any, replayed: Any, path: str = "") -> Unlike | None:
    """The first place at which two values of JSON differ; the keys of an object have no order."""
    if isinstance(recorded, Mapping) and isinstance(replayed, Mapping):
        for key in (*recorded, *(key for key in replayed if key not in recorded)):
            inner = f"{path}.{key}" if path else str(key)
            if unlike := first_unlike(recorded.get(key), replayed.get(key), inner):
                return unlike
        return None
    if isinstance(recorded, list) and isinstance(replayed, list):
        for index in range(max(len(recorded), len(replayed))):
            one, other = (values[index] if index < len(values) else None for values in (recorded, replayed))
            if unlike := first_unlike(one, other, f"{path}[{index}]"):
                return unlike
        return None
    return None if recorded == replayed else Unlike(path, recorded, replayed)


def compared(recorded: Model, replayed: Model) -> Unlike | None:
    """The first difference of two records, as they are written."""
    return first_unlike(json.loads(recorded.encode()), json.loads(replayed.encode()))


def of_record(history: JobHistory, record: RunRecord, unlike: Unlike) -> Difference:
    """That something in a Run's record differs."""
    file = history.store.run_folder(history.job.id, record.id) / "run.json"
    return Difference(
        run_id=record.id,
        expert_key=record.expert_key,
        file=str(file),
        field=unlike.field,
        recorded=unlike.recorded,
        replayed=unlike.replayed,
    )


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)


def _parting(one: str, other: str) -> int:
    if max(len(one), len(other)) <= MAX_SHOWN:
        return 0
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)


def _cut(text: str, start: int) -> str:
    shown = text[start : start + MAX_SHOWN]
    return f"{'…' if start else ''}{shown}{'…' if start + MAX_SHOWN < len(text) else ''}"
