"""The near side of :mod:`benchmarks.scripted_server`: start it, and read what it saw."""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import BenchmarkError

END_S = 10.0
"""Seconds that the model's process may take to end."""


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """A tool call, as scripts have it."""
    return {"name": name, "arguments": arguments}


def done() -> list[dict[str, Any]]:
    """The two turns that end a Run."""
    return [{"toolCalls": [call("attemptCompletion")]}, {"text": "done"}]


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the model got. Times are seconds of `time.monotonic()`, which all processes share."""

    arrived_at: float
    answered_at: float | None
    expert_key: str | None
    status: int | None
    body_bytes: int


def gaps_ms(requests: Sequence[Request]) -> list[float]:
    """Milliseconds from each answer to the request that follows it.

    Raises:
        BenchmarkError: a request was not answered as the script has it.
    """
    gaps = []
    for request, following in itertools.pairwise(requests):
        if request.status != 200 or request.answered_at is None:
            raise BenchmarkError(f"a request met status {request.status}")
        gaps.append((following.arrived_at - request.answered_at) * 1000)
    return gaps


class ModelProcess:
    """A scripted model in a process of its own. Use as a context manager.

    Args:
        folder: where the script is put.
        conversations: the script.
    """

    def __init__(self, folder: Path, *conversations: dict[str, Any]) -> None:
        script = folder / "script.json"
        script.write_text(json.dumps({"conversations": conversations}))
        command = [sys.executable, "-m", "benchmarks.scripted_server", str(script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url: str = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Its input ends, and with it the process.
        try:
            self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for(self, number: int) -> None:
        """Wait until `number` requests have arrived since the start.

        Raises:
            BenchmarkError: they did not come.
        """
        if not self._ask(f"wait {number}"):
            raise BenchmarkError(f"the model was not asked {number} times")

    def take(self) -> list[Request]:
        """The requests since the last call, in order of arrival."""
        return [Request(**fields) for fields in self._ask("take")]

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError("the scripted model's process ended; what it said is above")
        return json.loads(line)
