"""The answers of `perstack log`."""

import json
from collections.abc import Iterable, Iterator
from typing import TypeVar

from expert_runner.contract.model import Model
from orchestrator.errors import ConfigError, StoreError
from orchestrator.logs.conversation import Said, conversation
from orchestrator.logs.digest import Digest
from orchestrator.logs.event_text import EventText
from orchestrator.logs.message_text import checkpoint_lines, message_lines, said_lines
from orchestrator.logs.paging import Page, with_context
from orchestrator.logs.question import Question
from orchestrator.logs.reading import Entry, JobReader
from orchestrator.logs.selection import EVERYTHING
from orchestrator.logs.summary import count, job_tree, open_job, summarise
from orchestrator.logs.summary_text import counts_lines, summary_lines
from orchestrator.logs.text import number_of, safe
from orchestrator.logs.time_limit import time_limit
from orchestrator.logs.tree import tree
from orchestrator.store.history import latest_job
from orchestrator.store.layout import Store

DEFAULT_TAKE = 100
"""Events, or messages, on a page."""

MATCH_LIMIT_S = 2.0
"""Seconds that a filter may take for one event: there are regular expressions that would take years."""

T = TypeVar("T")


class Report:
    """The answer to a question about a Job.

    Attributes:
        note: once all lines were taken, what they leave out; None: nothing.
        damages: where logs are damaged, as far as lines were taken.

    Raises:
        StoreError: there is no such Job or Run, or a Job's records cannot be read.
    """

    def __init__(self, store: Store, question: Question) -> None:
        history, self._worker = open_job(store, question.job_id or _latest(store))
        self._question = question
        self._history = history
        self._reader = JobReader(history)
        self._run_id = history.run(question.selection.run_id).id if question.selection.run_id is not None else None
        self.note: str | None = None

    @property
    def damages(self) -> tuple[str, ...]:
        return tuple(self._reader.damages.values())

    def lines(self) -> Iterator[bytes]:
        """The answer's lines, without their ends; on a terminal they do nothing but appear, unless they are JSON.

        Raises:
            ConfigError: the filter takes too long.
            StoreError: there is no such checkpoint.
        """
        question = self._question
        if question.checkpoint_id is not None:
            return self._checkpoint(question.checkpoint_id)
        if question.messages:
            return self._messages()
        if not question.wants_summary:
            return self._events()
        if question.selection != EVERYTHING:
            counts = count(self._history.job.id, self._matches())
            return self._one(counts, counts_lines(counts))
        summary = summarise(self._reader, self._worker)
        return self._one(summary, summary_lines(summary, is_verbose=question.is_verbose))

    # --- what is asked for

    def _checkpoint(self, checkpoint_id: str) -> Iterator[bytes]:
        checkpoint = self._reader.checkpoint(checkpoint_id, self._run_id).standing.checkpoint
        if not self._question.messages:
            yield from self._one(checkpoint, checkpoint_lines(checkpoint))
            return
        for message in checkpoint.messages:
            yield from self._one(message, message_lines(message, checkpoint.expert.key))

    def _messages(self) -> Iterator[bytes]:
        run_id = None
        for said in self._page(self._said(), "message"):
            if said.run_id != run_id and not self._question.as_json:
                yield safe(f"━━ {said.expert_key}, Run {said.run_id}").encode()
            run_id = said.run_id
            yield from self._one(said, said_lines(said))

    def _said(self) -> Iterator[Said]:
        steps = self._question.selection.steps
        for run_id in (self._run_id,) if self._run_id is not None else self._in_tree_order():
            for said in conversation(self._reader, run_id):
                if steps is None or said.step_number in steps:
                    yield said

    def _in_tree_order(self) -> tuple[str, ...]:
        events = {run_id: (entry.event for entry in self._reader.entries(run_id)) for run_id in self._history.runs}
        nodes = job_tree(self._history, {run_id: Digest.of(of_run) for run_id, of_run in events.items()})
        return tuple(node.record.id for node in nodes)

    def _events(self) -> Iterator[bytes]:
        question, around = self._question, self._question.context or 0
        matches = self._page(self._matches(), "event")
        entries = with_context(self._reader, matches, around) if around else ((entry, True) for entry in matches)
        if question.as_json:
            yield from (self._json(entry.line) for entry, _ in entries)
            return
        text = EventText(
            {record.id: record.expert_key for record in self._history.runs.values()},
            {node.record.id: node.depth for node in tree(self._history.runs, lambda _: (0, 0))},
            is_verbose=question.is_verbose,
            marks_matches=around > 0,
        )
        for entry, is_match in entries:
            yield from (line.encode() for line in text.lines(entry.event, is_match=is_match))

    def _matches(self) -> Iterator[Entry]:
        for entry in self._reader.interleaved(None if self._run_id is None else {self._run_id}):
            if self._is_match(entry):
                yield entry

    def _is_match(self, entry: Entry) -> bool:
        selection = self._question.selection
        if selection.expression is None:
            return selection.matches(entry)
        try:
            with time_limit(MATCH_LIMIT_S):
                return selection.matches(entry)
        except TimeoutError:
            raise ConfigError(
                f"--filter takes more than {MATCH_LIMIT_S:.0f} s for event {entry.event.id} of Run {entry.run_id}: "
                "write its regular expression without repetitions inside of repetitions"
            ) from None

    # --- how it is shown

    def _page(self, found: Iterable[T], what: str) -> Iterator[T]:
        take = DEFAULT_TAKE if self._question.take is None else self._question.take
        offset = self._question.offset or 0
        shown = Page(found, take, offset)
        yield from shown
        if shown.total == 0:
            self.note = f"no {what} fits"
        elif shown.given < shown.total:
            self.note = (
                f"{shown.given:,} of {number_of(shown.total, what)}; --take 0 shows all, "
                f"--offset {offset + shown.given} those before"
            )

    def _one(self, record: Model, lines: Iterable[str]) -> Iterator[bytes]:
        if self._question.as_json:
            yield self._json(record.encode())
        else:
            yield from (line.encode() for line in lines)

    def _json(self, line: bytes) -> bytes:
        if not self._question.is_pretty:
            return line
        return json.dumps(json.loads(line), indent=2, ensure_ascii=False).encode(errors="backslashreplace")


def _latest(store: Store) -> str:
    if not store.job_ids():
        raise StoreError(f"there is no Job in {store.jobs_folder} yet")
    return latest_job(store).id
