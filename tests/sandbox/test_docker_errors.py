"""What keeps a Job from starting is told before anything starts, with what to do about it."""

import hashlib
import json
import socket
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, SandboxError
from orchestrator.sandbox import docker_engine
from orchestrator.sandbox.docker_network import choose_scheme
from tests.sandbox.docker_lab import Lab
from tests.sandbox.engine_relay import EngineRelay

pytestmark = pytest.mark.docker


def use_context(monkeypatch: pytest.MonkeyPatch, folder: Path, socket_path: Path) -> None:
    """Let Docker's own configuration, not DOCKER_HOST, say where the engine is."""
    meta = folder / "contexts" / "meta" / hashlib.sha256(b"test").hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Host": f"unix://{socket_path}", "SkipTLSVerify": False}
    (meta / "meta.json").write_text(json.dumps({"Name": "test", "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    (folder / "config.json").write_text(json.dumps({"currentContext": "test"}))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


async def test_no_engine_where_docker_itself_looks(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_context(monkeypatch, tmp_path, lab.folder / "none.sock")
    with pytest.raises(SandboxError, match=r"Docker Engine.*Start Docker.*make docker"):
        await lab.backend().open()


async def test_the_engine_of_the_chosen_context_is_used(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with EngineRelay(lab.folder / "relay") as relay:
        use_context(monkeypatch, tmp_path, relay.path)
        backend = lab.backend()
        assert (await backend.open()).scheme == "ipc"
        assert relay.connections > 0
        await backend.close()


async def test_no_engine_where_docker_host_says(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{lab.folder}/none.sock")
    with pytest.raises(SandboxError, match=rf"DOCKER_HOST is unix://{lab.folder}/none.sock"):
        await lab.backend().open()


async def test_an_engine_that_accepts_and_says_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "CONNECT_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(lab.folder / "silent.sock"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{lab.folder}/silent.sock")
        with pytest.raises(SandboxError, match="Docker Engine"):
            await lab.backend().open()


async def test_a_missing_image_is_named_with_the_command_that_builds_it(lab: Lab) -> None:
    with pytest.raises(SandboxError, match=r"perstack-test-none:1 is missing.*make images"):
        await lab.backend(image="perstack-test-none:1").open()


async def test_an_image_with_volumes_is_refused(lab: Lab) -> None:
    name = f"perstack-test-volume:{lab.job_id}"
    base = lab.engine.containers.create(lab.image)
    base.commit(*name.split(":"), conf={"Volumes": {"/data": {}}})
    base.remove()
    try:
        with pytest.raises(SandboxError, match=r"declares the volumes /data"):
            await lab.backend(image=name).open()
    finally:
        lab.engine.images.remove(name, force=True)


async def test_a_workspace_that_is_a_file(lab: Lab) -> None:
    (lab.folder / "file").touch()
    with pytest.raises(SandboxError, match=f"{lab.folder}/file is not a folder"):
        await lab.backend(workspace=lab.folder / "file").open()


async def test_a_workspace_that_cannot_be_made(lab: Lab) -> None:
    with pytest.raises(SandboxError, match="cannot be made"):
        await lab.backend(workspace=Path("/proc/none")).open()


async def test_a_workspace_its_owner_cannot_write(lab: Lab) -> None:
    lab.workspace.chmod(0o555)
    with pytest.raises(SandboxError, match=f"{lab.workspace} cannot be written by user "):
        await lab.backend().open()


@pytest.mark.parametrize("inside", [".", "jobs/workspace"])
async def test_a_workspace_inside_the_history(lab: Lab, inside: str) -> None:
    with pytest.raises(SandboxError, match="lies inside the history"):
        await lab.backend(workspace=lab.folder / "history" / inside).open()


async def test_a_start_before_open(lab: Lab) -> None:
    with pytest.raises(SandboxError, match="not been opened"):
        await lab.backend().start(lab.spec())


def test_an_unknown_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_BUS", "carrier-pigeon")
    with pytest.raises(ConfigError, match=r"PERSTACK_BUS.*carrier-pigeon.*ipc or tcp"):
        choose_scheme(shares_kernel=True)
