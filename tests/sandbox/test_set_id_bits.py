"""Which files lose their set-user-ID and set-group-ID bits."""

import os
import time
from pathlib import Path

import pytest

from orchestrator.sandbox.set_id_bits import Stripped, strip_set_id_bits


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    trap = tmp_path / "tree" / "deep" / "trap"
    trap.parent.mkdir(parents=True)
    trap.touch()
    trap.chmod(0o6751)
    return trap


def test_a_file_changed_since_loses_both_bits_and_keeps_the_rest(trap: Path, tmp_path: Path) -> None:
    assert strip_set_id_bits(tmp_path, time.time_ns(), ()) == Stripped(1, True)
    assert mode(trap) == 0o751


def test_a_file_not_changed_since_keeps_them(trap: Path, tmp_path: Path) -> None:
    assert strip_set_id_bits(tmp_path, time.time_ns() + 3_000_000_000, ()) == Stripped(0, True)
    assert mode(trap) == 0o6751


def test_folders_keep_theirs(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    assert strip_set_id_bits(tmp_path, time.time_ns(), ()) == Stripped(0, True)
    assert mode(shared) == 0o2775


def test_links_lead_nowhere(trap: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "file").symlink_to(trap)
    (workspace / "folder").symlink_to(trap.parent)
    assert strip_set_id_bits(workspace, time.time_ns(), ()) == Stripped(0, True)
    assert mode(trap) == 0o6751


def test_what_is_skipped_is_not_looked_at(trap: Path, tmp_path: Path) -> None:
    assert strip_set_id_bits(tmp_path, time.time_ns(), (trap.parent,)) == Stripped(0, True)


def test_a_tree_too_large_for_the_time_is_told(trap: Path, tmp_path: Path) -> None:
    assert strip_set_id_bits(tmp_path, time.time_ns(), (), seconds=-1) == Stripped(0, False)


def test_a_path_too_deep_for_the_system_is_told(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert strip_set_id_bits(tmp_path, time.time_ns(), ()) == Stripped(0, False)
