"""On which line of a TOML text a key stands: tomllib tells what a text says, but not where."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

Path = tuple[str | int, ...]
"""Keys from the outermost in; a number is the place in an array."""

_TOKEN = re.compile(
    r"""
      \"{3} (?:\\.|[^\\])*? \"{3,5}     # a text of several lines may end in two quotes of its own
    | '{3} .*? '{3,5}
    | \" (?:\\.|[^"\\\n])* \"
    | ' [^'\n]* '
    | \# [^\n]*
    | [\[{] | [\]}] | \n | =
    """,
    re.VERBOSE | re.DOTALL,
)


class Locator:
    """The lines of the keys of `text`, which is valid TOML.

    The keys of an inline table stand where the key that it belongs to begins.
    """

    def __init__(self, text: str) -> None:
        self._keys: dict[Path, int] = {}
        self._mentions: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # the last place of each array of tables so far
        table: Path = ()
        for line, key, is_header in _statements(text):
            if is_header:
                table = self._header(key)
                path = table
            else:
                path = (*table, *_parts(f"{key}=0"))
            self._keys[path] = line
            for depth in range(1, len(path)):
                self._mentions.setdefault(path[:depth], line)

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line, from 1, of the key `path`, of its table where it is only implied, or of what encloses it."""
        for depth in range(len(path), 0, -1):
            enclosing = tuple(path[:depth])
            line = self._keys.get(enclosing) or self._mentions.get(enclosing)
            if line is not None:
                return line
        return 1

    def _header(self, header: str) -> Path:
        path: Path = ()
        *outer, last = _parts(header)
        for name in outer:
            path = (*path, name)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        path = (*path, last)
        if not header.startswith("[["):
            return path
        self._arrays[path] = self._arrays.get(path, -1) + 1
        return (*path, self._arrays[path])


def _parts(statement: str) -> list[str]:
    """The names that make up the key of a header, or of an assignment of a plain value."""
    value: Any = tomllib.loads(statement)
    names = []
    while isinstance(value, dict) and value:
        ((name, value),) = value.items()
        names.append(name)
    return names


def _statements(text: str) -> Iterator[tuple[int, str, bool]]:
    """Headers and the keys of assignments, each with its line and whether it is a header."""
    start, depth, equals, line, begun = 0, 0, -1, 1, 1
    for token in _TOKEN.finditer(text + "\n"):
        kind = token[0]
        if kind in "[{":
            depth += 1
        elif kind in "]}":
            depth -= 1
        elif kind == "=" and equals < 0:
            equals = token.start()
        elif kind == "\n" and depth == 0:
            statement = text[start : equals if equals >= 0 else token.start()].strip()
            if equals >= 0:
                yield begun, statement, False
            elif statement.startswith("["):
                yield begun, statement, True
            start, equals, begun = token.end(), -1, line + 1
        line += kind.count("\n")
