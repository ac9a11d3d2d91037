"""What an engine says of itself decides whether it is good enough, and how sandboxes reach the bus."""

import platform
from typing import Any

import docker
import pytest

from orchestrator.errors import SandboxError
from orchestrator.sandbox.docker_facts import read_facts
from orchestrator.sandbox.docker_network import choose_scheme

pytestmark = pytest.mark.docker


@pytest.fixture
def info(engine: docker.DockerClient) -> dict[str, Any]:
    """What the real engine says; the tests change one thing of it each."""
    return dict(engine.info())


def test_this_engine_is_good_enough(info: dict[str, Any]) -> None:
    facts = read_facts(info, local=True)
    assert facts.shares_kernel
    assert not facts.rootless
    assert facts.cpus == info["NCPU"]


@pytest.mark.parametrize("options", [[], ["name=apparmor"], ["name=seccomp,profile=unconfined"], None])
def test_an_engine_without_seccomp_is_refused(info: dict[str, Any], options: list[str] | None) -> None:
    with pytest.raises(SandboxError, match="seccomp"):
        read_facts(info | {"SecurityOptions": options}, local=True)


@pytest.mark.parametrize("profile", ["default", "builtin"])
def test_the_default_profile_has_had_two_names(info: dict[str, Any], profile: str) -> None:
    read_facts(info | {"SecurityOptions": [f"name=seccomp,profile={profile}"]}, local=True)


@pytest.mark.parametrize(
    ("key", "name"), [("MemoryLimit", "memory"), ("PidsLimit", "processes"), ("CpuCfsQuota", "CPU")]
)
def test_an_engine_that_cannot_limit_is_refused(info: dict[str, Any], key: str, name: str) -> None:
    with pytest.raises(SandboxError, match=f"cannot limit {name}"):
        read_facts(info | {key: False}, local=True)


def test_windows_containers_are_refused(info: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match="Linux containers"):
        read_facts(info | {"OSType": "windows"}, local=True)


def test_a_rootless_engine_and_one_that_remaps_users_are_recognised(info: dict[str, Any]) -> None:
    seccomp = "name=seccomp,profile=default"
    assert read_facts(info | {"SecurityOptions": [seccomp, "name=rootless"]}, local=True).rootless
    assert read_facts(info | {"SecurityOptions": [seccomp, "name=userns"]}, local=True).remaps_users


@pytest.mark.parametrize(
    ("change", "local", "shares"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"OperatingSystem": "Docker Desktop"}, True, False),
        ({"KernelVersion": platform.release() + "-linuxkit"}, True, False),
    ],
)
def test_a_socket_file_serves_only_where_the_kernel_is_shared(
    info: dict[str, Any], change: dict[str, str], local: bool, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERSTACK_BUS", raising=False)
    facts = read_facts(info | change, local=local)
    assert facts.shares_kernel is shares
    assert choose_scheme(shares_kernel=facts.shares_kernel) == ("ipc" if shares else "tcp")
