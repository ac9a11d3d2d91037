"""Histories that were altered so that each line still follows the one before it: the change itself is what is found."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.store.history import JobHistory
from orchestrator.store.log import GENESIS

Lines = list[dict[str, Any]]


def alter(log: Path, change: Callable[[Lines], None]) -> None:
    """Let `change` change the events of a log, and chain its lines anew."""
    events: Lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    change(events)
    prev, lines = GENESIS, []
    for event in events:
        lines.append(json.dumps(event | {"prev": prev}, separators=(",", ":"), ensure_ascii=False).encode())
        prev = hashlib.sha256(lines[-1]).hexdigest()
    log.write_bytes(b"".join(line + b"\n" for line in lines))


def alter_record(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` change a `job.json` or `run.json`."""
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))


def run_of(history: JobHistory, expert: str) -> str:
    """The first Run of this Expert."""
    return next(record.id for record in history.runs.values() if record.expert_key == expert)


def log_of(history: JobHistory, expert: str) -> Path:
    return history.store.events_path(history.job.id, run_of(history, expert))


def assign(record: Any, path: str, value: Any) -> None:
    """Set what `path` names, such as `checkpoint.usage.inputTokens` or `messages[0].id`."""
    *way, last = path.replace("[", ".").replace("]", "").split(".")
    for part in way:
        record = record[int(part) if isinstance(record, list) else part]
    record[int(last) if isinstance(record, list) else last] = value
