"""A backend whose runners are puppets: coroutines in the test's own process, on the real bus with real keys.

What a hostile sandbox could send is played by them; an Expert without a puppet gets a real runner's loop.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from expert_runner.contract.errors import ContractError
from expert_runner.contract.wire import Identity
from expert_runner.link import Link
from expert_runner.run import Run
from expert_runner.skills.base.skill import BaseSkill
from orchestrator.bus import IDENTITY_NAME
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxOwner, SandboxSpec, Transport

Puppet = Callable[[Link], Awaitable[None]]


class PuppetBackend:
    """Runs `puppets[expert key]` in the place of that Expert's runner."""

    name = "puppets"
    bus_path: str | None = None
    isolates = False

    def __init__(self, workspace: Path, puppets: Mapping[str, Puppet]) -> None:
        self.workspace_path = str(workspace)
        self._puppets = puppets
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def owner(self) -> SandboxOwner:
        return SandboxOwner(os.geteuid(), os.getegid())

    async def open(self) -> Transport:
        return Transport("ipc")

    async def start(self, spec: SandboxSpec) -> Sandbox:
        identity = Identity.model_validate_json((spec.bus_folder / IDENTITY_NAME).read_bytes())
        puppet = self._puppets.get(spec.expert_key, honest)
        self._tasks[spec.run_id] = asyncio.create_task(_act(identity, puppet))
        return Sandbox(spec.run_id, spec)

    async def wait(self, sandbox: Sandbox) -> Exit:
        await asyncio.wait({self._tasks[sandbox.id]})
        return Exit(ExitCause.EXITED, 0, "the puppet is done")

    async def stop(self, sandbox: Sandbox) -> None:
        task = self._tasks[sandbox.id]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def park(self, sandbox: Sandbox) -> None: ...

    async def unpark(self, sandbox: Sandbox) -> None: ...

    async def close(self) -> None: ...


async def _act(identity: Identity, puppet: Puppet) -> None:
    async with Link(identity) as link:
        keeping = asyncio.create_task(link.run())
        try:
            with suppress(ContractError):
                await puppet(link)
            # A runner that is done stays: whether its Run goes on is the orchestrator's to say.
            await asyncio.Event().wait()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def honest(link: Link) -> None:
    assignment: Any = await link.next_command()
    base = BaseSkill(
        workspace=Path(assignment.workspace),
        env=assignment.env,
        tools=assignment.base_tools,
        todos=assignment.todos,
    )
    await Run(assignment, link, base).drive()
