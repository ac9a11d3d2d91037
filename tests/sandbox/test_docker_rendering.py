"""Values rendered and read without an engine: variants that the engine at hand is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.backend import ExitCause, SandboxOwner, SandboxSpec
from orchestrator.sandbox.docker_config import JobSettings, container_name, create_body
from orchestrator.sandbox.docker_exit import read_exit
from orchestrator.sandbox.docker_facts import EngineFacts
from orchestrator.sandbox.policy import SandboxPolicy
from orchestrator.sandbox.workspace import Masks, SandboxUser, sandbox_user

ENGINE = EngineFacts(rootless=False, remaps_users=False, shares_kernel=True, cpus=2, cgroup_v1=False)
SETTINGS = JobSettings("image", SandboxUser(7, 8, (), SandboxOwner(7, 8)), Path("/w"), None, {}, ENGINE)
SPEC = SandboxSpec("job", "run", "@a/b", Path("/bus"), SandboxPolicy())


def host_config(**changes: Any) -> dict[str, Any]:
    body = create_body(SPEC, replace(SETTINGS, **changes), Masks())
    host: dict[str, Any] = body["HostConfig"]
    return host


def test_control_groups_v2_know_no_swappiness() -> None:
    assert "MemorySwappiness" not in host_config()
    assert host_config(engine=replace(ENGINE, cgroup_v1=True))["MemorySwappiness"] == 0


def test_an_engine_that_remaps_users_is_told_that_ids_are_the_hosts() -> None:
    assert "UsernsMode" not in host_config()
    assert host_config(engine=replace(ENGINE, remaps_users=True))["UsernsMode"] == "host"


def test_groups_are_only_the_users() -> None:
    assert host_config()["GroupAdd"] == []
    assert host_config(user=SandboxUser(7, 8, (9,), SandboxOwner(7, 8)))["GroupAdd"] == ["9"]


def test_a_rootless_engine_calls_its_own_user_0(tmp_path: Path) -> None:
    owner = tmp_path.stat()
    user = sandbox_user(tmp_path, rootless=True)
    assert (user.uid, user.gid, user.idmapped) == (0, 0, False)
    assert user.owner == SandboxOwner(owner.st_uid, owner.st_gid)


@pytest.mark.parametrize(
    ("job", "run", "name"),
    [
        ("0123456789abcdef", "fedcba9876543210", "perstack-0123456789ab-fedcba987654"),
        ("my job/1", "é", "perstack-myjob1-x"),
        ("-.-", "_", "perstack-x-_"),
    ],
)
def test_names_hold_what_engines_accept(job: str, run: str, name: str) -> None:
    assert container_name(job, run) == name


@pytest.mark.parametrize(
    ("state", "event", "stopping", "cause"),
    [
        ({"ExitCode": 0}, False, False, ExitCause.EXITED),
        ({"ExitCode": 1}, False, False, ExitCause.EXITED),
        ({"ExitCode": 137}, False, False, ExitCause.KILLED),
        ({"ExitCode": 139}, False, False, ExitCause.KILLED),
        ({"ExitCode": 255}, False, False, ExitCause.EXITED),
        ({"ExitCode": 137, "OOMKilled": True}, False, False, ExitCause.OUT_OF_MEMORY),
        ({"ExitCode": 137}, True, False, ExitCause.OUT_OF_MEMORY),
        ({"ExitCode": 0, "OOMKilled": True}, False, False, ExitCause.EXITED),
        ({"ExitCode": 137, "OOMKilled": True}, True, True, ExitCause.STOPPED),
    ],
)
def test_causes(state: dict[str, Any], event: bool, stopping: bool, cause: ExitCause) -> None:
    whole = {"Running": False, "Status": "exited", "OOMKilled": False, "Error": ""} | state
    ended = read_exit(whole, event, stopping=stopping)
    assert ended is not None
    assert ended.cause is cause
    assert ended.exit_code == state["ExitCode"]


def test_what_runs_has_not_ended() -> None:
    assert read_exit({"Running": True}, False, stopping=False) is None
