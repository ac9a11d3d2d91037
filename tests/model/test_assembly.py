"""An answer put together from chunks, sane or not."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expert_runner.contract.messages import ThinkingPart
from expert_runner.contract.usage import Usage
from orchestrator.model import assembly as module
from orchestrator.model.assembly import AnswerTooLargeError, Assembly, merge_usage
from orchestrator.model.generation import Delta


def chunk(**delta: Any) -> Any:
    return SimpleNamespace(choices=[SimpleNamespace(index=0, delta=SimpleNamespace(**delta))])


def call(index: Any = 0, call_id: Any = None, name: Any = None, arguments: Any = None, **fields: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    return chunk(tool_calls=[{"index": index, "id": call_id, "function": function, **fields}])


def assembled(*chunks: Any, deltas: list[Delta] | None = None) -> Assembly:
    heard: list[Delta] = [] if deltas is None else deltas
    result = Assembly(heard.append)
    for each in chunks:
        result.take(each)
    result.finish()
    return result


def test_text_and_reasoning_are_joined_and_told_in_order() -> None:
    deltas: list[Delta] = []
    answer = assembled(
        chunk(reasoning_content="I "),
        chunk(reasoning_content="think", content="so"),
        chunk(content=" I am"),
        deltas=deltas,
    )
    assert answer.text == "so I am"
    assert answer.thinking == (ThinkingPart(thinking="I think"),)
    assert deltas == [("reasoning", "I "), ("reasoning", "think"), ("text", "so"), ("text", " I am")]


def test_pieces_of_calls_are_joined_by_index_however_they_are_mixed() -> None:
    answer = assembled(
        call(0, "a", "exec", '{"x"'), call(1, "b", "read", "{"), call(0, None, None, ": 1}"), call(1, None, None, "}")
    )
    assert [(each.id, each.name, each.arguments) for each in answer.calls] == [
        ("a", "exec", '{"x": 1}'),
        ("b", "read", "{}"),
    ]


def test_a_name_may_come_late_and_again() -> None:
    answer = assembled(call(0, "a", None, "{"), call(0, None, "exec", "}"), call(0, None, "exec", ""))
    assert answer.calls[0].name == "exec"
    assert answer.calls[0].arguments == "{}"


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    answer = assembled(call(0, "a", "exec", "{}"), call(0, "b", "read", "{"), call(0, None, None, "}"))
    assert [(each.id, each.arguments) for each in answer.calls] == [("a", "{}"), ("b", "{}")]


def test_pieces_without_an_index_belong_to_the_latest_call() -> None:
    answer = assembled(call(None, "a", "exec", "{"), call(None, None, None, "}"), call(None, "b", "read", "{}"))
    assert [(each.id, each.arguments) for each in answer.calls] == [("a", "{}"), ("b", "{}")]


@pytest.mark.parametrize("bad", [None, "", "x" * 257, 17])
def test_a_missing_or_unusable_id_is_replaced(bad: Any) -> None:
    answer = assembled(call(0, bad, "exec", "{}"), call(1, bad, "exec", "{}"))
    ids = [each.id for each in answer.calls]
    assert len(set(ids)) == 2
    assert all(0 < len(each) <= 256 for each in ids)


def test_the_same_id_twice_is_replaced_the_second_time() -> None:
    answer = assembled(call(0, "a", "exec", "{}"), call(1, "a", "exec", "{}"))
    first, second = (each.id for each in answer.calls)
    assert first == "a"
    assert second != "a"


def test_a_call_without_a_name_is_a_call_of_nothing() -> None:
    assert assembled(call(0, "a", None, "{}")).calls[0].name == "unnamed"


def test_arguments_that_come_as_an_object_become_text() -> None:
    assert json.loads(assembled(call(0, "a", "exec", {"x": 1})).calls[0].arguments) == {"x": 1}


def test_signed_thoughts_are_kept_apart_from_each_other() -> None:
    def block(**fields: Any) -> Any:
        return chunk(thinking_blocks=[{"type": "thinking", **fields}])

    answer = assembled(
        block(thinking="one "), block(thinking="thought"), block(signature="s1"), block(data="encrypted"),
        block(thinking="two", signature="s2"), block(thinking="unfinished"),
    )  # fmt: skip
    assert answer.thinking == (
        ThinkingPart(thinking="one thought", signature="s1"),
        ThinkingPart(thinking="", signature="redacted:encrypted"),
        ThinkingPart(thinking="two", signature="s2"),
        ThinkingPart(thinking="unfinished"),
    )


def test_the_signature_of_a_call_does_not_stay_in_its_id() -> None:
    answer = assembled(call(0, "a__thought__" + "S" * 500, "exec", "{}"))
    assert answer.calls[0].id == "a"
    assert answer.thinking == (ThinkingPart(thinking="", signature="call:a:" + "S" * 500),)


def test_the_signature_of_a_call_may_stand_beside_it() -> None:
    answer = assembled(call(0, "a", "exec", "{}", provider_specific_fields={"thought_signature": "S"}))
    assert answer.thinking == (ThinkingPart(thinking="", signature="call:a:S"),)


def test_only_the_first_choice_counts() -> None:
    other = SimpleNamespace(choices=[SimpleNamespace(index=1, delta=SimpleNamespace(content="other"))])
    assert assembled(chunk(content="first"), other).text == "first"


def test_limits_end_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 10)
    monkeypatch.setattr(module, "MAX_ARGUMENTS", 10)
    assembled(chunk(content="x" * 10), chunk(reasoning_content="x" * 10), call(0, "a", "f", "x" * 10))
    with pytest.raises(AnswerTooLargeError, match="10 characters of text"):
        assembled(chunk(content="x" * 6), chunk(content="x" * 5))
    with pytest.raises(AnswerTooLargeError, match="10 characters of reasoning"):
        assembled(chunk(reasoning_content="x" * 11))
    with pytest.raises(AnswerTooLargeError, match="10 characters of arguments"):
        assembled(call(0, "a", "f", "x" * 6), call(0, None, None, "x" * 5))


def test_an_answer_has_at_most_128_calls() -> None:
    assert len(assembled(*(call(n, f"c{n}", "f", "{}") for n in range(128))).calls) == 128
    with pytest.raises(AnswerTooLargeError, match="128 tool calls"):
        assembled(*(call(n, f"c{n}", "f", "{}") for n in range(129)))


names = st.sampled_from(["id", "index", "function", "name", "arguments", "thinking", "data", "signature"])
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
junk: Any = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner), max_leaves=8
)
lists = st.none() | st.lists(junk, max_size=3)
strange_deltas = st.fixed_dictionaries(
    {}, optional={"content": junk, "reasoning_content": junk, "tool_calls": lists, "thinking_blocks": lists}
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(strange_deltas, max_size=5))
def test_no_chunk_is_so_strange_that_the_answer_is_unusable(deltas: list[dict[str, Any]]) -> None:
    answer = assembled(*(chunk(**delta) for delta in deltas), chunk(content="end"))
    assert answer.text.endswith("end")
    assert len({each.id for each in answer.calls}) == len(answer.calls)
    assert all(each.name for each in answer.calls)
    assert all(isinstance(each.thinking, str) for each in answer.thinking)


@pytest.mark.parametrize(
    "strange", [None, SimpleNamespace(), SimpleNamespace(choices=None), SimpleNamespace(choices=[SimpleNamespace()])]
)
def test_chunks_without_anything_are_passed_over(strange: Any) -> None:
    assert assembled(chunk(content="a"), strange, chunk(content="b")).text == "ab"


def test_usage_is_read_with_its_details() -> None:
    reported = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 30},
        "completion_tokens_details": SimpleNamespace(reasoning_tokens=20),
    }
    assert merge_usage(Usage(), reported) == Usage(
        input_tokens=100, output_tokens=50, reasoning_tokens=20, total_tokens=150, cached_input_tokens=30
    )


def test_usage_that_comes_in_parts_adds_up_to_a_whole() -> None:
    known = merge_usage(Usage(), {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101})
    known = merge_usage(known, {"prompt_tokens": 0, "completion_tokens": 50, "total_tokens": 50})
    assert (known.input_tokens, known.output_tokens, known.total_tokens) == (100, 50, 150)


@pytest.mark.parametrize("reported", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": "7"}, {"prompt_tokens": -7}])
def test_usage_that_makes_no_sense_counts_as_none(reported: Any) -> None:
    assert merge_usage(Usage(), reported) == Usage()
