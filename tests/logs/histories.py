"""Histories of real Jobs, for whatever reads them."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.jobs import Job, JobStatus
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.jobs.stage import Stage, call, done, talk, turn

ASK = {"type": "interactiveSkill", "tools": {"askUser": {"inputJsonSchema": '{"type":"object"}'}}}
ESCAPES = "\x1b[31mred\x1b]0;title\x07 \u202egnp.exe \x9b2J"
"""What a model or a tool may write to take a terminal over."""

TEAM: dict[str, Any] = {
    "boss": {"delegates": ["left", "right"], "skills": {"ask": ASK}},
    "left": {"delegates": ["leaf"]},
    "right": {},
    "leaf": {},
}
"""A coordinator, two parallel delegates of which one fails, and one below the other."""

CONVERSATIONS = (
    talk(
        "boss",
        turn(call("todo", newTodos=["one"]), text=ESCAPES),
        turn(call("left", query="Go left."), call("right", query="Go right.")),
        turn(call("clearTodo")),
        turn(call("askUser", question="Red or blue?")),
        *done("It is {{turn.1.result.0}}."),
    ),
    # The first of the calls ends last.
    talk("left", turn(call("leaf", query="Fall."), delayMs=200), turn(text="left of {{turn.0.result.0}}")),
    talk(
        "right",
        turn(call("readTextFile", path="nothing")),
        turn(text="unused", faults=[{"kind": "status", "status": 401}]),
    ),
    talk("leaf", turn(text="leaf")),
)


def play(folder: Path) -> Path:
    """Run the Jobs `simple` (completed) and `team` (asked, answered, branched, and waiting for an answer again).

    Returns the folder of the history.
    """
    return asyncio.run(_play(folder))


async def _play(folder: Path) -> Path:
    stage = Stage(folder, "local")
    await stage.play({"boss": {}}, talk("boss", turn(text="Simply done.")), jobId="simple")
    await stage.play(TEAM, *CONVERSATIONS, jobId="team")
    await stage.go_on(answer="red", continueJob="team")
    history = JobHistory(stage.store, "team")
    first = next(
        event for event in history.events(history.job.coordinator_run_id) if isinstance(event, e.ContinueToNextStep)
    )
    await stage.go_on("Once more.", continueJob="team", resumeFrom=first.checkpoint.id)
    return stage.storage


def copied(storage: Path, folder: Path) -> Store:
    """A copy of a history, to be damaged."""
    shutil.copytree(storage, folder / "copy")
    return Store(folder / "copy")


def run_of(history: JobHistory, expert_key: str) -> str:
    """The first Run of an Expert."""
    return next(record.id for record in history.runs.values() if record.expert_key == expert_key)


def rewrite(store: Store, run_id: str, change: Callable[[list[bytes]], list[bytes]], job_id: str = "team") -> Path:
    """Change the lines (with their ends) of a Run's log; returns its path."""
    path = store.events_path(job_id, run_id)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    return path


def kill(store: Store, job_id: str = "team") -> Job:
    """Leave the Job as the death of its orchestrator does: in the middle of the newest branch, which waits for its
    delegates, the last line of one of them torn.
    """
    history = JobHistory(store, job_id)
    newest = history.job.coordinator_run_id
    stop = next(n for n, event in enumerate(history.events(newest), 1) if isinstance(event, e.StopRunByDelegate))
    rewrite(store, newest, lambda lines: lines[:stop], job_id)
    left = next(record.id for record in history.delegates_of(newest) if record.expert_key == "left")
    rewrite(store, left, lambda lines: [*lines[:4], lines[4][:20]], job_id)
    killed = history.job.model_copy(update={"status": JobStatus.RUNNING, "finished_at": None, "total_steps": 1})
    store.write_job(killed)
    return killed
