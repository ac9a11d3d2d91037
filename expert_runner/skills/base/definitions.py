"""The base tools as the model sees them: name, description, arguments. Pure, and shared by both sides of the bus."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from expert_runner.contract.model import Model
from expert_runner.contract.todos import MAX_TODOS, Title
from expert_runner.contract.tools import ATTEMPT_COMPLETION, BASE_SKILL, ToolDefinition

MAX_TEXT = 100_000
"""Characters of text that one call returns: of a file, or of each output stream of a command."""

MAX_WRITE = 10_000
"""Characters that writeTextFile takes."""

MAX_ENTRIES = 1_000
"""Entries of a folder that listDirectory names."""

MAX_NEW_TODOS = 100
"""Todos that one call adds."""

DEFAULT_TIMEOUT_MS = 60_000
MAX_TIMEOUT_MS = 600_000


class NoArgs(Model):
    """The arguments of a tool that takes none."""


class ReadTextFileArgs(Model):
    path: str = Field(description="File to read, relative to the workspace")
    from_line: int = Field(0, alias="from", ge=0, description="First line to read, counted from 0")
    to_line: int | None = Field(None, alias="to", ge=1, description="Line to stop before; without it, to the end")


class WriteTextFileArgs(Model):
    path: str = Field(description="File to write, relative to the workspace")
    text: str = Field(max_length=MAX_WRITE, description="The whole new content")


class ListDirectoryArgs(Model):
    path: str = Field(".", description="Folder to list, relative to the workspace")


class ExecArgs(Model):
    command: str = Field(min_length=1, description="One program: a name found on PATH, or a path. Not a shell line")
    args: tuple[str, ...] = Field((), description="Its arguments, one element each, passed as they are")
    env: dict[str, str] = Field({}, description="Environment variables to add")
    cwd: str = Field(".", description="Folder to run in, relative to the workspace")
    stdout: bool = Field(True, description="Return what it writes to stdout")
    stderr: bool = Field(True, description="Return what it writes to stderr")
    timeout: int = Field(
        DEFAULT_TIMEOUT_MS, ge=1, le=MAX_TIMEOUT_MS, description="Milliseconds after which it is killed"
    )


NewTodo = Annotated[Title, StringConstraints(strip_whitespace=True, min_length=1)]


class TodoArgs(Model):
    new_todos: tuple[NewTodo, ...] = Field((), max_length=MAX_NEW_TODOS, description="Titles of todos to add")
    completed_todos: tuple[int, ...] = Field((), max_length=MAX_TODOS, description="Ids of todos that are done")


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool: what it tells the model, what it takes, and arguments that show how to call it.

    `is_repeatable`: nobody could tell whether it was carried out once or twice. Such a call that was under way when its
    sandbox was lost is simply carried out again.
    """

    description: str
    args: type[Model]
    example: dict[str, Any]
    is_repeatable: bool = False


BASE_TOOLS: dict[str, ToolSpec] = {
    "readTextFile": ToolSpec(
        "Read a text file of the workspace, whole or from line `from` to just before line `to` (counted from 0); "
        f"returns at most {MAX_TEXT:,} characters and says how to read on.",
        ReadTextFileArgs,
        {"path": "notes/plan.md", "from": 0, "to": 200},
        is_repeatable=True,
    ),
    "writeTextFile": ToolSpec(
        f"Write a text file of the workspace, at most {MAX_WRITE:,} characters. "
        "Replaces what the file held; missing parent folders are made.",
        WriteTextFileArgs,
        {"path": "notes/plan.md", "text": "# Plan\n"},
    ),
    "listDirectory": ToolSpec(
        f"List a folder of the workspace, one level, sorted by name: type, name and size of each entry, "
        f"at most {MAX_ENTRIES:,}.",
        ListDirectoryArgs,
        {"path": "notes"},
        is_repeatable=True,
    ),
    "exec": ToolSpec(
        "Run a program in the sandbox and return its exit code and output. There is no shell: for pipes, globs or "
        'redirection run `bash` with args ["-c", "…"]. stdin is empty. After `timeout` '
        f"(default {DEFAULT_TIMEOUT_MS:,} ms, at most {MAX_TIMEOUT_MS:,}) it is killed with all it started. "
        f"Each stream returns at most {MAX_TEXT:,} characters, beginning and end: send longer output to a file. "
        "What still runs in the background when the program ends is killed; a server that must go on needs a session "
        "of its own and its output elsewhere: `setsid server >server.log 2>&1 &`.",
        ExecArgs,
        {"command": "bash", "args": ["-c", "grep -rn TODO src | head"], "cwd": ".", "timeout": 10_000},
    ),
    "todo": ToolSpec(
        "Keep the list of what is left to do: add todos, tick off those that are done, or, without arguments, see the "
        f"open ones. Every todo gets an id. At most {MAX_TODOS:,} todos.",
        TodoArgs,
        {"newTodos": ["Read the report", "Write the summary"], "completedTodos": [0]},
        is_repeatable=True,
    ),
    "clearTodo": ToolSpec("Drop all todos, open and done. Ids start at 0 again.", NoArgs, {}, is_repeatable=True),
    ATTEMPT_COMPLETION: ToolSpec(
        "Say that the task is done. If todos are open they are listed and the work goes on; "
        "otherwise you are asked for your final answer.",
        NoArgs,
        {},
        is_repeatable=True,
    ),
    "healthCheck": ToolSpec(
        "See whether the sandbox is well: runtime version, uptime, memory, and whether the workspace can be written.",
        NoArgs,
        {},
        is_repeatable=True,
    ),
}
"""All base tools by name, in the order they are offered."""

REPEATABLE_TOOLS = frozenset(name for name, tool in BASE_TOOLS.items() if tool.is_repeatable)


def base_tool_definitions(pick: Collection[str] = (), omit: Collection[str] = ()) -> tuple[ToolDefinition, ...]:
    """The base tools to offer: those named in `pick` (none named: all) without those in `omit`.

    Names that no base tool has choose nothing; to refuse them, compare with :data:`BASE_TOOLS`.
    """
    return tuple(
        ToolDefinition(skill_name=BASE_SKILL, name=name, description=spec.description, input_schema=_schema(spec.args))
        for name, spec in BASE_TOOLS.items()
        if (not pick or name in pick) and name not in omit
    )


@cache
def _schema(args: type[Model]) -> dict[str, Any]:
    """The JSON Schema of `args`, without what only pydantic needs.

    An absent value is not offered as null, although null is taken for absent: some models send it.
    """
    schema = args.model_json_schema()
    properties = {name: _plain(field) for name, field in schema.get("properties", {}).items()}
    plain = {"type": "object", "properties": properties, "additionalProperties": False}
    return plain | ({"required": schema["required"]} if "required" in schema else {})


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in field.items() if key != "title"}
    if "anyOf" in plain:
        (value,) = (option for option in plain.pop("anyOf") if option != {"type": "null"})
        plain.pop("default")
        plain = value | plain
    return plain
