"""A provider that sends what it is told to, and the pieces of OpenAI's chunks."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from multidict import CIMultiDict

from expert_runner.contract.messages import InstructionMessage, TextPart, UserMessage
from orchestrator.model.conversation import Conversation
from orchestrator.model.provider import ProviderConfig, Target, resolve

KEY = "sk-live-0123456789abcdef"

TOOL = {
    "type": "function",
    "function": {
        "name": "todo",
        "description": "Keep a list.",
        "parameters": {"type": "object", "properties": {"newTodos": {"type": "array", "items": {"type": "string"}}}},
    },
}


@dataclass
class Received:
    path: str
    headers: CIMultiDict[str]
    body: dict[str, Any]
    peer: Any


@dataclass
class StubProvider:
    """Answers every POST with `parts`, a write each; None closes the connection, an Event is waited for."""

    parts: list[bytes | asyncio.Event | None] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    received: list[Received] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has left in the middle of an answer."""
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/{path:.*}", self._post)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.received.append(Received(request.path_qs, request.headers.copy(), await request.json(), peer))
        response = web.StreamResponse(status=self.status, headers=self.headers)
        await response.prepare(request)
        try:
            for part in self.parts:
                if part is None:
                    request.transport.close()
                    return response
                if isinstance(part, asyncio.Event):
                    await part.wait()
                else:
                    await response.write(part)
        except asyncio.CancelledError:
            self.gone.set()
            raise
        await response.write_eof()
        return response


def sse(events: Iterable[Any]) -> bytes:
    """`events` as server-sent events; text stands for itself."""
    return b"".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode() for event in events)


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of OpenAI's chat completions."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **fields}


def call(
    index: int | None, call_id: str | None = None, name: str | None = None, arguments: str | None = None
) -> dict[str, Any]:
    """A delta with a piece of one tool call."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


USAGE = chunk(usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}) | {"choices": []}


def openai(base_url: str, model: str = "gpt-4o", **setting: Any) -> Target:
    config = ProviderConfig.model_validate(
        {"providerName": "openai", "setting": {"baseUrl": base_url, **setting}},
    )
    return resolve(config, model, {"OPENAI_API_KEY": KEY})


def conversation(expert: str = "e", query: str = "go") -> Conversation:
    result = Conversation()
    result.extend(
        [
            InstructionMessage(id="i", contents=(TextPart(text=f'You work.\nYour Expert key is "{expert}".'),)),
            UserMessage(id="u", contents=(TextPart(text=query),)),
        ]
    )
    return result
