"""Events as lines for people."""

from collections.abc import Iterator

from expert_runner.contract import events as e
from orchestrator.logs.facts import Fact, facts_of
from orchestrator.logs.text import lines_of, moment, one_line, safe
from orchestrator.store.history import HistoryEvent

_FACT_WIDTH = 100
_LINE_WIDTH = 240
_RUN_WIDTH = 6


class EventText:
    """Renders the events of one Job.

    Args:
        experts: the Expert's key of each Run.
        depths: how deep each Run is in the tree.
        is_verbose: show everything, on as many lines as it takes.
        marks_matches: mark those that were asked for, so that their context can be told from them.
    """

    def __init__(
        self, experts: dict[str, str], depths: dict[str, int], *, is_verbose: bool, marks_matches: bool
    ) -> None:
        self._who = {run_id: f"{'  ' * depths[run_id]}{key} {run_id[:_RUN_WIDTH]}" for run_id, key in experts.items()}
        self._width = max(map(len, self._who.values()), default=0)
        self._depths = depths
        self._is_verbose = is_verbose
        self._marks_matches = marks_matches

    def lines(self, event: HistoryEvent, *, is_match: bool = True) -> Iterator[str]:
        """One line: when, who, at which step, what, and what matters of it; if verbose, more lines with its texts."""
        mark = "" if not self._marks_matches else "* " if is_match else "  "
        step = str(event.step_number) if isinstance(event, e.BaseRunEvent) else "-"
        head = f"{mark}{moment(event.timestamp)} {self._who[event.run_id]:<{self._width}} {step:>3} {event.type}"
        facts = list(facts_of(event))
        if not self._is_verbose:
            what = one_line(" · ".join(_short(fact) for fact in facts if not fact.is_detail), _LINE_WIDTH)
            yield safe(f"{head}  {what}".rstrip())
            return
        yield safe(head)
        for fact in facts:
            yield from _block(fact, "  " * (self._depths[event.run_id] + 2))


def _short(fact: Fact) -> str:
    text = one_line(fact.text, _FACT_WIDTH)
    return f"{fact.label} {text}".strip()


def _block(fact: Fact, indent: str) -> Iterator[str]:
    first, *others = lines_of(fact.text)
    label = f"{safe(fact.label)}: " if fact.label else ""
    yield f"{indent}{label}{first}"
    for line in others:
        yield f"{indent}  {line}"
