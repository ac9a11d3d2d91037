"""A Docker Engine that ends under a Job, by request or killed, and comes back, or does not; and one that is only out of
reach for a while.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus
from expert_runner.contract.jobs import JobStatus
from expert_runner.contract.tools import EFFECTS_UNKNOWN
from orchestrator import RunOptions
from orchestrator.errors import SandboxError
from orchestrator.runs import actor, session
from orchestrator.sandbox import docker_watch
from orchestrator.scripted_model import ScriptedModel
from orchestrator.scripted_model.records import RequestRecord
from tests.cli.shell import leftovers
from tests.faults.private_engine import PrivateEngine, private_engine, why_none_here
from tests.jobs import stage as stages
from tests.jobs.stage import Played, Stage, call, done, talk, turn
from tests.sandbox.engine_relay import EngineRelay

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

TEAM: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}
ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"])


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    if reason := why_none_here():
        pytest.skip(f"no Docker Engine of the tests' own: {reason}")
    with private_engine() as engine:
        yield engine


@pytest.fixture
def stage(short_path: Path, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Whose sandboxes are on the engine that is restarted, which has to be empty in the end."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    engine.start()
    yield Stage(short_path, "docker")
    engine.start()
    assert engine.containers() == []


def hold(journal: str) -> dict[str, Any]:
    """A call that leaves a line in `journal` and then never returns; made again, it tells of what it finds there."""
    script = f"[ -e {journal} ] && echo found && exit; echo once >>{journal}; while :; do sleep 1; done"
    return call("exec", command="bash", args=["-c", script])


def leave(journal: str) -> dict[str, Any]:
    return call("exec", command="bash", args=["-c", f"echo once >>{journal}"])


async def disturbed(job: Awaitable[Played], ready: Callable[[], bool], disturb: Callable[[], None]) -> Played:
    """The Job, which is disturbed as soon as it is `ready` for that."""

    async def wait_and_disturb() -> None:
        while not ready():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(disturb)

    played, _ = await asyncio.gather(job, wait_and_disturb())
    return played


def losses(played: Played, expert: str = "boss") -> list[Any]:
    """The sandboxes that were lost, without the attempts at a new one that no engine answered."""
    runs = played.runs(expert)
    return [event for event in played.of("sandboxLost") if event.run_id in runs and event.sandbox_id]


def unknown(played: Played, expert: str = "boss") -> list[str]:
    """What was told of calls whose effects are unknown."""
    results = [result for event in played.of("resolveToolResults", expert) for result in event.tool_results]
    texts = [result.result[0].text for result in results if result.is_error]
    return [text for text in texts if text.endswith(EFFECTS_UNKNOWN)]


def text(played: Played) -> str:
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED, played.end.error
    return played.end.text or ""


def test_the_engine_of_these_tests_leaves_the_machines_network_alone(engine: PrivateEngine) -> None:
    engine.start()
    assert engine.has_own_network


@ENDS
async def test_a_tool_that_ran_is_told_as_unknown_and_not_done_again(
    stage: Stage, engine: PrivateEngine, number: signal.Signals
) -> None:
    journal = stage.workspace / "journal"
    played = await disturbed(
        stage.play({"boss": {}}, talk("boss", turn(hold("journal")), *done("I read: {{turn.0.result.0}}"))),
        journal.exists,
        lambda: engine.restart(number),
    )
    (lost,) = losses(played)
    assert lost.cause in ("killed", "exited")
    assert lost.evidence
    assert lost.losses == 1
    (told,) = unknown(played)
    assert told.startswith(f"The sandbox was lost ({lost.cause})")
    assert "found" in text(played)
    assert journal.read_text() == "once\n"


class HeldModel(ScriptedModel):
    """Answers nothing until it is released."""

    released: asyncio.Event

    async def _answer(self, request: web.Request, record: RequestRecord, body: bytes) -> web.StreamResponse:
        await self.released.wait()
        return await super()._answer(request, record, body)


@ENDS
async def test_a_model_that_was_asked_is_not_asked_again(
    stage: Stage, engine: PrivateEngine, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldModel, "released", asyncio.Event(), raising=False)
    monkeypatch.setattr(stages, "ScriptedModel", HeldModel)

    def listen(event: Any) -> None:
        # Only then does the answer come: into the sandbox that follows.
        if event.type == "sandboxLost" and event.sandbox_id:
            HeldModel.released.set()

    played = await disturbed(
        stage.play(
            {"boss": {}},
            talk("boss", turn(leave("journal")), turn(text="answered")),
            event_listener=listen,
        ),
        lambda: bool(stage.model and stage.model.requests),
        lambda: engine.restart(number),
    )
    assert text(played) == "answered"
    assert len(losses(played)) == 1
    assert stage.model is not None
    assert len(stage.model.requests) == 2
    assert (stage.workspace / "journal").read_text() == "once\n"


@ENDS
async def test_a_parked_coordinator_and_its_delegate_both_go_on(
    stage: Stage, engine: PrivateEngine, number: signal.Signals
) -> None:
    journal = stage.workspace / "journal"
    played = await disturbed(
        stage.play(
            TEAM,
            talk("boss", turn(leave("before"), call("aide", query="q")), *done("The aide: {{turn.0.result.1}}")),
            talk("aide", turn(hold("journal")), *done("I read: {{turn.0.result.0}}")),
        ),
        journal.exists,
        lambda: engine.restart(number),
    )
    assert text(played).startswith("The aide: I read: ")
    assert "found" in text(played)
    assert (len(unknown(played)), len(unknown(played, "aide"))) == (0, 1)
    assert (len(losses(played)), len(losses(played, "aide"))) == (1, 1)
    assert len(played.runs("aide")) == 1
    assert journal.read_text() == "once\n"
    assert (stage.workspace / "before").read_text() == "once\n"


@ENDS
async def test_between_two_steps_nothing_is_lost_and_nothing_done_twice(
    stage: Stage, engine: PrivateEngine, number: signal.Signals
) -> None:
    restarts = 0
    is_lost = asyncio.Event()

    def listen(event: Any) -> None:
        if event.type == "sandboxLost":
            is_lost.set()

    async def ask(setting: object, checkpoint: Checkpoint, step: object) -> bool:
        nonlocal restarts
        if checkpoint.step_number == 2 and not restarts:
            restarts += 1
            await asyncio.to_thread(engine.restart, number)
            await is_lost.wait()
        return True

    steps = [turn(leave(f"step{n}")) for n in range(4)]
    played = await stage.play(
        {"boss": {}},
        talk("boss", *steps, *done("four")),
        event_listener=listen,
        options=RunOptions(should_continue_run=ask),
    )
    assert text(played) == "four"
    assert restarts == 1
    assert len(losses(played)) == 1
    assert unknown(played) == []
    assert {path.name: path.read_text() for path in stage.workspace.iterdir()} == {
        f"step{n}": "once\n" for n in range(4)
    }


@ENDS
async def test_a_delegate_that_was_about_to_start_starts_later(
    stage: Stage, engine: PrivateEngine, number: signal.Signals
) -> None:
    restarting: list[asyncio.Task[None]] = []

    def listen(event: Any) -> None:
        if event.type == "dockerContainerStatus" and event.service == "aide" and not restarting:
            restarting.append(asyncio.create_task(asyncio.to_thread(engine.restart, number)))

    played = await stage.play(
        TEAM,
        talk("boss", turn(call("aide", query="q")), *done("The aide: {{turn.0.result.0}}")),
        talk("aide", turn(leave("journal")), *done("came")),
        event_listener=listen,
    )
    await restarting[0]
    assert text(played) == "The aide: came"
    assert len(played.runs("aide")) == 1
    if not unknown(played, "aide"):
        assert (stage.workspace / "journal").read_text() == "once\n"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (actor, session):
        monkeypatch.setattr(module, "ENGINE_PATIENCE_S", 3.0)
    monkeypatch.setattr(docker_watch, "LOST_AFTER_SECONDS", 2.0)


@pytest.mark.usefixtures("impatient")
async def test_an_engine_that_stays_away_ends_the_job_and_it_goes_on_once_one_is_there(
    stage: Stage, engine: PrivateEngine
) -> None:
    journal = stage.workspace / "journal"
    experts: dict[str, Any] = {"boss": {}}
    conversation = talk("boss", turn(hold("journal")), *done("I read: {{turn.0.result.0}}"))
    with pytest.raises(SandboxError, match="DOCKER_HOST is"):
        await disturbed(stage.play(experts, conversation), journal.exists, lambda: engine.stop(signal.SIGKILL))
    history = stage.history()
    assert history.job.status is JobStatus.STOPPED_BY_ERROR
    await asyncio.to_thread(engine.start)
    played = await stage.go_on()
    assert "found" in text(played)
    assert journal.read_text() == "once\n"


@pytest.fixture
async def relay(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineRelay]:
    """Between the Job and the machine's engine."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short_path}/relay")
    async with EngineRelay(short_path / "relay") as relay:
        yield relay


