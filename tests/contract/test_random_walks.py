"""The machine walked at random, with allowed and forbidden events, against what must hold of every Run."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import CheckpointStatus, State
from expert_runner.contract.errors import ContractError, ForbiddenTransition
from expert_runner.contract.fold import apply, progress_of
from expert_runner.contract.machine import EVENT_TYPES, Progress, Waiting, advance, allowed, resolvable
from expert_runner.contract.messages import ExpertMessage, InstructionMessage, MessageRef, ToolCallPart, ToolMessage
from expert_runner.contract.standing import fold
from expert_runner.contract.todos import TodoChange
from expert_runner.contract.tools import ToolCallRef, ToolResult
from expert_runner.contract.usage import Usage
from tests.contract.story import ANSWERS, KINDS, Story, text_of

STOPS = frozenset({"stopRunByError", "stopRunByCancellation", "stopRunByExceededMaxSteps"})

some_kinds = st.lists(st.sampled_from(sorted(KINDS)), max_size=5)


def assert_conversation_can_be_sent(messages: Iterable[MessageRef]) -> None:
    """What every provider demands: the results of calls follow them at once, all of them, in call order."""
    asked: list[str] = []
    for place, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            assert asked, f"{message.id} answers no call"
            assert [part.tool_call_id for part in message.contents] == asked
            asked = []
            continue
        assert not asked, f"{message.id} stands between calls and their results"
        assert not isinstance(message, InstructionMessage) or place == 0
        if isinstance(message, ExpertMessage):
            asked = [part.tool_call_id for part in message.contents if isinstance(part, ToolCallPart)]
    assert not asked, "calls without results"


class AnyRun(RuleBasedStateMachine):
    """One Run. `calls` and `results` are this test's own account of the current answer."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.calls: tuple[str, ...] = ()
        self.results: dict[str, str] = {}
        self.spent = Usage()

    @rule(event=st.sampled_from(sorted(EVENT_TYPES)), data=st.data())
    def anything_is_tried(self, event: str, data: st.DataObject) -> None:
        ids = ["c0", "c1", "c2", "c3", "forged"]
        resolved = data.draw(st.lists(st.sampled_from(ids), max_size=4), label="resolved")
        kinds = data.draw(st.none() | some_kinds, label="kinds") if event in ANSWERS else None
        self._try(self._make(event, kinds, resolved, None))

    @rule(data=st.data())
    def it_goes_on(self, data: st.DataObject) -> None:
        """An event that fits, with stops now and then: so walks get far."""
        progress = progress_of(self.story.checkpoint)
        kinds = None
        if progress.state is State.GENERATING_TOOL_CALL:
            kinds = data.draw(some_kinds, label="kinds") or None
        calls = self.story.calls(*kinds) if kinds else ()
        fitting = {event: [call.id for call in resolvable(progress, event)] for event in allowed(progress.state)}
        next_events = [
            event
            for event in sorted(fitting)
            if self._leads(progress, event, calls if event in ANSWERS else (), fitting[event]) is not None
        ]
        stops = [event for event in next_events if event in STOPS]
        steps = [event for event in next_events if event not in STOPS]
        event = data.draw(st.sampled_from(steps * 8 + stops), label="event")
        resolved = fitting[event]
        if event != "attemptCompletion" and data.draw(st.integers(0, 3), label="some results are late") == 3:
            resolved = resolved[:1]
        change = data.draw(st.none() | self._changes(), label="todos") if event == "resolveToolResults" else None
        self._try(self._make(event, kinds if event in ANSWERS else None, resolved, change))

    @rule(data=st.data())
    def it_goes_on_further(self, data: st.DataObject) -> None:
        self.it_goes_on(data)

    @rule(field=st.sampled_from(["run_id", "step_number"]), data=st.data())
    def an_event_of_another_run_or_step_is_tried(self, field: str, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(sorted(EVENT_TYPES)))
        other: dict[str, Any] = {"run_id": "other", "step_number": self.story.checkpoint.step_number + 2}
        made = self.story.make(event, **{field: other[field]})
        with pytest.raises(ForbiddenTransition):
            apply(self.story.checkpoint, made)

    def _changes(self) -> st.SearchStrategy[TodoChange]:
        ids = st.lists(st.sampled_from(range(len(self.story.checkpoint.todos) or 1)), max_size=2)
        return st.builds(
            lambda cleared, added, completed: TodoChange(
                cleared=cleared,
                added=tuple(self.story.mark() for _ in range(added)),
                completed=() if cleared or not self.story.checkpoint.todos else tuple(completed),
            ),
            st.booleans(),
            st.integers(0, 2),
            ids,
        )

    def _make(
        self, event: str, kinds: list[str] | None, resolved: list[str], change: TodoChange | None
    ) -> tuple[e.RunEvent, list[str]]:
        calls = None if kinds is None else self.story.calls(*kinds)
        made = self.story.make(event, calls=calls, resolved=resolved, todo_change=change)
        given = resolved if event in ("resolveToolResults", "resumeToolCalls") else []
        return made, (resolved[:1] or ["nothing"]) if event == "attemptCompletion" else given

    def _try(self, made: tuple[e.RunEvent, list[str]]) -> None:
        event, resolved = made
        before, marks = self.story.checkpoint, len(self.story.marks)
        as_it_was = before.encode()
        expected = self._expected(event, resolved)
        if expected is None:
            with pytest.raises(ForbiddenTransition):
                self.story.tell(event)
            assert self.story.checkpoint is before
        else:
            self.story.tell(event)
            assert progress_of(self.story.checkpoint) == expected
            note(f"{event.type} -> {expected.state} {[call.id for call in expected.pending]}")
            self._account(event)
        assert before.encode() == as_it_was
        if expected is None:
            # What was refused is nowhere in the history.
            history = b"".join(told.encode() for told in self.story.history[-3:]).decode()
            assert not any(mark in history for mark in self.story.marks[marks:])

    def _expected(self, event: e.RunEvent, resolved: list[str]) -> Progress | None:
        """Where the table leads; None where it forbids."""
        calls = event.tool_calls if isinstance(event, e.Answer) and event.new_message is not None else ()
        if isinstance(event, e.AttemptCompletion) and self.story.checkpoint.open_todos:
            return None
        if isinstance(event, e.Answer) and event.new_message is not None and not calls:
            return None
        return self._leads(progress_of(self.story.checkpoint), event.type, calls, resolved)

    @staticmethod
    def _leads(
        progress: Progress, event: str, calls: tuple[ToolCallRef, ...], resolved: Collection[str]
    ) -> Progress | None:
        try:
            return advance(progress, event, calls=calls, resolved=resolved)
        except ForbiddenTransition:
            return None

    def _account(self, event: e.RunEvent) -> None:
        if isinstance(event, e.Answer | e.Retry | e.CompleteRun):
            self.spent += event.usage
        given: tuple[ToolResult, ...] = ()
        match event:
            case e.Answer() if event.new_message is not None:
                self.calls, self.results = tuple(call.id for call in event.tool_calls), {}
            case e.ResolveToolResults():
                given = event.tool_results
            case e.ResumeToolCalls():
                given = event.partial_tool_results
            case e.AttemptCompletion():
                given = (event.tool_result,)
        self.results |= {result.id: text_of(result) for result in given}

    @invariant()
    def every_call_waits_or_has_a_result(self) -> None:
        pending = [call.id for call in self.story.checkpoint.pending_tool_calls or ()]
        assert pending == [name for name in self.calls if name not in self.results]

    @invariant()
    def the_calls_of_the_answer_are_kept_until_the_model_is_told(self) -> None:
        checkpoint = self.story.checkpoint
        if checkpoint.tool_calls:
            assert tuple(call.id for call in checkpoint.tool_calls) == self.calls
            assert {result.id for result in checkpoint.partial_tool_results or ()} == set(self.results)

    @invariant()
    def the_conversation_is_one_that_a_provider_takes(self) -> None:
        checkpoint = self.story.checkpoint
        ids = [message.id for message in checkpoint.messages]
        assert len(set(ids)) == len(ids) == checkpoint.message_count
        assert checkpoint.last_message_id == (ids[-1] if ids else None)
        if checkpoint.state in (
            State.PREPARING_FOR_STEP,
            State.GENERATING_TOOL_CALL,
            State.GENERATING_RUN_RESULT,
            State.FINISHING_STEP,
            State.COMPLETED,
        ):
            assert_conversation_can_be_sent(checkpoint.messages)

    @invariant()
    def the_model_is_told_the_results_it_is_owed(self) -> None:
        last = self.story.checkpoint.messages[-1:]
        if last and isinstance(last[0], ToolMessage):
            told = {part.tool_call_id: part.contents[0].text for part in last[0].contents}  # type: ignore[union-attr]
            assert told == self.results

    @invariant()
    def usage_is_the_sum_of_all_generations(self) -> None:
        assert self.story.checkpoint.usage == self.spent

    @invariant()
    def the_status_tells_the_state(self) -> None:
        checkpoint = self.story.checkpoint
        assert checkpoint.status is CheckpointStatus.of(checkpoint.state)
        assert checkpoint.state.is_end == (checkpoint.status.value == checkpoint.state.value)
        assert (checkpoint.error is not None) == (checkpoint.state is State.STOPPED_BY_ERROR)
        assert (checkpoint.text is not None) == (checkpoint.state is State.COMPLETED)
        if checkpoint.state is State.STOPPED_BY_DELEGATE:
            waiting = [call.id for call in checkpoint.pending_tool_calls or () if call.skill_type == "delegate"]
            assert [target.tool_call_id for target in checkpoint.delegate_to or ()] == waiting

    @invariant()
    def a_completed_run_owes_nothing(self) -> None:
        checkpoint = self.story.checkpoint
        if checkpoint.state is State.COMPLETED:
            assert Waiting.of(checkpoint.pending_tool_calls or ()).total == 0
            assert not checkpoint.tool_calls

    @invariant()
    def todos_stand_at_their_ids(self) -> None:
        todos = self.story.checkpoint.todos
        assert [todo.id for todo in todos] == list(range(len(todos)))

    def teardown(self) -> None:
        if not self.story.history:
            return
        lines = [event.encode() for event in self.story.history]
        read = [e.history_event.validate_json(line) for line in lines]
        assert [event.encode() for event in read] == lines
        assert fold(read).checkpoint == self.story.checkpoint
        assert fold(self.story.history).checkpoint == self.story.checkpoint
        self._every_text_stands_once(b"".join(lines).decode())

    def _every_text_stands_once(self, history: str) -> None:
        repeated = [mark for mark in self.story.marks if history.count(mark) > 1]
        assert not repeated
        kept = self.story.checkpoint.encode().decode()
        assert not [mark for mark in self.story.marks if mark in kept and mark not in history]


TestAnyRun = AnyRun.TestCase
TestAnyRun.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    # Walks are slow to shrink: one bug at a time, without an explanation.
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_history_that_does_not_begin_is_refused() -> None:
    story = Story()
    story.happens("startRun")
    with pytest.raises(ContractError, match="begins with startRun, not with startGeneration"):
        fold([story.make("startGeneration")])
    with pytest.raises(ContractError, match="empty history"):
        fold([])
