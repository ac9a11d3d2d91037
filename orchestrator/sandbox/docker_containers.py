"""What is done with containers, each a call or two to the engine. A container is named by its id."""

import asyncio
import logging
from typing import Any

from orchestrator.errors import SandboxError
from orchestrator.sandbox.docker_engine import Engine, EngineRefusedError
from orchestrator.sandbox.docker_exit import LOG_BYTES
from orchestrator.sandbox.labels import LABEL_LEASE

logger = logging.getLogger(__name__)

_LOG_LINES = 200
_REMOVAL_SECONDS = 30


class Containers:
    """The containers of one Job: those that carry its lease's token.

    Every call may raise EngineAwayError; EngineRefusedError where the engine refused and nothing else is said.
    """

    def __init__(self, engine: Engine, lease: str) -> None:
        self._engine = engine
        self.filters = {"label": [f"{LABEL_LEASE}={lease}"]}

    def create_and_start(self, body: dict[str, Any], name: str, other_name: str) -> str:
        """In the pool: both calls in one go, so that no other work comes between them. Gives the container's id.

        Args:
            body: of the create request.
            name: for people; taken by an earlier container of the Run, or a stranger's, `other_name` does as well.
        """
        api, call = self._engine.api, self._engine.call
        try:
            created = call("create a sandbox", api.create_container_from_config, body, name)
        except EngineRefusedError as error:
            if not error.is_conflict:
                raise
            created = call("create a sandbox", api.create_container_from_config, body, other_name)
        container = str(created["Id"])
        try:
            call("start a sandbox", api.start, container)
        except SandboxError:
            try:
                call("remove a sandbox", api.remove_container, container, force=True, v=True)
            except SandboxError as error:
                logger.debug("Left for later: %s", error)
            raise
        return container

    async def inspect(self, container: str) -> dict[str, Any]:
        inspected: dict[str, Any] = await self._engine.run(
            "inspect a sandbox", self._engine.api.inspect_container, container
        )
        return inspected

    async def log_tail(self, container: str) -> str:
        """The end of what process 1 wrote to stderr; what went wrong instead if it cannot be read."""
        try:
            log: bytes = await self._engine.run(
                "read a sandbox's log",
                lambda: self._engine.api.logs(container, stdout=False, stderr=True, tail=_LOG_LINES),
            )
        except SandboxError as error:
            return str(error)
        return log[-LOG_BYTES:].decode(errors="replace")

    async def freeze(self, container: str, *, frozen: bool) -> None:
        """Pause or unpause it; one that is gone, or has ended, is not an error.

        Engines refuse what is already so with various statuses: what counts is how the container is.
        """
        api = self._engine.api
        try:
            if frozen:
                await self._engine.run("pause a sandbox", api.pause, container)
            else:
                await self._engine.run("unpause a sandbox", api.unpause, container)
        except EngineRefusedError as refusal:
            try:
                state = (await self.inspect(container))["State"]
            except EngineRefusedError as error:
                if error.is_not_found:
                    return
                raise
            if state["Running"] and state["Paused"] != frozen:
                raise refusal from None

    async def remove(self, container: str) -> None:
        """Kill everything in it at once, and remove it with what it wrote. One that is gone is not an error."""
        api = self._engine.api
        try:
            await self._engine.run("remove a sandbox", lambda: api.remove_container(container, force=True, v=True))
        except EngineRefusedError as error:
            if error.is_not_found:
                return
            if not error.is_conflict:
                raise
            # Somebody else removes it already.
            await self._await_removal(container)

    async def remove_all(self) -> None:
        """All of them, also those that nobody was ever told of, and those of an earlier orchestrator of the Job."""
        found: list[dict[str, Any]] = await self._engine.run(
            "list the Job's sandboxes", lambda: self._engine.api.containers(all=True, filters=self.filters)
        )
        results = await asyncio.gather(*(self.remove(entry["Id"]) for entry in found), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _await_removal(self, container: str) -> None:
        try:
            await self._engine.run(
                "remove a sandbox",
                lambda: self._engine.api.wait(container, timeout=_REMOVAL_SECONDS, condition="removed"),
            )
        except EngineRefusedError as error:
            if not error.is_not_found:
                raise
