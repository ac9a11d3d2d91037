"""A backend whose runners are puppets: coroutines in the test's own process, on the real bus with real keys.

What a hostile sandbox could send is played by them; an Expert without a puppet gets a real runner's loop.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from expert_runner.concurrency import race
from expert_runner.contract import wire
from expert_runner.contract.errors import ContractError
from expert_runner.contract.tools import BASE_SKILL
from expert_runner.link import LeaseLost, Link, Rejected
from expert_runner.run import Run
from expert_runner.skills.base.skill import BaseSkill
from orchestrator.api.run import make_plan
from orchestrator.api.setting import as_setting
from orchestrator.bus import IDENTITY_NAME
from orchestrator.job import JobRunner
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxOwner, SandboxSpec, Transport
from orchestrator.scripted_model import Script, ScriptedModel
from tests.jobs.stage import Played, Stage

Puppet = Callable[[wire.Identity], Awaitable[None]]
"""Plays a runner that was given this identity. Its sandbox stays when it returns."""


class Ended(Exception):
    """Raised by a puppet whose sandbox ends, as `how`."""

    def __init__(self, how: Exit) -> None:
        super().__init__(str(how))
        self.how = how


class PuppetBackend:
    """Runs `puppets[expert key]` in the place of that Expert's runner."""

    name = "puppets"
    bus_path: str | None = None
    isolates = False

    def __init__(self, workspace: Path, puppets: Mapping[str, Puppet]) -> None:
        self.workspace_path = str(workspace)
        self.sandboxes: dict[str, asyncio.Task[Exit]] = {}
        """All that were started, by their ids."""
        self._puppets = puppets

    @property
    def owner(self) -> SandboxOwner:
        return SandboxOwner(os.geteuid(), os.getegid())

    async def open(self) -> Transport:
        return Transport("ipc")

    async def remove_earlier(self, since_ms: int) -> None: ...

    async def start(self, spec: SandboxSpec) -> Sandbox:
        identity = wire.Identity.model_validate_json((spec.bus_folder / IDENTITY_NAME).read_bytes())
        sandbox = Sandbox(spec.bus_folder.name, spec)
        self.sandboxes[sandbox.id] = asyncio.create_task(_exist(self.puppet(spec), identity))
        return sandbox

    def puppet(self, spec: SandboxSpec) -> Puppet:
        """Who plays the runner of this sandbox."""
        return self._puppets.get(spec.expert_key, honest)

    async def wait(self, sandbox: Sandbox) -> Exit:
        return await asyncio.shield(self.sandboxes[sandbox.id])

    async def stop(self, sandbox: Sandbox) -> None:
        task = self.sandboxes[sandbox.id]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def park(self, sandbox: Sandbox) -> None: ...

    async def unpark(self, sandbox: Sandbox) -> None: ...

    async def close(self) -> None: ...


async def _exist(puppet: Puppet, identity: wire.Identity) -> Exit:
    try:
        await puppet(identity)
    except Ended as end:
        return end.how
    except (ContractError, LeaseLost, Rejected) as error:
        # A real runner's process exits then.
        return Exit(ExitCause.EXITED, 1, f"{type(error).__name__}: {error}")
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def over_link(act: Callable[[Link], Awaitable[None]], make_link: Callable[[wire.Identity], Link] = Link) -> Puppet:
    """A puppet that says what `act` does over a real runner's link."""

    async def puppet(identity: wire.Identity) -> None:
        async with make_link(identity) as link:

            async def acts_and_stays() -> None:
                await act(link)
                await asyncio.Event().wait()

            await race(link.run(), acts_and_stays())

    return puppet


async def drive(link: Link) -> None:
    """What a real runner does."""
    started = time.monotonic()
    assignment: Any = await link.next_command()
    base = BaseSkill(
        workspace=Path(assignment.workspace),
        env=assignment.env,
        tools=assignment.base_tools,
        todos=assignment.todos,
    )
    elapsed_ms = round((time.monotonic() - started) * 1000, 3)
    await link.report(wire.SkillUp(skill_name=BASE_SKILL, total_duration_ms=elapsed_ms))
    try:
        await Run(assignment, link, base).drive()
    finally:
        base.close()


honest = over_link(drive)


def script(*conversations: dict[str, Any]) -> Script:
    return Script.model_validate({"conversations": list(conversations)})


async def play_puppets(
    stage: Stage,
    experts: Mapping[str, Any],
    script: Script,
    backend: PuppetBackend,
    *,
    query: str | None = "Go.",
    event_listener: Callable[[Any], None] | None = None,
    **more: Any,
) -> Played:
    """Run a Job whose sandboxes are `backend`'s to its end; check its history and that nothing of it is left.

    `more` are fields of the setting. What the Job raises is raised after the check that nothing is left.
    """
    stage.played = played = Played(None, [])

    def listen(event: Any, _: bytes) -> None:
        played.events.append(event)
        if event_listener is not None:
            event_listener(event)

    async with ScriptedModel(script) as model:
        stage.model = model
        plan = await make_plan(as_setting(stage.setting(model, experts, query, **more)))
        plan = replace(plan, make_backend=lambda folder, lease: backend)
        try:
            played.end = await JobRunner(plan, listen).run()
        finally:
            await plan.models.close()
            assert all(sandbox.done() for sandbox in backend.sandboxes.values()), "a sandbox is left"
    stage.check_history(played)
    return played
