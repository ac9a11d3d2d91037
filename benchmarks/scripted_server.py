"""A scripted model in a process of its own, so that it shares no interpreter with what is measured.

`python -m benchmarks.scripted_server SCRIPT`. It tells its URL, then answers each line on standard input by a line of
JSON on standard output: `wait N` once N requests have arrived, `take` with the requests that were not taken yet. It
ends with its input. :mod:`benchmarks.scripted` is the other side.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.scripted_model import RequestRecord, ScriptedModel, load_script

WAIT_S = 60.0
"""Seconds that `wait` waits at most."""


async def main(script: Path) -> None:
    async with ScriptedModel(load_script(script), keep_bodies=True) as model:
        _say(model.url)
        taken = 0
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.startswith("wait "):
                _say(await _wait(model, int(line.removeprefix("wait "))))
            else:
                requests = model.requests[taken:]
                taken += len(requests)
                _say([_fields(request) for request in requests])


async def _wait(model: ScriptedModel, number: int) -> bool:
    try:
        async with asyncio.timeout(WAIT_S):
            await model.wait_for_requests(number)
    except TimeoutError:
        return False
    return True


def _fields(request: RequestRecord) -> dict[str, Any]:
    return {
        "arrived_at": request.arrived_at,
        "answered_at": request.answered_at,
        "expert_key": request.expert_key,
        "status": request.status,
        "body_bytes": len(request.raw_body or b""),
    }


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
