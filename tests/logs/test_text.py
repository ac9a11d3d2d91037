"""Texts for a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.logs.text import cost, duration, lines_of, moment, number_of, one_line, safe


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb", "a\\rb"),
        ("a\nb", "a\\nb"),
        ("a\bb\x7f", "a\\x08b\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066\u2069\u200f", "\\u2066\\u2069\\u200f"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\ufeff\U000e0041", "\\ufeff\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("a\tb", "a\tb"),
        ("naïve 日本語\u3000。 👩\u200d💻 \u00a0", "naïve 日本語\u3000。 👩\u200d💻 \u00a0"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(raw: str, shown: str) -> None:
    assert safe(raw) == shown


@given(st.text())
def test_no_text_has_a_control_character_left(text: str) -> None:
    for line in (safe(text), *lines_of(text)):
        assert not [c for c in line if c != "\t" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        line.encode()


def test_lines_are_those_of_the_text_and_no_other() -> None:
    assert lines_of("a\r\nb\n\nc\x0bd\u2028e") == ["a", "b", "", "c\\x0bd\\u2028e"]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("a\n  b\tc", 10, "a b c"),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("a  b  c", 5, "a b c"),
        (" " * 100 + "a", 6, "…"),
        ("", 6, ""),
    ],
)
def test_a_long_text_is_cut_and_says_so(text: str, width: int, shown: str) -> None:
    assert one_line(text, width) == shown


@given(st.text(), st.integers(min_value=1, max_value=20))
def test_one_line_is_never_longer_than_asked(text: str, width: int) -> None:
    assert len(one_line(text, width)) <= width


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (59_940, "59.9 s"),
        (60_000, "1 min 0 s"),
        (3_599_999, "59 min 59 s"),
        (3_600_000, "1 h 0 min"),
        (90_000_000, "25 h 0 min"),
    ],
)
def test_durations_have_the_unit_that_fits(milliseconds: int, shown: str) -> None:
    assert duration(milliseconds) == shown


def test_a_moment_is_exact_and_in_utc() -> None:
    assert moment(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert moment(1) == "1970-01-01T00:00:00.001Z"


def test_numbers_have_their_nouns_and_money_its_sign() -> None:
    assert [number_of(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
    assert number_of(2, "sandbox", "sandboxes") == "2 sandboxes"
    assert [cost(None), cost(0.0), cost(1234.5)] == ["unknown", "$0.0000", "$1,234.5000"]
