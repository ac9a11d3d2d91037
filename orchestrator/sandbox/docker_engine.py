"""The connection to a Docker Engine: every call of the SDK in one bounded thread pool, every failure a `SandboxError`.

The SDK is imported on `connect`, in the pool: it takes 0.1 to 0.3 s, which the rest of the start need not wait for.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from orchestrator.errors import SandboxError

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
CONNECT_SECONDS = 5
CALL_SECONDS = 60
DRAIN_SECONDS = 2 * CALL_SECONDS

_HINTS = (
    ("no space left", "Free some disk space, for example with: docker system prune"),
    ("non-overlapping ipv4", "Remove networks that are not used any more with: docker network prune"),
    ("all predefined address pools", "Remove networks that are not used any more with: docker network prune"),
)


class EngineAwayError(SandboxError):
    """The engine does not answer (any more)."""

    is_retryable = True


class EngineRefusedError(SandboxError):
    """The engine answered with an error. `status` is its HTTP status, `reason` its own words."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def is_not_found(self) -> bool:
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """The thing is not in a state for this, or the name is taken."""
        return self.status == 409


class Engine:
    """One client of the SDK, usable from several threads, behind an asynchronous call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="perstack-docker")
        self._running: set[asyncio.Future[Any]] = set()
        self._api: Any = None

    @property
    def api(self) -> Any:
        """The SDK's low-level client (`docker.APIClient`), for calls made inside `run`."""
        if self._api is None:
            raise SandboxError("The Docker sandbox has not been opened.")
        return self._api

    @property
    def socket_path(self) -> str | None:
        """The engine's Unix socket, as `DOCKER_HOST` or Docker's context name it; None: reached in another way."""
        path: str | None = getattr(self.api.get_adapter(self.api.base_url), "socket_path", None)
        return path

    @property
    def is_connected(self) -> bool:
        return self._api is not None

    async def connect(self) -> None:
        """
        Raises:
            EngineAwayError: nothing answers; the message says what to do.
        """
        self._api = await self.run("connect to it", _connect)

    async def run(self, doing: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call` in the pool; `doing` completes "The Docker Engine could not …".

        A call that the awaiting task gives up goes on to its end: `drain` waits for it.

        Raises:
            EngineAwayError, EngineRefusedError: as the SDK failed.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, lambda: self.call(doing, call, *args, **kwargs))
        self._running.add(future)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._running.discard(future)
        if not future.cancelled():
            future.exception()

    @staticmethod
    def call(doing: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call in this thread, with the SDK's errors as ours.

        Raises:
            EngineAwayError, EngineRefusedError
        """
        import requests
        from docker.errors import APIError, DockerException

        try:
            return call(*args, **kwargs)
        except APIError as error:
            reason = _text(error.explanation) or str(error)
            hint = next((hint for words, hint in _HINTS if words in reason.lower()), "")
            message = f"The Docker Engine could not {doing}: {reason.strip().rstrip('.')}. {hint}".strip()
            raise EngineRefusedError(message, error.status_code or 0, reason) from error
        except requests.exceptions.Timeout as error:
            raise EngineAwayError(f"The Docker Engine did not answer in time when asked to {doing}.") from error
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            raise EngineAwayError(f"The Docker Engine could not {doing}: {error}. {_what_to_do(error)}") from error

    async def drain(self) -> None:
        """Wait until no call is under way (each ends by its own timeout)."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=DRAIN_SECONDS)

    async def close(self) -> None:
        await self.drain()
        if self._api is not None:
            self._api.close()
            self._api = None
        self._pool.shutdown(wait=False, cancel_futures=True)


def _connect() -> Any:
    import docker

    client = docker.from_env(version="auto", timeout=CONNECT_SECONDS, max_pool_size=THREADS + 1)
    client.api.timeout = CALL_SECONDS
    return client.api


def _what_to_do(error: BaseException) -> str:
    host = os.environ.get("DOCKER_HOST")
    if "Permission denied" in str(error) or "PermissionError" in str(error):
        return "You may not use its socket: join the group docker and log in again."
    if host:
        return f"DOCKER_HOST is {host}: is that right, and does an engine run there?"
    return (
        "Start Docker, or install and start it with: make docker. "
        "For an engine elsewhere (rootless Docker, for example) choose its context or set DOCKER_HOST."
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
