"""The Job that the faults happen to: a coordinator, two delegates at the same time, and a delegate of one of them.

Every Run has a call with effects, which it notes in a journal that grows: whatever is carried out twice is seen there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.scripted_model import Script
from tests.jobs.stage import KEY, call, talk, turn

JOURNAL = "journal"

EXPERTS: dict[str, Any] = {
    "boss": {"instruction": "Lead.", "delegates": ["left", "right"]},
    "left": {"instruction": "Do the left part.", "delegates": ["leaf"]},
    "right": {"instruction": "Do the right part."},
    "leaf": {"instruction": "Do a small part."},
}


def note(who: str) -> dict[str, Any]:
    """A call that must not be carried out twice unannounced: it appends to the journal, and leaves a file."""
    script = f"echo {who} >>{JOURNAL}; echo the work of {who} >{who}.txt"
    return call("exec", command="bash", args=["-c", script])


SCRIPT = Script.model_validate(
    {
        "conversations": [
            talk(
                "boss",
                turn(note("boss")),
                turn(call("todo", newTodos=["ask the others"])),
                turn(call("left", query="Left, please."), call("right", query="Right, please.")),
                turn(call("todo", completedTodos=[0]), call("readTextFile", path="left.txt")),
                turn(call("attemptCompletion")),
                turn(text="{{turn.2.result.0}} and {{turn.2.result.1}}"),
            ),
            talk(
                "left",
                turn(call("leaf", query="A leaf, please."), call("todo", newTodos=["write"])),
                turn(note("left"), call("readTextFile", path="leaf.txt")),
                turn(call("clearTodo")),
                turn(text="left with {{turn.0.result.0}}"),
            ),
            talk("right", turn(note("right")), turn(call("attemptCompletion")), turn(text="right")),
            talk("leaf", turn(note("leaf")), turn(text="leaf")),
        ]
    }
)
ANSWER = "left with leaf and right"


def setting(folder: Path, model_url: str, runtime: str, job_id: str, *, goes_on: bool) -> Mapping[str, Any]:
    """As `run` takes it, and as JSON can carry it."""
    which = {"continueJob": job_id} if goes_on else {"jobId": job_id, "expertKey": "boss", "input": {"text": "Go."}}
    return {
        **which,
        "experts": EXPERTS,
        "providerConfig": {"providerName": "openai", "setting": {"baseUrl": model_url}},
        "model": "gpt-4o",
        "runtime": runtime,
        "workspace": str(folder / "workspace"),
        "storage": str(folder / "history"),
        "environment": {"OPENAI_API_KEY": KEY},
    }
