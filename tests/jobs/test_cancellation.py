"""Cancellation, from a program and by signals, at every kind of moment: all Runs end as cancelled, nothing is left of
them soon afterwards, and the Job goes on to the end it would have come to.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, Step
from expert_runner.contract.jobs import JobStatus
from expert_runner.contract.tools import EFFECTS_UNKNOWN
from orchestrator import RunOptions, RunSetting
from tests.cli.shell import Shell, leftovers, model_of
from tests.jobs.puppets import PuppetBackend, play_puppets, script
from tests.jobs.stage import Played, Stage, call, done, talk, turn

END_S = 3.0
"""Seconds from a cancellation to its end, where a processor is free for every process that has something to do."""

STRIDE = 1 if os.environ.get("PERSTACK_FAULTS") == "all" else 7
"""Every so many events a Job is cancelled at; `PERSTACK_FAULTS=all` takes all of them."""

TEAM: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {"delegates": ["leaf"]}, "leaf": {}}


def limit_s() -> float:
    """As long as :data:`END_S`, or longer by as much as the machine has more to do than processors."""
    return END_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def stubborn(journal: str, mark: str) -> dict[str, Any]:
    """A call that leaves a line in `journal` and never returns: it and its children, in sessions of their own and one
    without a parent, ignore all signals that can be. Made again, it tells of the line. `mark` is a number that is in
    the command lines of all of them.
    """
    deaf = "trap '' HUP INT QUIT TERM"
    child = f'setsid sh -c "{deaf}; sleep {mark}; :"'
    body = f"{child} & ({child} &); echo once >>{journal}; while :; do sleep {mark}; done"
    return call("exec", command="bash", args=["-c", f"[ -e {journal} ] && echo found && exit; {deaf}; {body}"])


@pytest.fixture
def mark() -> str:
    return str(random.randrange(10**8, 10**9))  # noqa: S311 - to be told from other tests'


def processes_with(mark: str) -> list[str]:
    """Command lines that hold `mark`, in containers too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile
        if mark in words and path.parent.name != str(os.getpid()):
            found.append(words)
    return found


def check_cancelled(played: Played) -> None:
    """Every Run that had begun and not ended was cancelled, once."""
    assert played.end is not None
    assert played.end.status is CheckpointStatus.STOPPED_BY_CANCELLATION
    begun = {event.run_id for event in played.of("initializeRuntime")}
    completed = {event.run_id for event in played.of("completeRun")}
    assert sorted(e.run_id for e in played.of("stopRunByCancellation")) == sorted(begun - completed)


