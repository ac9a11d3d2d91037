"""Putting a conversation into a request."""

import json
from types import ModuleType

import httpx
import pytest


class Inner(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []
        self.is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return httpx.Response(200)

    async def aclose(self) -> None:
        self.is_closed = True


def request(messages: str) -> httpx.Request:
    body = json.dumps({"model": "m", "messages": messages, "stream": True}).encode()
    return httpx.Request(
        "POST", "https://a.example/v1", headers={"X-Own": "1"}, content=body, extensions={"timeout": {"read": 5}}
    )


async def test_the_marker_becomes_the_messages_and_all_else_stays(litellm: ModuleType) -> None:
    from orchestrator.model.splice import SplicingTransport

    inner = Inner()
    transport = SplicingTransport(inner)
    with transport.holding(b'[{"role":"user"}]') as marker, transport.holding(b"[1]") as other:
        await transport.handle_async_request(request(other))
        await transport.handle_async_request(request(marker))
    sent = inner.sent[1]
    assert json.loads(sent.content) == {"model": "m", "messages": [{"role": "user"}], "stream": True}
    assert int(sent.headers["Content-Length"]) == len(sent.content)
    assert (sent.method, str(sent.url), sent.headers["X-Own"]) == ("POST", "https://a.example/v1", "1")
    assert sent.extensions["timeout"] == {"read": 5}
    assert json.loads(inner.sent[0].content)["messages"] == [1]


async def test_a_request_that_would_lack_its_conversation_is_not_sent(litellm: ModuleType) -> None:
    from orchestrator.model.splice import SplicingTransport

    inner = Inner()
    transport = SplicingTransport(inner)
    with transport.holding(b"[]") as marker, pytest.raises(RuntimeError, match="no place for its conversation"):
        await transport.handle_async_request(request("something else"))
    with pytest.raises(RuntimeError, match="no place for its conversation"):
        await transport.handle_async_request(request(marker))
    assert inner.sent == []


async def test_litellm_cannot_close_what_others_use(litellm: ModuleType) -> None:
    from orchestrator.model.lines import LineTransport, mend_line
    from orchestrator.model.splice import SplicingTransport

    inner = Inner()
    await SplicingTransport(inner).aclose()
    await LineTransport(inner, mend_line).aclose()
    assert not inner.is_closed
