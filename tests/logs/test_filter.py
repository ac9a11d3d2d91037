"""The language of `--filter`: what it means, and what it says about what it does not understand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.logs.filter import MAX_CHARACTERS, MAX_DEPTH, FilterError, parse_filter

EVENT: dict[str, Any] = {
    "type": "callTools",
    "stepNumber": 5,
    "cost": 0.5,
    "flag": True,
    "off": False,
    "nothing": None,
    "empty": "",
    "strange-key": 1,
    "a b": 2,
    "toolCalls": [
        {"skillName": "@perstack/base", "toolName": "exec", "args": {"path": "a.txt", "n": 3}},
        {"skillName": "ask", "toolName": "askUser", "args": {"path": "b.txt", "n": 7}},
    ],
    "nested": [[1, 2], [3]],
    "no": [],
}


def holds(expression: str) -> bool:
    return parse_filter(expression).matches(EVENT)


@pytest.mark.parametrize(
    "expression",
    [
        '.type == "callTools"',
        '"callTools" == .type',
        '.type=="callTools"',
        '  .type\t==\n"callTools"  ',
        '.type != "retry"',
        ".stepNumber > 4",
        ".stepNumber >= 5",
        ".stepNumber < 6",
        ".stepNumber <= 5",
        "4 < .stepNumber",
        ".stepNumber == 5.0",
        ".cost == 5e-1",
        ".stepNumber > -1",
        '.type > "callA"',
        ".flag == true",
        ".off == false",
        ".nothing == null",
        ".missing == null",
        ".missing.deeper == null",
        ".type.deeper == null",
        '.missing != "x"',
        ".flag",
        ".stepNumber",
        ".empty",
        ".toolCalls",
        "true",
        "not .off",
        "not .nothing",
        "not .missing",
        "!.missing",
        '.toolCalls[].skillName == "ask"',
        '.toolCalls[].skillName != "ask"',
        '.toolCalls[0].skillName == "@perstack/base"',
        '.toolCalls[-1].skillName == "ask"',
        ".toolCalls[2] == null",
        ".toolCalls[-3] == null",
        ".toolCalls[9].args.path == null",
        '.toolCalls[0].args.path == "a.txt"',
        ".toolCalls[].args.n > 6",
        ".nested[][] == 3",
        ".nested[1][0] == 3",
        ".nested[][0] == 3",
        "not .no[]",
        "not .missing[] == null",
        '."strange-key" == 1',
        ".strange-key == 1",
        '."a b" == 2',
        '.["a b"] == 2',
        '.["toolCalls"][1]["args"]["n"] == 7',
        ".toolCalls[0].args.n < .toolCalls[1].args.n",
        ".toolCalls[].args.n == .stepNumber or .stepNumber == 5",
        ". != null",
        '.type =~ "^call"',
        '.type =~ "Tool"',
        '.type =~ "(?i)CALL"',
        '.toolCalls[].toolName =~ "^(exec|read)$"',
        '.type =~ "\\u0063all"',
        '.type contains "Tool"',
        '.toolCalls[].args.path contains ".txt"',
        '.type == "retry" or .stepNumber == 5',
        '.type == "retry" || .stepNumber == 5',
        '.type == "callTools" and .stepNumber == 5',
        '.type == "callTools" && .stepNumber == 5',
        'not .type == "retry"',
        'not (.type == "retry" or .stepNumber == 4)',
        'not not .type == "callTools"',
        "true or true and false",
        "(true or true) and true",
        "not false and true",
        "((((.stepNumber == 5))))",
        ".stepNumber == 5 and .flag and .cost < 1",
    ],
)
def test_it_holds(expression: str) -> None:
    assert holds(expression)
    assert not holds(f"not ({expression})")


@pytest.mark.parametrize(
    "expression",
    [
        '.type == "calltools"',
        '.type == "call"',
        '.stepNumber == "5"',
        ".stepNumber == true",
        ".flag == 1",
        ".off == 0",
        ".off == null",
        ".empty == null",
        ".missing == false",
        ".missing == 0",
        '.type > 4 or .type < 4 or .type >= "d"',
        ".missing > 0 or .missing <= 0",
        ".nothing < 1 or .nothing >= null",
        ".flag > 0 or .flag <= true",
        '.stepNumber > "4"',
        ".off",
        ".nothing",
        ".missing",
        "false",
        "null",
        '.toolCalls[].skillName == "none"',
        ".toolCalls.skillName",
        ".no[] == null",
        ".no[] != null",
        ".type[] == null",
        ".type[0]",
        ".toolCalls[].args.n > 7",
        '.type =~ "^Tools"',
        '.stepNumber =~ "5"',
        '.missing =~ ""',
        '.type contains "tool"',
        '.toolCalls contains "ask"',
        ".stepNumber contains 5",
        '.type == "callTools" and .stepNumber == 4',
        "(true or true) and false",
        "false and true or false",
    ],
)
def test_it_does_not_hold(expression: str) -> None:
    assert not holds(expression)


@pytest.mark.parametrize(
    ("expression", "character", "problem"),
    [
        ("", 1, "expected a path"),
        ("   ", 4, "expected a path"),
        (".type ==", 9, "expected a path"),
        (".type = 1", 7, "equal is `==`"),
        (".type == 'x'", 10, "strings are in double quotes"),
        ('.type == "x', 10, "not a JSON string"),
        ('.type == "\\q"', 11, "not a JSON string"),
        ("type == 1", 1, "a path begins with a dot (.type)"),
        (".type == completeRun", 10, "unknown word 'completeRun'"),
        (".a == 1 .b", 9, "expected `and`, `or` or the end"),
        (".a == 1 == 2", 9, "expected `and`, `or` or the end"),
        (".a == 1)", 8, "closes nothing"),
        ("(.a == 1", 9, "expected `)` for the `(` at character 1"),
        ("()", 2, "expected a path"),
        (".a and", 7, "expected a path"),
        ("and .a", 1, "expected a path"),
        (".a or or .b", 7, "expected a path"),
        ("not", 4, "expected a path"),
        ("== 1", 1, "expected a path"),
        ("..a", 2, "expected a name after the dot"),
        (".a.", 4, "expected a name after the dot"),
        (".a..b", 4, "expected a name after the dot"),
        (".a[", 3, "expected [], [0]"),
        (".a[x]", 3, "expected [], [0]"),
        (".a[1.5]", 3, "expected [], [0]"),
        ('.a["b"', 3, "expected [], [0]"),
        (".a[1234567890]", 3, "expected [], [0]"),
        (".a =~ .b", 7, "expected a regular expression"),
        (".a =~ 1", 7, "expected a regular expression"),
        ('.a =~ "("', 7, "not a regular expression: missing )"),
        ('.a =~ "*"', 7, "not a regular expression: nothing to repeat"),
        (".a & .b", 4, "unexpected '&'"),
        (".a == 01", 8, "expected `and`"),
        (".a == -", 7, "unexpected '-'"),
        (".a == NaN", 7, "unknown word 'NaN'"),
        (".a; .b", 3, "unexpected ';'"),
        ("\x1b", 1, "unexpected '\\x1b'"),
    ],
)
def test_what_does_not_parse_is_told_with_its_place(expression: str, character: int, problem: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse_filter(expression)
    text, shown, mark = str(raised.value).split("\n")
    assert text.startswith(f"--filter: character {character}: ")
    assert problem in text
    assert raised.value.position == character - 1
    assert (shown[:2], mark) == ("  ", "  " + " " * (character - 1) + "^")
    assert len(shown) == 2 + len(expression)
    assert raised.value.exit_code == 2


def test_nesting_is_bounded() -> None:
    deepest = "(" * MAX_DEPTH + ".flag" + ")" * MAX_DEPTH
    assert holds(deepest)
    with pytest.raises(FilterError, match="nested more than"):
        parse_filter(f"({deepest})")
    with pytest.raises(FilterError, match="nested more than"):
        parse_filter("not " * (MAX_DEPTH + 1) + ".flag")
    assert holds(" and ".join([".flag"] * 400)), "a chain is not nested"


def test_length_is_bounded() -> None:
    assert holds(".flag".ljust(MAX_CHARACTERS))
    with pytest.raises(ConfigError, match="more than the 4000"):
        parse_filter(".flag".ljust(MAX_CHARACTERS + 1))


@given(st.text(alphabet='.ab[]01"=!<>~&|() ntruefalsdo\\', max_size=30))
def test_whatever_is_written_parses_or_is_refused(expression: str) -> None:
    try:
        parsed = parse_filter(expression)
    except ConfigError:
        return
    assert parsed.matches(EVENT) in (True, False)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_equals_itself_and_nothing_fails_on_any(value: Any) -> None:
    event = {"a": value, "b": value}
    assert parse_filter(".a == .b").matches(event)
    for operator in ("!=", "<", "<=", ">", ">=", "contains"):
        parse_filter(f'.a {operator} .b or .a[] {operator} "x" or .a[0].x {operator} 1 or .a =~ "x"').matches(event)
