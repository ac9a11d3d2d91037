"""The watch on its own: streams that a test writes, ends and refuses."""

import asyncio
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.sandbox import docker_watch
from orchestrator.sandbox.docker_watch import DeathWatch, EventStream

END = None


class WrittenStream:
    def __init__(self) -> None:
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.events.get, END)

    def close(self) -> None:
        self.events.put(END)


class Engine:
    """Gives a new stream each time, and remembers from when on it was asked for."""

    def __init__(self) -> None:
        self.streams: list[WrittenStream] = []
        self.asked: list[float] = []
        self.is_away = False

    def open_stream(self, since: float) -> EventStream:
        self.asked.append(since)
        if self.is_away:
            raise OSError("away")
        self.streams.append(WrittenStream())
        return self.streams[-1]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_watch, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(docker_watch, "LOST_AFTER_SECONDS", 0)


async def changed(watch: DeathWatch, container: str) -> None:
    async with asyncio.timeout(5):
        await watch.changed(container).wait()
    watch.changed(container).clear()


async def test_an_event_tells_those_who_wait_for_that_container_also_before_they_do() -> None:
    engine = Engine()
    watch = DeathWatch(engine.open_stream, 1.0)
    one, other = watch.changed("one"), watch.changed("other")
    watch.start()
    await changed(watch, "one")
    other.clear()
    engine.streams[0].events.put({"Action": "die", "Actor": {"ID": "late"}})
    engine.streams[0].events.put({"Action": "die", "Actor": {"ID": "one"}})
    await changed(watch, "one")
    assert watch.changed("late").is_set()
    assert not other.is_set()
    assert not one.is_set()
    await watch.stop()


async def test_memory_that_ran_out_is_remembered_and_is_no_end() -> None:
    engine = Engine()
    watch = DeathWatch(engine.open_stream, 1.0)
    watch.changed("one")
    watch.start()
    await changed(watch, "one")
    engine.streams[0].events.put({"Action": "oom", "Actor": {"ID": "one"}})
    engine.streams[0].events.put({"Action": "die", "Actor": {"ID": "other"}})
    await changed(watch, "other")
    assert watch.memory_ran_out("one")
    assert not watch.memory_ran_out("other")
    assert not watch.changed("one").is_set()
    await watch.stop()


async def test_after_a_break_it_goes_on_from_the_last_event_and_everyone_looks() -> None:
    engine = Engine()
    watch = DeathWatch(engine.open_stream, 1.0)
    watch.changed("one")
    watch.start()
    await changed(watch, "one")
    engine.streams[0].events.put({"Action": "die", "Actor": {"ID": "other"}, "timeNano": 7_500_000_000})
    await changed(watch, "other")
    engine.streams[0].close()
    await changed(watch, "one")
    assert engine.asked == [1.0, 7.5]
    await watch.stop()


async def test_an_engine_that_stays_away_is_lost_until_it_is_back() -> None:
    engine = Engine()
    engine.is_away = True
    watch = DeathWatch(engine.open_stream, 1.0)
    watch.changed("one")
    watch.start()
    await changed(watch, "one")
    was_lost = watch.lost
    assert was_lost
    engine.is_away = False
    async with asyncio.timeout(5):
        while watch.lost:
            await changed(watch, "one")
    await watch.stop()


async def test_its_thread_ends_with_it() -> None:
    watch = DeathWatch(Engine().open_stream, 1.0)
    before = threading.active_count()
    watch.start()
    assert threading.active_count() == before + 1
    await watch.stop()
    assert not any(thread.name == "perstack-docker-events" for thread in threading.enumerate())


async def test_it_can_be_stopped_before_it_started() -> None:
    await DeathWatch(Engine().open_stream, 1.0).stop()
