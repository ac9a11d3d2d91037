"""A Run told event by event, with contents that fit: what the tests of the contract walk through."""

from collections.abc import Sequence
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import (
    Checkpoint,
    CheckpointHeader,
    CheckpointStatus,
    DelegationTarget,
    ExpertRef,
    RunError,
    State,
    Step,
)
from expert_runner.contract.fold import apply, begin, next_message_id, step_of, tool_message
from expert_runner.contract.messages import (
    ExpertMessage,
    InstructionMessage,
    TextPart,
    ThinkingPart,
    ToolMessage,
    UserMessage,
)
from expert_runner.contract.todos import TodoChange
from expert_runner.contract.tools import ATTEMPT_COMPLETION, BASE_SKILL, SkillType, ToolCall, ToolCallRef, ToolResult
from expert_runner.contract.usage import Usage

KINDS: dict[str, tuple[str, SkillType, str]] = {
    "tool": (BASE_SKILL, SkillType.MCP, "exec"),
    "unknown": ("", SkillType.MCP, "noSuchTool"),
    "delegate": ("@scope/writer", SkillType.DELEGATE, "scope-writer"),
    "interactive": ("questions", SkillType.INTERACTIVE, "ask"),
    "completion": (BASE_SKILL, SkillType.MCP, ATTEMPT_COMPLETION),
}

ANSWERS = frozenset({"callTools", "callDelegate", "callInteractiveTool"})
"""The events that may bring a model's answer with calls."""

GENERATED = Usage(input_tokens=10, output_tokens=4, reasoning_tokens=2, total_tokens=14, cached_input_tokens=3)
"""What one generation takes; each next one of a story takes one input token more."""

EVENTS: dict[str, type[Any]] = {kind.model_fields["type"].default: kind for kind in e.RunEvent.__args__}


def reference(call: ToolCall) -> ToolCallRef:
    return ToolCallRef(id=call.id, skill_name=call.skill_name, skill_type=call.skill_type, tool_name=call.tool_name)


def text_of(result: ToolResult) -> str:
    (part,) = result.result
    assert isinstance(part, TextPart)
    return part.text


