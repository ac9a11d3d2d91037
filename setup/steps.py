"""The steps that the Makefile names."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from setup import cleaning, engine, images, venv
from setup.checkout import Checkout
from setup.process import SetupError, say

STEPS: dict[str, Callable[[Checkout], None]] = {
    "venv": venv.ensure,
    "docker": engine.ensure,
    "images": images.ensure_expert,
    "orchestrator-image": images.ensure_orchestrator,
    "clean": cleaning.clean,
}


def run_steps(names: list[str]) -> int:
    """Run the named steps one after the other; the result is the exit code."""
    unknown = [name for name in names if name not in STEPS]
    if unknown or not names:
        print(f"setup: expected one or more of: {', '.join(STEPS)}; got: {' '.join(names) or 'none'}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _exit_on_signal)
    checkout = Checkout(Path(__file__).resolve().parent.parent)
    try:
        with _one_at_a_time(checkout.root):
            for name in names:
                STEPS[name](checkout)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: stopped", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two `make` in one checkout wait for each other instead of installing over each other. Leaves no lock file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout to finish")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    # SystemExit unwinds through the finally blocks, which end children and remove temporary folders.
    raise SystemExit(128 + number)
