"""Proofs of reasoning survive being kept as thinking parts."""

from hypothesis import example, given
from hypothesis import strategies as st

from expert_runner.contract.messages import ThinkingPart
from orchestrator.model import signatures


def test_a_signed_thought_goes_back_as_it_came() -> None:
    part = ThinkingPart(thinking="hm", signature="c2ln")
    assert signatures.thinking_blocks([part]) == [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]


def test_a_signed_thought_whose_text_is_withheld_is_still_a_thought() -> None:
    part = ThinkingPart(thinking="", signature="c2ln")
    assert signatures.thinking_blocks([part]) == [{"type": "thinking", "thinking": "", "signature": "c2ln"}]


def test_an_encrypted_thought_goes_back_as_it_came() -> None:
    assert signatures.thinking_blocks([signatures.redacted("x:y")]) == [{"type": "redacted_thinking", "data": "x:y"}]


def test_an_unsigned_thought_is_no_block() -> None:
    assert signatures.thinking_blocks([ThinkingPart(thinking="hm")]) == []


@example("with:colons:", "c2ln")
@given(st.text(min_size=1), st.text(st.characters(exclude_characters=":"), min_size=1))
def test_a_call_finds_its_signature_whatever_its_id(call_id: str, signature: str) -> None:
    parts = [ThinkingPart(thinking="hm"), signatures.of_call(call_id, signature)]
    assert signatures.of_calls(parts) == {call_id: signature}
    assert signatures.thinking_blocks(parts) == []
