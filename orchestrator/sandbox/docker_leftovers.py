"""What a Docker Engine holds of any orchestrator, dead or alive, as its labels tell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.sandbox.docker_containers import Containers
from orchestrator.sandbox.docker_engine import Engine
from orchestrator.sandbox.docker_network import remove_network
from orchestrator.sandbox.labels import LABEL_OWNER, Marks


@dataclass(frozen=True, slots=True)
class Found:
    """A container or network with our labels. `made_at` is in Unix seconds, by the engine's clock."""

    id: str
    is_network: bool
    marks: Marks
    made_at: float


class DockerLeftovers:
    """One engine. `find` connects to it; `close` has to be called in any case."""

    def __init__(self) -> None:
        self._engine = Engine()

    async def find(self) -> list[Found]:
        """Containers, whatever their state, and networks: containers first, for a network in use cannot be removed.

        Raises:
            EngineAwayError: no engine answers.
            SandboxError: the engine refused.
        """
        await self._engine.connect()
        api = self._engine.api
        ours: dict[str, Any] = {"label": LABEL_OWNER}
        containers: list[dict[str, Any]] = await self._engine.run(
            "list containers", lambda: api.containers(all=True, filters=ours)
        )
        networks: list[dict[str, Any]] = await self._engine.run("list networks", lambda: api.networks(filters=ours))
        return [
            *(Found(entry["Id"], False, _marks(entry), float(entry["Created"])) for entry in containers),
            *(Found(entry["Id"], True, _marks(entry), _unix_seconds(entry["Created"])) for entry in networks),
        ]

    async def remove(self, found: Found) -> None:
        """Remove it, a container with everything that runs in it. One that is gone is not an error.

        Raises:
            SandboxError: the engine could not.
        """
        if found.is_network:
            await remove_network(self._engine, found.id)
        else:
            await Containers(self._engine, found.marks.lease).remove(found.id)

    async def close(self) -> None:
        await self._engine.close()


def _marks(entry: Mapping[str, Any]) -> Marks:
    return Marks.read(entry.get("Labels") or {})


def _unix_seconds(created: str) -> float:
    """Without the fraction, of which the engine writes more digits than Python reads."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", created)).timestamp()
