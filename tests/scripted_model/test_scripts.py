"""Scripts: what they may contain, what is said about broken ones, which turn and fault come next."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.scripted_model import (
    Conversation,
    CutOffFault,
    HangFault,
    Script,
    ScriptedCall,
    ScriptError,
    StatusFault,
    Turn,
    load_script,
)

FULL = """
[[conversations]]
expert = "coordinator"
when = "poem"
repeatLast = true
[[conversations.turns]]
reasoning = "Let me look."
text = "I read the file."
toolCalls = [
  { name = "readTextFile", arguments = { path = "a.txt", lines = [1, 2] } },
  { name = "todo", arguments = "{ not json" },
]
usage = { promptTokens = 10, completionTokens = 5, reasoningTokens = 2, cachedTokens = 3 }
faults = [
  { kind = "status", status = 429, message = "slow down", retryAfter = 0.5, times = 2 },
  { kind = "cutOff", times = 1 },
]
repeat = 3
delayMs = 1
chunkDelayMs = 2
chunkSize = 4
[[conversations.turns]]
text = "done"
[[conversations]]
expert = "*"
[[conversations.turns]]
faults = [{ kind = "hang" }]
"""


def write(folder: Path, text: str, name: str = "script.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_toml_and_python_describe_the_same_script(tmp_path: Path) -> None:
    turn = Turn(
        reasoning="Let me look.",
        text="I read the file.",
        tool_calls=(
            ScriptedCall(name="readTextFile", arguments={"path": "a.txt", "lines": [1, 2]}),
            ScriptedCall(name="todo", arguments="{ not json"),
        ),
        usage={"promptTokens": 10, "completionTokens": 5, "reasoningTokens": 2, "cachedTokens": 3},  # type: ignore[arg-type]
        faults=(
            StatusFault(status=429, message="slow down", retry_after=0.5, times=2),
            CutOffFault(times=1),
        ),
        repeat=3,
        delay_ms=1,
        chunk_delay_ms=2,
        chunk_size=4,
    )
    assert load_script(write(tmp_path, FULL)) == Script(
        conversations=(
            Conversation(expert="coordinator", when="poem", repeat_last=True, turns=(turn, Turn(text="done"))),
            Conversation(expert="*", turns=(Turn(faults=(HangFault(),)),)),
        )
    )


def test_a_script_written_as_json_reads_back_the_same(tmp_path: Path) -> None:
    script = load_script(write(tmp_path, FULL))
    assert load_script(write(tmp_path, script.encode().decode(), "script.json")) == script


TURNS = '[[conversations]]\nexpert = "a"\n[[conversations.turns]]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conversations = 1 2", "at line 1, column 19"),
        ("", "conversations: this field is missing"),
        ("conversations = []", "conversations: expected at least one"),
        ('[[conversations]]\nexpert = "a"\nturns = []', "conversations[0].turns: expected at least one"),
        ("colour = 1", "colour: unknown field; expected one of conversations"),
        (
            TURNS + 'txet = "x"',
            "conversations[0].turns[0].txet: unknown field; expected one of reasoning, text, toolCalls",
        ),
        (TURNS + "repeat = 1", "conversations[0].turns[0]: expected `text`, `toolCalls` or `reasoning`"),
        (TURNS + 'text = "x"\nchunkSize = 0', "conversations[0].turns[0].chunkSize: Input should be greater than"),
        (TURNS + "toolCalls = [{ arguments = {} }]", "turns[0].toolCalls[0].name: this field is missing"),
        (
            TURNS + 'toolCalls = [{ name = "x", args = {} }]',
            "turns[0].toolCalls[0].args: unknown field; expected one of name, arguments",
        ),
        (
            TURNS + 'toolCalls = [{ name = "x", arguments = 3 }]',
            "turns[0].toolCalls[0].arguments: expected a table, or a string",
        ),
        (
            TURNS + 'toolCalls = [{ name = "x", arguments = { day = 2001-01-01 } }]',
            "turns[0].toolCalls[0].arguments: expected values that JSON has",
        ),
        (TURNS + 'text = "{{resutl.0}}"', "turns[0].text: unknown placeholder {{resutl.0}}: expected {{query}}"),
        (
            TURNS + 'toolCalls = [{ name = "x", arguments = { a = ["{{ query.1 }}"] } }]',
            "turns[0].toolCalls[0].arguments: unknown placeholder {{ query.1 }}",
        ),
        (TURNS + 'faults = [{ kind = "explode" }]', "turns[0].faults[0]: Input tag 'explode' found"),
        (TURNS + 'faults = [{ kind = "status" }]', "turns[0].faults[0].status: this field is missing"),
        (TURNS + 'faults = [{ kind = "status", status = 200 }]', "turns[0].faults[0].status: Input should be greater"),
        (
            TURNS + 'faults = [{ kind = "hang", retryAfter = 1 }]',
            "turns[0].faults[0].retryAfter: unknown field; expected one of times, kind",
        ),
        (TURNS + 'faults = [{ kind = "hang", times = 1 }]', "or a fault without `times`"),
        (TURNS + 'faults = [{ kind = "hang" }, { kind = "cutOff" }]', "only the last of `faults`"),
    ],
)
def test_a_broken_script_is_refused_with_the_place_and_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ScriptError) as refused:
        load_script(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert expected in str(refused.value)


def test_every_problem_of_a_script_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScriptError) as refused:
        load_script(write(tmp_path, TURNS + 'txet = "x"\nchunkSize = 0'))
    assert len(str(refused.value).splitlines()) == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"absent\.toml: cannot be read: No such file"):
        load_script(tmp_path / "absent.toml")


def test_braces_that_are_no_placeholder_are_ordinary_text() -> None:
    Turn(text='{"a": {"b": {}}} {{}} {{ 1 }} {{a b}}', tool_calls=(ScriptedCall(name="x", arguments={"a": {"b": {}}}),))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans(), st.integers(0, 30))
def test_a_repeated_turn_stands_for_that_many_turns(repeats: list[int], repeat_last: bool, index: int) -> None:
    turns = tuple(Turn(text=str(number), repeat=repeat) for number, repeat in enumerate(repeats))
    conversation = Conversation(expert="a", turns=turns, repeat_last=repeat_last)
    spelled_out = [turn for turn in turns for _ in range(turn.repeat)]
    assert len(conversation) == len(spelled_out)
    past_the_end = turns[-1] if repeat_last else None
    assert conversation.turn_at(index) == (spelled_out[index] if index < len(spelled_out) else past_the_end)


def test_faults_are_met_one_after_the_other_and_then_the_answer_comes() -> None:
    busy, cut = StatusFault(status=503, times=2), CutOffFault(times=1)
    turn = Turn(text="x", faults=(busy, cut))
    assert [turn.fault_at(attempt) for attempt in range(5)] == [busy, busy, cut, None, None]


def test_a_fault_without_times_is_met_for_ever() -> None:
    turn = Turn(faults=(StatusFault(status=503, times=1), HangFault()))
    assert [type(turn.fault_at(attempt)) for attempt in (0, 1, 1000)] == [StatusFault, HangFault, HangFault]


def test_a_script_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Turn(text="x").text = "y"  # type: ignore[misc]
