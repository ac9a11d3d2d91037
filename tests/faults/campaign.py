"""Run the scenario with a fault, let it go on once, and hold what it came to against the undisturbed Job."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import State
from orchestrator.errors import PerstackError
from orchestrator.runs.actor import GENERATING
from orchestrator.sandbox.labels import LABEL_JOB
from orchestrator.sandbox.local_processes import find_runs
from orchestrator.scripted_model import ScriptedModel
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.faults import outcome, scenario
from tests.faults.injection import Fault, Moment, Victim
from tests.faults.outcome import Outcome

Kind = tuple[Victim, str, Moment]

KINDS: tuple[Kind, ...] = (
    ("orchestrator", "KILL", "before"),
    ("orchestrator", "KILL", "torn"),
    ("orchestrator", "KILL", "after"),
    ("orchestrator", "TERM", "after"),
    ("orchestrator", "STOP", "after"),
    ("runner", "KILL", "after"),
    ("runner", "TERM", "after"),
    ("runner", "STOP", "after"),
)
"""What is done at every write: a record that is torn is half on disk when its writer is killed."""

JOB = "job"
PASSING_BY = "stream"

LEFTOVERS_S = 30.0
"""Seconds after which nothing of a Job may be left."""


@dataclass
class Verdict:
    """What became of one fault point: `problems` is empty where everything held."""

    fault: Fault
    code: int | None
    continued: bool
    problems: list[str] = field(default_factory=list)


class Warm:
    """A client of :mod:`tests.faults.warm`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator["Warm"]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.warm",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            yield cls(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def run(self, request: dict[str, Any]) -> int | None:
        """Run a Job; the exit code of its process, negative for a signal, None if it hung."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        code: int | None = json.loads(await stdout.readline())["code"]
        return code


class Campaign:
    """The undisturbed Job, and disturbed ones held against it."""

    def __init__(self, warm: Warm, runtime: str) -> None:
        self._warm = warm
        self._runtime = runtime
        self.undisturbed: Outcome
        self.writes: dict[str, int] = {}

    async def prepare(self) -> None:
        """Run the Job as it should be."""
        with _folder() as folder:
            async with ScriptedModel(scenario.SCRIPT) as model:
                code = await self._run(folder, model, goes_on=False)
            assert code == 0, (folder / "errors").read_text()
            self.undisturbed = outcome.read(folder, JOB)
            assert self.undisturbed.text == scenario.ANSWER
            history = JobHistory(Store(folder / "history"), JOB)
            for run_id, record in history.runs.items():
                self.writes[record.expert_key] = len(list(history.events(run_id)))

    def points(self, kinds: Sequence[Kind] = KINDS) -> Iterator[Fault]:
        """Every write of every log, with every kind of fault."""
        for expert, writes in self.writes.items():
            for write in range(1, writes + 1):
                for victim, signal_name, moment in kinds:
                    yield Fault(expert, write, victim, signal_name, moment)

    async def strike(self, fault: Fault, broken: str | None = None) -> Verdict:
        """The Job with `fault`, and one continue if it did not reach its end. `broken` is in force when it goes on."""
        with _folder() as folder:
            async with ScriptedModel(scenario.SCRIPT) as model:
                code = await self._run(folder, model, goes_on=False, fault=fault)
                verdict = Verdict(fault, code, continued=False)
                in_flight = _in_flight(folder)
                if code != 0 or not _is_completed(folder):
                    verdict.continued = True
                    code = await self._run(folder, model, goes_on=True, broken=broken)
                    if code != 0:
                        verdict.problems.append(f"going on ended with {code}: {_tail(folder)}")
                asked = Counter(r.expert_key or "" for r in model.requests if r.answered_at is not None)
            verdict.problems += self._judge(folder, asked, in_flight) + await self._leftovers()
            return verdict

    async def _run(self, folder: Path, model: ScriptedModel, *, goes_on: bool, **more: Any) -> int | None:
        (folder / "workspace").mkdir(exist_ok=True)
        setting = scenario.setting(folder, model.url, self._runtime, JOB, goes_on=goes_on)
        request = {"setting": setting, "told": str(folder / "told"), "errors": str(folder / "errors"), **more}
        return await self._warm.run(request)

    def _judge(self, folder: Path, asked: Counter[str], in_flight: Counter[str]) -> list[str]:
        try:
            came_to = outcome.read(folder, JOB)
        except PerstackError as error:
            return [f"the history does not verify: {error}"]
        problems = outcome.differences(self.undisturbed, came_to, asked, in_flight)
        for line in (folder / "told").read_text().splitlines():
            run_id, kind, event_id = line.split()
            if PASSING_BY not in kind.lower() and event_id not in came_to.stored:
                problems.append(f"{kind} of {run_id} was acknowledged and is not on disk")
        return problems

    async def _leftovers(self) -> list[str]:
        """What is there of the Job after a while. A runner whose orchestrator was killed the moment it was started, and
        which nobody has told anything, ends by itself.
        """
        deadline = time.monotonic() + LEFTOVERS_S
        while (left := self._left()) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        return left

    def _left(self) -> list[str]:
        if self._runtime == "local":
            return [f"processes are left: {run}" for run in find_runs() if run.marks.job_id == JOB]
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label={LABEL_JOB}={JOB}"], check=True, capture_output=True, text=True
        )
        return [f"containers are left: {listed.stdout.split()}"] if listed.stdout.strip() else []


@contextmanager
def _folder() -> Iterator[Path]:
    """A new folder with a short path, removed with all that is in it."""
    path = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _is_completed(folder: Path) -> bool:
    history = JobHistory(Store(folder / "history"), JOB)
    standing = history.standing(history.job.coordinator_run_id)
    return standing is not None and standing.checkpoint.state is State.COMPLETED


def _in_flight(folder: Path) -> Counter[str]:
    """How many Runs of each Expert waited for an answer: the process may have died with it in its hands."""
    try:
        history = JobHistory(Store(folder / "history"), JOB)
    except PerstackError:
        return Counter()
    waiting: Counter[str] = Counter()
    for run_id, record in history.runs.items():
        passages = list(history.passages(run_id))
        last = passages[-1] if passages else None
        if last is not None and not isinstance(last.event, e.CompleteRun):
            # Cancelled, or killed.
            state = (last.before if isinstance(last.event, e.Stop) else last.after).checkpoint.state
            waiting[record.expert_key] += state in GENERATING
    return waiting


def _tail(folder: Path) -> str:
    return (folder / "errors").read_text()[-2000:]
