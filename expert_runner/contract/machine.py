"""The state machine of a Run, as data and two pure functions.

* :data:`TRANSITIONS` is the whole machine: which event, in which state and under which guard, leads where.
* :func:`advance` applies the table to a :class:`Progress`, the part of a checkpoint that decides what may come next.
  The runner drives with it, by reference alone: it never holds the conversation.
* :func:`expert_runner.contract.fold.apply` applies it to a whole checkpoint. The orchestrator verifies with it; resume,
  replay and log fold with it.

One answer's calls are carried out in this order: the Expert's own tools (`mcp`, in parallel), delegates (in parallel),
interactive tools (one by one), and last `attemptCompletion`.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from expert_runner.contract.checkpoints import State
from expert_runner.contract.errors import ForbiddenTransition
from expert_runner.contract.tools import SkillType, ToolCallRef


class Progress(NamedTuple):
    """What decides which events may come next.

    Attributes:
        state: where the Run stands.
        pending: calls of the current answer that have no result yet, in call order.
    """

    state: State
    pending: tuple[ToolCallRef, ...] = ()


class Waiting(NamedTuple):
    """How many of some calls are of which kind."""

    tools: int
    delegates: int
    interactive: int
    completions: int

    @classmethod
    def of(cls, calls: Collection[ToolCallRef]) -> "Waiting":
        completions = sum(call.is_completion for call in calls)
        by_type = [call.skill_type for call in calls]
        return cls(
            tools=by_type.count(SkillType.MCP) - completions,
            delegates=by_type.count(SkillType.DELEGATE),
            interactive=by_type.count(SkillType.INTERACTIVE),
            completions=completions,
        )

    @property
    def total(self) -> int:
        return sum(self)


Guard = Callable[[Waiting], bool]


def any_case(waiting: Waiting) -> bool:
    """always"""
    return True


def nothing_waits(waiting: Waiting) -> bool:
    """no call waits"""
    return waiting.total == 0


def something_waits(waiting: Waiting) -> bool:
    """some call waits"""
    return waiting.total > 0


def own_tools_wait(waiting: Waiting) -> bool:
    """a call of the Expert's own tools waits"""
    return waiting.tools + waiting.completions > 0


def delegates_are_next(waiting: Waiting) -> bool:
    """delegates wait, own tools do not"""
    return waiting.tools == 0 and waiting.delegates > 0


def interactive_is_next(waiting: Waiting) -> bool:
    """interactive tools wait, own tools and delegates do not"""
    return waiting.tools == waiting.delegates == 0 and waiting.interactive > 0


def no_delegate_waits(waiting: Waiting) -> bool:
    """every delegate has answered"""
    return waiting.delegates == 0


def completion_is_next(waiting: Waiting) -> bool:
    """only attemptCompletion waits"""
    return waiting.total == waiting.completions == 1


class Transition(NamedTuple):
    """A row: in `state`, `event` leads to `target` if `guard` holds of the calls that wait *after* the event."""

    state: State
    event: str
    target: State
    guard: Guard = any_case


S = State
ACTIVE = tuple(state for state in State if not state.is_end)
OPEN = (*(state for state in ACTIVE if state is not S.INIT), S.STOPPED_BY_DELEGATE, S.STOPPED_BY_INTERACTIVE_TOOL)
CONTINUABLE = (
    S.COMPLETED,
    S.STOPPED_BY_ERROR,
    S.STOPPED_BY_EXCEEDED_MAX_STEPS,
    S.STOPPED_BY_CANCELLATION,
)
INTERRUPTED = (S.STOPPED_BY_ERROR, S.STOPPED_BY_CANCELLATION)
"""Ends that may leave calls without a result."""

