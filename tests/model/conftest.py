"""Gateways, and models to talk to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

import pytest

from orchestrator.model.gateway import Delta, Gateway, Generation
from orchestrator.model.loader import loaded
from orchestrator.model.provider import Target
from tests.model.stub_provider import TOOL, StubProvider, conversation, openai, sse


@pytest.fixture(scope="session")
def litellm() -> ModuleType:
    """litellm takes seconds to import: once for all tests."""
    return asyncio.run(loaded())


@pytest.fixture
async def gateway(litellm: ModuleType) -> AsyncIterator[Callable[..., Gateway]]:
    """Makes gateways that are closed at the end of the test."""
    async with AsyncExitStack() as stack:

        def make(target: Target, *, timeout_ms: int = 10_000, reasoning_budget: str | int | None = None) -> Gateway:
            made = Gateway(target, timeout_ms=timeout_ms, reasoning_budget=reasoning_budget)
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
async def stub() -> AsyncIterator[StubProvider]:
    async with StubProvider() as provider:
        yield provider


@pytest.fixture
def ask_stub(stub: StubProvider, gateway: Callable[..., Gateway]) -> Callable[..., Any]:
    """Asks a model whose stream consists of `events`."""

    async def ask(events: Iterable[Any], deltas: list[Delta] | None = None, **options: Any) -> Generation:
        stub.parts = [sse(events)]
        heard: list[Delta] = [] if deltas is None else deltas
        return await gateway(openai(f"{stub.url}/v1"), **options).generate(conversation(), [TOOL], heard.append)

    return ask
