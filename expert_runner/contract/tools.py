"""Tools: what an Expert is offered, what the model calls and what comes back."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from expert_runner.contract.messages import ResultPart, TextPart
from expert_runner.contract.model import Model

BASE_SKILL = "@perstack/base"
"""The skill every Expert has."""

ATTEMPT_COMPLETION = "attemptCompletion"
"""The base tool that ends a Run."""

MAX_TOOL_CALLS = 128
"""Calls in one answer; the rest of a longer answer is refused with it."""


EFFECTS_UNKNOWN = "Whether it had effects, and which, is unknown: look before you repeat it."
"""What the model is told of a call that was under way when its sandbox was lost, after the reason."""


class SkillType(StrEnum):
    """Who carries a call out: the sandbox's own tools (`mcp`), the user, or another Expert."""

    MCP = "mcp"
    INTERACTIVE = "interactive"
    DELEGATE = "delegate"


class ToolDefinition(Model):
    """A tool as it is offered to the model. `input_schema` is JSON Schema."""

    skill_name: str
    skill_type: SkillType = SkillType.MCP
    name: str
    description: str = ""
    input_schema: dict[str, Any]


class ToolCallRef(Model):
    """A call by reference: everything but its arguments. `skill_name` is empty when no skill has such a tool."""

    id: str = Field(min_length=1, max_length=256)
    skill_name: str
    skill_type: SkillType
    tool_name: str

    @property
    def is_completion(self) -> bool:
        """Whether this call asks to end the Run; such a call is carried out after all others of its answer."""
        return self.skill_name == BASE_SKILL and self.tool_name == ATTEMPT_COMPLETION


class ToolCall(ToolCallRef):
    """A call with its arguments, or with `invalid_args` (what the model wrote) when they were not a JSON object."""

    args: dict[str, Any] | None = None
    invalid_args: str | None = None

    def reference(self) -> ToolCallRef:
        """This call without its arguments."""
        return ToolCallRef(id=self.id, skill_name=self.skill_name, skill_type=self.skill_type, tool_name=self.tool_name)


class ToolResultRef(Model):
    """A result by reference."""

    id: str = Field(min_length=1, max_length=256)


class ToolResult(ToolResultRef):
    """What call `id` gave. `is_error` tells the model that it failed."""

    skill_name: str
    tool_name: str
    result: tuple[ResultPart, ...]
    is_error: bool = False

    @classmethod
    def of(cls, call: ToolCallRef, text: str, *, is_error: bool = False) -> "ToolResult":
        """The result of `call` as one text."""
        return cls(
            id=call.id,
            skill_name=call.skill_name,
            tool_name=call.tool_name,
            result=(TextPart(text=text),),
            is_error=is_error,
        )
