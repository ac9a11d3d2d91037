"""Learn of the end of containers from the engine's event stream: one thread for a Job, however many sandboxes it has.

An event is only a hint: whoever waits looks at the container to learn what happened. So nothing is lost when the stream
breaks: once it stands again, everybody is told to look.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

LOST_AFTER_SECONDS = 10.0
_RETRY_SECONDS = 0.5
_STOP_SECONDS = 5.0


class EventStream(Protocol):
    """What the SDK's `events` returns; `close` may be called from another thread."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def close(self) -> None: ...


class DeathWatch:
    """Sets `changed(container)` whenever it is worth looking at that container.

    Attributes:
        lost: the engine has not answered for `LOST_AFTER_SECONDS`.
    """

    def __init__(self, open_stream: Callable[[float], EventStream], since: float) -> None:
        """
        Args:
            open_stream: gives the stream of events from a Unix time (the engine's clock) on, of the Job's containers
            only.
            since: the first such time.
        """
        self.lost = False
        self._open_stream = open_stream
        self._since = since
        self._loop = asyncio.get_running_loop()
        self._changed: dict[str, asyncio.Event] = {}
        self._memory_ran_out: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._stream: EventStream | None = None
        self._thread = threading.Thread(target=self._watch, name="perstack-docker-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def changed(self, container: str) -> asyncio.Event:
        """Whoever waits clears it before looking."""
        return self._changed.setdefault(container, asyncio.Event())

    def memory_ran_out(self, container: str) -> bool:
        """Whether the engine reported that a process in the container was killed for want of memory."""
        return container in self._memory_ran_out

    async def stop(self) -> None:
        """End the thread. Does nothing if it never started or has ended."""
        self._stopping.set()
        with self._lock:
            self._close_stream()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def _watch(self) -> None:
        last_contact = time.monotonic()
        while not self._stopping.is_set():
            try:
                stream = self._open_stream(self._since)
            # The SDK and what lies below it raise many kinds of errors; all mean the same: try again.
            except Exception:  # noqa: BLE001
                if time.monotonic() - last_contact > LOST_AFTER_SECONDS:
                    self._tell(self._look_at_all, True)
            else:
                self._follow(stream)
                last_contact = time.monotonic()
            self._stopping.wait(_RETRY_SECONDS)

    def _follow(self, stream: EventStream) -> None:
        with self._lock:
            self._stream = stream
            if self._stopping.is_set():
                self._close_stream()
                return
        self._tell(self._look_at_all, False)
        try:
            for event in stream:
                self._read(event)
        # A stream that breaks is one that ended: as above.
        except Exception:  # noqa: BLE001, S110
            pass

    def _close_stream(self) -> None:
        """Under the lock. The thread, which waits for the next event, sees the end of the stream."""
        if self._stream is not None:
            try:
                self._stream.close()
            # It may have broken by itself, in as many ways as above.
            except Exception:  # noqa: BLE001, S110
                pass
            self._stream = None

    def _read(self, event: Mapping[str, Any]) -> None:
        self._since = event.get("timeNano", 0) / 1e9 or self._since
        container = str(event.get("Actor", {}).get("ID", ""))
        self._tell(self._notice, container, str(event.get("Action", "")))

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            # The loop was closed without `stop`: nobody is left to tell.
            self._stopping.set()

    def _notice(self, container: str, action: str) -> None:
        if action == "oom":
            self._memory_ran_out.add(container)
        else:
            self.changed(container).set()

    def _look_at_all(self, lost: bool) -> None:
        self.lost = lost
        for changed in self._changed.values():
            changed.set()
