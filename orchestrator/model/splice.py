"""Putting a conversation into a request after litellm has made it.

litellm walks and encodes the whole history for every request. Where a provider takes OpenAI's messages as they are,
litellm is given a marker in their place, and the transport replaces it by the messages, which are encoded once: a
request costs the same at any length. Imports httpx, which comes with litellm and is not worth importing before it.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


class SplicingTransport(httpx.AsyncBaseTransport):
    """Sends requests through `inner`, each with the conversation that its marker stands for.

    A request without a known marker is refused rather than sent: it would reach the model without its conversation.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._held: dict[bytes, bytes] = {}

    @contextmanager
    def holding(self, messages: bytes) -> Iterator[str]:
        """A marker for `messages` (a JSON array), good for any number of requests until the block ends."""
        marker = f"conversation:{secrets.token_hex(16)}"
        quoted = json.dumps(marker).encode()
        self._held[quoted] = messages
        try:
            yield marker
        finally:
            del self._held[quoted]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = self._spliced(await request.aread())
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
        return await self._inner.handle_async_request(
            httpx.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)
        )

    def _spliced(self, body: bytes) -> bytes:
        for marker, messages in self._held.items():
            head, found, tail = body.partition(marker)
            if found:
                return b"".join((head, messages, tail))
        raise RuntimeError("a request has no place for its conversation")

    async def aclose(self) -> None:
        """Nothing, as with the transport below: see :class:`orchestrator.model.lines.LineTransport`."""
