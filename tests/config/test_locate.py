"""Finding the lines of keys in TOML texts."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.locate import Locator

TEXT = '''\
# comment with = [ and """
model = "x" # = [
[experts."a.b".skills . 's']  # header
"k=1" = """text = 1
[not.a.header]
key = 2 \\""" ends in quotes """""
list = [ # [
  "]", '[',
  { x = 1, y = """
""" },
]
after.deep.er = 1
inline = { a = 1, b = { c = 2 } }
[[tools]]
name = 1
[tools.sub]
n = 1
[[tools]]
name = 2
[tools.sub]
n = 2
[[tools.deep]]
m = 1
[experts]
z = \'\'\'
[x]
\'\'\'
last = 1979-05-27T07:32:00Z'''

S = ("experts", "a.b", "skills", "s")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("model",), 2),
        (S, 3),
        ((*S, "k=1"), 4),
        ((*S, "list"), 7),
        ((*S, "list", 2, "y"), 7),
        ((*S, "after", "deep", "er"), 12),
        ((*S, "after", "deep"), 12),
        ((*S, "inline"), 13),
        ((*S, "inline", "b", "c"), 13),
        (("tools",), 14),
        (("tools", 0), 14),
        (("tools", 0, "name"), 15),
        (("tools", 0, "sub", "n"), 17),
        (("tools", 1), 18),
        (("tools", 1, "name"), 19),
        (("tools", 1, "sub", "n"), 21),
        (("tools", 1, "deep", 0, "m"), 23),
        (("experts",), 24),
        (("experts", "z"), 25),
        (("experts", "last"), 28),
        (("experts", "a.b"), 3),
        ((*S, "nothing", "here"), 3),
        (("nothing",), 1),
        ((), 1),
    ],
)
def test_a_key_stands_on_its_line_or_in_what_encloses_it(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(TEXT)
    assert Locator(TEXT).line_of(path) == line


def test_lines_that_end_as_on_windows_count_the_same() -> None:
    windows = Locator(TEXT.replace("\n", "\r\n"))
    assert windows.line_of((*S, "after", "deep", "er")) == 12
    assert windows.line_of(("experts", "last")) == 28


@pytest.mark.parametrize("quotes", ['"""', "'''"])
@pytest.mark.parametrize("own", [0, 1, 2])
def test_quotes_of_a_texts_own_before_those_that_end_it_do_not_go_on(quotes: str, own: int) -> None:
    text = f"a = [{quotes}x{quotes[:own]}{quotes}, {quotes[0]}]{quotes[0]}]\nb = 1\n"
    assert tomllib.loads(text)["b"] == 1
    assert Locator(text).line_of(("b",)) == 2


names = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.sampled_from(["a.b", "x=1", "[y]", "#", '"', "é"])
)
nasty = st.sampled_from(["=", "#", "[", "]", "{", "}", "a = 1", '"', "'", '""', "''", "\\", "\n", "[x]\n", " "])
texts = st.lists(nasty, max_size=6).map("".join)


def basic(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    """A value as TOML writes it, over one or several lines."""
    kind = draw(
        st.sampled_from(["number", "basic", "literal", "long", "long literal", "list", "inline"][: 7 if depth else 5])
    )
    text = draw(texts)
    match kind:
        case "number":
            return draw(st.sampled_from(["1", "-2.5", "true", "1979-05-27", "0x_f".replace("_", "")]))
        case "basic":
            return basic(text)
        case "literal":
            return "'" + text.replace("'", "").replace("\n", "") + "'"
        case "long":
            body = text.replace("\\", "\\\\").replace('"""', '""\\"')
            return f'"""{body}"""' if not body.endswith('"') else f'"""{body[:-1]}\\""""'
        case "long literal":
            return "'''" + text.replace("'", "") + "'''"
        case "list":
            items = draw(st.lists(values(depth=depth - 1), max_size=3))
            gap = draw(st.sampled_from([" ", "\n", " # ] = [\n", "\n\n"]))
            return "[" + "".join(f"{gap}{item}," for item in items) + gap + "]"
        case _:
            pairs = draw(st.dictionaries(names, values(depth=depth - 1), max_size=2))
            return "{" + ", ".join(f"{basic(name)} = {value}" for name, value in pairs.items()) + "}"


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A TOML text, and the line of each of its keys and headers as it was written."""
    text, lines = "", {}
    filler = st.sampled_from(["", "\n", "# [x]\n", "  # a = 1\n\n"])

    def write(path: tuple[str | int, ...], statement: str) -> None:
        nonlocal text
        text += draw(filler)
        lines[path] = text.count("\n") + 1
        text += statement + draw(st.sampled_from(["", " ", " # [ = "])) + "\n"

    def write_keys(table: tuple[str | int, ...]) -> None:
        for name, value in draw(st.dictionaries(names, values(), max_size=3)).items():
            dotted = draw(st.lists(names, max_size=2))
            key = " . ".join(basic(part) for part in [name, *dotted])
            write((*table, name, *dotted), f"{key} = {value}")

    write_keys(())
    used = {path[0] for path in lines}
    for outer in draw(st.lists(names.filter(lambda name: name not in used), max_size=3, unique=True)):
        if draw(st.booleans()):
            for place in range(draw(st.integers(1, 3))):
                write((outer, place), f"[[ {basic(outer)} ]]")
                write_keys((outer, place))
                inner = draw(names)
                if (outer, place, inner) not in {path[:3] for path in lines}:
                    write((outer, place, inner), f"[{basic(outer)}.{basic(inner)}]")
                    write_keys((outer, place, inner))
        else:
            path = (outer, *draw(st.lists(names, max_size=2)))
            write(path, "[" + ".".join(basic(str(part)) for part in path) + "]")
            write_keys(path)
    return text, lines


@given(documents())
def test_every_key_of_a_text_is_found_where_it_was_written(
    document: tuple[str, dict[tuple[str | int, ...], int]],
) -> None:
    text, lines = document
    parsed: Any = tomllib.loads(text)
    locator = Locator(text)
    for path, line in lines.items():
        value = parsed
        for part in path:
            value = value[part]
        assert locator.line_of(path) == line
