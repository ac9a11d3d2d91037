"""From a request to its answer, without HTTP."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scripted_model import (
    Conversation,
    CutOffFault,
    EmptyFault,
    Script,
    ScriptedCall,
    TokenCounts,
    Turn,
    attempts,
    encoding,
)
from orchestrator.scripted_model.answer import Answer, Call, Cue, Usage, compose, find_cue
from orchestrator.scripted_model.attempts import Attempts
from orchestrator.scripted_model.prompt import Prompt, RequestRefusedError, read_prompt
from orchestrator.scripted_model.script import Fault

Body = Callable[..., bytes]


def says(expert: str, text: str, when: str | None = None) -> Conversation:
    return Conversation(expert=expert, when=when, turns=(Turn(text=text),))


def answer_of(turn: Turn, prompt: Prompt, fault: Fault | None = None) -> Answer:
    return compose(Cue(conversation=0, index=prompt.turn, turn=turn), prompt, fault)


@pytest.mark.parametrize(
    ("expert", "query", "expected"),
    [
        ("coordinator", "a poem", "poem"),
        ("coordinator", "a story", "coordinator"),
        ("@scope/writer", "a poem", "writer"),
        ("stranger", "a story", "anyone"),
        (None, "a story", "anyone"),
    ],
)
def test_the_first_conversation_for_the_expert_and_its_query_answers(
    body: Body, expert: str | None, query: str, expected: str
) -> None:
    script = Script(
        conversations=(
            says("coordinator", "poem", when="poem"),
            says("coordinator", "coordinator"),
            says("@scope/writer", "writer"),
            says("*", "anyone"),
        )
    )
    assert find_cue(script, read_prompt(body(query, expert=expert))).turn.text == expected


def test_only_the_first_user_message_decides(messages: Callable[..., list[dict[str, Any]]]) -> None:
    conversation = [*messages("a story"), {"role": "user", "content": "a poem"}]
    prompt = read_prompt(json.dumps({"model": "any", "messages": conversation}).encode())
    assert prompt.query == "a story"


def test_only_the_system_message_names_the_expert(body: Body) -> None:
    prompt = read_prompt(body('Your Expert key is "coordinator".', expert=None))
    assert prompt.expert_key is None


def test_the_expert_key_must_be_a_line_of_its_own(body: Body) -> None:
    as_line = {"model": "m", "messages": [{"role": "system", "content": 'a\nYour Expert key is "x".\nb'}]}
    in_line = {"model": "m", "messages": [{"role": "system", "content": 'Say: Your Expert key is "x". Yes.'}]}
    assert read_prompt(json.dumps(as_line).encode()).expert_key == "x"
    assert read_prompt(json.dumps(in_line).encode()).expert_key is None


def test_content_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "poem"}]
    system = [{"type": "text", "text": 'Your Expert key is "x".'}]
    request = {"model": "m", "messages": [{"role": "system", "content": system}, {"role": "user", "content": parts}]}
    prompt = read_prompt(json.dumps(request).encode())
    assert (prompt.expert_key, prompt.query) == ("x", "a poem")


def test_the_number_of_answers_in_the_request_is_the_turn(body: Body) -> None:
    script = Script(conversations=(Conversation(expert="*", turns=(Turn(text="0", repeat=2), Turn(text="2"))),))
    found = [find_cue(script, read_prompt(body("q", *[["r"]] * answers))) for answers in range(3)]
    assert [(cue.index, cue.turn.text) for cue in found] == [(0, "0"), (1, "0"), (2, "2")]


def test_a_conversation_that_ran_out_says_which_one(body: Body) -> None:
    script = Script(conversations=(says("other", "x"), says("coordinator", "x", when="do")))
    with pytest.raises(RequestRefusedError) as refused:
        find_cue(script, read_prompt(body("do it", ["r"])))
    assert "conversations[1] (expert 'coordinator', when 'do') ran out: it has 1 turns" in str(refused.value)


@pytest.mark.parametrize(("expert", "expected"), [("a", "the Expert 'a'"), (None, "names no Expert")])
def test_a_request_that_matches_nothing_says_what_it_was(body: Body, expert: str | None, expected: str) -> None:
    with pytest.raises(RequestRefusedError, match=expected):
        find_cue(Script(conversations=(says("b", "x"),)), read_prompt(body(expert=expert)))


def test_placeholders_quote_the_query_the_turn_and_results(body: Body) -> None:
    prompt = read_prompt(body("q", ["a", "b"], ["c", "d"]))
    text = "{{query}} {{ turn }} {{result.0}} {{result.1}} {{turn.0.result.1}} {{turn.1.result.0}}"
    assert answer_of(Turn(text=text, reasoning="{{query}}"), prompt).text == "q 2 c d b c"
    assert answer_of(Turn(text=text, reasoning="{{query}}"), prompt).reasoning == "q"


def test_what_is_quoted_is_not_expanded_again(body: Body) -> None:
    assert answer_of(Turn(text="{{query}}"), read_prompt(body("{{turn}}"))).text == "{{turn}}"


def test_arguments_stay_json_whatever_is_quoted_in_them(body: Body) -> None:
    call = ScriptedCall(name="x", arguments={"a": ['"{{result.0}}"', 1], "b": {"c": "{{query}}"}, "d": None})
    prompt = read_prompt(body('say "hi"\n', ['\\ "é\x00']))
    assert json.loads(answer_of(Turn(tool_calls=(call,)), prompt).calls[0].arguments) == {
        "a": ['"\\ "é\x00"', 1],
        "b": {"c": 'say "hi"\n'},
        "d": None,
    }


def test_arguments_given_as_text_are_sent_as_they_are(body: Body) -> None:
    call = ScriptedCall(name="x", arguments='{"a": {{turn}}, oops')
    assert answer_of(Turn(tool_calls=(call,)), read_prompt(body())).calls[0].arguments == '{"a": 0, oops'


@pytest.mark.parametrize("text", ["{{result.1}}", "{{turn.0.result.2}}", "{{turn.5.result.0}}"])
def test_quoting_a_result_that_is_not_there_is_refused(body: Body, text: str) -> None:
    with pytest.raises(RequestRefusedError, match=r"turn 2 of the script uses \{\{"):
        answer_of(Turn(text=text), read_prompt(body("q", ["a", "b"], ["c"])))


def test_calls_of_one_answer_have_different_ids_and_those_of_other_turns_too(body: Body) -> None:
    turn = Turn(tool_calls=(ScriptedCall(name="x"), ScriptedCall(name="x")))
    answers = [answer_of(turn, read_prompt(body("q", *[["r"]] * number))) for number in range(3)]
    assert len({call.id for answer in answers for call in answer.calls}) == 6


@pytest.mark.parametrize(
    ("turn", "fault", "expected"),
    [
        (Turn(text="x"), None, "stop"),
        (Turn(text="x", tool_calls=(ScriptedCall(name="x"),)), None, "tool_calls"),
        (Turn(text="x", tool_calls=(ScriptedCall(name="x"),)), CutOffFault(), "length"),
        (Turn(text="x", tool_calls=(ScriptedCall(name="x"),)), EmptyFault(), "stop"),
    ],
)
def test_the_finish_reason_says_how_the_answer_ended(
    body: Body, turn: Turn, fault: Fault | None, expected: str
) -> None:
    assert answer_of(turn, read_prompt(body()), fault).finish_reason == expected


def test_a_cut_off_answer_loses_half_of_its_last_call_and_nothing_before_it(body: Body) -> None:
    calls = (ScriptedCall(name="a", arguments="0123"), ScriptedCall(name="b", arguments="012345"))
    answer = answer_of(Turn(text="whole", tool_calls=calls), read_prompt(body()), CutOffFault())
    assert (answer.text, [call.arguments for call in answer.calls]) == ("whole", ["0123", "012"])


def test_a_cut_off_answer_without_calls_loses_half_of_its_text_or_else_of_its_reasoning(body: Body) -> None:
    prompt = read_prompt(body())
    with_text = answer_of(Turn(reasoning="abcd", text="0123"), prompt, CutOffFault())
    assert (with_text.reasoning, with_text.text) == ("abcd", "01")
    assert answer_of(Turn(reasoning="abcd"), prompt, CutOffFault()).reasoning == "ab"


def test_an_empty_answer_has_nothing(body: Body) -> None:
    turn = Turn(reasoning="r", text="t", tool_calls=(ScriptedCall(name="x"),))
    answer = answer_of(turn, read_prompt(body()), EmptyFault())
    assert (answer.reasoning, answer.text, answer.calls) == ("", "", ())


def test_usage_is_as_scripted_and_otherwise_counted_from_the_sizes(body: Body) -> None:
    prompt = read_prompt(body())
    given = TokenCounts(prompt_tokens=10, completion_tokens=5, reasoning_tokens=2, cached_tokens=3)
    assert answer_of(Turn(text="x", usage=given), prompt).usage == Usage(10, 5, 2, 3)
    counted = answer_of(Turn(reasoning="a" * 8, text="b" * 9), prompt).usage
    assert counted == Usage(prompt=-(-prompt.size // 4), completion=5, reasoning=2, cached=0)


def reply(call: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": "r"}


def calling(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": call_id} for call_id in ids]}


USER = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        ([USER, calling("a", "b"), reply("a")], "without a result after them: b"),
        ([USER, calling("a"), USER], "without a result after them: a"),
        ([USER, calling("a"), calling("b"), reply("b")], "without a result after them: a"),
        ([USER, reply("a")], "messages[1] is the result of 'a', which no answer before it called"),
        ([USER, calling("a"), reply("a"), reply("a")], "messages[3] is the result of 'a'"),
        ([USER, calling("a", "a"), reply("a")], "messages[1].tool_calls has the same 'id' twice"),
        ([USER, {"role": "assistant", "tool_calls": [{}]}], "messages[1].tool_calls is not a list of calls"),
        ([USER, {"role": "assistant", "tool_calls": 3}], "messages[1].tool_calls is not a list of calls"),
        ([USER, {"content": "x"}], "messages[1] has no known 'role'"),
        ([USER, "x"], "messages[1] has no known 'role'"),
        ([], "'messages' is missing or empty"),
        (None, "'messages' is missing or empty"),
    ],
)
def test_a_conversation_that_providers_refuse_is_refused(conversation: Any, expected: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        read_prompt(json.dumps({"model": "m", "messages": conversation}).encode())
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "not a JSON object"), (b"{}", "'model' is missing")],
)
def test_a_body_that_is_no_request_is_refused(sent: bytes, expected: str) -> None:
    with pytest.raises(RequestRefusedError, match=expected):
        read_prompt(sent)


def test_attempts_are_counted_for_each_turn_and_history_apart(body: Body) -> None:
    counter = Attempts()

    def attempt(*args: Any) -> int:
        prompt = read_prompt(body(*args))
        return counter.count(Cue(0, prompt.turn, Turn(text="x")), prompt)

    assert [attempt("q"), attempt("q"), attempt("other"), attempt("q", ["r"]), attempt("q")] == [0, 1, 0, 0, 2]


def test_what_comes_after_the_last_answer_does_not_start_a_new_count(
    messages: Callable[..., list[dict[str, Any]]],
) -> None:
    counter = Attempts()
    for earlier, hints in enumerate(([], [{"role": "user", "content": "Please call a tool."}])):
        request = {"model": "m", "messages": [*messages("q", ["r"]), *hints]}
        prompt = read_prompt(json.dumps(request).encode())
        assert counter.count(Cue(0, 1, Turn(text="x")), prompt) == earlier


def test_the_counts_are_bounded_and_the_oldest_goes_first(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_TURNS", 2)
    counter, prompt = Attempts(), read_prompt(body())
    seen = [counter.count(Cue(0, index, Turn(text="x")), prompt) for index in (0, 1, 0, 2, 0, 1)]
    assert seen == [0, 0, 1, 0, 2, 0]


def merged(events: list[bytes]) -> tuple[str, str, list[tuple[str, str, str]]]:
    """Reasoning, text and calls (id, name, arguments) that a stream's deltas add up to."""
    reasoning = text = ""
    calls: list[list[str]] = []
    for event in events[:-1]:
        for choice in json.loads(event.removeprefix(b"data: "))["choices"]:
            delta = choice["delta"]
            reasoning += delta.get("reasoning_content", "")
            text += delta.get("content") or ""
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(calls):
                    calls.append([call["id"], call["function"]["name"], ""])
                calls[call["index"]][2] += call["function"]["arguments"]
    return reasoning, text, [(call_id, name, arguments) for call_id, name, arguments in calls]


@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.integers(1, 7))
def test_the_deltas_of_a_stream_add_up_to_the_answer(
    reasoning: str, text: str, arguments: list[str], chunk_size: int
) -> None:
    calls = tuple(Call(f"id{number}", "tool", value) for number, value in enumerate(arguments))
    answer = Answer(reasoning, text, calls, "stop", Usage(1, 2, 0, 0))
    events = list(
        encoding.chunks(answer, completion_id="i", created=1, model="m", chunk_size=chunk_size, include_usage=False)
    )
    assert merged(events) == (reasoning, text, [(call.id, call.name, call.arguments) for call in calls])
    assert events[-1] == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 for event in events)


def test_deltas_are_no_longer_than_the_chunk_size() -> None:
    answer = Answer("", "0123456789", (), "stop", Usage(1, 2, 0, 0))
    events = list(encoding.chunks(answer, completion_id="i", created=1, model="m", chunk_size=4, include_usage=False))
    texts = [json.loads(event[6:])["choices"][0]["delta"].get("content") for event in events[:-1]]
    assert texts == ["", "0123", "4567", "89", None]
