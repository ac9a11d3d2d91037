"""Whether Experts fit together: delegates, names of tools, skills and versions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from expert_runner.contract.experts import Expert, InteractiveSkill, McpStdioSkill
from expert_runner.contract.tools import BASE_SKILL
from expert_runner.version import RUNTIME_VERSION
from orchestrator.config.locate import Path
from orchestrator.config.problems import Problem, key_text, suggestion
from orchestrator.config.tool_names import BASE_TOOLS, delegate_tool_name

_VERSION = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?")


def check_experts(experts: Mapping[str, Expert], declared: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with `experts` taken together. `declared` has all Experts, also those that are not valid."""
    return [problem for key, expert in experts.items() for problem in _check(("experts", key), expert, declared)]


def _check(at: Path, expert: Expert, declared: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _check_delegates(at, expert, declared)
    yield from _check_skills(at, expert)
    yield from _check_tool_names(at, expert)
    yield from _check_version(at, expert)


def _check_delegates(at: Path, expert: Expert, declared: Mapping[str, Any]) -> Iterator[Problem]:
    # An Expert may delegate to itself, as it may through others: a Run begins with nothing but its query, so this is
    # how work is divided. What bounds it is how deep delegation goes and how many steps a Job takes.
    for place, delegate in enumerate(expert.delegates):
        if delegate not in declared:
            text = f"there is no Expert {delegate}; {suggestion(delegate, list(declared))}"
            yield Problem((*at, "delegates", place), text)


def _check_skills(at: Path, expert: Expert) -> Iterator[Problem]:
    for name, skill in expert.skills.items():
        skill_at = (*at, "skills", name)
        if name != BASE_SKILL:
            if isinstance(skill, McpStdioSkill) and not skill.command:
                yield Problem((*skill_at, "command"), "missing; expected the command that starts the MCP server")
            continue
        if not isinstance(skill, McpStdioSkill):
            yield Problem((*skill_at, "type"), f"{skill.type}; expected mcpStdioSkill, which {BASE_SKILL} always is")
            continue
        for field in ("pick", "omit"):
            for place, tool in enumerate(getattr(skill, field)):
                if tool not in BASE_TOOLS:
                    text = f"{BASE_SKILL} has no tool {tool}; {suggestion(tool, sorted(BASE_TOOLS))}"
                    yield Problem((*skill_at, field, place), text)


def _check_tool_names(at: Path, expert: Expert) -> Iterator[Problem]:
    """No two tools of an Expert have one name: a call would not say whose it is."""
    taken = dict.fromkeys(_base_tools(expert), f"a tool of {BASE_SKILL}")
    for path, name, owner, way_out in _own_tools(at, expert):
        if taken.get(name) == owner:
            yield Problem(path, f"{owner} is named twice; once is enough")
        elif name in taken:
            yield Problem(path, f"{owner} is offered as the tool {name}, and so is {taken[name]}; {way_out}")
        else:
            taken[name] = owner


def _base_tools(expert: Expert) -> frozenset[str]:
    declared = expert.skills.get(BASE_SKILL)
    if not isinstance(declared, McpStdioSkill):
        return BASE_TOOLS
    return (frozenset(declared.pick) or BASE_TOOLS) - frozenset(declared.omit)


def _own_tools(at: Path, expert: Expert) -> Iterator[tuple[Path, str, str, str]]:
    """Delegates and interactive tools: where they stand, their names, what they are and how to name them otherwise."""
    for place, key in enumerate(expert.delegates):
        way_out = f"give one of the Experts another name, or omit the tool of {BASE_SKILL}"
        yield (*at, "delegates", place), delegate_tool_name(key), f"the delegate {key}", way_out
    for skill_name, skill in expert.skills.items():
        if isinstance(skill, InteractiveSkill):
            for name in skill.tools:
                path = (*at, "skills", skill_name, "tools", name)
                yield path, name, key_text(path[2:]), "give it another name"


def _check_version(at: Path, expert: Expert) -> Iterator[Problem]:
    needed = expert.min_runtime_version
    if needed is None:
        return
    path = (*at, "minRuntimeVersion")
    version = _numbers(needed)
    if version is None:
        yield Problem(path, f'"{needed}"; expected a version such as {RUNTIME_VERSION}')
    elif version > (_numbers(RUNTIME_VERSION) or ()):
        yield Problem(path, f"needs version {needed}, and this is perstack {RUNTIME_VERSION}; install a newer perstack")


def _numbers(version: str) -> tuple[int, ...] | None:
    match = _VERSION.fullmatch(version)
    return match and tuple(int(number or 0) for number in match.groups())
