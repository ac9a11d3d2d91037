"""Between the SDK and the real engine: a socket that a test can cut and join again."""

import asyncio
from pathlib import Path

ENGINE_SOCKET = "/var/run/docker.sock"


class EngineRelay:
    """Listens at `path` while joined; use as an asynchronous context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self._connected = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "EngineRelay":
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def join(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def cut(self) -> None:
        """Refuse new connections; `break_all` the old ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        self.break_all()

    def break_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def next_connection(self) -> None:
        self._connected.clear()
        await self._connected.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._connected.set()
        engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE_SOCKET)
        self._writers |= {writer, engine_writer}
        await asyncio.gather(self._pump(reader, engine_writer), self._pump(engine_reader, writer))
        self._writers -= {writer, engine_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
