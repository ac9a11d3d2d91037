from pathlib import Path

import pytest

from setup.base import DEFAULT, Choice, build_obstacle, choose, mounts_below, require_python, trim
from setup.machine import Machine
from setup.process import SetupError

DEBIAN = Machine("Linux", root=True, distribution=frozenset({"debian"}), codename="bookworm")


@pytest.mark.parametrize(
    ("env", "present", "expected"),
    [
        ({}, {DEFAULT, "perstack-base:bookworm"}, Choice(DEFAULT, "have")),
        ({}, {"perstack-base:bookworm"}, Choice("perstack-base:bookworm", "have")),
        ({}, set(), Choice(DEFAULT, "pull or build")),
        ({"PERSTACK_BASE_IMAGE": "mine:1"}, {DEFAULT, "mine:1"}, Choice("mine:1", "have")),
        ({"PERSTACK_BASE_IMAGE": "mine:1"}, {DEFAULT}, Choice("mine:1", "pull")),
    ],
)
def test_the_base_image_is_the_named_one_then_one_at_hand_then_pythons(
    env: dict[str, str], present: set[str], expected: Choice
) -> None:
    assert choose(env, DEBIAN, present.__contains__) == expected


def test_root_on_debian_can_build_the_base_image() -> None:
    assert build_obstacle(DEBIAN) == ""


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine("Linux", root=False, distribution=frozenset({"ubuntu"})), "sudo make images"),
        (Machine("Linux", root=True, distribution=frozenset({"fedora"})), "PERSTACK_BASE_IMAGE"),
        (Machine("Darwin", root=False), "PERSTACK_BASE_IMAGE"),
    ],
)
def test_elsewhere_the_reader_is_told_how_to_name_another_base_image(machine: Machine, words: str) -> None:
    assert words in build_obstacle(machine)


@pytest.mark.parametrize("name", ["python3.11", "python3.13"])
def test_a_release_with_a_python_for_the_runner_is_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin" / name).touch()
    require_python(tmp_path)


@pytest.mark.parametrize("name", ["python3.9", "python3.10", "python3"])
def test_a_release_whose_python_is_too_old_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin" / name).touch()
    with pytest.raises(SetupError, match="older than"):
        require_python(tmp_path)


def test_trimming_removes_caches_and_manuals_and_keeps_licences_and_links(tmp_path: Path) -> None:
    kept = ["usr/share/doc/zlib/copyright", "usr/bin/python3", "var/lib/dpkg/status"]
    waste = [
        "var/cache/apt/pkgcache.bin",
        "var/lib/apt/lists/a/Packages",
        "usr/share/man/man1/ls.1",
        "usr/share/doc/zlib/NEWS",
    ]
    for name in kept + waste:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (tmp_path / "var/lib/apt/lists/link").symlink_to(outside)
    trim(tmp_path)
    assert [name for name in kept + waste if (tmp_path / name).exists()] == kept
    assert (outside / "precious").exists()


def test_only_mounts_inside_the_folder_count() -> None:
    points = ["/proc", "/var/tmp/b/proc", "/var/tmp/b/sys", "/var/tmp/bb"]
    mounts = "".join(f"none {point} none rw 0 0\n" for point in points)
    assert mounts_below(Path("/var/tmp/b"), mounts) == ["/var/tmp/b/proc", "/var/tmp/b/sys"]