TRANSITIONS: tuple[Transition, ...] = (
    Transition(S.INIT, "startRun", S.PREPARING_FOR_STEP),
    Transition(S.PREPARING_FOR_STEP, "startGeneration", S.GENERATING_TOOL_CALL),
    Transition(S.PREPARING_FOR_STEP, "stopRunByExceededMaxSteps", S.STOPPED_BY_EXCEEDED_MAX_STEPS),
    # The answer.
    Transition(S.GENERATING_TOOL_CALL, "retry", S.GENERATING_TOOL_CALL),
    Transition(S.GENERATING_TOOL_CALL, "callTools", S.CALLING_MCP_TOOLS, own_tools_wait),
    Transition(S.GENERATING_TOOL_CALL, "completeRun", S.COMPLETED, nothing_waits),
    # The calls. `callDelegate` and `callInteractiveTool` bring the answer themselves where it calls no own tools.
    *(
        Transition(state, "callDelegate", S.CALLING_DELEGATES, delegates_are_next)
        for state in (S.GENERATING_TOOL_CALL, S.CALLING_MCP_TOOLS, S.RESUMING_FROM_STOP)
    ),
    *(
        Transition(state, "callInteractiveTool", S.CALLING_INTERACTIVE_TOOLS, interactive_is_next)
        for state in (S.GENERATING_TOOL_CALL, S.CALLING_MCP_TOOLS, S.RESUMING_FROM_STOP)
    ),
    Transition(S.CALLING_MCP_TOOLS, "resolveToolResults", S.CALLING_MCP_TOOLS, something_waits),
    Transition(S.CALLING_MCP_TOOLS, "resolveToolResults", S.RESOLVING_TOOL_RESULT, nothing_waits),
    Transition(S.CALLING_MCP_TOOLS, "attemptCompletion", S.GENERATING_RUN_RESULT, nothing_waits),
    Transition(S.CALLING_DELEGATES, "stopRunByDelegate", S.STOPPED_BY_DELEGATE),
    Transition(S.CALLING_INTERACTIVE_TOOLS, "stopRunByInteractiveTool", S.STOPPED_BY_INTERACTIVE_TOOL),
    # Back from a stop.
    Transition(S.STOPPED_BY_DELEGATE, "resumeToolCalls", S.RESUMING_FROM_STOP, no_delegate_waits),
    Transition(S.STOPPED_BY_INTERACTIVE_TOOL, "resumeToolCalls", S.RESUMING_FROM_STOP),
    Transition(S.RESUMING_FROM_STOP, "resolveToolResults", S.RESUMING_FROM_STOP),
    Transition(S.RESUMING_FROM_STOP, "attemptCompletion", S.GENERATING_RUN_RESULT, nothing_waits),
    Transition(S.RESUMING_FROM_STOP, "finishAllToolCalls", S.FINISHING_STEP, nothing_waits),
    # The end of a step. A further query may come there as it does after an end.
    Transition(S.RESOLVING_TOOL_RESULT, "finishToolCall", S.FINISHING_STEP),
    Transition(S.FINISHING_STEP, "continueToNextStep", S.PREPARING_FOR_STEP),
    Transition(S.FINISHING_STEP, "startRun", S.PREPARING_FOR_STEP),
    Transition(S.FINISHING_STEP, "stopRunByExceededMaxSteps", S.STOPPED_BY_EXCEEDED_MAX_STEPS),
    # The Run's result.
    Transition(S.GENERATING_RUN_RESULT, "retry", S.GENERATING_RUN_RESULT),
    Transition(S.GENERATING_RUN_RESULT, "completeRun", S.COMPLETED),
    # Stops that can come at any time, and what goes on after them.
    *(Transition(state, "stopRunByError", S.STOPPED_BY_ERROR) for state in OPEN),
    *(Transition(state, "stopRunByCancellation", S.STOPPED_BY_CANCELLATION) for state in OPEN),
    *(Transition(state, "startRun", S.PREPARING_FOR_STEP, nothing_waits) for state in CONTINUABLE),
    *(Transition(state, "resumeToolCalls", S.RESUMING_FROM_STOP) for state in INTERRUPTED),
)

_ROWS: dict[tuple[State, str], list[Transition]] = {}
for _row in TRANSITIONS:
    _ROWS.setdefault((_row.state, _row.event), []).append(_row)

EVENT_TYPES = frozenset(row.event for row in TRANSITIONS)
"""The events that are transitions."""


def allowed(state: State) -> frozenset[str]:
    """The events that some guard lets happen in `state`."""
    return frozenset(event for (source, event) in _ROWS if source is state)


