"""The table itself: searched through as a whole, on the few calls that tell all cases apart."""

from collections.abc import Iterator
from functools import cache
from itertools import combinations

import pytest

from expert_runner.contract.checkpoints import ENDS, CheckpointStatus, State
from expert_runner.contract.errors import ForbiddenTransition
from expert_runner.contract.machine import (
    EVENT_TYPES,
    TRANSITIONS,
    Progress,
    Waiting,
    advance,
    allowed,
    diagram,
)
from expert_runner.contract.tools import ToolCallRef
from tests.contract.story import ANSWERS, EVENTS, KINDS, Story, reference

STOPS_AT_ANY_TIME = frozenset({"stopRunByError", "stopRunByCancellation"})

GIVE_RESULTS = frozenset({"resolveToolResults", "attemptCompletion", "resumeToolCalls"})

POOL = tuple(
    reference(Story().call(name, kind))
    for name, kind in {
        "t1": "tool",
        "t2": "unknown",
        "d1": "delegate",
        "d2": "delegate",
        "i1": "interactive",
        "i2": "interactive",
        "a1": "completion",
    }.items()
)


def subsets(calls: tuple[ToolCallRef, ...]) -> Iterator[tuple[ToolCallRef, ...]]:
    for size in range(len(calls) + 1):
        yield from combinations(calls, size)


def moves(progress: Progress) -> Iterator[tuple[str, Progress]]:
    """Every transition that can happen in `progress`."""
    for event in sorted(EVENT_TYPES):
        answers = subsets(POOL) if event in ANSWERS and progress.state is State.GENERATING_TOOL_CALL else [()]
        results = subsets(progress.pending) if event in GIVE_RESULTS else [()]
        for calls in answers:
            for resolved in results:
                try:
                    yield event, advance(progress, event, calls=calls, resolved=[call.id for call in resolved])
                except ForbiddenTransition:
                    continue


@cache
def graph() -> dict[Progress, tuple[tuple[str, Progress], ...]]:
    """All that can be reached from the beginning."""
    found: dict[Progress, tuple[tuple[str, Progress], ...]] = {}
    waiting = [Progress(State.INIT)]
    while waiting:
        progress = waiting.pop()
        if progress not in found:
            found[progress] = tuple(dict.fromkeys(moves(progress)))
            waiting += [after for _, after in found[progress]]
    return found


def test_every_state_is_reached() -> None:
    assert {progress.state for progress in graph()} == set(State)


def test_every_row_of_the_table_is_taken() -> None:
    taken = {(before.state, event, after.state) for before, rows in graph().items() for event, after in rows}
    assert taken == {(row.state, row.event, row.target) for row in TRANSITIONS}


def test_a_run_can_be_completed_from_wherever_it_stands() -> None:
    """Without the stops that can always come: no answer, mixed as it may be, leads into a dead end."""
    leads_to_end = {progress for progress in graph() if progress.state is State.COMPLETED}
    grew = True
    while grew:
        more = {
            progress
            for progress, rows in graph().items()
            if progress not in leads_to_end
            and any(after in leads_to_end for event, after in rows if event not in STOPS_AT_ANY_TIME)
        }
        leads_to_end |= more
        grew = bool(more)
    assert set(graph()) == leads_to_end


def test_at_most_one_row_holds_in_any_case() -> None:
    counts = {Waiting.of(calls) for calls in subsets(POOL)} | {Waiting(0, 0, 0, 2), Waiting(1, 0, 0, 2)}
    for row in TRANSITIONS:
        others = [other for other in TRANSITIONS if (other.state, other.event) == (row.state, row.event)]
        for waiting in counts:
            assert sum(other.guard(waiting) for other in others) <= 1, (row.state, row.event, waiting)


def test_only_an_answer_gives_a_run_more_to_wait_for() -> None:
    for before, rows in graph().items():
        for event, after in rows:
            if before.state is not State.GENERATING_TOOL_CALL:
                assert set(after.pending) <= set(before.pending), event
                assert list(after.pending) == [call for call in before.pending if call in after.pending]


def test_nothing_waits_where_the_model_is_asked_or_the_run_is_complete() -> None:
    asked = (State.PREPARING_FOR_STEP, State.GENERATING_TOOL_CALL, State.GENERATING_RUN_RESULT, State.COMPLETED)
    assert not [progress for progress in graph() if progress.state in asked and progress.pending]


