"""Signals that end a command: what it does is cancelled, and cleans up."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

T = TypeVar("T")


async def cancelled_by_signals(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; SIGINT, SIGTERM and SIGHUP cancel it."""
    task = asyncio.ensure_future(work)
    cancelling = False

    def cancel() -> None:
        # Once only: a second signal must not interrupt the removal of the sandboxes.
        nonlocal cancelling
        if not cancelling:
            cancelling = True
            click.echo("perstack: cancelling", err=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, cancel)
    return await task
