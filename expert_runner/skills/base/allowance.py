"""Letting a thread that works on files know when to give up."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from expert_runner.skills.base.failures import ToolError

T = TypeVar("T")

FILE_WORK_S = 30.0
"""Seconds that one call may work on files."""


class Allowance:
    """A time limit that can also be withdrawn. Loops over files ask it once a round."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._withdrawn = threading.Event()

    def withdraw(self) -> None:
        self._withdrawn.set()

    def check(self) -> None:
        """Raises:
        ToolError: the time is up or nobody waits any more.
        """
        if self._withdrawn.is_set() or time.monotonic() > self._deadline:
            raise ToolError(f"It took longer than {self._seconds:g} s. Use exec with a program made for such amounts.")


async def work_on_files(work: Callable[[Allowance], T]) -> T:
    """Run `work` in a thread. When the caller is cancelled, the thread stops at its next check."""
    allowance = Allowance(FILE_WORK_S)
    try:
        return await asyncio.to_thread(work, allowance)
    except asyncio.CancelledError:
        allowance.withdraw()
        raise
