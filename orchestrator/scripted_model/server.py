"""The HTTP server of a scripted model."""

import asyncio
import time
from itertools import count
from types import TracebackType
from typing import Self

from aiohttp import web

from orchestrator.scripted_model import encoding
from orchestrator.scripted_model.answer import compose, find_cue
from orchestrator.scripted_model.attempts import Attempts
from orchestrator.scripted_model.prompt import RequestRefusedError, read_prompt
from orchestrator.scripted_model.records import RequestLog, RequestRecord
from orchestrator.scripted_model.script import DisconnectFault, Fault, HangFault, Script, StatusFault

MAX_REQUEST_BYTES = 64 * 1024 * 1024
_SHUTDOWN_SECONDS = 0.05
"""What answers under way have left when the server closes; those that hang or wait are dropped then."""

_JSON = {"Content-Type": "application/json"}
_EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
_MODELS = b'{"object": "list", "data": [{"id": "scripted", "object": "model", "created": 0, "owned_by": "perstack"}]}'


class ScriptedModel:
    """Answers `POST /v1/chat/completions` from a script, for whatever model is asked for, with or without a key.

    Use it as an async context manager: it listens inside the block, and leaving it drops what is still being answered.
    `port` 0 takes any free one. Entering raises OSError if the address cannot be used.
    """

    def __init__(self, script: Script, *, host: str = "127.0.0.1", port: int = 0, keep_bodies: bool = False) -> None:
        self._script = script
        self._host = host
        self._port = port
        self._log = RequestLog(keep_bodies=keep_bodies)
        self._attempts = Attempts()
        self._ids = count(1)
        self._arrival = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat_completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_route("*", "/{path:.*}", self._not_found)
        # A client that goes away ends the wait of its answer.
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS, handle_signals=False
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops listening and drops what is still being answered. Closing twice is harmless."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The base URL for clients, which ends in `/v1`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def requests(self) -> list[RequestRecord]:
        """The latest requests for completions, in order of arrival; those under way are filled in as they go on."""
        return list(self._log)

    async def wait_for_requests(self, number: int) -> None:
        """Returns once `number` requests for completions have arrived since the start. Put a timeout around it."""
        while self._log.total < number:
            self._arrival.clear()
            await self._arrival.wait()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=_MODELS, headers=_JSON)

    async def _not_found(self, request: web.Request) -> web.StreamResponse:
        message = f"no {request.method} {request.path} here: there are POST /v1/chat/completions and GET /v1/models"
        return web.Response(status=404, body=encoding.error(404, message), headers=_JSON)

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        record = RequestRecord(arrived_at=time.monotonic(), has_key="Authorization" in request.headers)
        self._log.add(record)
        self._arrival.set()
        body = await request.read()
        self._log.keep_body(record, body)
        try:
            return await self._answer(request, record, body)
        except ConnectionResetError:
            # The client is gone; nobody is left to be told.
            return web.Response(status=499)
        except RequestRefusedError as refused:
            return await self._send(request, record, 400, _JSON, [encoding.error(400, str(refused))])

    async def _answer(self, request: web.Request, record: RequestRecord, body: bytes) -> web.StreamResponse:
        prompt = read_prompt(body)
        record.expert_key, record.messages = prompt.expert_key, len(prompt.messages)
        cue = find_cue(self._script, prompt)
        record.turn, turn = cue.index, cue.turn
        fault = turn.fault_at(self._attempts.count(cue, prompt)) if turn.faults else None
        answer = compose(cue, prompt, fault)
        if turn.delay_ms:
            await asyncio.sleep(turn.delay_ms / 1000)
        if isinstance(fault, StatusFault):
            headers = _JSON if fault.retry_after is None else {**_JSON, "Retry-After": f"{fault.retry_after:g}"}
            message = fault.message or "an error that the script asks for"
            return await self._send(request, record, fault.status, headers, [encoding.error(fault.status, message)])
        completion_id, created = f"chatcmpl-{next(self._ids)}", int(time.time())
        if not prompt.stream:
            parts = [encoding.completion(answer, completion_id=completion_id, created=created, model=prompt.model)]
            return await self._send(request, record, 200, _JSON, parts, fault)
        events = encoding.chunks(
            answer,
            completion_id=completion_id,
            created=created,
            model=prompt.model,
            chunk_size=turn.chunk_size,
            include_usage=prompt.include_usage,
        )
        return await self._send(request, record, 200, _EVENT_STREAM, list(events), fault, turn.chunk_delay_ms / 1000)

    async def _send(
        self,
        request: web.Request,
        record: RequestRecord,
        status: int,
        headers: dict[str, str],
        parts: list[bytes],
        fault: Fault | None = None,
        pause: float = 0,
    ) -> web.StreamResponse:
        """Writes `parts`, all at once or with `pause` seconds between them."""
        record.status = status
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if isinstance(fault, HangFault):
            await asyncio.get_running_loop().create_future()
        if isinstance(fault, DisconnectFault):
            whole = b"".join(parts)
            await response.write(whole[: len(whole) // 2])
            if request.transport is not None:
                request.transport.close()
            return response
        if pause:
            for part in parts[:-1]:
                await response.write(part)
                await asyncio.sleep(pause)
            await response.write_eof(parts[-1])
        else:
            await response.write_eof(b"".join(parts))
        record.answered_at = time.monotonic()
        return response
