"""Which tools an Expert is offered, and what a call of the model's means."""

import json
from collections.abc import Mapping

from expert_runner.contract.experts import Expert, InteractiveSkill, McpStdioSkill
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall, ToolDefinition
from expert_runner.skills.base.definitions import base_tool_definitions
from orchestrator.config.tool_names import delegate_tool_name
from orchestrator.model.gateway import RawCall

_QUERY_SCHEMA = {
    "type": "object",
    "properties": {
        "query": {
            "type": "string",
            "minLength": 1,
            "description": "Everything the Expert needs to know: it sees nothing of this conversation.",
        }
    },
    "required": ["query"],
    "additionalProperties": False,
}


class ToolBox:
    """The tools of one Run.

    Args:
        expert: whose tools.
        experts: all Experts of the configuration, for the delegates' descriptions.
        is_coordinator: only the coordinator is offered interactive tools.
    """

    def __init__(self, expert: Expert, experts: Mapping[str, Expert], *, is_coordinator: bool) -> None:
        declared = expert.skills.get(BASE_SKILL)
        pick, omit = (declared.pick, declared.omit) if isinstance(declared, McpStdioSkill) else ((), ())
        base = base_tool_definitions(pick=pick, omit=omit)
        self.base_tools = tuple(tool.name for tool in base)
        self.delegates = {delegate_tool_name(key): key for key in expert.delegates}
        delegates = tuple(
            ToolDefinition(
                skill_name=key,
                skill_type=SkillType.DELEGATE,
                name=name,
                description=experts[key].description or f"Delegate a task to the Expert {key}.",
                input_schema=_QUERY_SCHEMA,
            )
            for name, key in self.delegates.items()
        )
        interactive = tuple(
            ToolDefinition(
                skill_name=skill_name,
                skill_type=SkillType.INTERACTIVE,
                name=name,
                description=tool.description or "",
                input_schema=tool.input_json_schema,
            )
            for skill_name, skill in expert.skills.items()
            if isinstance(skill, InteractiveSkill) and is_coordinator
            for name, tool in skill.tools.items()
        )
        self.definitions = (*base, *delegates, *interactive)
        self._by_name = {tool.name: tool for tool in self.definitions}

    def call(self, raw: RawCall) -> ToolCall:
        """What the model's call means. A tool nobody offers and arguments that are no object are left to the runner
        to refuse.
        """
        tool = self._by_name.get(raw.name)
        args = _arguments(raw.arguments)
        return ToolCall(
            id=raw.id,
            skill_name=tool.skill_name if tool else "",
            skill_type=tool.skill_type if tool else SkillType.MCP,
            tool_name=raw.name,
            args=args,
            invalid_args=raw.arguments if args is None else None,
        )


def _arguments(text: str) -> dict[str, object] | None:
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse)
        # Half of a surrogate pair can be written in JSON and in no other text.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def delegate_query(call: ToolCall) -> str | None:
    """The query of a delegate's call; None if it has none."""
    query = (call.args or {}).get("query")
    return query if isinstance(query, str) and query.strip() else None
