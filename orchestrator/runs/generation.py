"""One generation as a Run sees it: attempts, retries and the stream of what the model says meanwhile."""

import asyncio
import random
from dataclasses import dataclass

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import State
from expert_runner.contract.fold import next_message_id
from expert_runner.contract.messages import TextPart, ThinkingPart, UserMessage
from expert_runner.contract.tools import ToolCall
from expert_runner.contract.usage import Usage
from orchestrator.model.conversation import Conversation, tool_schemas
from orchestrator.model.gateway import ChatModel, Delta, Generation, ModelError
from orchestrator.model.retry import backoff_s
from orchestrator.runs.ledger import Ledger
from orchestrator.runs.tools import ToolBox

CUT_OFF = (
    "Your last answer was cut off because it reached the length limit, so none of it was used and none of its tool "
    "calls was carried out. Answer again, shorter; write large texts in several smaller parts."
)
EMPTY = "Your last answer was empty. Call a tool, or write your answer."


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A model's answer that can be used. `cost` is in US dollars, None where the price is not known."""

    text: str
    thinking: tuple[ThinkingPart, ...]
    calls: tuple[ToolCall, ...]
    usage: Usage
    cost: float | None = None


class Generator:
    """Asks the model on behalf of one Run.

    Args:
        model: who is asked.
        ledger: the Run's record; retries are recorded, deltas handed on.
        tools: the Run's tools.
        max_retries: attempts after the first, for each generation.
    """

    def __init__(self, model: ChatModel, ledger: Ledger, tools: ToolBox, max_retries: int) -> None:
        self._model = model
        self._ledger = ledger
        self._tools = tools
        self._schemas = tool_schemas(tools.definitions)
        self._max_retries = max_retries
        self._conversation = Conversation()
        self._told = 0

    async def answer(self) -> ModelAnswer:
        """The model's next answer.

        Raises:
            ModelError: it cannot be had: refused, or out of retries.
        """
        is_result = self._ledger.checkpoint.state is State.GENERATING_RUN_RESULT
        attempt = self._ledger.checkpoint.retry_count  # of a process that was killed meanwhile
        while True:
            attempt += 1
            try:
                generation = await self._attempt(is_result=is_result)
            except ModelError as error:
                if not error.is_retryable or attempt > self._max_retries:
                    raise
                delay_s = backoff_s(attempt, error.retry_after_s, random.random())  # noqa: S311
                self._retry(str(error), attempt, status_code=error.status_code, delay_ms=round(delay_s * 1000))
                await asyncio.sleep(delay_s)
                continue
            problem = _problem(generation, is_result=is_result)
            if problem is None:
                return ModelAnswer(
                    text=_sound(generation.text),
                    thinking=tuple(
                        part.model_copy(update={"thinking": _sound(part.thinking)}) for part in generation.thinking
                    ),
                    # The result is asked for without tools; calls a model makes all the same are not for anybody.
                    calls=() if is_result else tuple(self._tools.call(raw) for raw in generation.calls),
                    usage=generation.usage,
                    cost=generation.cost,
                )
            reason, message = problem
            if attempt > self._max_retries:
                raise ModelError(f"the model gave no usable answer in {attempt} attempts: {reason}", is_retryable=False)
            self._retry(reason, attempt, message=message, usage=generation.usage)

    async def _attempt(self, *, is_result: bool) -> Generation:
        messages = self._ledger.checkpoint.messages
        self._conversation.extend(messages[self._told :])
        self._told = len(messages)
        stream = _Stream(self._ledger, streams_text=is_result)
        try:
            generation = await self._model.generate(self._conversation, [] if is_result else self._schemas, stream.take)
        finally:
            stream.close()
        if not is_result and generation.text and not generation.calls and not generation.cut_off:
            # Only now is it known that this text was the Run's result.
            stream.whole_result(generation.text)
        return generation

    def _retry(
        self,
        reason: str,
        attempt: int,
        *,
        status_code: int | None = None,
        delay_ms: int = 0,
        message: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        next_id = next_message_id(self._ledger.checkpoint)
        self._ledger.record(
            e.Retry,
            reason=reason,
            attempt=attempt,
            status_code=status_code,
            delay_ms=delay_ms,
            new_messages=(UserMessage(id=next_id, contents=(TextPart(text=message),)),) if message else (),
            usage=usage or Usage(),
        )


def _sound(text: str) -> str:
    """`text` as it can be stored: halves of surrogate pairs, which JSON can hold, are joined or replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _problem(generation: Generation, *, is_result: bool) -> tuple[str, str] | None:
    """Why an answer cannot be used, and what to tell the model."""
    if generation.cut_off:
        return "the answer was cut off at the length limit", CUT_OFF
    if not generation.text.strip() and (is_result or not generation.calls):
        return "the answer was empty", EMPTY
    return None


class _Stream:
    """Deltas as events: each kind is started before and completed after its pieces, in the order they came."""

    def __init__(self, ledger: Ledger, *, streams_text: bool) -> None:
        self._ledger = ledger
        self._streams_text = streams_text
        self._kind: str | None = None
        self._pieces: list[str] = []

    def take(self, delta: Delta) -> None:
        if delta.kind == "text" and not self._streams_text:
            return
        if delta.kind != self._kind:
            self.close()
            self._kind = delta.kind
            self._ledger.pass_on(e.StartStreamingReasoning if delta.kind == "reasoning" else e.StartStreamingRunResult)
        text = _sound(delta.text)
        self._pieces.append(text)
        self._ledger.pass_on(e.StreamReasoning if delta.kind == "reasoning" else e.StreamRunResult, delta=text)

    def close(self) -> None:
        if self._kind is None:
            return
        kind = e.CompleteStreamingReasoning if self._kind == "reasoning" else e.CompleteStreamingRunResult
        self._ledger.pass_on(kind, text="".join(self._pieces))
        self._kind = None
        self._pieces = []

    def whole_result(self, text: str) -> None:
        self._streams_text = True
        self.take(Delta("text", text))
        self.close()
