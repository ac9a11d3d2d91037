"""A model that says again what is on record: no provider, no key."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.messages import TextPart, ThinkingPart
from expert_runner.contract.tools import ToolCall
from orchestrator.model.conversation import Conversation
from orchestrator.model.gateway import ChatModel, Delta, Generation, ModelError, RawCall
from orchestrator.replay.course import Course
from orchestrator.replay.tree import Lineage

NO_FURTHER_ANSWER = "the record has no further answer of this Run's model"


class RecordedModels:
    """The models of a Job's Runs as they are on record; a :class:`orchestrator.model.gateway.ModelSource`.

    The coordinator's answers are told input by input: after those to one the Run is over, until :meth:`begin` lets
    those to the next be given.
    """

    def __init__(self, courses: Mapping[Lineage, Course]) -> None:
        self._coordinator = courses[()].answers
        self._delegates = {
            lineage: [answer for answers in course.answers for answer in answers]
            for lineage, course in courses.items()
            if lineage
        }
        self._windows = {lineage: course.end.context_window for lineage, course in courses.items() if course.end}
        self._input = 0

    def begin(self, number: int) -> None:
        """The coordinator is given its input `number`, from 0."""
        self._input = number

    def of_run(self, lineage: Lineage) -> ChatModel:
        answers = self._delegates.get(lineage, ()) if lineage else self._coordinator[self._input]
        return _RecordedModel(answers, self._windows.get(lineage))

    async def close(self) -> None: ...


class _RecordedModel:
    def __init__(self, answers: Sequence[e.Answer | e.CompleteRun], context_window: int | None) -> None:
        self.context_window = context_window
        self._answers = iter(answers)

    async def ready(self) -> None: ...

    async def generate(
        self, conversation: Conversation, tools: Sequence[dict[str, Any]], on_delta: Callable[[Delta], None]
    ) -> Generation:
        """The next answer, however it was asked for.

        Raises:
            ModelError: there is none.
        """
        answer = next(self._answers, None)
        if answer is None:
            raise ModelError(NO_FURTHER_ANSWER)
        return _generation(answer)


def _generation(answer: e.Answer | e.CompleteRun) -> Generation:
    if isinstance(answer, e.CompleteRun):
        return Generation(answer.text, answer.thinking, (), answer.usage, answer.cost, cut_off=False)
    parts = answer.new_message.contents if answer.new_message is not None else ()
    return Generation(
        text="".join(part.text for part in parts if isinstance(part, TextPart)),
        thinking=tuple(part for part in parts if isinstance(part, ThinkingPart)),
        calls=tuple(_raw(call) for call in answer.tool_calls if isinstance(call, ToolCall)),
        usage=answer.usage,
        cost=answer.cost,
        cut_off=False,
    )


def _raw(call: ToolCall) -> RawCall:
    """The call as the model wrote it, or as good as."""
    arguments = json.dumps(call.args, ensure_ascii=False) if call.args is not None else call.invalid_args or ""
    return RawCall(call.id, call.tool_name, arguments)