class Story:
    """A Run and all that was told of it.

    Every text gets a mark of its own, so that a test can find it again; `marks` has them in order.
    """

    def __init__(self, context_window: int | None = 1000) -> None:
        header = CheckpointHeader(
            id="c0",
            job_id="job",
            run_id="run",
            status=CheckpointStatus.INIT,
            state=State.INIT,
            step_number=1,
            expert=ExpertRef(key="@scope/lead@1.0.0", name="@scope/lead", version="1.0.0"),
            context_window=context_window,
            metadata={"nested": {"none": None}},
        )
        self.checkpoint: Checkpoint = begin(header)
        self.history: list[e.RunEvent] = []
        self.marks: list[str] = []
        self.told: list[str] = []
        self._generations = 0
        self._made = 0

    # --- contents -----------------------------------------------------------------------------------------------------

    def mark(self) -> str:
        self.marks.append(f"«{len(self.marks)}»")
        return self.marks[-1]

    def calls(self, *kinds: str) -> tuple[ToolCall, ...]:
        """Calls with the ids c0, c1, …: providers that number calls give the same ids in every answer."""
        return tuple(self.call(f"c{n}", kind) for n, kind in enumerate(kinds))

    def call(self, call_id: str, kind: str) -> ToolCall:
        skill_name, skill_type, tool_name = KINDS[kind]
        args = {"query": self.mark(), "none": None, "list": [1, 2.5, None]}
        return ToolCall(id=call_id, skill_name=skill_name, skill_type=skill_type, tool_name=tool_name, args=args)

    def garbled_call(self, call_id: str) -> ToolCall:
        skill_name, skill_type, tool_name = KINDS["tool"]
        return ToolCall(
            id=call_id,
            skill_name=skill_name,
            skill_type=skill_type,
            tool_name=tool_name,
            invalid_args=f"{{{self.mark()}",
        )

    def results(self, *ids: str) -> tuple[ToolResult, ...]:
        """A result for each of `ids`, also for those that nothing calls."""
        calls = {call.id: call for call in self.checkpoint.tool_calls}
        stranger = ToolCall(id="stranger", skill_name=BASE_SKILL, skill_type=SkillType.MCP, tool_name="exec")
        return tuple(
            ToolResult.of(calls.get(name, stranger), self.mark()).model_copy(update={"id": name}) for name in ids
        )

    def usage(self) -> Usage:
        self._generations += 1
        return GENERATED.model_copy(update={"input_tokens": GENERATED.input_tokens + self._generations})

    # --- events -------------------------------------------------------------------------------------------------------

    def make(
        self,
        event: str,
        *,
        calls: Sequence[ToolCall] | None = None,
        resolved: Sequence[str] = (),
        todo_change: TodoChange | None = None,
        **overrides: Any,
    ) -> e.RunEvent:
        """The event of that type as the orchestrator would make it here.

        Args:
            event: its type.
            calls: the calls of the answer it brings; None: it brings none.
            resolved: ids of the calls it gives results for.
            todo_change: what it changes about the todos.
            overrides: fields to make different from what fits.
        """
        self._made += 1
        checkpoint = self.checkpoint
        fields: dict[str, Any] = {
            "id": f"e{self._made}",
            "timestamp": 1_700_000_000_000 + self._made,
            "job_id": checkpoint.job_id,
            "run_id": checkpoint.run_id,
            "expert_key": checkpoint.expert.key,
            "step_number": step_of(checkpoint, event),
        }
        made: e.RunEvent = EVENTS[event](**fields | self._payload(event, calls, resolved, todo_change) | overrides)
        return made

    def _payload(
        self, event: str, calls: Sequence[ToolCall] | None, resolved: Sequence[str], todo_change: TodoChange | None
    ) -> dict[str, Any]:
        before = self.checkpoint
        match event:
            case "startRun":
                return {
                    "initial_checkpoint": before.model_copy(update={"id": f"c{self._made}"}),
                    "input_messages": self._input(),
                }
            case "startGeneration":
                return {"messages": before.messages}
            case "retry":
                message = UserMessage(id=next_message_id(before), contents=(TextPart(text=self.mark()),))
                return {
                    "reason": "length",
                    "attempt": before.retry_count + 1,
                    "new_messages": (message,),
                    "usage": self.usage(),
                }
            case "callTools" | "callDelegate" | "callInteractiveTool":
                return self._answer(event, calls)
            case "resolveToolResults":
                return {"tool_results": self.results(*resolved), "todo_change": todo_change}
            case "attemptCompletion":
                return {"tool_result": self.results(*resolved[:1] or ["nothing"])[0]}
            case "finishToolCall" | "finishAllToolCalls":
                try:
                    message_of_results = tool_message(before, next_message_id(before))
                except Exception:  # noqa: BLE001 - where it cannot be made the event is forbidden anyway
                    message_of_results = ToolMessage(id=next_message_id(before), contents=())
                return {"new_messages": (message_of_results,)}
            case "resumeToolCalls":
                return {
                    "checkpoint_id": f"c{self._made}",
                    "pending_tool_calls": before.pending_tool_calls or (),
                    "partial_tool_results": self.results(*resolved),
                }
            case "continueToNextStep":
                following = {"id": f"c{self._made}", "step_number": before.step_number + 1}
                return self._stop() | {"next_checkpoint": before.model_copy(update=following)}
            case "stopRunByDelegate":
                targets = tuple(
                    DelegationTarget(
                        expert_key=call.skill_name,
                        tool_call_id=call.id,
                        tool_name=call.tool_name,
                        run_id=f"run-{call.id}",
                    )
                    for call in before.pending_tool_calls or ()
                    if call.skill_type is SkillType.DELEGATE
                )
                return self._stop() | {"checkpoint": before.model_copy(update={"delegate_to": targets})}
            case "stopRunByError":
                return self._stop() | {"error": RunError(name="ModelError", message="overloaded", status_code=529)}
            case "completeRun":
                thinking = (ThinkingPart(thinking=self.mark(), signature=self.mark()),)
                text = self.mark()
                return self._stop() | {
                    "text": text,
                    "thinking": thinking,
                    "message_id": next_message_id(before),
                    "usage": self.usage(),
                }
            case _:
                return self._stop()

    def _input(self) -> tuple[InstructionMessage | UserMessage, ...]:
        before = self.checkpoint
        if before.message_count:
            return (UserMessage(id=next_message_id(before), contents=(TextPart(text=self.mark()),)),)
        return (
            InstructionMessage(id=next_message_id(before), contents=(TextPart(text=self.mark()),)),
            UserMessage(id=next_message_id(before, 1), contents=(TextPart(text=self.mark()),)),
        )

    def _answer(self, event: str, calls: Sequence[ToolCall] | None) -> dict[str, Any]:
        pending = self.checkpoint.pending_tool_calls or ()
        payload: dict[str, Any] = {"tool_calls": tuple(reference(call) for call in pending)}
        if calls is not None:
            parts = (ThinkingPart(thinking=self.mark()), TextPart(text=self.mark()))
            payload = {
                "new_message": ExpertMessage(id=next_message_id(self.checkpoint), contents=parts),
                "tool_calls": tuple(calls),
                "usage": self.usage(),
                "cost": 0.25,
            }
        if event == "callInteractiveTool":
            waiting = [call for call in calls or pending if call.skill_type is SkillType.INTERACTIVE]
            payload["tool_call"] = waiting[0] if waiting else self.call("none", "interactive")
        return payload

    def _stop(self) -> dict[str, Any]:
        before = self.checkpoint
        step = Step(
            step_number=before.step_number,
            new_messages=before.messages,
            tool_calls=before.tool_calls,
            tool_results=before.partial_tool_results or (),
            usage=before.usage,
            started_at=1,
            finished_at=2,
        )
        return {"checkpoint": before, "step": step}

    # --- telling ------------------------------------------------------------------------------------------------------

    def tell(self, event: e.RunEvent) -> Checkpoint:
        """Let `event` happen; raises what :func:`apply` raises, and then nothing was told."""
        after = apply(self.checkpoint, event)
        # What is recorded says how the checkpoint is after the event.
        if isinstance(event, e.ContinueToNextStep):
            event = event.model_copy(update={"next_checkpoint": after})
        elif isinstance(event, e.Stop):
            event = event.model_copy(update={"checkpoint": after})
        self.history.append(event)
        self.told.append(event.type)
        self.checkpoint = after
        return after

    def happens(self, event: str, *kinds: str, resolved: Sequence[str] = (), **contents: Any) -> Checkpoint:
        """Make an event and tell it. With `kinds`, an answer event brings calls of those kinds."""
        calls = self.calls(*kinds) if kinds else contents.pop("calls", None)
        return self.tell(self.make(event, calls=calls, resolved=resolved, **contents))

    def until_answer(self) -> "Story":
        """From the beginning to where the model is asked."""
        self.happens("startRun")
        self.happens("startGeneration")
        return self
