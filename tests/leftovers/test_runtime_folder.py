"""The runtime folder: removed by name, never with anything that is not ours in it."""

import os
import sys
from pathlib import Path

import pytest

from orchestrator.errors import SandboxError
from orchestrator.runtime_folder import RuntimeFolder, remove_dead, runtime_folders
from orchestrator.sandbox.idmap import detach, is_mounted, mount_idmapped
from orchestrator.sandbox.process_identity import process_identity
from tests.leftovers.conftest import Site

as_root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root")


async def test_it_says_whose_it_is_and_leaves_nothing(site: Site) -> None:
    async with RuntimeFolder("job", "token") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (found,) = runtime_folders()
        assert found.path == folder
        assert (found.marks.owner, found.marks.lease, found.marks.job_id) == (process_identity(), "token", "job")
    assert list(site.temporary.iterdir()) == []


async def test_what_is_left_in_it_is_told_and_stays_with_the_note_of_its_owner(site: Site) -> None:
    with pytest.raises(SandboxError, match="still holds thing"):
        async with RuntimeFolder("job", "token") as folder:
            (folder / "thing").touch()
    assert {path.name for path in folder.iterdir()} == {"thing", "owner"}
    assert [found.path for found in runtime_folders()] == [folder]


async def test_an_error_that_explains_why_something_is_left_is_kept(site: Site) -> None:
    with pytest.raises(ZeroDivisionError):
        await fail_inside()
    (found,) = runtime_folders()
    assert {path.name for path in found.path.iterdir()} == {"thing", "owner"}


async def fail_inside() -> None:
    async with RuntimeFolder("job", "token") as folder:
        (folder / "thing").touch()
        raise ZeroDivisionError


async def test_one_that_was_cleaned_away_is_not_missed(site: Site) -> None:
    async with RuntimeFolder("job", "token") as folder:
        (folder / "owner").unlink()
        folder.rmdir()


async def test_no_place_for_it_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(site.folder / "none"))
    with pytest.raises(SandboxError, match="TMPDIR"):
        async with RuntimeFolder("job", "token"):
            pass


def test_only_folders_of_this_user_with_a_note_count(site: Site) -> None:
    for name in ("perstack-empty", "perstack-odd", "perstack-linked", "other"):
        (site.temporary / name).mkdir()
    (site.temporary / "perstack-odd" / "owner").write_text("{}")
    note = site.folder / "note"
    note.write_text(f'{{"process":"{process_identity()}","lease":"a","jobId":"b"}}')
    (site.temporary / "perstack-linked" / "owner").symlink_to(note)
    (site.temporary / "other" / "owner").write_bytes(note.read_bytes())
    (site.temporary / "perstack-link").symlink_to(site.temporary / "other")
    (site.temporary / "perstack-file").write_bytes(note.read_bytes())
    if os.geteuid() == 0:
        (site.temporary / "perstack-theirs").mkdir()
        (site.temporary / "perstack-theirs" / "owner").write_bytes(note.read_bytes())
        os.chown(site.temporary / "perstack-theirs", 12345, 12345)
    assert list(runtime_folders()) == []


def dead_folder(site: Site) -> Path:
    return Path(site.killed(site.order).runtime_folder)


async def test_the_folders_of_runs_go_with_it(site: Site) -> None:
    folder = dead_folder(site)
    (run_folder, *_) = [path for path in folder.iterdir() if path.is_dir()]
    (run_folder / "identity").touch()
    (found,) = runtime_folders()
    remove_dead(found)
    remove_dead(found)
    assert not folder.exists()


@pytest.mark.parametrize("where", ["stranger", "run/stranger", "workspace/stranger"])
async def test_whatever_is_not_ours_is_left_and_told(site: Site, where: str) -> None:
    folder = dead_folder(site)
    precious = folder / where
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("mine")
    (found,) = runtime_folders()
    with pytest.raises(SandboxError, match=str(folder)):
        remove_dead(found)
    assert precious.read_text() == "mine"
    assert list(runtime_folders()) == [found]
    (leftover,) = [each for each in await site.collect(engine=False) if each.id == str(folder)]
    assert not leftover.removed
    assert str(folder) in str(leftover.problem)


async def test_a_link_in_it_is_not_followed(site: Site) -> None:
    folder = dead_folder(site)
    elsewhere = site.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "identity").write_text("mine")
    (folder / "zz").symlink_to(elsewhere)
    (found,) = runtime_folders()
    with pytest.raises(SandboxError, match="nothing that perstack makes"):
        remove_dead(found)
    assert (elsewhere / "identity").read_text() == "mine"


@as_root
async def test_a_mounted_workspace_is_unmounted_and_none_of_its_files_touched(site: Site) -> None:
    folder = dead_folder(site)
    for name in ("identity", "s", "owner", "other"):
        (site.folder / "workspace" / name).write_text("mine")
    (folder / "workspace").mkdir()
    mount_idmapped(site.folder / "workspace", folder / "workspace")
    (found,) = runtime_folders()
    remove_dead(found)
    assert not folder.exists()
    assert {path.name for path in (site.folder / "workspace").iterdir()} == {"identity", "s", "owner", "other"}


@as_root
async def test_a_mount_at_another_place_is_left_with_all_of_its_files(site: Site) -> None:
    folder = dead_folder(site)
    for name in ("identity", "s"):
        (site.folder / "workspace" / name).write_text("mine")
    (folder / "zz").mkdir()
    mount_idmapped(site.folder / "workspace", folder / "zz")
    try:
        (found,) = runtime_folders()
        with pytest.raises(SandboxError, match="nothing that perstack makes"):
            remove_dead(found)
        assert {path.name for path in (site.folder / "workspace").iterdir()} == {"identity", "s"}
    finally:
        detach(folder / "zz")
    assert not is_mounted(folder / "zz")


@as_root
async def test_a_mount_that_cannot_be_ended_keeps_everything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dead_folder(site)
    (site.folder / "workspace" / "identity").write_text("mine")
    (folder / "workspace").mkdir()
    mount_idmapped(site.folder / "workspace", folder / "workspace")

    def refuse(_: Path) -> None:
        raise OSError("refused")

    (found,) = runtime_folders()
    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.sandbox.workspace_mount.detach", refuse)
        with pytest.raises(SandboxError, match="Do not delete that folder"):
            remove_dead(found)
    assert (site.folder / "workspace" / "identity").read_text() == "mine"
    remove_dead(found)
    assert not folder.exists()
