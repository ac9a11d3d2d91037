"""Placeholders in scripted text.

`{{query}}`             the text of the first user message
`{{turn}}`              the index of the turn, from 0
`{{result.N}}`          the N-th tool result (from 0) since the last answer
`{{turn.T.result.N}}`   the N-th result of the calls made in turn T
"""

import re
from typing import Any

from orchestrator.scripted_model.prompt import Prompt, RequestRefusedError

# Braces around anything but a dotted name are ordinary text: arguments that are JSON end in braces too.
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z][\w.]*)\s*\}\}")
_KNOWN = re.compile(r"query|turn|(?:turn\.(?P<turn>[0-9]+)\.)?result\.(?P<result>[0-9]+)")


def check_placeholders(text: str) -> str:
    """`text` itself. Raises ValueError if it has a placeholder that does not exist."""
    for found in _PLACEHOLDER.finditer(text):
        if not _KNOWN.fullmatch(found[1]):
            raise ValueError(
                f"unknown placeholder {found[0]}: expected {{{{query}}}}, {{{{turn}}}}, {{{{result.N}}}} "
                "or {{turn.T.result.N}}"
            )
    return text


def fill(text: str, prompt: Prompt, turn: int) -> str:
    """`text` with its placeholders filled in; what is filled in is not looked at again.

    Raises RequestRefusedError where the request has no such result.
    """
    if "{{" not in text:
        return text
    return _PLACEHOLDER.sub(lambda found: _value(found[1], prompt, turn), text)


def fill_json(value: Any, prompt: Prompt, turn: int) -> Any:
    """A JSON value with the placeholders in its strings (not in its keys) filled in."""
    match value:
        case str():
            return fill(value, prompt, turn)
        case dict():
            return {key: fill_json(item, prompt, turn) for key, item in value.items()}
        case list():
            return [fill_json(item, prompt, turn) for item in value]
        case _:
            return value


def _value(name: str, prompt: Prompt, turn: int) -> str:
    if name == "query":
        return prompt.query
    if name == "turn":
        return str(turn)
    known = _KNOWN.fullmatch(name)
    if known is None:
        raise ValueError(f"unknown placeholder {name}")
    asked = int(known["turn"]) if known["turn"] else prompt.turn - 1
    results = prompt.results_of(asked)
    index = int(known["result"])
    if index >= len(results):
        raise RequestRefusedError(
            f"turn {turn} of the script uses {{{{{name}}}}}, but the request has {len(results)} results there"
        )
    return results[index]
