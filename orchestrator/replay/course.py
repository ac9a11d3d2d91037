"""What happened in a Run, freed of what differs each time it is run and of what a replay does not repeat.

A course is the inputs, the model's answers and the tools' results of a Run. Retries, failures and interruptions are
left out: a Run that was killed and went on has the course of one that was not.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, State
from expert_runner.contract.machine import INTERRUPTED
from expert_runner.contract.messages import InstructionMessage, TextPart, UserMessage
from expert_runner.contract.standing import Passage
from expert_runner.contract.tools import EFFECTS_UNKNOWN, SkillType, ToolCall, ToolResult
from orchestrator.replay.lines import Line
from orchestrator.replay.report import Place
from orchestrator.runs.surroundings import FurtherInput

SETTLED = (State.COMPLETED, State.STOPPED_BY_INTERACTIVE_TOOL)
"""Ends that come of what the model said; every other one, of something else, which a replay does not repeat."""

_OF_ANSWER = ("type", "newMessage", "toolCalls", "text", "thinking")


class Follow(NamedTuple):
    """A transition that follows an answer by itself."""

    type: str
    place: Place


@dataclass(slots=True)
class Moment:
    """An input or an answer, and what followed from it.

    Attributes:
        content: the event, as JSON, without what differs each time.
        calls: of the answer.
        was_disturbed: something else happened before the next moment, so that what followed says nothing.
    """

    place: Place
    content: dict[str, Any]
    calls: tuple[ToolCall, ...] = ()
    follows: list[Follow] = field(default_factory=list)
    was_disturbed: bool = False


class Told(NamedTuple):
    """A call's result where it is recorded. `is_made_up`: the call was interrupted and the result only says so."""

    place: Place
    field: str
    result: ToolResult
    is_made_up: bool


@dataclass(slots=True)
class Course:
    """One Run's.

    Attributes:
        results: by the ids of their calls.
        inputs: for each time that somebody made the Run begin or go on: with what.
        answers: for each of the inputs, the events that brought the model's answers to it.
        end: its last checkpoint; None: it has not begun.
        last: the last of its transitions.
    """

    moments: list[Moment] = field(default_factory=list)
    results: dict[str, Told] = field(default_factory=dict)
    inputs: list[FurtherInput] = field(default_factory=list)
    answers: list[list[e.Answer | e.CompleteRun]] = field(default_factory=list)
    end: Checkpoint | None = None
    last: Place | None = None

    @classmethod
    def of(cls, lines: Iterable[Line]) -> "Course":
        """The course of a Run with these lines; those of a branch come after those it goes on from.

        Raises:
            DamagedError: see :func:`orchestrator.replay.lines.lines`.
        """
        course = cls()
        for line in lines:
            if line.passage is None:
                course._around(line.event)
            else:
                course._transition(line.place, line.passage)
        if course.end is not None and course.end.state not in SETTLED:
            course._disturb()
            course._leave_out_interrupted(course.end)
        return course

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls of its answers."""
        return tuple(call for moment in self.moments for call in moment.calls)

    def _around(self, event: Any) -> None:
        begins_again = isinstance(event, e.InitializeRuntime) and self.end is not None
        if isinstance(event, e.SandboxLost) or (begins_again and self.end and self.end.state not in SETTLED):
            self._disturb()

    def _disturb(self) -> None:
        if self.moments:
            self.moments[-1].was_disturbed = True

    def _leave_out_interrupted(self, end: Checkpoint) -> None:
        """A last answer whose tools were under way when the Run was stopped: what became of them is not known."""
        if any(call.skill_type is SkillType.MCP for call in end.pending_tool_calls or ()):
            self.moments.pop()
            self.answers[-1].pop()

    def _transition(self, place: Place, passage: Passage) -> None:
        event, before, after = passage
        if self.last is not None and self.end is not None:
            is_branch = self.last.record.id != place.record.id
            if is_branch and self.end.state not in SETTLED:
                self._disturb()
        self.end, self.last = after.checkpoint, place
        match event:
            case e.StartRun():
                self._begin(place, event)
            case e.Answer() if event.new_message is not None:
                self._answer(place, event)
            case e.CompleteRun():
                self._answer(place, event)
            case e.StartGeneration() | e.Retry():
                pass
            case e.StopRunByError() | e.StopRunByCancellation() | e.StopRunByExceededMaxSteps():
                self._disturb()
            case _:
                self._follow(place, event)
                self._resolve(place, event, before.checkpoint)

    def _begin(self, place: Place, event: e.StartRun) -> None:
        texts = [_text(message) for message in event.input_messages if isinstance(message, UserMessage)]
        self._input(FurtherInput(query=texts[-1] if texts else None))
        if not texts:
            self._disturb()
            return
        # The Expert's own instruction is the configuration's business, and names the workspace's folder.
        messages = [
            {"type": message.type} if isinstance(message, InstructionMessage) else _without_id(message)
            for message in event.input_messages
        ]
        self.moments.append(Moment(place, {"type": event.type, "inputMessages": messages}))

    def _input(self, given: FurtherInput) -> None:
        self.inputs.append(given)
        self.answers.append([])

    def _answer(self, place: Place, event: e.Answer | e.CompleteRun) -> None:
        payload = json.loads(event.encode())
        content = {name: payload[name] for name in _OF_ANSWER if name in payload}
        if "newMessage" in content:
            del content["newMessage"]["id"]
        calls = event.tool_calls if isinstance(event, e.Answer) else ()
        self.moments.append(Moment(place, content, tuple(call for call in calls if isinstance(call, ToolCall))))
        self.answers[-1].append(event)

    def _follow(self, place: Place, event: e.RunEvent) -> None:
        follows = self.moments[-1].follows
        # How many results are told together is a matter of their sizes.
        if not follows or follows[-1].type != event.type:
            follows.append(Follow(event.type, place))

    def _resolve(self, place: Place, event: e.RunEvent, before: Checkpoint) -> None:
        match event:
            case e.AttemptCompletion():
                self._told(place, "toolResult", event.tool_result)
            case e.ResolveToolResults():
                for index, result in enumerate(event.tool_results):
                    self._told(place, f"toolResults[{index}]", result)
            case e.ResumeToolCalls():
                if before.state is State.STOPPED_BY_INTERACTIVE_TOOL:
                    self._input(FurtherInput(answer=_text(event.partial_tool_results[0])))
                for index, result in enumerate(event.partial_tool_results):
                    was_interrupted = before.state in INTERRUPTED
                    self._told(place, f"partialToolResults[{index}]", result, was_interrupted=was_interrupted)

    def _told(self, place: Place, where: str, result: ToolResult, *, was_interrupted: bool = False) -> None:
        is_made_up = result.is_error and (was_interrupted or EFFECTS_UNKNOWN in _text(result))
        self.results[result.id] = Told(place, where, result, is_made_up)


def _text(of: UserMessage | ToolResult) -> str:
    parts = of.contents if isinstance(of, UserMessage) else of.result
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _without_id(message: UserMessage) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(message.encode())
    del content["id"]
    return content
