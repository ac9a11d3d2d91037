"""Reading a script from a file."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from expert_runner.contract.model import Model
from orchestrator.scripted_model.script import (
    Conversation,
    CutOffFault,
    DisconnectFault,
    EmptyFault,
    HangFault,
    Script,
    ScriptedCall,
    StatusFault,
    TokenCounts,
    Turn,
)

_FAULTS: dict[str, type[Model]] = {
    "status": StatusFault,
    "cutOff": CutOffFault,
    "empty": EmptyFault,
    "hang": HangFault,
    "disconnect": DisconnectFault,
}
_TABLES: dict[str, type[Model]] = {
    "conversations": Conversation,
    "turns": Turn,
    "toolCalls": ScriptedCall,
    "usage": TokenCounts,
}


class ScriptError(Exception):
    """A script that cannot be used: which file, where in it, and what was expected."""


def load_script(path: Path) -> Script:
    """Reads a script: JSON if the file's name ends in `.json`, otherwise TOML. Raises ScriptError."""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ScriptError(f"{path}: {error}") from error
    try:
        return Script.model_validate(data)
    except ValidationError as error:
        problems = [f"{path}: {_where(problem['loc'])}{_what(problem)}" for problem in error.errors(include_url=False)]
        raise ScriptError("\n".join(problems)) from error


def _where(location: Sequence[int | str]) -> str:
    """`conversations[0].turns[2].text: `. The kind of a fault, which pydantic puts behind its index, is left out."""
    path = ""
    for before, part in zip((None, *location), location, strict=False):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (isinstance(before, int) and part in _FAULTS):
            path += f".{part}" if path else part
    return f"{path}: " if path else ""


def _what(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown field; expected one of {', '.join(_fields(problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return "this field is missing"
    return problem["msg"].removeprefix("Value error, ")


def _fields(location: Sequence[int | str]) -> list[str]:
    """The fields of the table at `location`."""
    name = next((part for part in reversed(location) if isinstance(part, str)), None)
    table = Script if name is None else _TABLES.get(name) or _FAULTS[name]
    return [field.alias or name for name, field in table.model_fields.items()]
