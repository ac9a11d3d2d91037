"""`python -m tests.faults.warm`: a process that has imported everything, and runs each Job in a fork of itself.

Most of what a Job takes is the import of the model library: forked, a Job with four Runs takes about a second. Requests
come as JSON lines on standard input, one at a time; each is answered by a line once its process has ended.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator import run
from orchestrator.errors import PerstackError
from orchestrator.model.loader import loaded
from tests.faults.injection import BROKEN, Fault, install

STOPPED_S = 0.3
"""How long a process that was stopped stays so."""

TIME_LIMIT_S = 60.0


def main() -> None:
    asyncio.run(_load())
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), flush=True)


async def _load() -> None:
    await loaded()


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _job(request)
        finally:
            os._exit(code)
    return _wait(child)


def _job(request: dict[str, Any]) -> int:
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, file in ((0, null), (1, null), (2, errors)):
        os.dup2(file, number)
    if request.get("fault"):
        install(Fault(*request["fault"]), request["setting"]["runtime"])
    if request.get("broken"):
        BROKEN[request["broken"]]()
    return asyncio.run(_run(request["setting"], Path(request["told"])))


async def _run(setting: dict[str, Any], told: Path) -> int:
    file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def listen(event: Any) -> None:
        os.write(file, f"{event.run_id} {event.type} {event.id}\n".encode())

    job = asyncio.create_task(run(setting, event_listener=listen))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, job.cancel)
    try:
        end = await job
    except PerstackError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(end.status, file=sys.stderr)
    return 0


def _wait(child: int) -> dict[str, Any]:
    """How the child ended. One that was stopped is let go on after a while; one that hangs is killed."""
    deadline = time.monotonic() + TIME_LIMIT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            time.sleep(STOPPED_S)
            os.kill(child, signal.SIGCONT)
        elif pid:
            return {"code": os.waitstatus_to_exitcode(status)}
        elif time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": None}
        time.sleep(0.005)


if __name__ == "__main__":
    main()
