"""Record the golden histories anew: `python -m tests.golden.record`.

Only for a change of the format that is meant to leave earlier histories unreadable: what earlier versions wrote has to
replay, so histories that still do are kept as they are.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from orchestrator.store.history import JobHistory
from orchestrator.store.layout import LEASE_NAME, Store
from tests.golden.scenarios import SCENARIOS
from tests.jobs.stage import Stage

HISTORIES = Path(__file__).parent / "histories"
"""A history as `$PERSTACK_STORAGE_PATH` names one."""

EXPECTED = Path(__file__).parent / "expected"

PLACE = Path("/tmp/perstack-golden")
"""The same on every machine: the workspace's path is in what Experts are told."""

PATIENCE_S = 60.0
"""For one Job."""


def ends(history: JobHistory) -> dict[str, Any]:
    """The checkpoint that each Run of a Job comes to, whole, as JSON."""
    standings = {run_id: history.standing(run_id) for run_id in history.runs}
    return {run_id: json.loads(standing.checkpoint.encode()) for run_id, standing in standings.items() if standing}


def record() -> None:
    for name, play in SCENARIOS.items():
        PLACE.mkdir()
        try:
            stage = Stage(PLACE, "local")
            asyncio.run(asyncio.wait_for(play(stage), PATIENCE_S))
            keep(name, stage.storage)
        finally:
            shutil.rmtree(PLACE)


def keep(name: str, storage: Path) -> None:
    """Take one Job's history over, without what belongs to the moment."""
    target = HISTORIES / "jobs" / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(storage / "jobs" / name, target, ignore=shutil.ignore_patterns(LEASE_NAME))
    EXPECTED.mkdir(exist_ok=True)
    text = json.dumps(ends(JobHistory(Store(HISTORIES), name)), indent=1, ensure_ascii=False)
    (EXPECTED / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    record()
