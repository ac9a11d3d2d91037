"""The time from executing `perstack run` to the first request the model gets, and what it is spent on."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.figures import BenchmarkError, Figure, median
from benchmarks.scripted import ModelProcess
from benchmarks.stage import COORDINATOR, RUN_S, Stage, StartedJob, temporary_folder

REPEATS = 5
LIMIT_RATIO = 1.3

MARKS: dict[str, Callable[[dict[str, object]], bool]] = {
    "the Run begins": lambda event: event["type"] == "initializeRuntime",
    "its container was started": lambda event: event.get("status") == "running",
    "its runner and litellm are there": lambda event: event["type"] == "skillConnected",
    "the first step begins": lambda event: event["type"] == "startGeneration",
}
"""What the coordinator's events tell of the way to the first request, in the order it usually happens."""


def measure() -> list[Figure]:
    conversation = {"expert": COORDINATOR, "turns": [{"text": "done"}]}
    with temporary_folder() as folder, ModelProcess(folder, conversation) as model:
        (folder / "stage").mkdir()
        stage = Stage(folder / "stage", model.url, {COORDINATOR: {"instruction": "Be quick."}})
        _import_litellm()  # fills the caches of the disk, for both
        stage.run()
        model.take()
        starts, imports, marks = [], [], []
        for _ in range(REPEATS):
            imports.append(_import_litellm())
            job = stage.run()
            (request,) = model.take()
            starts.append(request.arrived_at - job.started_at)
            marks.append(_marks(job))
    return [
        Figure(
            "perstack run → first request (floor: import litellm)",
            median(starts),
            "s",
            median(imports),
            limit_ratio=LIMIT_RATIO,
        ),
        Figure(f"the fastest of {REPEATS}", min(starts), "s", min(imports)),
        *(Figure(f"until {name}", median([each[name] for each in marks]), "s") for name in MARKS),
    ]


def _marks(job: StartedJob) -> dict[str, float]:
    """Seconds from the execution to the first event of each kind."""
    events = job.events()
    found = {}
    for name, is_it in MARKS.items():
        event = next((event for event in events if is_it(event)), None)
        if event is None:
            raise BenchmarkError(f"no event says when {name}")
        found[name] = (event["timestamp"] - job.started_ms) / 1000
    return found


def _import_litellm() -> float:
    """Seconds from executing Python to the end of the import; the interpreter's own end is not counted."""
    command = [sys.executable, "-c", "import litellm, time; print(time.monotonic())"]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    started_at = time.monotonic()
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=RUN_S)
    return float(ended.stdout) - started_at
