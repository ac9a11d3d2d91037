"""What is wrong with a configuration, in the words of its author: file, line, key, what is there, what was expected."""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic_core import ErrorDetails

from expert_runner.contract.experts import MAX_DESCRIPTION, MAX_INSTRUCTION_BYTES
from orchestrator.config.locate import Locator, Path
from orchestrator.errors import ConfigError

MAX_PROBLEMS = 20
"""Problems that one error lists."""

MAX_SHOWN = 60
"""Characters of a wrong value that are repeated."""

EXPECTED: dict[Path, str] = {
    ("experts",): 'tables such as [experts."my-expert"]',
    ("experts", "*"): 'a table such as [experts."my-expert"]',
    ("experts", "*", "description"): f"text of at most {MAX_DESCRIPTION} characters",
    ("experts", "*", "instruction"): f"text (at most {MAX_INSTRUCTION_BYTES // 1024} KB)",
    ("experts", "*", "delegates"): "a list of Expert keys",
    ("experts", "*", "skills"): 'tables such as [experts."my-expert".skills."my-skill"]',
    ("experts", "*", "skills", "*", "command"): "the command that starts the MCP server",
    ("experts", "*", "skills", "*", "endpoint"): "the https address of the MCP server",
    ("experts", "*", "skills", "*", "type"): "mcpStdioSkill, mcpSseSkill or interactiveSkill",
    ("experts", "*", "skills", "*", "tools"): 'tables such as [experts."my-expert".skills."my-skill".tools."ask"]',
    ("experts", "*", "skills", "*", "tools", "*", "inputJsonSchema"): "a JSON Schema object, written as JSON text",
    ("reasoningBudget",): "none, minimal, low, medium, high or a number of tokens",
}
"""Where the schema's own words would not help. `*` is any key."""

SECRET: tuple[Path, ...] = (("provider", "setting", "headers"), ("provider", "setting", "baseUrl"))
"""What may hold secrets: never repeated."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")

Schema = Mapping[str, Any]


class Problem(NamedTuple):
    path: Path
    text: str


def key_text(path: Path) -> str:
    """`path` as it would be written in TOML."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{quoted}" if text else quoted
    return text


def report(problems: Sequence[Problem], locator: Locator, file: str) -> ConfigError:
    """All of `problems` as one error, a line each, in the order of the file."""
    placed = sorted((locator.line_of(problem.path), problem) for problem in dict.fromkeys(problems))
    lines = [f"{file}:{line}: {key_text(path)}: {text}" for line, (path, text) in placed[:MAX_PROBLEMS]]
    if len(placed) > MAX_PROBLEMS:
        lines.append(f"{file}: and {len(placed) - MAX_PROBLEMS} more problems")
    return ConfigError("\n".join(lines))


def suggestion(name: str, known: Sequence[str]) -> str:
    """What to write instead of the unknown `name`."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(sorted(known)) or 'none'}"


def from_validation(errors: Sequence[ErrorDetails], data: Mapping[str, Any], schema: Schema) -> list[Problem]:
    """Pydantic's complaints about `data`, which `schema` (JSON Schema) describes; one a key."""
    problems: dict[Path, Problem] = {}
    for error in errors:
        is_missing = error["type"] == "missing"
        path = _path_in(data, error["loc"], is_missing)
        if error["type"].startswith("union_tag"):
            path = (*path, "type")
        problems.setdefault(path, Problem(path, _text(error, path, data, schema)))
    return list(problems.values())


def _path_in(data: Any, loc: Sequence[str | int], is_missing: bool) -> Path:
    """Where in `data` an error is: pydantic also names the members of unions that it tried."""
    path: Path = ()
    for place, part in enumerate(loc):
        if isinstance(data, dict) and part in data and part != "key":
            path, data = (*path, part), data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            path, data = (*path, part), data[part]
        elif is_missing and place == len(loc) - 1:
            path = (*path, part)
    return path


def _text(error: ErrorDetails, path: Path, data: Any, schema: Schema) -> str:
    match error["type"]:
        case "missing" | "union_tag_not_found":
            return f"missing; expected {expected(path, data, schema)}"
        case "extra_forbidden":
            known = [name for name in _schema_at(path[:-1], data, schema).get("properties", {}) if name != "key"]
            return f"unknown key; {suggestion(str(path[-1]), known)}"
        case "value_error":
            # The contract's own words, which repeat the value where that helps.
            return error["msg"].removeprefix("Value error, ")
    value = data
    for part in path:
        value = value[part]
    return f"{shown(value, path)}; expected {expected(path, data, schema)}"


def shown(value: object, path: Path) -> str:
    """What stands there, shortened, or only of what type it is."""
    kind = {
        str: "text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }.get(type(value), "a date or time")
    if isinstance(value, dict | list) or any(path[: len(secret)] == secret for secret in SECRET):
        return f"{kind} is there"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= MAX_SHOWN else f"{kind} of {len(value)} characters is there"
    return str(value).lower() if isinstance(value, bool) else str(value)


def expected(path: Path, data: Any, schema: Schema) -> str:
    """What should stand at `path`."""
    for pattern, text in EXPECTED.items():
        if len(pattern) == len(path) and all(want in ("*", part) for want, part in zip(pattern, path, strict=True)):
            return text
    return _phrase(_schema_at(path, data, schema), schema)


def _resolved(part: Schema, schema: Schema) -> Schema:
    while "$ref" in part:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
    options = [option for option in part.get("anyOf", ()) if option.get("type") != "null"]
    return _resolved(options[0], schema) if len(options) == 1 else part


def _schema_at(path: Path, data: Any, schema: Schema) -> Schema:
    """The schema of what stands, or should stand, at `path` of `data`."""
    part = _resolved(schema, schema)
    for name in path:
        if "discriminator" in part:
            tag = data.get("type") if isinstance(data, dict) else None
            part = _resolved({"$ref": part["discriminator"]["mapping"].get(tag, "#/$defs/Model")}, schema)
        following = part.get("properties", {}).get(name) or part.get("additionalProperties") or part.get("items")
        part = _resolved(following if isinstance(following, dict) else {}, schema)
        try:
            data = data[name]
        except (KeyError, IndexError, TypeError):
            data = None
    if "discriminator" in part:
        tag = data.get("type") if isinstance(data, dict) else None
        reference = part["discriminator"]["mapping"].get(tag)
        part = _resolved({"$ref": reference}, schema) if reference else {}
    return part


def _phrase(part: Schema, schema: Schema) -> str:
    if "enum" in part:
        *names, last = map(str, part["enum"])
        return f"{', '.join(names)} or {last}" if names else last
    match part.get("type"):
        case "string":
            return "a text that is not empty" if part.get("minLength") else "text"
        case "integer":
            least = part.get("minimum")
            return "a whole number" if least is None else f"a whole number of at least {least}"
        case "boolean":
            return "true or false"
        case "array":
            return "a list of texts"
        case "object":
            return "a table"
    return "another value"
