"""Why a container ended, from what the engine recorded of it."""

from collections.abc import Mapping
from typing import Any

from orchestrator.sandbox.backend import Exit, ExitCause

LOG_BYTES = 8 * 1024

_SIGKILL_CODE = 128 + 9
_LAST_SIGNAL_CODE = 128 + 64


def read_exit(state: Mapping[str, Any], memory_ran_out: bool, *, stopping: bool) -> Exit | None:
    """Read `State` of `docker inspect`; None while the container runs (or is paused).

    Memory is the cause only if process 1 itself was killed: with control groups v1 the engine's flag is also set when a
    child was killed and the runner lived on to end in its own way. The flag may be missing where the engine's event is
    not: `memory_ran_out`. A program that ends itself with a code above 128 cannot be told from one that a signal ended.
    """
    if state["Running"]:
        return None
    code = int(state["ExitCode"])
    memory_ran_out = memory_ran_out or bool(state["OOMKilled"])
    evidence = f"status {state['Status']}, exit code {code}"
    if memory_ran_out:
        evidence += ", out of memory"
    if state.get("Error"):
        evidence += f", {state['Error']}"
    if stopping:
        cause = ExitCause.STOPPED
    elif memory_ran_out and code == _SIGKILL_CODE:
        cause = ExitCause.OUT_OF_MEMORY
    elif 128 < code <= _LAST_SIGNAL_CODE:
        cause = ExitCause.KILLED
    else:
        cause = ExitCause.EXITED
    return Exit(cause, code, evidence)
