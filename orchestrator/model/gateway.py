"""The gateway to a model: one attempt at an answer, streamed, over litellm."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from orchestrator.errors import PerstackError
from orchestrator.model.assembly import AnswerTooLargeError, Assembly
from orchestrator.model.backend import Backend
from orchestrator.model.conversation import Conversation
from orchestrator.model.failures import ModelError, broken_off, model_error, timed_out
from orchestrator.model.generation import Delta, Generation, RawCall
from orchestrator.model.loader import loaded, start_loading
from orchestrator.model.provider import Target
from orchestrator.model.reasoning import parse_budget

__all__ = ["ChatModel", "Delta", "Gateway", "Generation", "ModelError", "ModelSource", "RawCall"]


class ChatModel(Protocol):
    """Who answers a Run. :class:`Gateway` asks a provider; a replay answers from the record."""

    @property
    def context_window(self) -> int | None: ...

    async def ready(self) -> None: ...

    async def generate(
        self, conversation: Conversation, tools: Sequence[dict[str, Any]], on_delta: Callable[[Delta], None]
    ) -> Generation: ...


class ModelSource(Protocol):
    """Who answers the Runs of a Job."""

    def of_run(self, lineage: tuple[str, ...]) -> ChatModel:
        """The model of the Run that these delegating calls led to, from the coordinator (which has none) down."""
        ...

    async def close(self) -> None: ...


class Gateway:
    """Asks one model. Any number of generations may be under way at once; they share connections.

    Creating one starts loading litellm; :meth:`close` it in the event loop it was used in.

    Args:
        target: which model, and how to reach it.
        timeout_ms: for a whole answer, from the request to its last byte.
        reasoning_budget: an effort or a number of tokens; None leaves it to the provider.

    Raises:
        ValueError: `reasoning_budget` is neither.
    """

    def __init__(self, target: Target, *, timeout_ms: int, reasoning_budget: str | int | None = None) -> None:
        self._target = target
        self._timeout_ms = timeout_ms
        self._budget = parse_budget(reasoning_budget)
        self._backend: Backend | None = None
        start_loading()

    @property
    def context_window(self) -> int | None:
        """The tokens that the model's input can hold; None if nobody knows, or before :meth:`ready`."""
        return self._backend.context_window if self._backend else None

    def of_run(self, lineage: tuple[str, ...]) -> "Gateway":
        """Itself: every Run's model is the same. See :class:`ModelSource`."""
        return self

    async def ready(self) -> None:
        """Wait until litellm is loaded. :meth:`generate` does so by itself, outside its timeout."""
        await self._ready()

    async def _ready(self) -> Backend:
        if self._backend is None:
            litellm = await loaded()
            if self._backend is None:  # another caller may have got here first
                self._backend = Backend(litellm, self._target, self._budget)
        return self._backend

    async def generate(
        self, conversation: Conversation, tools: Sequence[dict[str, Any]], on_delta: Callable[[Delta], None]
    ) -> Generation:
        """The model's answer to `conversation`. One attempt: repeating it is the caller's business.

        `on_delta` gets the pieces of text and reasoning in order, before this returns.

        Raises:
            ModelError: there is no complete answer.
        """
        backend = await self._ready()
        who = f"{self._target.provider} ({self._target.model})"
        assembly = Assembly(on_delta)
        try:
            async with asyncio.timeout(self._timeout_ms / 1000) as deadline:
                report = await backend.ask(conversation, tools, assembly, timeout_s=self._timeout_ms / 1000)
        except PerstackError:
            raise  # the listener's own
        except AnswerTooLargeError as error:
            raise ModelError(f"{who} answered {error}") from None
        except Exception as error:  # noqa: BLE001 - litellm's are of every kind; each becomes a ModelError
            if deadline.expired():
                raise timed_out(self._target, self._timeout_ms) from None
            # The cause is left out on purpose: what shows tracebacks would show the request with its key.
            raise model_error(error, self._target) from None
        if report.finish_reason is None:
            raise broken_off(self._target)
        assembly.finish(conversation.call_ids)
        if report.finish_reason == "content_filter" and not assembly.calls:
            raise ModelError(f"{who} refused to answer: its content filter stopped it")
        return Generation(
            text=assembly.text,
            thinking=assembly.thinking,
            calls=assembly.calls,
            usage=report.usage,
            cost=backend.cost(report),
            cut_off=report.finish_reason == "length",
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._backend is not None:
            await self._backend.close()
