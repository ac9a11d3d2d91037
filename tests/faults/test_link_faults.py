"""A Job whose frames are dropped, repeated, reordered and delayed on the link comes to the same, event for event."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio

from expert_runner.contract import wire
from expert_runner.contract.channel import Channel
from expert_runner.link import Link
from orchestrator.bus import Bus
from orchestrator.sandbox.backend import SandboxSpec
from orchestrator.store.history import JobHistory
from tests.faults import outcome, scenario
from tests.faults.outcome import Lineage, Outcome
from tests.jobs.puppets import Puppet, PuppetBackend, drive, over_link, play_puppets
from tests.jobs.stage import Stage

SEEDS = 24


@dataclass(frozen=True)
class Weather:
    """How likely what happens to a frame is, and the longest time for which one is held back, in seconds."""

    dropped: float = 0.0
    repeated: float = 0.0
    delayed: float = 0.0
    delay_s: float = 0.03


WEATHERS = {
    "drops": Weather(dropped=0.3),
    "repeats": Weather(repeated=0.5),
    "delays and reorders": Weather(delayed=0.5),
    "does everything": Weather(dropped=0.15, repeated=0.2, delayed=0.3),
}


class FaultySocket:
    """A socket that does to the frames it is given to send what `weather` says. A seed decides it: the same frame, by
    its number, always meets the same.
    """

    def __init__(self, socket: zmq.asyncio.Socket, weather: Weather, seed: str, faults: list[str]) -> None:
        self._socket = socket
        self._weather = weather
        self._random = random.Random(seed)  # noqa: S311 - it is to be repeatable
        self._faults = faults
        self._held: set[asyncio.TimerHandle] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def send_multipart(self, frame: Any, flags: int = 0) -> asyncio.Future[None]:
        dice, weather = self._random, self._weather
        dropped, repeated, delayed = (dice.random() for _ in range(3))
        delay_s = dice.uniform(0, weather.delay_s)
        if dropped < weather.dropped:
            self._faults.append("dropped")
        else:
            if repeated < weather.repeated:
                self._faults.append("repeated")
                self._later(frame, delay_s)
            if delayed < weather.delayed:
                self._faults.append("delayed")
                self._later(frame, weather.delay_s - delay_s)
            else:
                self._now(frame)
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    def close(self, linger: int | None = None) -> None:
        for held in self._held:
            held.cancel()
        self._socket.close(linger)

    def _later(self, frame: Any, delay_s: float) -> None:
        self._held.add(asyncio.get_running_loop().call_later(delay_s, self._now, frame))

    def _now(self, frame: Any) -> None:
        sent: Any = self._socket.send_multipart(frame, zmq.NOBLOCK)
        sent.exception()


class FaultyBackend(PuppetBackend):
    """Real runners' loops, whose ends of the link are faulty."""

    def __init__(self, workspace: Path, weather: Weather, seed: int, faults: list[str]) -> None:
        super().__init__(workspace, {})
        self._weather, self._seed, self._faults = weather, seed, faults

    def puppet(self, spec: SandboxSpec) -> Puppet:
        def make_link(identity: wire.Identity) -> Link:
            link = Link(identity)
            seed = f"{self._seed} {spec.expert_key}"
            link._socket = FaultySocket(link._socket, self._weather, seed, self._faults)  # type: ignore[assignment]
            return link

        return over_link(drive, make_link)


def make_bus_faulty(monkeypatch: pytest.MonkeyPatch, weather: Weather, seed: int, faults: list[str]) -> None:
    class FaultyBus(Bus):
        async def __aenter__(self) -> Bus:
            bus = await super().__aenter__()
            self._socket = FaultySocket(self._socket, weather, f"{seed} bus", faults)  # type: ignore[assignment]
            return bus

    monkeypatch.setattr("orchestrator.job.Bus", FaultyBus)


