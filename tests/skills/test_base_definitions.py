import json
from typing import Any

import pytest

from expert_runner.contract.tools import BASE_SKILL, SkillType
from expert_runner.skills.base.definitions import BASE_TOOLS, base_tool_definitions
from expert_runner.skills.base.skill import HANDLERS

ALL = [
    "readTextFile",
    "writeTextFile",
    "listDirectory",
    "exec",
    "todo",
    "clearTodo",
    "attemptCompletion",
    "healthCheck",
]


def test_every_tool_is_offered_by_default() -> None:
    definitions = base_tool_definitions()
    assert [tool.name for tool in definitions] == ALL
    assert {tool.skill_name for tool in definitions} == {BASE_SKILL}
    assert {tool.skill_type for tool in definitions} == {SkillType.MCP}


def test_every_tool_that_is_offered_has_a_handler() -> None:
    assert list(HANDLERS) == list(BASE_TOOLS)


@pytest.mark.parametrize(
    ("pick", "omit", "offered"),
    [
        (["todo", "exec"], [], ["exec", "todo"]),
        ([], ["exec"], [name for name in ALL if name != "exec"]),
        (["todo", "exec"], ["exec"], ["todo"]),
        (["unknown"], [], []),
    ],
)
def test_pick_and_omit_choose_the_tools(pick: list[str], omit: list[str], offered: list[str]) -> None:
    assert [tool.name for tool in base_tool_definitions(pick=pick, omit=omit)] == offered


@pytest.mark.parametrize("name", ALL)
def test_a_schema_is_plain_and_closed(name: str) -> None:
    (definition,) = base_tool_definitions(pick=[name])
    schema = definition.input_schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert not {"title", "$defs", "$ref", "anyOf"} & _keys(schema)
    assert all(field["description"] and field["type"] for field in schema["properties"].values())


def test_schemas_name_the_fields_of_the_contract() -> None:
    fields = {tool.name: list(tool.input_schema["properties"]) for tool in base_tool_definitions()}
    assert fields["readTextFile"] == ["path", "from", "to"]
    assert fields["writeTextFile"] == ["path", "text"]
    assert fields["exec"] == ["command", "args", "env", "cwd", "stdout", "stderr", "timeout"]
    assert fields["todo"] == ["newTodos", "completedTodos"]


def test_only_what_must_be_given_is_required() -> None:
    required = {tool.name: tool.input_schema.get("required", []) for tool in base_tool_definitions()}
    assert {name: fields for name, fields in required.items() if fields} == {
        "readTextFile": ["path"],
        "writeTextFile": ["path", "text"],
        "exec": ["command"],
    }


@pytest.mark.parametrize("name", ALL)
def test_the_example_of_a_tool_fits_its_own_arguments(name: str) -> None:
    spec = BASE_TOOLS[name]
    spec.args.model_validate_json(json.dumps(spec.example))


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for element in value.values() for key in _keys(element)}
    if isinstance(value, list):
        return {key for element in value for key in _keys(element)}
    return set()
