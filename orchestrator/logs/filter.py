"""The language of `--filter`: `.type == "callTools" and .toolCalls[].skillName =~ "^@perstack/"`.

::

    or         = and { ("or" | "||") and }
    and        = not { ("and" | "&&") not }
    not        = ("not" | "!") not | "(" or ")" | comparison
    comparison = operand [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "contains") operand ]
    operand    = path | JSON string | JSON number | "true" | "false" | "null"
    path       = "." [ key ] { "." key | "[" [ integer | JSON string ] "]" }
    key        = name | JSON string

See :mod:`orchestrator.logs.expression` for what each means.
"""

import json
import re
from typing import NamedTuple

from orchestrator.errors import ConfigError
from orchestrator.logs.expression import (
    OPERATORS,
    AllOf,
    AnyOf,
    Comparison,
    Each,
    Expression,
    Holds,
    Key,
    Literal,
    Not,
    Operand,
    Path,
    Search,
)

MAX_CHARACTERS = 4_000
"""Of a filter."""

MAX_DEPTH = 50
"""How deep parentheses and `not` may be nested."""

_SIGN = re.compile(r"&&|\|\||==|!=|<=|>=|=~|<|>|!|\(|\)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INDEX = re.compile(r"\[(-?\d{1,9})?\]", re.ASCII)
_LITERALS = {"true": True, "false": False, "null": None}
_SAME = {"&&": "and", "||": "or", "!": "not"}
_SIGNS = {"and", "or", "not", "=~", "(", ")", *OPERATORS}
_STRINGS = json.JSONDecoder()


class FilterError(ConfigError):
    """A filter that does not parse: what is wrong, and at which character (`position`, from 0)."""

    def __init__(self, expression: str, position: int, problem: str) -> None:
        # One column for each character, so that the mark is under the right one.
        shown = "".join(character if character.isprintable() else " " for character in expression)
        super().__init__(f"--filter: character {position + 1}: {problem}\n  {shown}\n  {' ' * position}^")
        self.position = position


class _Token(NamedTuple):
    """An operand; or a sign, an operator or a word that is one (`sign`), or the end of the filter (empty)."""

    position: int
    sign: str = ""
    operand: Operand | None = None


def parse_filter(text: str) -> Expression:
    """The condition that `text` writes.

    Raises:
        FilterError: it does not parse.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"--filter: {len(text)} characters are more than the {MAX_CHARACTERS} a filter may have")
    return _Parser(text).parse()


class _Parser:
    """Recursive descent; `_token` is the one to be looked at next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self._depth = 0
        self._token = self._read()

    def parse(self) -> Expression:
        expression = self._or()
        if self._token.sign == ")":
            raise self._error("this `)` closes nothing")
        if self._token.sign or self._token.operand is not None:
            raise self._error("expected `and`, `or` or the end")
        return expression

    # --- grammar

    def _or(self) -> Expression:
        parts = [self._and()]
        while self._take("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _not(self) -> Expression:
        opened = self._token.position
        if self._token.sign not in ("not", "("):
            return self._comparison()
        if self._depth == MAX_DEPTH:
            raise self._error(f"nested more than {MAX_DEPTH} deep")
        self._depth += 1
        if self._take("not"):
            expression: Expression = Not(self._not())
        else:
            self._advance()
            expression = self._or()
            if not self._take(")"):
                raise self._error(f"expected `)` for the `(` at character {opened + 1}")
        self._depth -= 1
        return expression

    def _comparison(self) -> Expression:
        left = self._operand()
        operator = self._token.sign
        if operator == "=~":
            self._advance()
            return Search(left, self._pattern())
        if operator not in OPERATORS:
            return Holds(left)
        self._advance()
        return Comparison(left, operator, self._operand())

    def _operand(self) -> Operand:
        operand = self._token.operand
        if operand is None:
            raise self._error("expected a path (.type), a string in double quotes, a number, true, false or null")
        self._advance()
        return operand

    def _pattern(self) -> re.Pattern[str]:
        token = self._token
        if not isinstance(token.operand, Literal) or not isinstance(token.operand.value, str):
            raise self._error("expected a regular expression, as a string in double quotes")
        try:
            pattern = re.compile(token.operand.value)
        except (re.error, RecursionError, OverflowError) as error:
            raise self._error(f"not a regular expression: {error}") from None
        self._advance()
        return pattern

    def _take(self, sign: str) -> bool:
        if self._token.sign != sign:
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        self._token = self._read()

    def _error(self, problem: str) -> FilterError:
        return FilterError(self._text, self._token.position, problem)

    # --- tokens

    def _read(self) -> _Token:
        while self._here().isspace():
            self._end += 1
        position = self._end
        if not self._here():
            return _Token(position)
        if self._here() == ".":
            return _Token(position, operand=self._path())
        if self._here() == '"':
            return _Token(position, operand=Literal(self._string()))
        if match := _NUMBER.match(self._text, position):
            self._end = match.end()
            return _Token(position, operand=Literal(json.loads(match[0])))
        return self._sign(position)

    def _sign(self, position: int) -> _Token:
        match = _SIGN.match(self._text, position) or _WORD.match(self._text, position)
        if match is None:
            character = self._text[position]
            hint = (
                ": strings are in double quotes" if character == "'" else ": equal is `==`" if character == "=" else ""
            )
            raise FilterError(self._text, position, f"unexpected {character!r}{hint}")
        self._end = match.end()
        sign = _SAME.get(match[0], match[0])
        if sign in _LITERALS:
            return _Token(position, operand=Literal(_LITERALS[sign]))
        if sign not in _SIGNS:
            problem = f"unknown word {sign!r}: a path begins with a dot (.{sign}), a string is in double quotes"
            raise FilterError(self._text, position, problem)
        return _Token(position, sign=sign)

    def _path(self) -> Path:
        """Reads from the first dot; white space ends a path."""
        keys: list[Key] = []
        self._end += 1
        name = self._key()
        if name is not None:
            keys.append(name)
        elif self._here() == ".":
            raise self._no_name()
        while self._here() in (".", "["):
            keys.append(self._element() if self._here() == "[" else self._field())
        return Path(tuple(keys))

    def _field(self) -> str:
        self._end += 1
        name = self._key()
        if name is None:
            raise self._no_name()
        return name

    def _no_name(self) -> FilterError:
        return FilterError(self._text, self._end, "expected a name after the dot")

    def _here(self) -> str:
        return self._text[self._end : self._end + 1]

    def _key(self) -> str | None:
        if self._text.startswith('"', self._end):
            return self._string()
        match = _NAME.match(self._text, self._end)
        if match is None:
            return None
        self._end = match.end()
        return match[0]

    def _element(self) -> Key:
        opened = self._end
        if match := _INDEX.match(self._text, opened):
            self._end = match.end()
            return Each.ELEMENT if match[1] is None else int(match[1])
        self._end += 1
        if self._text.startswith('"', self._end):
            name = self._string()
            if self._text.startswith("]", self._end):
                self._end += 1
                return name
        raise FilterError(self._text, opened, 'expected [], [0] or ["name"]')

    def _string(self) -> str:
        try:
            value, self._end = _STRINGS.raw_decode(self._text, self._end)
        except json.JSONDecodeError as error:
            raise FilterError(self._text, error.pos, f"not a JSON string: {error.msg}") from None
        assert isinstance(value, str)  # noqa: S101
        return value
