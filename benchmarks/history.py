"""The size of the history on disk, and that it grows with the number of steps rather than its square."""

from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.scripted import ModelProcess, call
from benchmarks.stage import COORDINATOR, Stage, temporary_folder

FEW, MANY = 200, 400
LIMIT_MB = 5.0
LIMIT_GROWTH = 2.2


def measure() -> list[Figure]:
    few, few_floor = _sizes(FEW)
    many, many_floor = _sizes(MANY)
    return [
        Figure(f"history of {FEW} todo steps (floor: the conversation)", few, "MB", few_floor, LIMIT_MB),
        Figure(f"history of {MANY} todo steps", many, "MB", many_floor),
        Figure(f"{MANY} steps / {FEW} steps", many / few, "x", many_floor / few_floor, LIMIT_GROWTH),
    ]


def _sizes(steps: int) -> tuple[float, float]:
    """Megabytes of the history folder, and of the last request: the whole conversation, once."""
    turns = [
        {"toolCalls": [call("todo", newTodos=["step {{turn}}"])], "repeat": steps},
        {"text": "done"},
    ]
    with temporary_folder() as folder, ModelProcess(folder, {"expert": COORDINATOR, "turns": turns}) as model:
        job = Stage(_made(folder / "stage"), model.url, {COORDINATOR: {"instruction": "Be quick."}}).run()
        size = sum(path.stat().st_size for path in job.history.rglob("*") if path.is_file())
        return size / 1e6, model.take()[-1].body_bytes / 1e6


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
