"""The time between the model's answer and the next request, one tool call a step, and whether it grows.

The floor is the same loop by the model gateway alone, in one process: what is above it is the price of the sandbox, the
bus and the record. litellm as it is stands beside them, because a loop without this project would use it so.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure, median, p10, p95
from benchmarks.scripted import ModelProcess, call, done, gaps_ms
from benchmarks.stage import COORDINATOR, RUN_S, Stage, temporary_folder

STEPS = 400
EDGE = 20
"""Steps at either end that are compared."""

LIMIT_MS = 10.0
LIMIT_GROWTH = 1.2

TOOLS = {"healthCheck": call("healthCheck"), "todo": call("todo", newTodos=["step {{turn}}"])}


def measure() -> list[Figure]:
    with temporary_folder() as folder:
        floor = _alone(folder, "gateway")
        figures = [figure for tool in TOOLS for figure in _figures(tool, _gaps(folder, tool), floor)]
        litellm = _alone(folder, "litellm")
    return [
        *figures,
        Figure("litellm as it is: answer → next request, median", median(litellm), "ms", median(floor)),
        Figure(f"litellm as it is: last {EDGE} / first {EDGE}", _growth(litellm), "x"),
    ]


def _figures(tool: str, gaps: list[float], floor: list[float]) -> list[Figure]:
    return [
        Figure(f"{tool}: answer → next request, median of {STEPS}", median(gaps), "ms", median(floor), LIMIT_MS),
        Figure(f"{tool}: 10th percentile", p10(gaps), "ms", p10(floor)),
        Figure(f"{tool}: 95th percentile", p95(gaps), "ms", p95(floor)),
        Figure(f"{tool}: median of the first {EDGE}", median(gaps[:EDGE]), "ms", median(floor[:EDGE])),
        Figure(f"{tool}: median of the last {EDGE}", median(gaps[-EDGE:]), "ms", median(floor[-EDGE:])),
        Figure(f"{tool}: last {EDGE} / first {EDGE}", _growth(gaps), "x", _growth(floor), LIMIT_GROWTH),
    ]


def _growth(gaps: list[float]) -> float:
    return median(gaps[-EDGE:]) / median(gaps[:EDGE])


def _gaps(folder: Path, tool: str) -> list[float]:
    """Milliseconds of each step of a Job."""
    (folder / tool).mkdir()
    with ModelProcess(folder, _conversation(tool)) as model:
        Stage(folder / tool, model.url, {COORDINATOR: {"instruction": "Be quick."}}).run()
        return gaps_ms(model.take())[:STEPS]


def _alone(folder: Path, loop: str) -> list[float]:
    """Milliseconds of each step of a loop of :mod:`benchmarks.bare_loop`."""
    with ModelProcess(folder, _conversation("healthCheck")) as model:
        subprocess.run([sys.executable, "-m", "benchmarks.bare_loop", loop, model.url], check=True, timeout=RUN_S)
        return gaps_ms(model.take())[:STEPS]


def _conversation(tool: str) -> dict[str, object]:
    return {"expert": COORDINATOR, "turns": [{"toolCalls": [TOOLS[tool]], "repeat": STEPS}, *done()]}
