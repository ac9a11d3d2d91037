"""Frames: what both sides write, and what neither takes."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import RunError, State
from expert_runner.contract.errors import WireError
from expert_runner.contract.machine import EVENT_TYPES
from expert_runner.contract.messages import FileInlinePart, ImageInlinePart, TextPart
from expert_runner.contract.model import Model
from expert_runner.contract.todos import MAX_TODOS, Todo, TodoChange
from expert_runner.contract.tools import MAX_TOOL_CALLS
from tests.contract.story import KINDS, Story

numbers = st.integers(0, 2**64 - 1)
kinds_of_frame = st.sampled_from(list(wire.Kind))

REPORT: TypeAdapter[Any] = TypeAdapter(wire.Report)
"""One report; a frame carries several."""


@given(kinds_of_frame, numbers, numbers)
def test_a_header_comes_back_as_it_was(kind: wire.Kind, seq: int, ack: int) -> None:
    header = wire.Header(kind, seq, ack)
    raw = wire.encode_header(header)
    assert len(raw) == 18
    assert wire.decode_header(raw) == header


@given(st.one_of(st.binary(max_size=40), st.binary(min_size=18, max_size=18)))
def test_any_bytes_are_a_header_or_refused(raw: bytes) -> None:
    try:
        header = wire.decode_header(raw)
    except WireError:
        return
    assert wire.encode_header(header) == raw


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "a header has 18 bytes, not 0"),
        (bytes(17), "a header has 18 bytes, not 17"),
        (bytes(19), "a header has 18 bytes, not 19"),
        (bytes([1, 4, *bytes(16)]), "protocol version 1; this side speaks 2"),
        (bytes([2, 0, *bytes(16)]), "unknown kind of frame: 0"),
        (bytes([2, 6, *bytes(16)]), "unknown kind of frame: 6"),
    ],
)
def test_a_malformed_header_says_what_is_wrong_with_it(raw: bytes, why: str) -> None:
    with pytest.raises(WireError, match=f"^{why}$"):
        wire.decode_header(raw)


def a_call(number: int = 0) -> Any:
    return Story().call(f"c{number}", "tool")


COMMANDS: list[Model] = [
    wire.Assign(job_id="j", run_id="r", expert_key="e", base_tools=("exec",), workspace="/workspace"),
    wire.Assign(
        job_id="j",
        run_id="r",
        expert_key="@scope/e@1.0.0",
        state=State.RESUMING_FROM_STOP,
        pending_tool_calls=tuple(Story().call(f"c{n}", kind) for n, kind in enumerate(KINDS)),
        todos=(Todo(id=0, title="one", completed=True),),
        base_tools=(),
        workspace="/workspace",
        env={"A_NAME": "value"},
    ),
    wire.Answered(tool_calls=(a_call(), Story().garbled_call("c1"))),
    wire.Resume(resolved=("c0", "c1")),
    wire.End(),
]
RESULT = wire.WireResult(
    id="c0",
    result=(
        TextPart(text="\0 «é» \U0001f600\n"),
        ImageInlinePart(encoded_data="aGk=", mime_type="image/png"),
        FileInlinePart(encoded_data="aGk=", mime_type="application/pdf"),
    ),
    is_error=True,
)
MOVES = sorted(EVENT_TYPES - {"retry", "resolveToolResults", "attemptCompletion"} - {"stopRunByError"})
REPORTS: list[Model] = [
    *(wire.Moved(type=event) for event in MOVES if event in str(wire.Moved.model_fields["type"].annotation)),  # type: ignore[arg-type]
    wire.Resolved(tool_results=(RESULT,), todo_change=TodoChange(cleared=True, added=("a",), completed=(0,))),
    wire.Resolved(tool_results=()),
    wire.CompletionAttempted(tool_result=RESULT),
    wire.Failed(error=RunError(name="N", message="m")),
    wire.SkillUp(skill_name="@perstack/base", total_duration_ms=1.5),
]


@pytest.mark.parametrize("message", COMMANDS, ids=lambda message: type(message).__name__)
def test_every_command_comes_back_as_it_was(message: Model) -> None:
    assert wire.parse(wire.command, message.encode()) == message


@pytest.mark.parametrize("message", REPORTS, ids=lambda message: message.type)
def test_every_report_comes_back_as_it_was(message: Model) -> None:
    assert wire.parse(REPORT, message.encode()) == message


def test_a_runner_reports_only_what_is_its_own_to_decide() -> None:
    """Retries, step limits and cancellation are the orchestrator's."""
    for event in ("retry", "stopRunByExceededMaxSteps", "stopRunByCancellation"):
        with pytest.raises(WireError):
            wire.parse(REPORT, json.dumps({"type": event}).encode())


