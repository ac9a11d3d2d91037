"""Experts and skills: what may be declared."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from expert_runner.contract.experts import (
    MAX_DESCRIPTION,
    MAX_INSTRUCTION_BYTES,
    Expert,
    InteractiveSkill,
    McpSseSkill,
    McpStdioSkill,
)


def expert(**fields: Any) -> Expert:
    return Expert.model_validate({"key": "lead", "instruction": "Lead.", **fields})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lead", "lead"),
        ("my-expert_2", "my-expert_2"),
        ("@scope/lead", "@scope/lead"),
        ("lead@1.0.0", "lead"),
        ("@scope/lead@1.0.0-beta.1+build", "@scope/lead"),
        ("@scope/lead@latest", "@scope/lead"),
        ("x" * 214, "x" * 214),
    ],
)
def test_a_key_is_taken_and_names_the_expert(key: str, name: str) -> None:
    assert expert(key=key).name == name


@pytest.mark.parametrize(
    "key",
    [
        "",
        "Lead",
        "-lead",
        "lead lead",
        "lead/er",
        "@scope",
        "@scope/",
        "@/lead",
        "@scope/lead/er",
        "lead@",
        "lead@1.0",
        "lead@1.0.0@2.0.0",
        "../lead",
        "lead\n",
        "lead@1.0.0\n",
        "l\u00e9ad",
        "lead@1.0.0-\u00e9",
        "lead@\u0661.0.0",
        "x" * 215,
    ],
)
def test_what_is_no_key_is_refused_as_a_key_and_as_a_delegate(key: str) -> None:
    with pytest.raises(ValidationError, match="an Expert key is"):
        expert(key=key)
    with pytest.raises(ValidationError, match="an Expert key is"):
        expert(delegates=[key])


def skill(**fields: Any) -> McpStdioSkill:
    declared = expert(skills={"s": {"type": "mcpStdioSkill", **fields}}).skills["s"]
    assert isinstance(declared, McpStdioSkill)
    return declared


@pytest.mark.parametrize(
    ("domain", "taken"),
    [
        ("example.com", "example.com"),
        ("*.Example.COM", "*.example.com"),
        ("a-b.c1.co", "a-b.c1.co"),
        ("localhost.dev", None),
    ],
)
def test_a_domain_is_taken_in_lower_case(domain: str, taken: str | None) -> None:
    assert skill(allowedDomains=[domain]).allowed_domains == (taken or domain,)


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "*",
        "*.",
        "com",
        "localhost",
        "*.*.com",
        "a.*.com",
        "*example.com",
        "xn--bcher-kva.example",
        "b\u00fccher.example",
        "10.0.0.1",
        "[::1]",
        "::1",
        "0x7f.1",
        "2130706433",
        "example.com:443",
        "https://example.com",
        "example.com/path",
        "example..com",
        "-a.com",
        "a-.com",
        "example.com.",
        "example.com\n",
        "user@example.com",
        "x" * 64 + ".com",
        ".".join(["a" * 60] * 5) + ".com",
    ],
)
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(ValidationError):
        skill(allowedDomains=[domain])


def test_a_description_is_bounded_in_characters() -> None:
    assert len(expert(description="é" * MAX_DESCRIPTION).description) == MAX_DESCRIPTION
    with pytest.raises(ValidationError):
        expert(description="é" * (MAX_DESCRIPTION + 1))


def test_an_instruction_is_bounded_in_bytes_and_not_empty() -> None:
    assert expert(instruction="é" * (MAX_INSTRUCTION_BYTES // 2)).instruction
    with pytest.raises(ValidationError, match="has at most 20480 bytes; this one has 20482"):
        expert(instruction="é" * (MAX_INSTRUCTION_BYTES // 2 + 1))
    with pytest.raises(ValidationError):
        expert(instruction="")


def test_a_skill_is_of_the_type_it_names() -> None:
    remote = expert(skills={"s": {"type": "mcpSseSkill", "endpoint": "https://example.com"}}).skills["s"]
    assert isinstance(remote, McpSseSkill)
    with pytest.raises(ValidationError):
        expert(skills={"s": {"type": "mcpSseSkill"}})
    with pytest.raises(ValidationError):
        expert(skills={"s": {"type": "other"}})
    with pytest.raises(ValidationError, match="public https address"):
        expert(skills={"s": {"type": "mcpSseSkill", "endpoint": "http://example.com"}})


def test_an_interactive_tools_schema_is_json_text_and_stays_so_when_written() -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    declared = expert(
        skills={"s": {"type": "interactiveSkill", "tools": {"ask": {"inputJsonSchema": json.dumps(schema)}}}}
    )
    asks = declared.skills["s"]
    assert isinstance(asks, InteractiveSkill)
    assert asks.tools["ask"].input_json_schema == schema
    with pytest.raises(ValidationError):
        expert(skills={"s": {"type": "interactiveSkill", "tools": {"ask": {"inputJsonSchema": "no"}}}})


@pytest.mark.parametrize("name", ["", "a b", "a.b", "é", "x" * 65])
def test_a_tools_name_is_one_that_providers_take(name: str) -> None:
    with pytest.raises(ValidationError):
        skill(pick=[name])
    with pytest.raises(ValidationError):
        expert(skills={"s": {"type": "interactiveSkill", "tools": {name: {"inputJsonSchema": "{}"}}}})


def test_an_expert_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        expert().key = "other"  # type: ignore[misc]
