"""Where the `perstack` command is run as users run it: a configuration, a workspace, a history and a process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import BenchmarkError

COORDINATOR = "coordinator"
MODEL = "gpt-4o"
"""One whose price is known: every answer's cost is worked out."""

QUERY = "Go."
RUN_S = 300.0
"""Seconds that a Job may take."""

_CONFIG = """\
model = "{model}"

[provider]
providerName = "openai"

[provider.setting]
baseUrl = "{url}"
"""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder with a path short enough for sockets in it, removed with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="pb-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def perstack_command() -> str:
    """The installed command, which belongs to the interpreter that runs the benchmarks.

    Raises:
        BenchmarkError: it is not installed.
    """
    path = Path(sys.executable).with_name("perstack")
    if not path.exists():
        raise BenchmarkError(f"{path} is missing: install it with: make venv")
    return str(path)


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A Job under way. `started_at` is of `time.monotonic()`, `started_ms` Unix milliseconds: when it was executed."""

    process: subprocess.Popen[bytes]
    workspace: Path
    history: Path
    errors: Path
    started_at: float
    started_ms: float

    def finish(self) -> None:
        """Wait for the end.

        Raises:
            BenchmarkError: the Job did not complete.
        """
        try:
            code = self.process.wait(RUN_S)
        except BaseException:
            # Also after Ctrl-C: its folder is removed next, which it must not be in any more.
            self.cancel()
            raise
        if code != 0:
            raise BenchmarkError(f"perstack run ended with code {code}: {self.errors.read_text().strip()[-2000:]}")

    def cancel(self) -> None:
        """End the Job as Ctrl-C does, and wait until it has removed its sandboxes."""
        self.process.terminate()
        self.process.wait(RUN_S)

    def events(self) -> list[dict[str, Any]]:
        """The coordinator's events, as they are stored. Deltas are not."""
        (path,) = (
            run.parent / "events.jsonl"
            for run in self.history.glob("jobs/*/runs/*/run.json")
            if json.loads(run.read_bytes())["expertKey"] == COORDINATOR
        )
        return [json.loads(line) for line in path.read_text().splitlines()]


class Stage:
    """A folder in which Jobs are run against the model at `url`.

    Args:
        folder: an existing, empty folder.
        url: the model's.
        experts: the Experts by key, each as its table in `perstack.toml`; COORDINATOR is the one that is asked.
    """

    def __init__(self, folder: Path, url: str, experts: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder = folder
        self._jobs = 0
        (folder / "tmp").mkdir()
        tables = [
            f"[experts.{json.dumps(key)}]\n"
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
            for key, table in experts.items()
        ]
        (folder / "perstack.toml").write_text("\n".join([_CONFIG.format(model=MODEL, url=url), *tables]))

    def start(self, options: Sequence[str] = (), *, history: Path | None = None) -> StartedJob:
        """Execute `perstack run`. Its events go nowhere: nobody that reads them disturbs it.

        Args:
            options: its further options.
            history: what it finds as its history, which stays as it is; None: it finds none.
        """
        self._jobs += 1
        folder = self._folder / str(self._jobs)
        folder.mkdir()
        if history is not None:
            shutil.copytree(history, folder / "history")
        environment = {
            **os.environ,
            "OPENAI_API_KEY": "the-scripted-model-needs-none",
            "PERSTACK_STORAGE_PATH": str(folder / "history"),
            "TMPDIR": str(self._folder / "tmp"),
        }
        workspace = folder / "workspace"
        paths = ("--config", str(self._folder / "perstack.toml"), "--workspace", str(workspace))
        command = [perstack_command(), "run", *paths, *options, COORDINATOR, QUERY]
        errors = folder / "errors.txt"
        with errors.open("wb") as stderr:
            started_at, started_ms = time.monotonic(), time.time() * 1000
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        return StartedJob(process, workspace, folder / "history", errors, started_at, started_ms)

    def run(self, options: Sequence[str] = (), *, history: Path | None = None) -> StartedJob:
        """A whole Job, as :meth:`start` begins it; returns when it has ended.

        Raises:
            BenchmarkError: it did not complete.
        """
        job = self.start(options, history=history)
        job.finish()
        return job