def answer_event(calls: Collection[ToolCallRef]) -> str:
    """The event that brings an answer with these calls."""
    waiting = Waiting.of(calls)
    if waiting.tools or waiting.completions:
        return "callTools"
    if waiting.delegates:
        return "callDelegate"
    return "callInteractiveTool" if waiting.interactive else "completeRun"


def advance(
    progress: Progress,
    event: str,
    *,
    calls: tuple[ToolCallRef, ...] = (),
    resolved: Collection[str] = (),
) -> Progress:
    """The progress after `event`.

    Args:
        progress: where the Run stands.
        event: the event's type.
        calls: the calls of the answer this event brings, if it brings one.
        resolved: ids of the calls this event gives results for.

    Raises:
        ForbiddenTransition: no row of the table allows it, or `calls`/`resolved` do not fit what is pending.
    """
    rows = _ROWS.get((progress.state, event))
    if rows is None:
        raise ForbiddenTransition(f"{event} cannot happen in state {progress.state}")
    pending = _pending_after(progress, event, calls, resolved)
    waiting = Waiting.of(pending)
    for row in rows:
        if row.guard(waiting):
            return Progress(row.target, pending)
    wanted = " or ".join(row.guard.__doc__ or "" for row in rows)
    raise ForbiddenTransition(f"{event} cannot happen in state {progress.state} unless {wanted}")


_RESOLVED_BY: dict[str, Callable[[ToolCallRef], bool]] = {
    "resolveToolResults": lambda call: call.skill_type is SkillType.MCP,
    "attemptCompletion": lambda call: call.is_completion,
    # What comes from outside the sandbox: delegates' and users' answers.
    "resumeToolCalls": lambda call: call.skill_type is not SkillType.MCP,
}


def resolvable(progress: Progress, event: str) -> tuple[ToolCallRef, ...]:
    """The waiting calls that `event` may give results for.

    After an interruption `resumeToolCalls` may for all: somebody has to answer for the tools that were under way.
    """
    if event == "resumeToolCalls" and progress.state in INTERRUPTED:
        return progress.pending
    is_its_own = _RESOLVED_BY.get(event)
    return tuple(call for call in progress.pending if is_its_own is not None and is_its_own(call))


def _pending_after(
    progress: Progress, event: str, calls: tuple[ToolCallRef, ...], resolved: Collection[str]
) -> tuple[ToolCallRef, ...]:
    pending = progress.pending
    if calls:
        if pending or progress.state is not S.GENERATING_TOOL_CALL:
            raise ForbiddenTransition(f"{event} brings calls in state {progress.state}")
        if len({call.id for call in calls}) != len(calls):
            raise ForbiddenTransition(f"{event} brings two calls with one id")
        pending = calls
    if event == "resumeToolCalls" and not pending:
        raise ForbiddenTransition("resumeToolCalls where no call waits")
    if event == "attemptCompletion" and not completion_is_next(Waiting.of(pending)):
        raise ForbiddenTransition(f"attemptCompletion comes last: {len(pending)} calls have no result")
    if not resolved:
        if event in ("resolveToolResults", "attemptCompletion"):
            raise ForbiddenTransition(f"{event} gives no result")
        return pending
    if event not in _RESOLVED_BY:
        raise ForbiddenTransition(f"{event} gives results")
    ids = set(resolved)
    fitting = {call.id for call in resolvable(progress, event)}
    if len(ids) != len(resolved) or not ids <= fitting:
        raise ForbiddenTransition(f"{event} gives a result that no waiting call of its kind asked for")
    return tuple(call for call in pending if call.id not in ids)


def diagram() -> str:
    """The machine as a Mermaid state diagram, guards in brackets."""
    lines = ["stateDiagram-v2", f"    [*] --> {S.INIT}"]
    everywhere = {"stopRunByError", "stopRunByCancellation"}
    for row in TRANSITIONS:
        if row.event in everywhere:
            continue
        label = row.event if row.guard is any_case else f"{row.event} [{row.guard.__doc__}]"
        lines.append(f"    {row.state} --> {row.target}: {label}")
    anywhere = " and ".join(sorted(everywhere))
    lines.append(f"    note right of {S.PREPARING_FOR_STEP}: {anywhere} can come in every state before an end")
    return "\n".join(lines)