def pause(journal: str) -> dict[str, Any]:
    """A call that leaves a line in `journal` and returns once there is a file `go`."""
    script = f"echo once >>{journal}; until [ -e go ]; do sleep 0.1; done"
    return call("exec", command="bash", args=["-c", script])


async def test_connections_that_break_cost_no_sandbox(short_path: Path, relay: EngineRelay) -> None:
    stage = Stage(short_path, "docker")
    journal = stage.workspace / "journal"

    async def break_and_go() -> None:
        while not journal.exists():
            await asyncio.sleep(0.01)
        relay.break_all()
        await relay.next_connection()
        (stage.workspace / "go").touch()

    conversation = talk("boss", turn(pause("journal")), *done("It said: {{turn.0.result.0}}"))
    played, _ = await asyncio.gather(stage.play({"boss": {}}, conversation), break_and_go())
    assert "Exit code 0" in text(played)
    assert played.of("sandboxLost") == []
    assert await asyncio.to_thread(leftovers, played.events[0].job_id) == []


async def test_an_engine_out_of_reach_costs_no_tool_and_its_delegates_wait_for_it(
    short_path: Path, relay: EngineRelay
) -> None:
    stage = Stage(short_path, "docker")
    journal = stage.workspace / "journal"

    def listen(event: Any) -> None:
        # The delegate could not be started: from now on it can.
        if joining or not stage.played:
            return
        if event.type == "sandboxLost" and event.run_id in stage.played.runs("aide"):
            joining.append(asyncio.create_task(relay.join()))

    async def cut_and_go() -> None:
        while not journal.exists():
            await asyncio.sleep(0.01)
        await relay.cut()
        (stage.workspace / "go").touch()

    joining: list[asyncio.Task[None]] = []
    job = stage.play(
        TEAM,
        talk("boss", turn(pause("journal"), call("aide", query="q")), *done("{{turn.0.result.0}} {{turn.0.result.1}}")),
        talk("aide", turn(leave("aide")), *done("came")),
        event_listener=listen,
    )
    played, _ = await asyncio.gather(job, cut_and_go())
    assert "Exit code 0" in text(played)
    assert text(played).endswith("came")
    assert joining
    assert unknown(played) == unknown(played, "aide") == []
    assert losses(played, "aide") == []
    assert {name: (stage.workspace / name).read_text() for name in ("journal", "aide")} == {
        "journal": "once\n",
        "aide": "once\n",
    }
    assert await asyncio.to_thread(leftovers, played.events[0].job_id) == []


@pytest.mark.usefixtures("impatient")
async def test_a_job_that_is_cancelled_out_of_reach_says_what_is_left_and_removes_it_later(
    short_path: Path, relay: EngineRelay
) -> None:
    stage = Stage(short_path, "docker")
    journal = stage.workspace / "journal"
    conversation = talk("boss", turn(hold("journal")), *done("It said: {{turn.0.result.0}}"))
    job = asyncio.create_task(stage.play({"boss": {}}, conversation))
    while not await asyncio.to_thread(journal.exists):
        await asyncio.sleep(0.01)
    await relay.cut()
    job.cancel()
    with pytest.raises(SandboxError, match="See what is left with: docker ps -a"):
        await job
    assert stage.history().job.status is JobStatus.STOPPED_BY_CANCELLATION
    await relay.join()
    assert len(await asyncio.to_thread(leftovers, stage.store.job_ids()[0])) == 1
    played = await stage.go_on()
    assert "found" in text(played)
    assert journal.read_text() == "once\n"
    assert await asyncio.to_thread(leftovers, stage.store.job_ids()[0]) == []
