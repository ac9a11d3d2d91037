"""A Job in sum as lines for people."""

import json
from collections.abc import Iterator, Sequence

from expert_runner.contract.checkpoints import CheckpointStatus
from expert_runner.contract.usage import Usage
from orchestrator.logs.summary_schema import Counts, JobSummary, LastError, RunSummary
from orchestrator.logs.text import cost, duration, lines_of, moment, number_of, one_line

_UNFINISHED = (CheckpointStatus.INIT, CheckpointStatus.PROCEEDING)
_LABEL_WIDTH = 13
_TEXT_WIDTH = 160
_ERROR_WIDTH = 400


def summary_lines(summary: JobSummary, *, is_verbose: bool) -> Iterator[str]:
    """The Job, its tree of Runs, its last error, and how it goes on.

    With `is_verbose` texts are shown whole.
    """
    yield f"Job {summary.job_id}: {_state(summary)}"
    yield from _field("coordinator", summary.coordinator_expert_key)
    yield from _text("query", summary.query, is_verbose=is_verbose)
    newest = next((run for run in summary.runs if run.is_newest), None)
    for query in newest.further_queries if newest is not None else ():
        yield from _text("then", query, is_verbose=is_verbose)
    yield from _text("result", summary.text, is_verbose=is_verbose)
    yield from _field("steps", f"{summary.steps:,} ({_limit(summary.max_steps)})")
    yield from _field("tokens", _tokens(summary.usage))
    yield from _field("cost", cost(summary.cost))
    yield from _field("time", _time(summary))
    yield ""
    yield from tree_lines(summary)
    yield ""
    if summary.last_error is not None:
        yield from _text("last error", _error(summary.last_error), is_verbose=is_verbose, width=_ERROR_WIDTH)
    if summary.question is not None:
        arguments = json.dumps(summary.question.args, ensure_ascii=False)
        yield from _text("question", f"{summary.question.tool_name} {arguments}", is_verbose=is_verbose)
    yield from _field(*_how_to_go_on(summary))


def tree_lines(summary: JobSummary) -> Iterator[str]:
    """One line for each Run, and below it what there is to say about it."""
    runs = summary.runs
    guides = _guides([run.depth for run in runs])
    names = [f"{guide.own}{run.expert_key}" for guide, run in zip(guides, runs, strict=True)]
    figures = [_figures(run, summary) for run in runs]
    widths = [max(map(len, column)) for column in zip(*figures, strict=True)]
    width = max(map(len, names), default=0)
    for guide, name, run, cells in zip(guides, names, runs, figures, strict=True):
        aligned = (
            f"{cell:>{w}}" if n else f"{cell:<{w}}" for n, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        yield from lines_of(f"{name:<{width}}  {'  '.join(aligned)}  {run.run_id}")
        for note in _notes(run, summary):
            yield from lines_of(f"{guide.below}   {note}")


def counts_lines(counts: Counts) -> Iterator[str]:
    """Each type and how often it was selected."""
    yield f"Job {counts.job_id}: {number_of(counts.events, 'event')}"
    width = len(f"{max(counts.by_type.values(), default=0):,}")
    for kind, number in counts.by_type.items():
        yield f"  {number:>{width},}  {kind}"


class _Guide:
    """What leads to a Run in the tree: before its name, and before lines that belong to it."""

    def __init__(self, above: str, depth: int, *, has_next: bool) -> None:
        self.own = above + ("├─ " if has_next else "└─ ") if depth else ""
        self.below = above + ("│  " if has_next else "   ") if depth else ""


def _guides(depths: Sequence[int]) -> list[_Guide]:
    guides = []
    has_next: set[int] = set()
    for depth in reversed(depths):
        above = "".join("│  " if level in has_next else "   " for level in range(1, depth))
        guides.append(_Guide(above, depth, has_next=depth in has_next))
        has_next = {level for level in has_next if level < depth} | {depth}
    return guides[::-1]


def _figures(run: RunSummary, summary: JobSummary) -> tuple[str, ...]:
    status = str(run.status)
    if run.status in _UNFINISHED:
        status = "interrupted" if summary.worked_on_by is None else "running"
    return (
        status,
        number_of(run.steps, "step"),
        f"{run.usage.total_tokens:,} tokens",
        "" if run.cost is None else cost(run.cost),
        duration(run.duration_ms),
    )


def _notes(run: RunSummary, summary: JobSummary) -> Iterator[str]:
    if run.branched_from is not None:
        yield f"branch of {run.branched_from.run_id}, from checkpoint {run.branched_from.checkpoint_id}"
    if run.is_newest and sum(other.caller_run_id is None for other in summary.runs) > 1:
        yield "the newest: the Job goes on with this one"
    if run.caller_run_id is not None and run.depth == 0:
        yield f"called by {run.caller_run_id}, of which there is no record"
    if run.sandboxes_lost:
        yield f"lost {number_of(run.sandboxes_lost, 'sandbox', 'sandboxes')}"
    if run.error is not None:
        yield one_line(f"{run.error.name}: {run.error.message}", _ERROR_WIDTH)
    if run.damage is not None:
        yield one_line(f"damaged: {run.damage}", _ERROR_WIDTH)
    if run.checkpoint_id is not None and run.depth == 0:
        # Only a coordinator's can be resumed from.
        yield f"checkpoint {run.checkpoint_id}"


def _state(summary: JobSummary) -> str:
    if summary.is_interrupted:
        return "interrupted (nobody works on it)"
    worker = summary.worked_on_by
    if worker is None:
        return str(summary.status)
    if worker.pid is None or worker.since is None:
        return "running (it has just begun)"
    return f"running (process {worker.pid} on {worker.host} since {moment(worker.since)})"


def _limit(max_steps: int | None) -> str:
    return "no limit" if max_steps is None else f"at most {max_steps:,}"


def _tokens(usage: Usage) -> str:
    return (
        f"{usage.total_tokens:,}: {usage.input_tokens:,} in ({usage.cached_input_tokens:,} cached), "
        f"{usage.output_tokens:,} out ({usage.reasoning_tokens:,} reasoning)"
    )


def _time(summary: JobSummary) -> str:
    moments = (
        ("begun", summary.started_at),
        ("continued", summary.continued_at),
        ("ended", summary.finished_at),
    )
    return ", ".join(
        (duration(summary.duration_ms), *(f"{what} {moment(when)}" for what, when in moments if when is not None))
    )


def _error(error: LastError) -> str:
    return (
        f"{error.expert_key} ({error.run_id}), step {error.step_number}, {moment(error.timestamp)}: "
        f"{error.name}: {error.message}"
    )


def _how_to_go_on(summary: JobSummary) -> tuple[str, str]:
    command = summary.continue_command
    if command is None:
        return "go on", "when the process that works on it has ended"
    if summary.question is not None:
        return "answer", command
    return "go on", f"{command} (N: more than {summary.steps})" if command.endswith(" N") else command


def _text(label: str, text: str | None, *, is_verbose: bool, width: int = _TEXT_WIDTH) -> Iterator[str]:
    if text is not None:
        yield from _field(label, text if is_verbose else one_line(text, width))


def _field(label: str, text: str) -> Iterator[str]:
    for number, line in enumerate(lines_of(text)):
        yield f"  {label if number == 0 else '':<{_LABEL_WIDTH}}{line}"
