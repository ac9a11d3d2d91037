"""Which events of a Job are asked for."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, get_args

from expert_runner.contract import events as e
from expert_runner.contract.tools import SkillType, ToolResult
from orchestrator.errors import ConfigError
from orchestrator.logs.expression import Expression
from orchestrator.logs.reading import Entry
from orchestrator.logs.step_range import StepRange
from orchestrator.store.history import HistoryEvent

EVENT_TYPES = tuple(kind.model_fields["type"].default for kind in (*get_args(e.RunEvent), *get_args(e.RuntimeEvent)))
"""The types of the events that are stored."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are asked for: those that fit all that is given here.

    Attributes:
        run_id: of this Run.
        steps: of these steps; what happens around a Run belongs to none.
        types: of one of these types.
        errors: that tell of something that went wrong.
        tools, delegations: about calls and results of tools, or of delegates; with both, about either.
        expression: for which this holds.
    """

    run_id: str | None = None
    steps: StepRange | None = None
    types: frozenset[str] = frozenset()
    errors: bool = False
    tools: bool = False
    delegations: bool = False
    expression: Expression | None = None

    def matches(self, entry: Entry) -> bool:
        event = entry.event
        return (
            (self.run_id is None or event.run_id == self.run_id)
            and (self.steps is None or (isinstance(event, e.BaseRunEvent) and event.step_number in self.steps))
            and (not self.types or event.type in self.types)
            and (not self.errors or tells_of_error(event))
            and (not (self.tools or self.delegations) or self._is_of_kind(event))
            # Last, because it costs most.
            and (self.expression is None or self.expression.matches(entry.data))
        )

    def _is_of_kind(self, event: HistoryEvent) -> bool:
        return (self.tools and tells_of_tools(event)) or (self.delegations and tells_of_delegations(event))


EVERYTHING = Selection()
"""All events of a Job."""


def parse_types(values: Iterable[str]) -> frozenset[str]:
    """Event types, given one by one or separated by commas.

    Raises:
        ConfigError: one of them does not exist, or is not stored.
    """
    types = frozenset(name.strip() for value in values for name in value.split(",") if name.strip())
    unknown = sorted(types.difference(EVENT_TYPES))
    if unknown:
        raise ConfigError(f"--type {', '.join(unknown)}: the history has these: {', '.join(EVENT_TYPES)}")
    return types


def tells_of_error(event: HistoryEvent) -> bool:
    """A stop by an error, a generation that is tried again, a lost sandbox, a failed tool or delegate."""
    match event:
        case e.StopRunByError() | e.Retry() | e.SandboxLost():
            return True
        case e.DockerContainerStatus():
            return event.status == "error"
        case e.DockerBuildProgress():
            return event.stage == "error"
        case _:
            return any(result.is_error for result in _results(event))


def tells_of_tools(event: HistoryEvent) -> bool:
    """A call or a result of a tool, the user's answers among them."""
    kinds = _kinds(event)
    return SkillType.MCP in kinds or SkillType.INTERACTIVE in kinds


def tells_of_delegations(event: HistoryEvent) -> bool:
    """A call or a result of a delegate, or that the Run waits for some."""
    return isinstance(event, e.StopRunByDelegate) or SkillType.DELEGATE in _kinds(event)


def _kinds(event: HistoryEvent) -> Collection[SkillType]:
    """Who carries out the calls that `event` makes, or has results of."""
    match event:
        case e.CallDelegate() if event.new_message is None:
            return (SkillType.DELEGATE,)
        case e.CallInteractiveTool() if event.new_message is None:
            return (SkillType.INTERACTIVE,)
        case e.Answer():
            return {call.skill_type for call in event.tool_calls}
        case e.ResumeToolCalls():
            given = {result.id for result in event.partial_tool_results}
            return {call.skill_type for call in event.pending_tool_calls if call.id in given}
        case e.ResolveToolResults() | e.AttemptCompletion():
            return (SkillType.MCP,)
        case _:
            return ()


def _results(event: Any) -> tuple[ToolResult, ...]:
    match event:
        case e.ResolveToolResults():
            return event.tool_results
        case e.AttemptCompletion():
            return (event.tool_result,)
        case e.ResumeToolCalls():
            return event.partial_tool_results
        case _:
            return ()
