"""How sandboxes in Docker reach the bus: a socket file where engine and orchestrator share a kernel, else a network.

`ipc` is the strong way: the sandbox has no network at all. `tcp` is weaker, and taken only where there is no other:
the sandbox is attached to a bridge of the Job's own that leads nowhere (`internal`: nothing is forwarded; no traffic
between its containers; no resolver). But the bridge's end on the host is the host: a service of the host that listens
on more than localhost can be reached from the sandbox. The engine's resolver tells the names of the Job's other
containers. And all of it rests on the engine's packet filter: one that runs with `--iptables=false` confines nothing.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError, SandboxError
from orchestrator.sandbox.backend import Transport
from orchestrator.sandbox.docker_engine import Engine, EngineRefusedError

TRANSPORT_VARIABLE = "PERSTACK_BUS"
HOST_VARIABLE = "PERSTACK_BUS_HOST"


@dataclass(frozen=True, slots=True)
class JobNetwork:
    """A network that was made for one Job, and the address of the host's end of it."""

    id: str
    gateway: str


def choose_scheme(*, shares_kernel: bool) -> str:
    """`ipc` or `tcp`; the variable `PERSTACK_BUS` overrides the choice.

    Raises:
        ConfigError: the variable holds something else.
    """
    asked = os.environ.get(TRANSPORT_VARIABLE)
    if asked is None:
        return "ipc" if shares_kernel else "tcp"
    if asked not in ("ipc", "tcp"):
        raise ConfigError(f"{TRANSPORT_VARIABLE} is {asked!r}: it can be ipc or tcp.")
    return asked


async def create_network(engine: Engine, short_job: str, labels: Mapping[str, str]) -> JobNetwork:
    """Make the Job's own network.

    Raises:
        SandboxError: the engine refused (it has only so many address ranges).
    """

    def create() -> JobNetwork:
        created = engine.api.create_network(
            f"{short_job}-{secrets.token_hex(3)}",
            driver="bridge",
            internal=True,
            options={"com.docker.network.bridge.enable_icc": "false"},
            labels=dict(labels),
        )
        ranges: list[dict[str, Any]] = engine.api.inspect_network(created["Id"])["IPAM"]["Config"]
        return JobNetwork(created["Id"], ranges[0].get("Gateway", ""))

    return await engine.run("make a network for the Job", create)


async def remove_networks(engine: Engine, filters: Mapping[str, Any], *, but: str | None = None) -> None:
    """Remove the networks that the filters find, also those that nobody was ever told of, except the one with id `but`.

    Raises:
        SandboxError: the engine refused: something is still attached.
    """
    found: list[dict[str, Any]] = await engine.run("list networks", lambda: engine.api.networks(filters=filters))
    for entry in found:
        if entry["Id"] != but:
            await remove_network(engine, entry["Id"])


async def remove_network(engine: Engine, network: str) -> None:
    """Remove the network with this id. One that is gone is not an error.

    Raises:
        SandboxError: as `remove_networks`.
    """
    try:
        await engine.run("remove a network", engine.api.remove_network, network)
    except EngineRefusedError as error:
        if not error.is_not_found:
            raise


async def tcp_transport(network: JobNetwork) -> Transport:
    """Where the bus listens, and what sandboxes are told.

    `PERSTACK_BUS_HOST` names the address instead, for an orchestrator that is itself attached to the network.

    Raises:
        SandboxError: the address is not one of this machine, so no sandbox could reach a bus here.
    """
    host = os.environ.get(HOST_VARIABLE) or network.gateway
    try:
        address = (await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM))[0]
        with socket.socket(address[0], address[1]) as probe:
            probe.bind(address[4])
    except OSError as error:
        raise SandboxError(
            "Experts could not reach perstack: the Docker Engine runs on another machine (Docker Desktop: a virtual "
            f"one), whose address in this Job's network is {host!r}. Run perstack on the engine's own machine, or name "
            f"an address of this machine in that network with {HOST_VARIABLE}."
        ) from error
    return Transport("tcp", bind_host=host, advertised_host=host)
