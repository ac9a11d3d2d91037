"""Experts and skills, as `perstack.toml` declares them."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Json, field_validator

from expert_runner.contract.model import Model

MAX_DESCRIPTION = 2_048
"""Characters of an Expert's description."""

MAX_INSTRUCTION_BYTES = 20 * 1024
"""UTF-8 bytes of an Expert's instruction."""

_NAME = r"[a-z0-9][a-z0-9_-]*"
_KEY = re.compile(rf"^(?:@{_NAME}/)?{_NAME}(?:@(?:\d+\.\d+\.\d+[\w.+-]*|{_NAME}))?$", re.ASCII)
_DOMAIN = re.compile(r"^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$")


def _check_key(value: str) -> str:
    if len(value) > 214 or not _KEY.fullmatch(value):
        raise ValueError("an Expert key is `name` or `@scope/name` in lower case, optionally with `@1.0.0` or `@tag`")
    return value


def _check_domain(value: str) -> str:
    value = value.lower()
    if "xn--" in value:
        raise ValueError(f"{value!r} is punycode; name the domain in ASCII")
    if len(value) > 253 or not _DOMAIN.fullmatch(value):
        raise ValueError(f"{value!r} is not a domain: use `example.com` or `*.example.com`, no address and no port")
    return value


def _check_instruction(value: str) -> str:
    if len(value.encode()) > MAX_INSTRUCTION_BYTES:
        raise ValueError(
            f"an instruction has at most {MAX_INSTRUCTION_BYTES} bytes; this one has {len(value.encode())}"
        )
    return value


ExpertKey = Annotated[str, AfterValidator(_check_key)]
DomainPattern = Annotated[str, AfterValidator(_check_domain)]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class McpStdioSkill(Model):
    """Tools of an MCP server that runs as a child process in the sandbox."""

    type: Literal["mcpStdioSkill"]
    description: str | None = None
    rule: str | None = None
    command: str | None = None
    package_name: str | None = None
    args: tuple[str, ...] = ()
    pick: tuple[ToolName, ...] = ()
    omit: tuple[ToolName, ...] = ()
    required_env: tuple[str, ...] = ()
    allowed_domains: tuple[DomainPattern, ...] = ()
    lazy_init: bool = False


class McpSseSkill(Model):
    """Tools of a remote MCP server."""

    type: Literal["mcpSseSkill"]
    description: str | None = None
    rule: str | None = None
    endpoint: str
    pick: tuple[ToolName, ...] = ()
    omit: tuple[ToolName, ...] = ()
    allowed_domains: tuple[DomainPattern, ...] = ()

    @field_validator("endpoint")
    @classmethod
    def _https_only(cls, value: str) -> str:
        if not value.startswith("https://"):
            raise ValueError("an endpoint is a public https address")
        return value


class InteractiveTool(Model):
    """A question to the user. `input_json_schema` is JSON Schema, written as JSON text."""

    description: str | None = None
    input_json_schema: Json[dict[str, Any]]


class InteractiveSkill(Model):
    """Tools that the user answers; the coordinator's alone."""

    type: Literal["interactiveSkill"]
    description: str | None = None
    rule: str | None = None
    tools: dict[ToolName, InteractiveTool]


Skill = Annotated[McpStdioSkill | McpSseSkill | InteractiveSkill, Field(discriminator="type")]


class Expert(Model):
    """One Expert. `description` is what a caller sees; `instruction` is private to the Expert."""

    key: ExpertKey
    version: str = "1.0.0"
    min_runtime_version: str | None = None
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION)] = ""
    instruction: Annotated[str, Field(min_length=1), AfterValidator(_check_instruction)]
    skills: dict[str, Skill] = Field(default_factory=dict)
    delegates: tuple[ExpertKey, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The key without scope's version: what the Expert is called."""
        return self.key.rsplit("@", 1)[0] if "@" in self.key[1:] else self.key