def with_unknown_fields(value: Any) -> list[Any]:
    """Copies of `value`, each with one more field in one of its objects; arguments may have any."""
    copies: list[Any] = []
    if isinstance(value, dict):
        copies.append({**value, "unknown": 1})
        for name, part in value.items():
            if name not in ("args", "env"):
                copies += [{**value, name: copy} for copy in with_unknown_fields(part)]
    elif isinstance(value, list):
        for place, part in enumerate(value):
            copies += [[*value[:place], copy, *value[place + 1 :]] for copy in with_unknown_fields(part)]
    return copies


@pytest.mark.parametrize(
    ("adapter", "message"),
    [(wire.command, message) for message in COMMANDS] + [(REPORT, message) for message in REPORTS],
)
def test_an_unknown_field_is_refused_wherever_it_stands(adapter: TypeAdapter[Any], message: Model) -> None:
    copies = with_unknown_fields(json.loads(message.encode()))
    assert copies
    for copy in copies:
        with pytest.raises(WireError, match="not a message of this protocol"):
            wire.parse(adapter, json.dumps(copy).encode())


def result(**changes: Any) -> dict[str, Any]:
    return {"id": "c0", "result": [{"type": "textPart", "text": "x"}], **changes}


@pytest.mark.parametrize(
    "report",
    [
        {"type": "resolveToolResults", "toolResults": [result(id=f"c{n}") for n in range(MAX_TOOL_CALLS + 1)]},
        {"type": "attemptCompletion", "toolResult": result(result=[{"type": "textPart", "text": ""}] * 65)},
        {"type": "attemptCompletion", "toolResult": result(id="x" * 257)},
        {
            "type": "attemptCompletion",
            "toolResult": result(result=[{"type": "imageUrlPart", "url": "file:///", "mimeType": ""}]),
        },
        {"type": "attemptCompletion", "toolResult": result(isError="maybe")},
        {"type": "attemptCompletion"},
        {"type": "resolveToolResults", "toolResults": [], "todoChange": {"added": ["x"] * (MAX_TODOS + 1)}},
        {"type": "resolveToolResults", "toolResults": [], "todoChange": {"completed": [0] * (MAX_TODOS + 1)}},
        {"type": "resolveToolResults", "toolResults": [], "todoChange": {"added": ["x" * 2001]}},
        {"type": "skillConnected", "skillName": "x" * 257, "totalDurationMs": 1},
        {"type": "skillConnected", "skillName": "x", "totalDurationMs": -1},
        {"type": "answered"},
        {"type": None},
        {},
        [],
        None,
    ],
    ids=lambda report: json.dumps(report)[:60],
)
def test_a_report_that_is_too_long_or_of_another_shape_is_refused(report: Any) -> None:
    with pytest.raises(WireError, match="not a message of this protocol"):
        wire.parse(REPORT, json.dumps(report).encode())


def test_an_answer_with_too_many_calls_is_refused() -> None:
    calls = [json.loads(a_call(n).encode()) for n in range(MAX_TOOL_CALLS + 1)]
    with pytest.raises(WireError):
        wire.parse(wire.command, json.dumps({"type": "answered", "toolCalls": calls}).encode())
    most = wire.parse(wire.command, json.dumps({"type": "answered", "toolCalls": calls[1:]}).encode())
    assert isinstance(most, wire.Answered)


@pytest.mark.parametrize("number", ["1e999", "Infinity", "NaN"])
def test_a_duration_is_a_number_that_json_has(number: str) -> None:
    with pytest.raises(WireError):
        wire.parse(REPORT, f'{{"type":"skillConnected","skillName":"x","totalDurationMs":{number}}}'.encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"\0", b'{"type":"end"} {"type":"end"}', b'"' + b"\\ud800" + b'"', b"[" * 100_000],
    ids=["empty", "cut off", "not UTF-8", "NUL", "two", "half a character", "nested"],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(WireError, match="not a message of this protocol"):
        wire.parse(wire.command, body)
    with pytest.raises(WireError, match="not a message of this protocol"):
        wire.parse(REPORT, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "id", "args"]), inner),
    max_leaves=8,
)
REPORT_TYPES = sorted({message.type for message in REPORTS})  # type: ignore[attr-defined]
fields = st.sampled_from(
    ["toolResults", "toolResult", "todoChange", "error", "skillName", "totalDurationMs", "resolved"]
)


# What is slow is to make the examples, on a machine that has other work.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(REPORT_TYPES), st.dictionaries(fields, json_values, max_size=3), st.binary(max_size=20))
def test_any_body_is_a_report_or_refused(name: str, contents: dict[str, Any], raw: bytes) -> None:
    for body in (json.dumps({"type": name, **contents}).encode(), raw):
        try:
            message = wire.parse(REPORT, body)
        except WireError:
            continue
        assert wire.parse(REPORT, message.encode()) == message


def test_an_error_does_not_repeat_what_a_sandbox_sent() -> None:
    with pytest.raises(WireError) as raised:
        wire.parse(REPORT, b'{"type":"resolveToolResults","toolResults":"s3cr3t"}')
    assert "s3cr3t" not in str(raised.value)