class Cancelling:
    """Cancels a Job, and measures how long that takes."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Played] | None = None
        self.began: float | None = None

    def cancel(self) -> None:
        if self.began is None and self.task is not None:
            self.began = time.monotonic()
            self.task.cancel()

    def when(self, is_moment: Callable[[Any], bool]) -> Callable[[Any], None]:
        """A listener that cancels in the middle of the event that `is_moment`."""
        return lambda event: self.cancel() if is_moment(event) else None

    async def when_there(self, path: Path) -> None:
        while not await asyncio.to_thread(path.exists):
            await asyncio.sleep(0.01)
        self.cancel()

    async def play(self, stage: Stage, *conversations: dict[str, Any], **more: Any) -> Played:
        self.task = asyncio.create_task(stage.play(TEAM, *conversations, **more))
        played = await self.task
        assert self.began is not None, "the moment did not come"
        took, limit = time.monotonic() - self.began, limit_s()
        assert took < limit, f"it took {took:.1f} s, {limit:.1f} s are allowed here"
        check_cancelled(played)
        assert stage.history().job.status is JobStatus.STOPPED_BY_CANCELLATION
        if stage.runtime == "docker":
            assert await asyncio.to_thread(leftovers, played.events[0].job_id) == []
        return played


async def ends_well(stage: Stage, text: str, *conversations: dict[str, Any]) -> Played:
    """The cancelled Job goes on, to this end."""
    played = await stage.play(TEAM, *conversations, query=None, continueJob=stage.store.job_ids()[0])
    assert played.end is not None
    assert played.end.status is CheckpointStatus.COMPLETED
    assert played.end.text == text
    assert stage.history().job.status is JobStatus.COMPLETED
    return played


# --- from a program


async def test_before_the_sandbox_runs(stage: Stage) -> None:
    cancelling = Cancelling()
    conversation = talk("boss", turn(text="ended"))
    await cancelling.play(
        stage, conversation, event_listener=cancelling.when(lambda event: event.type == "initializeRuntime")
    )
    await ends_well(stage, "ended", conversation)


@pytest.mark.docker
@pytest.mark.parametrize("status", ["starting", "running"])
async def test_while_the_container_starts(tmp_path: Path, status: str) -> None:
    stage, cancelling = Stage(tmp_path, "docker"), Cancelling()
    conversation = talk("boss", turn(text="ended"))

    def is_moment(event: Any) -> bool:
        return event.type == "dockerContainerStatus" and bool(event.status == status)

    await cancelling.play(stage, conversation, event_listener=cancelling.when(is_moment))
    await ends_well(stage, "ended", conversation)


async def test_while_the_model_is_asked(stage: Stage) -> None:
    cancelling = Cancelling()

    async def when_asked() -> None:
        while stage.model is None:
            await asyncio.sleep(0.01)
        await stage.model.wait_for_requests(1)
        cancelling.cancel()

    job = cancelling.play(stage, talk("boss", turn(text="late", delayMs=600_000)))
    await asyncio.gather(job, when_asked())
    await ends_well(stage, "ended", talk("boss", turn(text="ended")))


async def test_while_a_refused_generation_waits_to_be_repeated(stage: Stage) -> None:
    cancelling = Cancelling()
    refused = turn(text="late", faults=[{"kind": "status", "status": 429, "retryAfter": 100}])
    await cancelling.play(
        stage, talk("boss", refused), event_listener=cancelling.when(lambda event: event.type == "retry")
    )
    await ends_well(stage, "ended", talk("boss", turn(text="ended")))


async def test_in_a_tool_that_ignores_signals_and_has_left_its_children(stage: Stage, mark: str) -> None:
    cancelling = Cancelling()
    journal = stage.workspace / "journal"
    conversation = talk("boss", turn(stubborn("journal", mark)), *done("ended"))
    played, _ = await asyncio.gather(cancelling.play(stage, conversation), cancelling.when_there(journal))
    assert processes_with(mark) == []
    assert played.of("resolveToolResults") == []
    played = await ends_well(stage, "ended", conversation)
    (told,) = played.of("resumeToolCalls")[0].partial_tool_results
    assert told.is_error
    assert told.result[0].text.endswith(EFFECTS_UNKNOWN)
    assert journal.read_text() == "once\n"


async def test_while_nested_delegates_work(stage: Stage, mark: str) -> None:
    cancelling = Cancelling()
    conversations = (
        talk("boss", turn(call("aide", query="a"), call("aide", query="b")), *done("{{turn.0.result.0}}")),
        talk("aide", turn(call("leaf", query="for {{query}}")), *done("aide({{turn.0.result.0}})")),
        talk("leaf", turn(stubborn("a", mark)), *done("leaf"), when="for a"),
        talk("leaf", turn(stubborn("b", mark)), *done("leaf"), when="for b"),
    )

    async def when_both_work() -> None:
        await Cancelling().when_there(stage.workspace / "a")
        await cancelling.when_there(stage.workspace / "b")

    cancelled, _ = await asyncio.gather(cancelling.play(stage, *conversations), when_both_work())
    assert len(cancelled.of("stopRunByCancellation")) == 5
    assert processes_with(mark) == []
    played = await ends_well(stage, "aide(leaf)", *conversations)
    assert {name: len(played.runs(name)) for name in TEAM} == {"boss": 1, "aide": 2, "leaf": 2}
    for name in TEAM:
        assert set(played.runs(name)) == set(cancelled.runs(name)), "the same Runs go on"
    assert [(stage.workspace / name).read_text() for name in "ab"] == ["once\n", "once\n"]


@pytest.mark.docker
@pytest.mark.parametrize("moment", ["sandboxLost", "removed", "starting", "running"])
async def test_while_a_lost_sandbox_is_replaced(tmp_path: Path, moment: str) -> None:
    stage, cancelling = Stage(tmp_path, "docker"), Cancelling()
    first: list[str] = []
    is_lost = False

    def listen(event: Any) -> None:
        nonlocal is_lost
        if event.type == "dockerContainerStatus" and event.status == "running" and not first:
            first.append(event.container_id)
            subprocess.run(["docker", "kill", *first], check=True, capture_output=True)
        is_lost = is_lost or event.type == "sandboxLost"
        if is_lost and moment in (event.type, getattr(event, "status", None)):
            cancelling.cancel()

    conversation = talk("boss", turn(call("healthCheck")), turn(text="ended"))
    played = await cancelling.play(stage, conversation, event_listener=listen)
    assert [event.cause for event in played.of("sandboxLost")] == ["killed"]
    await ends_well(stage, "ended", conversation)


async def test_again_and_again_while_it_cleans_up(stage: Stage, mark: str) -> None:
    cancelling = Cancelling()
    journal = stage.workspace / "journal"
    conversations = (
        talk("boss", turn(call("aide", query="q")), *done("ended")),
        talk("aide", turn(stubborn("journal", mark)), *done("aided")),
    )
    further = 0

    def listen(event: Any) -> None:
        nonlocal further
        if cancelling.began is not None and cancelling.task is not None:
            further += 1
            cancelling.task.cancel()

    job = cancelling.play(stage, *conversations, event_listener=listen)
    await asyncio.gather(job, cancelling.when_there(journal))
    assert further >= 2
    assert processes_with(mark) == []
    await ends_well(stage, "ended", *conversations)


@pytest.mark.docker
async def test_what_the_program_decides_holds_though_the_sandbox_is_lost_meanwhile(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "docker")
    containers: list[str] = []
    is_lost = asyncio.Event()

    def listen(event: Any) -> None:
        if event.type == "dockerContainerStatus" and event.status == "running":
            containers.append(event.container_id)
        if event.type == "sandboxLost":
            is_lost.set()

    async def ask(setting: RunSetting, checkpoint: Checkpoint, step: Step) -> bool:
        await asyncio.to_thread(subprocess.run, ["docker", "kill", *containers], check=True, capture_output=True)
        await is_lost.wait()
        return False

    conversation = talk("boss", turn(call("healthCheck")), turn(text="ended"))
    played = await stage.play(TEAM, conversation, event_listener=listen, options=RunOptions(should_continue_run=ask))
    check_cancelled(played)
    assert len(played.of("continueToNextStep")) == 1
    await ends_well(stage, "ended", conversation)


# --- at any moment

WORK: tuple[dict[str, Any], ...] = (
    talk(
        "boss",
        turn(call("exec", command="bash", args=["-c", "echo boss >>journal"])),
        turn(call("aide", query="a"), call("aide", query="b"), call("todo", newTodos=["x"])),
        turn(call("clearTodo")),
        *done("{{turn.1.result.1}} and {{turn.1.result.2}}"),
    ),
    talk("aide", turn(call("leaf", query="of {{query}}")), *done("aide({{turn.0.result.0}})")),
    talk(
        "leaf",
        turn(call("exec", command="bash", args=["-c", "echo {{query}} >>journal"]), call("healthCheck")),
        turn(text="leaf {{query}}"),
    ),
)


async def play_work(stage: Stage, listener: Callable[[Any], None] | None, **more: Any) -> Played:
    backend = PuppetBackend(stage.workspace, {})
    return await play_puppets(stage, TEAM, script(*WORK), backend, event_listener=listener, **more)


async def test_at_any_event_of_a_job_with_nested_delegates(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = await play_work(Stage(tmp_path / "whole", "local"), None)
    assert whole.end is not None
    for at in range(0, len(whole.events), STRIDE):
        folder = tmp_path / str(at)
        folder.mkdir()
        stage, cancelling, told = Stage(folder, "local"), Cancelling(), 0

        def count(event: Any, at: int = at, cancelling: Cancelling = cancelling) -> None:
            nonlocal told
            if told == at:
                cancelling.cancel()
            told += 1

        cancelling.task = asyncio.create_task(play_work(stage, count))
        first = await cancelling.task
        where = f"cancelled at event {at}, {first.events[at].type}"
        assert first.end is not None
        if first.end.status is CheckpointStatus.COMPLETED:
            # Too late: the last answer was there.
            asked = max(n for n, event in enumerate(first.events) if event.type == "startGeneration")
            assert (at > asked, first.end.text) == (True, whole.end.text), where
            continue
        check_cancelled(first)
        last = await play_work(stage, None, query=None, continueJob=first.end.job_id)
        assert last.end is not None
        assert last.end.text == whole.end.text, where
        results = [
            result
            for kind in ("resumeToolCalls", "resolveToolResults")
            for event in last.of(kind)
            for result in getattr(event, "partial_tool_results", getattr(event, "tool_results", ()))
        ]
        unknown = sum(result.result[0].text.endswith(EFFECTS_UNKNOWN) for result in results)
        lines = Counter((stage.workspace / "journal").read_text().splitlines())
        assert lines.keys() == {"boss", "of a", "of b"}, where
        assert lines.total() <= 3 + unknown, f"{where}: a call was made twice, and nobody was told"


# --- by signals


@pytest.fixture
def shell(short_path: Path) -> Shell:
    shell = Shell(short_path)
    config = short_path / "perstack.toml"
    config.write_text(config.read_text() + 'delegates = ["leaf"]\n[experts."leaf"]\ninstruction = "Be the leaf."\n')
    return shell


MOMENTS: dict[str, tuple[Callable[[str], tuple[dict[str, Any], ...]], Callable[[dict[str, Any]], bool]]] = {
    "in a nested delegate's tool": (
        lambda mark: (
            talk("boss", turn(call("aide", query="q")), *done("boss {{turn.0.result.0}}")),
            talk("aide", turn(call("leaf", query="q")), *done("aide {{turn.0.result.0}}")),
            talk("leaf", turn(stubborn("journal", mark)), *done("leaf")),
        ),
        lambda event: False,
    ),
    "while a generation waits to be repeated": (
        lambda mark: (
            talk(
                "boss",
                turn(call("healthCheck"), faults=[{"kind": "status", "status": 503, "times": 1, "retryAfter": 60}]),
                turn(text="boss aide leaf"),
            ),
        ),
        lambda event: event["type"] == "retry",
    ),
    "while its first sandbox starts": (
        lambda mark: (talk("boss", turn(text="boss aide leaf")),),
        lambda event: event["type"] == "initializeRuntime",
    ),
}
"""What the Experts do, and the event at which the signal comes; where there is none it comes with the journal."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("runtime", "number"),
    [("local", signal.SIGINT), pytest.param("docker", signal.SIGTERM, marks=pytest.mark.docker)],
    ids=["local, by Ctrl-C", "docker, by SIGTERM"],
)
async def test_by_a_signal(shell: Shell, mark: str, runtime: str, number: signal.Signals, moment: str) -> None:
    conversations, is_moment = MOMENTS[moment]
    journal = shell.folder / "workspace" / "journal"
    async with model_of(shell, *conversations(mark)):
        process = await shell.start("run", "--runtime", runtime, "boss", "Go.")
        events: list[dict[str, Any]] = []
        is_there = asyncio.Event()
        began: float | None = None

        async def read() -> None:
            assert process.stdout is not None
            async for line in process.stdout:
                events.append(json.loads(line))
                if is_moment(events[-1]):
                    is_there.set()
                if began is not None:
                    # In the middle of the clean-up, which that must not change.
                    _send(process, number)

        async def look() -> None:
            while not is_there.is_set():
                if await asyncio.to_thread(journal.exists):
                    is_there.set()
                await asyncio.sleep(0.01)

        reading, looking = asyncio.create_task(read()), asyncio.create_task(look())
        async with asyncio.timeout(60):
            await is_there.wait()
        began = time.monotonic()
        _send(process, number)
        await asyncio.gather(reading, looking)
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
        await process.wait()
        took, limit = time.monotonic() - began, limit_s()
        assert process.returncode == 130, said
        assert said.splitlines()[-1] == "perstack: cancelling", "once, and nothing after it"
        assert took < limit, f"it took {took:.1f} s, {limit:.1f} s are allowed here"
        begun = {event["runId"] for event in events if event["type"] == "initializeRuntime"}
        assert {event["runId"] for event in events if event["type"] == "stopRunByCancellation"} == begun
        assert processes_with(mark) == []
        assert list(shell.temporary.iterdir()) == []
        if runtime == "docker":
            assert await asyncio.to_thread(leftovers, events[0]["jobId"]) == []
        goes_on = await shell.run("--runtime", runtime, "--continue")
    assert goes_on.code == 0, goes_on.err
    assert goes_on.events[0]["jobId"] == events[0]["jobId"]
    assert [event["text"] for event in goes_on.events if event["type"] == "completeRun"][-1] == "boss aide leaf"
    if journal.exists():
        assert journal.read_text() == "once\n"


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        pass  # it has ended meanwhile