def test_own_tools_come_before_delegates_and_those_before_the_user() -> None:
    for progress in graph():
        waiting = Waiting.of(progress.pending)
        if progress.state in (State.CALLING_DELEGATES, State.STOPPED_BY_DELEGATE):
            assert waiting.tools == 0
            assert waiting.delegates > 0
        if progress.state in (State.CALLING_INTERACTIVE_TOOLS, State.STOPPED_BY_INTERACTIVE_TOOL):
            assert waiting.tools == waiting.delegates == 0
            assert waiting.interactive > 0


@pytest.mark.parametrize("state", [state for state in State if state not in (State.INIT, *ENDS)])
def test_a_run_can_be_stopped_at_any_time(state: State) -> None:
    assert allowed(state) >= STOPS_AT_ANY_TIME


@pytest.mark.parametrize("state", [State.STOPPED_BY_ERROR, State.STOPPED_BY_CANCELLATION, State.COMPLETED])
def test_an_end_is_stopped_once(state: State) -> None:
    assert not allowed(state) & STOPS_AT_ANY_TIME


def test_going_on_after_a_stop_needs_a_call_that_waits() -> None:
    """Else the model would be told results of calls it never made; a further query is what goes on then."""
    for state in (State.STOPPED_BY_ERROR, State.STOPPED_BY_CANCELLATION):
        with pytest.raises(ForbiddenTransition):
            advance(Progress(state), "resumeToolCalls")


def test_the_table_and_the_events_are_the_same() -> None:
    assert set(EVENTS) == EVENT_TYPES


def test_every_state_has_a_status() -> None:
    assert {CheckpointStatus.of(state) for state in State} == set(CheckpointStatus)


def test_the_ends_are_the_documented_ones() -> None:
    assert {state.value for state in ENDS} == {
        "completed",
        "stoppedByError",
        "stoppedByExceededMaxSteps",
        "stoppedByInteractiveTool",
        "stoppedByDelegate",
        "stoppedByCancellation",
    }


def test_the_diagram_names_every_state_and_every_event() -> None:
    text = diagram()
    assert text.startswith("stateDiagram-v2\n    [*] --> Init\n")
    for name in [*State, *EVENT_TYPES]:
        assert name in text
    assert "CallingMcpTools --> ResolvingToolResult: resolveToolResults [no call waits]" in text


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_result_is_taken_only_from_where_it_can_come(kind: str) -> None:
    """A sandbox cannot answer for a delegate or for the user, and nobody outside for a sandbox's tools."""
    call = reference(Story().call("c", kind))
    inside = Progress(State.CALLING_MCP_TOOLS, (call,))
    outside = Progress(State.STOPPED_BY_DELEGATE, (call,))
    is_own = kind in ("tool", "unknown", "completion")
    for progress, event, fits in ((inside, "resolveToolResults", is_own), (outside, "resumeToolCalls", not is_own)):
        if fits:
            assert advance(progress, event, resolved=["c"]).pending == ()
        else:
            with pytest.raises(ForbiddenTransition, match="no waiting call of its kind"):
                advance(progress, event, resolved=["c"])


@pytest.mark.parametrize(
    ("resolved", "why"),
    [
        (["forged"], "no waiting call"),
        (["t1", "forged"], "no waiting call"),
        (["t1", "t1"], "no waiting call"),
        ([], "gives no result"),
    ],
)
def test_results_nobody_asked_for_are_refused(resolved: list[str], why: str) -> None:
    with pytest.raises(ForbiddenTransition, match=why):
        advance(Progress(State.CALLING_MCP_TOOLS, POOL), "resolveToolResults", resolved=resolved)


def test_an_event_without_results_cannot_give_any() -> None:
    with pytest.raises(ForbiddenTransition, match="callDelegate gives results"):
        advance(Progress(State.CALLING_MCP_TOOLS, POOL), "callDelegate", resolved=["d1"])


def test_two_calls_with_one_id_are_refused() -> None:
    with pytest.raises(ForbiddenTransition, match="two calls with one id"):
        advance(Progress(State.GENERATING_TOOL_CALL), "callTools", calls=(POOL[0], POOL[0]))


def test_calls_come_with_an_answer_only() -> None:
    with pytest.raises(ForbiddenTransition, match="brings calls in state CallingMcpTools"):
        advance(Progress(State.CALLING_MCP_TOOLS, POOL[2:3]), "callDelegate", calls=POOL[3:4])


def test_a_refusal_says_what_would_be_needed() -> None:
    with pytest.raises(ForbiddenTransition, match=r"^callDelegate .* in state CallingMcpTools unless delegates wait"):
        advance(Progress(State.CALLING_MCP_TOOLS, POOL), "callDelegate")
    with pytest.raises(ForbiddenTransition, match=r"^completeRun cannot happen in state Init$"):
        advance(Progress(State.INIT), "completeRun")