@pytest.fixture(autouse=True)
def quick_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What repairs a link is slow beside it: here it need not be."""
    for module in ("orchestrator.bus", "expert_runner.link"):
        monkeypatch.setattr(f"{module}.HEARTBEAT_S", 0.02)
    monkeypatch.setattr("expert_runner.contract.channel.RESEND_S", 0.04)


@dataclass(frozen=True, slots=True)
class Course:
    """What a Job came to and how: the types of all its events, by the calls that led to each Run."""

    outcome: Outcome
    events: dict[Lineage, list[str]]

    def differences(self, other: "Course") -> list[str]:
        asked = self.outcome.answers
        found = outcome.differences(other.outcome, self.outcome, asked, Counter())
        if self.outcome.journal != other.outcome.journal:
            found.append(f"the journal is {self.outcome.journal}, not {other.outcome.journal}")
        if self.events != other.events:
            found.append(f"the events are {self.events}, not {other.events}")
        return found


async def play(stage: Stage, backend: PuppetBackend) -> Course:
    async with asyncio.timeout(60):
        played = await play_puppets(stage, scenario.EXPERTS, scenario.SCRIPT, backend)
    assert played.end is not None
    ids = [event.id for event in played.events]
    assert len(ids) == len(set(ids)), "an event was told twice"
    history = JobHistory(stage.store, played.end.job_id)
    events: dict[str, list[str]] = {}
    lineages: dict[str, Lineage] = {}
    for run_id, record in history.runs.items():
        caller = record.delegated_by
        lineages[run_id] = (*lineages[caller.run_id], caller.tool_call_id) if caller else ()
        events[run_id] = [event.type for event in history.events(run_id)]
    told = {lineages[run_id]: types for run_id, types in events.items()}
    return Course(outcome.read(stage.folder, played.end.job_id), told)


async def play_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weather: Weather, seed: int
) -> tuple[Course, list[str]]:
    faults: list[str] = []
    stage = new_stage(tmp_path, f"faulty-{seed}")
    make_bus_faulty(monkeypatch, weather, seed, faults)
    return await play(stage, FaultyBackend(stage.workspace, weather, seed, faults)), faults


def new_stage(tmp_path: Path, name: str) -> Stage:
    folder = tmp_path / name
    folder.mkdir()
    return Stage(folder, "local")


async def undisturbed(tmp_path: Path) -> Course:
    stage = new_stage(tmp_path, "undisturbed")
    return await play(stage, PuppetBackend(stage.workspace, {}))


async def test_the_undisturbed_job_is_what_it_is_meant_to_be(tmp_path: Path) -> None:
    """The control that all others are compared with."""
    calm = await undisturbed(tmp_path)
    assert calm.outcome.text == scenario.ANSWER
    assert len(calm.events) == len(scenario.EXPERTS)
    assert set(calm.outcome.journal.values()) == {1}
    assert calm.outcome.announced.total() == 0


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS)
async def test_a_job_comes_to_the_same_over_a_link_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weather: Weather
) -> None:
    calm = await undisturbed(tmp_path)
    count = 0
    for seed in range(SEEDS // len(WEATHERS)):
        stormy, faults = await play_in(tmp_path, monkeypatch, weather, seed)
        assert stormy.differences(calm) == [], f"seed {seed}"
        assert faults, "nothing happened to any frame"
        count += len(faults)
    with capsys.disabled():
        print(f" {count} frames", end="")


def takes_repeats(self: Channel, seq: int) -> bool:
    self._taken = max(self._taken, seq)
    return True


def takes_what_comes(self: Channel, seq: int) -> bool:
    """In whatever order, but nothing twice."""
    if seq <= self._taken:
        return False
    self._taken = seq
    return True


def never_due(self: Channel, now: float) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("method", "broken", "weather"),
    [
        ("take", takes_repeats, "repeats"),
        ("take", takes_what_comes, "delays and reorders"),
        ("due", never_due, "drops"),
    ],
)
async def test_the_check_finds_a_channel_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, broken: Callable[..., Any], weather: str
) -> None:
    calm = await undisturbed(tmp_path)
    monkeypatch.setattr(Channel, method, broken)
    # What a Run waits for in vain it would wait for without an end.
    monkeypatch.setattr("orchestrator.bus.LEASE_S", 0.5)

    async def all_seeds_agree() -> bool:
        for seed in range(3):
            stormy, _ = await play_in(tmp_path, monkeypatch, WEATHERS[weather], seed)
            if stormy.differences(calm):
                return False
        return True

    try:
        async with asyncio.timeout(5):
            agree = await all_seeds_agree()
    except TimeoutError:
        return
    assert not agree
