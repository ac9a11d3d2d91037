"""`python -m benchmarks [NAME…]`: measure, and print one table. All benchmarks without names.

It is a measurement and no test: a figure over its limit is marked, and the exit code is 0 unless something could not be
measured at all.
"""

import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks import cancel, delegates, going_on, history, runner, sandbox, start, step, store
from benchmarks.figures import HEADER, BenchmarkError, Figure
from orchestrator.errors import PerstackError

BENCHMARKS: dict[str, tuple[str, Callable[[], list[Figure]]]] = {
    "start": ("from perstack run to the first request", start.measure),
    "step": ("one step, one tool call, in Docker (floor: the model gateway alone, in one process)", step.measure),
    "store": ("event → on disk and acknowledged (floor: the same bytes, written and synced alone)", store.measure),
    "history": ("what a Job leaves on disk", history.measure),
    "going-on": (f"a Job of {going_on.EVENTS:,} events goes on", going_on.measure),
    "cancel": (
        f"SIGINT with {cancel.DELEGATES} delegates in a tool → no process, no container (floor: docker rm -f of all)",
        cancel.measure,
    ),
    "delegates": ("coordinator's answer → its next request (floor: starting the sandboxes alone)", delegates.measure),
    "runner": ("memory of a runner", runner.measure),
    "sandbox": ("the life of one sandbox", sandbox.measure),
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(HEADER, flush=True)
    failed = False
    for name in names or BENCHMARKS:
        title, measure = BENCHMARKS[name]
        print(f"\n{name}: {title}   (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs)", flush=True)
        try:
            for figure in measure():
                print(figure.line(), flush=True)
        except (BenchmarkError, PerstackError, OSError, subprocess.SubprocessError) as error:
            failed = True
            print(f"  could not be measured: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
