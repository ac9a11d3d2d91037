"""Which events are selected, and what the line of each says."""

from typing import Any

import pytest

from expert_runner.contract import events as e
from expert_runner.contract.tools import ToolResult
from orchestrator.errors import ConfigError
from orchestrator.logs.event_text import EventText
from orchestrator.logs.filter import parse_filter
from orchestrator.logs.reading import Entry
from orchestrator.logs.selection import (
    EVENT_TYPES,
    EVERYTHING,
    Selection,
    parse_types,
    tells_of_delegations,
    tells_of_error,
    tells_of_tools,
)
from orchestrator.logs.step_range import parse_steps
from orchestrator.store.history import HistoryEvent
from tests.contract.story import Story
from tests.logs.histories import ESCAPES

AROUND: dict[str, Any] = {"id": "x", "job_id": "job", "run_id": "run", "timestamp": 1_700_000_000_000}
SURROUNDINGS: tuple[Any, ...] = (
    e.InitializeRuntime(
        **AROUND,
        runtime_version="0",
        runtime="local",
        expert_name="lead",
        experts=("lead",),
        model=ESCAPES,
        max_retries=5,
        timeout=1,
    ),
    e.SkillStarting(**AROUND, skill_name="s", command=ESCAPES, args=(ESCAPES,)),
    e.SkillConnected(**AROUND, skill_name=ESCAPES, total_duration_ms=12.5),
    e.SkillStderr(**AROUND, skill_name="s", message=ESCAPES),
    e.SkillDisconnected(**AROUND, skill_name=ESCAPES),
    e.DockerBuildProgress(**AROUND, stage="pulling", service="lead", message=ESCAPES),
    e.DockerContainerStatus(**AROUND, status="running", service="lead", message=ESCAPES, details={"x": ESCAPES}),
    e.SandboxLost(**AROUND, cause=ESCAPES, evidence=ESCAPES, log=f"{ESCAPES}\n{ESCAPES}", losses=1),
    e.ProxyAccess(**AROUND, action="blocked", domain=ESCAPES, port=443, reason=ESCAPES),
)


def every_event() -> list[HistoryEvent]:
    """One event of each type, with texts that would take a terminal over."""
    made = Story()
    for kind in EVENT_TYPES:
        if kind in ("callTools", "callDelegate", "callInteractiveTool"):
            made.history.append(made.make(kind, calls=made.calls("tool", "delegate", "interactive")))
        elif kind not in {event.type for event in SURROUNDINGS}:
            made.history.append(made.make(kind, resolved=("c0",)))
    return [*(_hostile(event) for event in made.history), *SURROUNDINGS]


def _hostile(event: Any) -> Any:
    """`event` with each of its marked texts, wherever it stands, replaced."""
    line = event.encode().decode()
    for number in range(100):
        line = line.replace(f"«{number}»", ESCAPES.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"))
    return e.history_event.validate_json(line)


def entry(event: HistoryEvent) -> Entry:
    return Entry(1, event.encode(), event)


def selected(selection: Selection) -> list[str]:
    return [event.type for event in every_event() if selection.matches(entry(event))]


def test_every_stored_type_can_be_selected_and_no_other() -> None:
    assert {event.type for event in every_event()} == set(EVENT_TYPES)
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES)) == 27
    for kind in EVENT_TYPES:
        assert selected(Selection(types=parse_types([kind]))) == [kind]
    assert selected(EVERYTHING) == [event.type for event in every_event()]


def test_types_are_given_one_by_one_or_separated_by_commas() -> None:
    assert parse_types(["retry, callTools", "completeRun", ""]) == {"retry", "callTools", "completeRun"}
    assert parse_types([]) == frozenset()


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match="--type calltools, streamRunResult: the history has these: startRun, "
    ) as raised:
        parse_types(["calltools,retry", "streamRunResult"])
    assert all(kind in str(raised.value) for kind in EVENT_TYPES)


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("kind", ["resolveToolResults", "attemptCompletion", "resumeToolCalls"])
def test_a_result_is_an_error_if_it_says_so(kind: str, failed: bool) -> None:
    made = Story()
    call = made.call("c0", "tool")
    results = (ToolResult.of(call, "fine"), ToolResult.of(call, "bad", is_error=failed))
    field = {"resolveToolResults": "tool_results", "resumeToolCalls": "partial_tool_results"}.get(kind)
    change: dict[str, Any] = {field: results} if field is not None else {"tool_result": results[1]}
    assert tells_of_error(made.make(kind).model_copy(update=change)) is failed


def test_errors_are_stops_retries_and_losses() -> None:
    told = [event.type for event in every_event() if tells_of_error(event)]
    assert told == ["retry", "stopRunByError", "sandboxLost"]
    status, build = SURROUNDINGS[6], SURROUNDINGS[5]
    assert tells_of_error(status.model_copy(update={"status": "error"}))
    assert tells_of_error(build.model_copy(update={"stage": "error"}))


def answered(kind: str, *calls: str) -> HistoryEvent:
    made = Story().until_answer()
    return made.make(kind, calls=made.calls(*calls))


