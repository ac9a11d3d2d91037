"""What a Job came to, in a form in which a disturbed Job can be held against an undisturbed one."""

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.messages import InstructionMessage, TextPart, ToolCallPart, ToolMessage
from expert_runner.contract.tools import EFFECTS_UNKNOWN
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.faults.scenario import JOURNAL

Lineage = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Attributes:
        runs: of each Run, by the calls that led to it: what its fold holds, without ids, times and costs, and without
            the turns that were repeated because their effects were unknown.
        files: of the workspace, without the journal.
        journal: how often each call with effects was carried out.
        announced: how often the model of each Expert was told that a call's effects are unknown.
        answers: how many of the model's answers are recorded, by Expert.
        told: ids of events that were acknowledged, and of those that are on disk.
    """

    text: str | None
    runs: dict[Lineage, Any]
    files: dict[str, str]
    journal: Counter[str]
    announced: Counter[str]
    answers: Counter[str]
    stored: frozenset[str]


def read(folder: Path, job_id: str) -> Outcome:
    """Raises StoreError if the history does not verify: chain, machine and all."""
    history = JobHistory(Store(folder / "history"), job_id)
    runs: dict[Lineage, Any] = {}
    announced: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    stored: set[str] = set()
    lineages: dict[str, Lineage] = {}
    text = None
    for run_id, record in history.runs.items():
        stored |= {event.id for event in history.events(run_id)}
        standing = history.standing(run_id)
        if standing is None:
            continue
        caller = record.delegated_by
        lineages[run_id] = (*lineages[caller.run_id], caller.tool_call_id) if caller else ()
        runs[lineages[run_id]] = folded(standing.checkpoint)
        announced[record.expert_key] += announcements(standing.checkpoint)
        answers[record.expert_key] += sum(
            isinstance(event, e.CompleteRun) or (isinstance(event, e.Answer) and event.new_message is not None)
            for event in history.events(run_id)
        )
        if caller is None:
            text = standing.checkpoint.text
    workspace = folder / "workspace"
    files = {p.name: p.read_text() for p in sorted(workspace.iterdir()) if p.name != JOURNAL}
    journal = workspace / JOURNAL
    lines = journal.read_text().split() if journal.exists() else []
    return Outcome(text, runs, files, Counter(lines), announced, answers, frozenset(stored))


def folded(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as far as two runs of one Job have to agree on it. The instruction names the workspace's folder."""
    return {
        "expert": checkpoint.expert.key,
        "state": checkpoint.state.value,
        "text": checkpoint.text,
        "todos": [(todo.title, todo.completed) for todo in checkpoint.todos],
        "messages": _messages(checkpoint),
    }


def _messages(checkpoint: Checkpoint) -> list[Any]:
    kept: list[Any] = []
    for message in checkpoint.messages:
        if isinstance(message, ToolMessage) and _is_uncertain(message):
            # The turn was given again: neither it nor what came of it the first time counts.
            kept.pop()
            continue
        if not isinstance(message, InstructionMessage):
            kept.append((message.type, [_part(part) for part in message.contents]))
    return kept


def _is_uncertain(message: ToolMessage) -> bool:
    return any(EFFECTS_UNKNOWN in p.text for part in message.contents for p in part.contents if isinstance(p, TextPart))


def _part(part: Any) -> Any:
    if isinstance(part, ToolCallPart):
        return part.tool_name, part.args
    return part.model_dump(exclude={"tool_call_id"})


def announcements(checkpoint: Checkpoint) -> int:
    return sum(
        EFFECTS_UNKNOWN in inner.text
        for message in checkpoint.messages
        if isinstance(message, ToolMessage)
        for part in message.contents
        for inner in part.contents
        if isinstance(inner, TextPart)
    )


def differences(undisturbed: Outcome, disturbed: Outcome, asked: Counter[str], in_flight: Counter[str]) -> list[str]:
    """What may not differ, and does.

    Args:
        asked: how many answers the model has given in the disturbed Job, by Expert.
        in_flight: how many Runs were waiting for an answer when the process ended, by Expert.
    """
    found = []
    if disturbed.text != undisturbed.text:
        found.append(f"the answer is {disturbed.text!r}, not {undisturbed.text!r}")
    if disturbed.files != undisturbed.files:
        found.append(f"the workspace holds {disturbed.files}, not {undisturbed.files}")
    for lineage in undisturbed.runs.keys() | disturbed.runs.keys():
        expected, run = undisturbed.runs.get(lineage), disturbed.runs.get(lineage)
        if run != expected:
            found.append(f"the fold of {lineage or 'the coordinator'}: {_first_difference(run, expected)}")
    for who, times in disturbed.journal.items():
        if times > undisturbed.journal[who] + disturbed.announced[who]:
            found.append(f"the call of {who} was carried out {times} times, announced {disturbed.announced[who]} times")
    for expert, answers in disturbed.answers.items():
        if asked[expert] > answers + in_flight[expert]:
            found.append(f"{expert}: {asked[expert]} answers were paid and {answers} are recorded")
    return found


def _first_difference(run: dict[str, Any] | None, expected: dict[str, Any] | None) -> str:
    if run is None or expected is None:
        return "is missing" if run is None else "should not be there"
    name = next(name for name in expected if run[name] != expected[name])
    is_, should = run[name], expected[name]
    if isinstance(should, list):
        pairs = enumerate(zip_longest(is_, should))
        at, (is_, should) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        name = f"{name}[{at}]"
    return f"{name} is {is_!r:.300}, not {should!r:.300}"
