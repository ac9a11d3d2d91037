"""The workspace: whose its files are, what of it is hidden, and that it outlives everything."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SandboxError
from orchestrator.sandbox.idmap import SANDBOX_ID, is_mounted
from orchestrator.sandbox.workspace_mount import WorkspaceMount
from tests.sandbox.docker_lab import Lab

pytestmark = pytest.mark.docker

ENGINE_SOCKET = Path("/var/run/docker.sock")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SHOW_TREE = """
import os
for folder, below, files in os.walk("/workspace"):
    print(folder, sorted(below), [(name, open(os.path.join(folder, name)).read()) for name in sorted(files)])
"""


async def test_files_belong_to_the_owner_of_the_workspace(lab: Lab) -> None:
    (lab.workspace / "given").write_text("old")
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(
        sandbox,
        "import os; os.makedirs('/workspace/d'); open('/workspace/d/made', 'w').write('new');"
        "open('/workspace/given', 'a').write('er'); print(os.getuid(), os.stat('/workspace/given').st_uid)",
    )
    assert said.exit_code == 0, said.text
    uid, seen_owner = said.text.split()
    assert uid == seen_owner != "0"
    assert (lab.workspace / "given").read_text() == "older"
    for path in ("given", "d", "d/made"):
        status = (lab.workspace / path).stat()
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid()), path


@as_root
async def test_root_in_a_workspace_of_another_user_leaves_that_users_files(lab: Lab) -> None:
    os.chown(lab.workspace, 12345, 23456)
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    assert (await backend.in_force(sandbox))["user"] == "12345:23456"
    assert (backend.owner.uid, backend.owner.gid) == (12345, 23456)
    await lab.inside(sandbox, "open('/workspace/made', 'w')")
    status = (lab.workspace / "made").stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


ORDINARY = (1000, 1000) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def as_ordinary_user(folder: Path, image: str, socket_group: int) -> dict[str, Any]:
    """What `ordinary_user.py` reports of a sandbox in `folder`/lab."""
    # The folder is root's and shows nothing to others.
    folder.chmod(0o711)
    (folder / "lab").mkdir()
    os.chown(folder / "lab", *ORDINARY)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.sandbox.ordinary_user"),
            *(str(folder / "lab"), image, *map(str, ORDINARY), str(socket_group)),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_an_ordinary_user_gets_their_own_files(short_path: Path, probe_image: str) -> None:
    report = as_ordinary_user(short_path, probe_image, ENGINE_SOCKET.stat().st_gid)
    uid, gid = ORDINARY
    assert report == {"said": [str(uid), str(uid)], "user": f"{uid}:{gid}", "owner": [uid, gid], "leftovers": []}
    status = (short_path / "lab" / "workspace" / "made").stat()
    assert (status.st_uid, status.st_gid) == ORDINARY


@as_root
def test_a_user_who_may_not_use_the_engine_is_told_so(short_path: Path, probe_image: str) -> None:
    report = as_ordinary_user(short_path, probe_image, ORDINARY[1])
    assert "join the group docker" in report["error"]


@as_root
async def test_files_of_other_users_in_roots_workspace_are_theirs_inside_too(lab: Lab) -> None:
    (lab.workspace / "theirs").write_text("x")
    os.chown(lab.workspace / "theirs", 1000, 1001)
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(
        sandbox,
        "import os; s = os.stat('/workspace/theirs'); print(s.st_uid, s.st_gid); os.chmod('/workspace/theirs', 0o777)",
    )
    assert "1000 1001\n" in said.text
    assert "PermissionError" in said.text


async def test_a_missing_workspace_is_made(lab: Lab) -> None:
    lab.workspace.rmdir()
    backend = await lab.opened(workspace=lab.workspace / "deep" / "er")
    sandbox = await backend.start(lab.spec())
    await lab.inside(sandbox, "open('/workspace/made', 'w')")
    assert (lab.workspace / "deep" / "er" / "made").stat().st_uid == os.geteuid()


async def test_history_inside_the_workspace_looks_empty_and_cannot_be_written(lab: Lab) -> None:
    history = lab.workspace / "perstack"
    (history / "jobs").mkdir(parents=True)
    (history / "jobs" / "job.json").write_text("secret")
    backend = await lab.opened(history=history)
    sandbox = await backend.start(lab.spec())
    assert (await lab.inside(sandbox, SHOW_TREE)).text.splitlines() == [
        "/workspace ['perstack'] []",
        "/workspace/perstack [] []",
    ]
    written = await lab.inside(sandbox, "open('/workspace/perstack/forged', 'w')")
    assert "Read-only file system" in written.text or "Permission denied" in written.text
    assert [path.name for path in history.iterdir()] == ["jobs"]


async def test_history_reached_through_a_link_is_masked_where_it_really_is(lab: Lab) -> None:
    real = lab.workspace / "real"
    real.mkdir()
    (real / "secret").write_text("secret")
    link = lab.folder / "link"
    link.symlink_to(real)
    backend = await lab.opened(history=link)
    sandbox = await backend.start(lab.spec())
    assert "secret" not in (await lab.inside(sandbox, SHOW_TREE)).text


async def test_a_sandbox_cannot_make_the_history_before_the_store_does(lab: Lab) -> None:
    backend = await lab.opened(history=lab.workspace / "perstack")
    sandbox = await backend.start(lab.spec())
    assert (await lab.inside(sandbox, "import os; os.mkdir('/workspace/perstack')")).exit_code != 0
    assert list((lab.workspace / "perstack").iterdir()) == []
    assert (lab.workspace / "perstack").stat().st_uid == os.geteuid()


async def test_files_with_keys_look_empty(lab: Lab) -> None:
    outside = lab.folder / "outside.env"
    outside.write_text("KEY=secret")
    (lab.workspace / ".env").write_text("KEY=secret")
    (lab.workspace / "config").mkdir()
    (lab.workspace / "config" / "local.env").write_text("KEY=secret")
    (lab.workspace / "link.env").symlink_to("config/local.env")
    (lab.workspace / "seen").write_text("seen")
    hidden = [lab.workspace / ".env", lab.workspace / "link.env", outside, lab.workspace / "missing.env"]
    backend = await lab.opened(hidden=hidden)
    sandbox = await backend.start(lab.spec())
    assert (await lab.inside(sandbox, SHOW_TREE)).text.splitlines() == [
        "/workspace ['config'] [('.env', ''), ('link.env', ''), ('seen', 'seen')]",
        "/workspace/config [] [('local.env', '')]",
    ]
    assert (await lab.inside(sandbox, "open('/workspace/.env', 'w').write('KEY=forged')")).exit_code == 0
    assert (lab.workspace / ".env").read_text() == "KEY=secret"


@pytest.mark.parametrize("moved", ["a", "a/b", "a/b/.env"])
async def test_a_mask_cannot_be_shaken_off_by_moving_what_holds_it(lab: Lab, moved: str) -> None:
    (lab.workspace / "a" / "b").mkdir(parents=True)
    (lab.workspace / "a" / "b" / ".env").write_text("KEY=secret")
    backend = await lab.opened(hidden=[lab.workspace / "a" / "b" / ".env"])
    first = await backend.start(lab.spec())
    move = await lab.inside(first, f"import os; os.rename('/workspace/{moved}', '/workspace/elsewhere')")
    assert move.exit_code != 0
    second = await backend.start(lab.spec())
    assert "secret" not in (await lab.inside(second, SHOW_TREE)).text


async def test_set_user_id_files_are_disarmed_at_the_end(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(
        sandbox, "import os; open('/workspace/trap', 'w').close(); os.chmod('/workspace/trap', 0o6755)"
    )
    assert said.exit_code == 0, said.text
    trap = lab.workspace / "trap"
    assert trap.stat().st_mode & 0o7777 == 0o6755
    await backend.close()
    assert trap.stat().st_mode & 0o7777 == 0o755


@as_root
async def test_the_workspace_outlives_close_whatever_went_wrong_before(lab: Lab) -> None:
    precious = lab.workspace / "precious"
    precious.write_text("x")
    mount_point = lab.runtime_folder / "workspace"

    never_opened = lab.backend()
    await never_opened.close()

    no_image = lab.backend(image="perstack-test-none:1")
    with pytest.raises(SandboxError):
        await no_image.open()
    await no_image.close()

    still_runs = await lab.opened()
    assert is_mounted(mount_point)
    await still_runs.start(lab.spec())
    await still_runs.close()
    await still_runs.close()

    cancelled = lab.backend()
    opening = asyncio.create_task(cancelled.open())
    while not is_mounted(mount_point):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await cancelled.close()

    assert not mount_point.exists()
    assert precious.read_text() == "x"


@as_root
async def test_a_mount_the_engine_cannot_see_is_refused(lab: Lab) -> None:
    mount = WorkspaceMount(lab.runtime_folder / "workspace")
    with pytest.raises(SandboxError, match="another machine"):
        mount.attach(lab.workspace, None)
    mount.detach()
    assert lab.workspace.exists()


@as_root
async def test_a_file_system_without_idmapped_mounts_is_named_with_the_ways_out(lab: Lab) -> None:
    mount = WorkspaceMount(lab.runtime_folder / "workspace")
    with pytest.raises(SandboxError, match=f"mount_setattr: .*ordinary user.*chown -R {SANDBOX_ID}"):
        mount.attach(Path("/proc/self"), str(ENGINE_SOCKET))
    mount.detach()
    assert list(lab.runtime_folder.iterdir()) == []
