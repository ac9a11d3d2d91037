"""The entry point of a sandbox: be hidden, connect, say hello, be told the Run, drive it, exit."""

import asyncio
import os
import sys
import time
import traceback
from pathlib import Path

from expert_runner.concurrency import race
from expert_runner.contract import wire
from expert_runner.contract.checkpoints import RunError
from expert_runner.contract.errors import ContractError
from expert_runner.contract.tools import BASE_SKILL
from expert_runner.link import LeaseLost, Link, Rejected
from expert_runner.process import ExitCode, hide, reap_forever, say, withstand_signals
from expert_runner.run import Run
from expert_runner.skills.base.skill import BaseSkill

IDENTITY_VARIABLE = "PERSTACK_IDENTITY"
"""Names the identity file where it is not at its usual place (a sandbox without a container)."""

IDENTITY_FILE = "/perstack/bus/identity"

SETTLE_S = 5.0
"""Seconds a runner that is done waits for its last reports to be taken."""


def main() -> int:
    """One Run, to its end. Returns the process's exit code."""
    hide()
    withstand_signals()
    path = Path(os.environ.get(IDENTITY_VARIABLE, IDENTITY_FILE))
    try:
        identity = wire.Identity.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        say(f"no identity: {error}")
        return ExitCode.NO_IDENTITY
    return asyncio.run(_serve(identity))


async def _serve(identity: wire.Identity) -> ExitCode:
    async with Link(identity) as link:
        try:
            await race(link.run(), reap_forever(), _work(link))
        except LeaseLost as error:
            say(str(error))
            return ExitCode.LEASE_LOST
        except Rejected as error:
            say(f"rejected: {error}")
            return ExitCode.REJECTED
        except ContractError as error:
            say(f"{type(error).__name__}: {error}")
            return ExitCode.FAILED
    return ExitCode.ENDED


async def _work(link: Link) -> None:
    started = time.monotonic()
    assignment = await link.next_command()
    if isinstance(assignment, wire.End):
        return
    if not isinstance(assignment, wire.Assign):
        raise ContractError(f"{assignment.type} before assign")
    base = BaseSkill(
        workspace=Path(assignment.workspace),
        env=assignment.env,
        tools=assignment.base_tools,
        todos=assignment.todos,
    )
    elapsed_ms = round((time.monotonic() - started) * 1000, 3)
    await link.report(wire.SkillUp(skill_name=BASE_SKILL, total_duration_ms=elapsed_ms))
    try:
        await _drive(Run(assignment, link, base), link)
    finally:
        base.close()
    await link.settle(SETTLE_S)


async def _drive(run: Run, link: Link) -> None:
    try:
        await run.drive()
    except ContractError:
        raise
    except Exception as error:  # noqa: BLE001
        # A defect of the runner ends its own Run with a reason rather than as a sandbox that was lost.
        traceback.print_exc()
        await link.report(wire.Failed(error=RunError(name=type(error).__name__, message=str(error)[:2_000])))


if __name__ == "__main__":
    sys.exit(main())
