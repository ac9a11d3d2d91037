"""The tools of an Expert, as its model is offered them."""

from collections.abc import Mapping
from typing import Any

from expert_runner.contract.experts import Expert
from expert_runner.contract.tools import ToolDefinition
from orchestrator.api.setting import as_setting, check_experts
from orchestrator.runs.tools import ToolBox


async def get_tool_definitions(
    expert_key: str, experts: Mapping[str, Expert | Mapping[str, Any]], *, is_coordinator: bool = True
) -> tuple[ToolDefinition, ...]:
    """The tools that an Expert is offered: base tools, then a tool for each delegate, then interactive ones.

    Args:
        expert_key: one of `experts`.
        experts: all Experts by key, as `run` takes them.
        is_coordinator: whether it is the Job's coordinator: a delegate is offered no interactive tools.

    Raises:
        ConfigError: there is no such Expert, or they could not be run.
    """
    setting = as_setting({"expertKey": expert_key, "input": {"text": "-"}, "experts": experts})
    check_experts(setting.experts, expert_key)
    box = ToolBox(setting.experts[expert_key], setting.experts, is_coordinator=is_coordinator)
    return box.definitions
