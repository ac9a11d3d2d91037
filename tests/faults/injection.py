"""Faults at a write of a Run's log, and variants of the product that are broken on purpose, for a child process.

A write is named by its Run's Expert and its number in that Run's log: the same place in every run of the Job, however
Runs that work at the same time interleave.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orchestrator import bus
from orchestrator.job import JobRunner
from orchestrator.runs import outside
from orchestrator.runs.session import Session
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import RunRecord
from orchestrator.store.log import EventLog

Victim = Literal["orchestrator", "runner"]
Moment = Literal["before", "torn", "after"]

SHORT_LEASE_S = 2.0
"""What the orchestrator gives a silent runner here, instead of many seconds."""


class Fault(NamedTuple):
    """`signal_name` is sent to `victim` at write number `write` (from 1) of the Run of `expert`."""

    expert: str
    write: int
    victim: Victim
    signal_name: str
    moment: Moment = "after"

    def __str__(self) -> str:
        return f"{self.signal_name} {self.victim} {self.moment} write {self.write} of {self.expert}"


def install(fault: Fault, runtime: str) -> None:
    """Let `fault` happen in this process, once."""
    vars(bus).update(LEASE_S=SHORT_LEASE_S)
    sandboxes: dict[str, str] = {}
    append, start = EventLog.append, Session._start
    writes: dict[Path, int] = {}
    signal_number = signal.Signals[f"SIG{fault.signal_name}"]

    async def watched_start(self: Session) -> Any:
        sandbox = await start(self)
        sandboxes[self._order.run_id] = sandbox.id
        return sandbox

    def strike(run_id: str) -> None:
        if fault.victim == "orchestrator":
            os.kill(os.getpid(), signal_number)
        elif run_id in sandboxes:
            hit(sandboxes[run_id], fault.signal_name, runtime)

    def struck_append(self: EventLog, event: Any) -> bytes:
        number = writes[self._path] = writes.get(self._path, 0) + 1
        record = RunRecord.model_validate_json((self._path.parent / "run.json").read_bytes())
        if (record.expert_key, number) != (fault.expert, fault.write):
            return append(self, event)
        if fault.moment == "before":
            strike(record.id)
        if fault.moment == "torn":
            tear(self, event)
            strike(record.id)
        line = append(self, event)
        if fault.moment == "after":
            strike(record.id)
        return line

    EventLog.append = struck_append  # type: ignore[method-assign]
    Session._start = watched_start  # type: ignore[method-assign]


def hit(sandbox: str, signal_name: str, runtime: str) -> None:
    """Send a signal to process 1 of a sandbox."""
    if runtime == "local":
        os.kill(int(sandbox), signal.Signals[f"SIG{signal_name}"])
    else:
        # One that has just ended by itself is not there to be hit any more.
        subprocess.run(["docker", "kill", "--signal", signal_name, sandbox], check=False, capture_output=True)


def tear(log: EventLog, event: Any) -> None:
    """Write half of the line that `event` would be."""
    line = b'{"prev":"' + log._prev.encode() + b'",' + event.encode()[1:]
    os.write(log._file, line[: len(line) // 2])


# --- the product, broken: what the checks have to notice


def _forget_delegates() -> None:
    JobRunner.earlier_delegate = lambda self, run_id, call_id: None  # type: ignore[method-assign]


def _repeat_calls_silently() -> None:
    outside.unknown_effects = lambda *_: ()


def _lose_the_last_event() -> None:
    read = JobHistory.events

    def all_but_the_last(self: JobHistory, run_id: str) -> Any:
        events = list(read(self, run_id))
        path = self.store.events_path(self.job.id, run_id)
        if len(events) > 1:
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        return iter(events[:-1] if len(events) > 1 else events)

    JobHistory.events = all_but_the_last  # type: ignore[method-assign]


BROKEN: dict[str, Callable[[], None]] = {
    "finished delegates are run again": _forget_delegates,
    "calls under way are repeated silently": _repeat_calls_silently,
    "an acknowledged event is lost": _lose_the_last_event,
}
