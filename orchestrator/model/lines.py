"""Reading the lines of a stream as they are.

litellm reads streams by httpx's lines, which end at every character that Unicode calls a line break. Providers send
such characters inside JSON as they are, so a piece of text with one in it would be lost. Imports httpx, which comes
with litellm and is not worth importing before it.
"""

import re
from collections.abc import AsyncIterator, Callable

import httpx

MAX_LINE = 32 * 1024 * 1024
"""Bytes of one line: more than any piece of an answer has."""

_DONE = "[DONE]"
_NULL = re.compile(r'"(delta|choices)"\s*:\s*null')
_EMPTY = {"delta": "{}", "choices": "[]"}


class LineTransport(httpx.AsyncBaseTransport):
    """Sends requests through `inner`; the lines of its responses are those of the wire, each passed through `mend`."""

    def __init__(self, inner: httpx.AsyncBaseTransport, mend: Callable[[str], str]) -> None:
        self._inner = inner
        self._mend = mend

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        return _Response(response, self._mend)

    async def aclose(self) -> None:
        """Nothing: litellm closes a client after a repeated request that found no connection; others use this one."""


def mend_line(line: str) -> str:
    """`line` without what litellm takes for the end of a stream anywhere in it, inside a text too."""
    if _DONE not in line or line.removeprefix("data:").strip() == _DONE:
        return line
    return line.replace(_DONE, r"\u005bDONE]")  # it can only be in a JSON string


def mend_openai_line(line: str) -> str:
    """As :func:`mend_line`, and with something empty where litellm's reader of OpenAI's chunks fails at null.

    A text cannot look like it, because quotation marks inside one are escaped.
    """
    return _NULL.sub(lambda found: f'"{found[1]}": {_EMPTY[found[1]]}', mend_line(line))


class _Response(httpx.Response):
    def __init__(self, response: httpx.Response, mend: Callable[[str], str]) -> None:
        super().__init__(
            response.status_code, headers=response.headers, stream=response.stream, extensions=response.extensions
        )
        self._mend = mend

    async def aiter_lines(self) -> AsyncIterator[str]:
        pending: list[bytes] = []
        size = 0
        async for data in self.aiter_bytes():
            *ended, rest = data.split(b"\n")
            for line in ended:
                yield self._mend(b"".join((*pending, line)).decode(errors="replace").removesuffix("\r"))
                pending, size = [], 0
            pending.append(rest)
            size += len(rest)
            if size > MAX_LINE:
                raise httpx.DecodingError(f"a line of more than {MAX_LINE} bytes")
        if size:
            yield self._mend(b"".join(pending).decode(errors="replace"))
