"""The bus over a network: the host's end can be reached from a sandbox, and nothing else."""

import asyncio
from collections.abc import AsyncIterator

import docker
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from orchestrator.errors import SandboxError
from orchestrator.sandbox.docker import DockerBackend
from tests.sandbox.docker_lab import Lab

pytestmark = pytest.mark.docker

CONNECT = """
import socket
try:
    with socket.create_connection(({host!r}, {port}), timeout=3) as s:
        print(s.recv(100).decode())
except OSError as error:
    print("refused", type(error).__name__)
"""

LISTEN = """
import socket
with socket.create_server(("", 7777)) as server:
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        peer.sendall(b"hello from a container")
        peer.close()
"""


@pytest.fixture(autouse=True)
def over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_BUS", "tcp")
    # Its own clean-up runs from an image that would have to be pulled; the tests remove what they start.
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


@pytest.fixture
async def host_port(lab: Lab) -> AsyncIterator[tuple[DockerBackend, str, int]]:
    """An open backend, and a listener at the address it gives."""
    backend = lab.backend()
    transport = await backend.open()
    assert transport.scheme == "tcp"
    assert transport.bind_host == transport.advertised_host

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello from the host")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, transport.bind_host, 0)
    async with server:
        yield backend, transport.bind_host, server.sockets[0].getsockname()[1]


async def can_be_reached(host: str, port: int) -> bool:
    """From the host: what a sandbox cannot reach is really there."""
    for _ in range(200):
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        greeting = await reader.read()
        writer.close()
        return greeting == b"hello from a container"
    return False


async def test_the_hosts_end_can_be_reached(lab: Lab, host_port: tuple[DockerBackend, str, int]) -> None:
    backend, host, port = host_port
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(sandbox, CONNECT.format(host=host, port=port))
    assert said.text.strip() == "hello from the host"


async def test_a_container_elsewhere_cannot_be_reached(lab: Lab, host_port: tuple[DockerBackend, str, int]) -> None:
    backend, _, _ = host_port
    with DockerContainer(lab.image).with_env("PROBE", LISTEN) as elsewhere:
        wrapped = elsewhere.get_wrapped_container()
        wrapped.reload()
        address = wrapped.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        assert await can_be_reached(address, 7777)
        sandbox = await backend.start(lab.spec())
        said = await lab.inside(sandbox, CONNECT.format(host=address, port=7777))
        assert said.text.startswith("refused")


async def test_a_sandbox_of_the_same_job_cannot_be_reached(lab: Lab, host_port: tuple[DockerBackend, str, int]) -> None:
    backend, _, _ = host_port
    sibling = await backend.start(lab.spec(LISTEN))
    networks = lab.engine.api.inspect_container(sibling.id)["NetworkSettings"]["Networks"]
    (address,) = [network["IPAddress"] for network in networks.values()]
    assert await can_be_reached(address, 7777)
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(sandbox, CONNECT.format(host=address, port=7777))
    assert said.text.startswith("refused")


async def test_names_are_not_resolved(lab: Lab, host_port: tuple[DockerBackend, str, int]) -> None:
    backend, _, _ = host_port
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(sandbox, CONNECT.format(host="example.com", port=80))
    assert said.text.strip() == "refused gaierror"
    assert lab.engine.api.inspect_container(sandbox.id)["HostConfig"]["Dns"] == ["127.0.0.1"]


async def test_the_network_is_the_jobs_own_and_leads_nowhere(
    lab: Lab, host_port: tuple[DockerBackend, str, int], engine: docker.DockerClient
) -> None:
    backend, host, _ = host_port
    (network,) = engine.networks.list(filters={"label": f"perstack.job={lab.job_id}"})
    network.reload()
    assert network.attrs["Internal"] is True
    assert network.attrs["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert network.attrs["IPAM"]["Config"][0]["Gateway"] == host
    sandbox = await backend.start(lab.spec())
    assert (await backend.in_force(sandbox))["networkMode"] == network.id


async def test_an_address_of_another_machine_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_BUS_HOST", "198.51.100.1")
    with pytest.raises(SandboxError, match=r"another machine.*198\.51\.100\.1.*PERSTACK_BUS_HOST"):
        await lab.backend().open()


async def test_the_address_can_be_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_BUS_HOST", "127.0.0.1")
    transport = await lab.backend().open()
    assert (transport.bind_host, transport.advertised_host) == ("127.0.0.1", "127.0.0.1")