@pytest.mark.parametrize(
    ("event", "tools", "delegations"),
    [
        (answered("callTools", "tool"), True, False),
        (answered("callTools", "tool", "delegate"), True, True),
        (answered("callDelegate", "delegate"), False, True),
        (answered("callDelegate", "delegate", "interactive"), True, True),
        (answered("callInteractiveTool", "interactive"), True, False),
        (answered("callTools", "completion"), True, False),
    ],
)
def test_an_answer_is_about_what_it_calls(event: HistoryEvent, tools: bool, delegations: bool) -> None:
    assert (tells_of_tools(event), tells_of_delegations(event)) == (tools, delegations)


def test_an_answer_told_before_is_about_what_is_called_now() -> None:
    made = Story().until_answer()
    made.happens("callTools", "tool", "delegate", "interactive")
    made.happens("resolveToolResults", resolved=("c0",))
    delegate, question = made.make("callDelegate"), made.make("callInteractiveTool")
    assert (tells_of_tools(delegate), tells_of_delegations(delegate)) == (False, True)
    assert (tells_of_tools(question), tells_of_delegations(question)) == (True, False)
    made.happens("callDelegate")
    stop = made.make("stopRunByDelegate")
    assert (tells_of_tools(stop), tells_of_delegations(stop)) == (False, True)
    made.happens("stopRunByDelegate")
    resumed = made.make("resumeToolCalls", resolved=("c1",))
    assert (tells_of_tools(resumed), tells_of_delegations(resumed)) == (False, True)


def test_each_criterion_narrows_but_tools_and_delegations_add_up() -> None:
    both = selected(Selection(tools=True, delegations=True))
    tools, delegations = selected(Selection(tools=True)), selected(Selection(delegations=True))
    assert set(both) == set(tools) | set(delegations)
    assert set(tools) != set(both) != set(delegations)
    assert selected(Selection(tools=True, types=frozenset({"retry"}))) == []
    assert selected(Selection(errors=True, types=frozenset({"retry", "startRun"}))) == ["retry"]
    assert selected(Selection(run_id="other")) == []


def test_a_filter_sees_the_event_as_it_is_stored() -> None:
    assert selected(Selection(expression=parse_filter('.toolCalls[].skillType == "delegate"'))) == [
        "callTools",
        "callDelegate",
        "callInteractiveTool",
    ]


def test_steps_select_events_that_have_one() -> None:
    everything = selected(Selection(steps=parse_steps(">0")))
    assert everything == [event.type for event in every_event() if isinstance(event, e.BaseRunEvent)]
    assert selected(Selection(steps=parse_steps(">1"))) == []


TEXT = EventText({"run": "lead"}, {"run": 1}, is_verbose=False, marks_matches=False)
VERBOSE = EventText({"run": "lead"}, {"run": 1}, is_verbose=True, marks_matches=False)


@pytest.mark.parametrize("event", every_event(), ids=lambda event: event.type)
def test_every_event_has_a_line_that_does_nothing_to_the_terminal(event: HistoryEvent) -> None:
    (line,) = TEXT.lines(event)
    assert event.type in line
    for shown in (line, *VERBOSE.lines(event)):
        assert shown.isprintable(), "no control character, no escape sequence, no line break"


@pytest.mark.parametrize("event", every_event(), ids=lambda event: event.type)
def test_verbose_shows_every_text_whole(event: HistoryEvent) -> None:
    shown = "\n".join(VERBOSE.lines(event))
    contents = event.encode().decode().count("[31mred")
    # What proves to the provider that it thought so is for machines.
    contents -= sum(part.signature is not None for part in getattr(event, "thinking", ()))
    assert shown.count("[31mred") == contents


def test_a_line_says_when_who_where_and_what() -> None:
    made = Story()
    made.happens("startRun")
    made.happens("startGeneration")
    made.happens("callTools", "tool")
    (line,) = TEXT.lines(made.history[-1])
    assert line.startswith("2023-11-14T22:13:20.003Z   lead run   1 callTools  → exec {")


def test_a_line_is_short_however_long_the_text() -> None:
    made = Story().until_answer()
    call = made.call("c0", "tool").model_copy(update={"args": {"text": "x" * 1_000_000}})
    (line,) = TEXT.lines(made.make("callTools", calls=[call] * 100))
    assert len(line) < 350
    assert line.endswith("…")


def test_each_of_several_calls_has_its_place_in_the_line() -> None:
    made = Story().until_answer()
    calls = [call.model_copy(update={"args": {"text": "x" * 1_000}}) for call in made.calls("tool", "completion")]
    (line,) = TEXT.lines(made.make("callTools", calls=calls))
    assert "→ exec {" in line
    assert "→ attemptCompletion {" in line


def test_matches_are_marked_where_there_is_context() -> None:
    text = EventText({"run": "lead"}, {"run": 0}, is_verbose=False, marks_matches=True)
    event = SURROUNDINGS[0]
    assert next(text.lines(event, is_match=True)).startswith("* 2023")
    assert next(text.lines(event, is_match=False)).startswith("  2023")
