"""The image that the others start from: Python's official one, or one built from Debian's packages."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from setup import docker_cli
from setup.machine import Machine, apt_install, this_machine
from setup.mirrors import find_mirror
from setup.process import SetupError, run, say, stop_group, tail

DEFAULT = "python:3.11-slim-bookworm"
VARIABLE = "PERSTACK_BASE_IMAGE"
OLDEST_PYTHON = 11
# An engine gives up on a registry that it cannot reach within seconds; the rest is time for a slow line.
PULL_SECONDS = 180.0
DEBOOTSTRAP_SECONDS = 900.0
IMPORT_SECONDS = 300.0
PACKAGES = ("ca-certificates", "python3", "python3-pip")
# What a sandbox never reads. Licences (usr/share/doc/*/copyright) stay, as the Debian policy asks.
WASTE = (
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "debootstrap",
)


@dataclass(frozen=True)
class Choice:
    """Which base image to use and how to get hold of it. `build` takes over where a pull fails."""

    name: str
    get: Literal["have", "pull", "pull or build"]


def built_name(machine: Machine) -> str:
    """The name of the base image built on this machine, after the release whose packages it holds."""
    return f"perstack-base:{machine.codename or 'unknown'}"


def choose(env: Mapping[str, str], machine: Machine, exists: Callable[[str], bool]) -> Choice:
    """The base image: the one that PERSTACK_BASE_IMAGE names, else one that is here already, else Python's own."""
    named = env.get(VARIABLE, "")
    if named:
        return Choice(named, "have" if exists(named) else "pull")
    for name in (DEFAULT, built_name(machine)):
        if exists(name):
            return Choice(name, "have")
    return Choice(DEFAULT, "pull or build")


def ensure() -> str:
    """The name of the base image, which the engine has when this returns.

    Raises:
        SetupError: it can be neither pulled nor built here; says what to do.
    """
    machine = this_machine()
    choice = choose(os.environ, machine, lambda name: docker_cli.image_id(name) is not None)
    if choice.get == "have":
        return choice.name
    say(f"pulling {choice.name}")
    try:
        run(["docker", "pull", "--quiet", choice.name], f"{choice.name} could not be pulled.", timeout=PULL_SECONDS)
        return choice.name
    except SetupError as error:
        if choice.get == "pull":
            raise SetupError(f"{error}\nIt is the base image that {VARIABLE} names.") from error
        obstacle = build_obstacle(machine)
        if obstacle:
            raise SetupError(f"{error}\n{obstacle}") from error
    say("it cannot be pulled here, so it is built from Debian's packages instead, once (about a minute)")
    build(machine)
    return built_name(machine)


def build_obstacle(machine: Machine) -> str:
    """Why the base image cannot be built on this machine, and what to do instead; empty when it can."""
    instead = (
        f"Set {VARIABLE} to an image that the engine has or can pull. "
        "It needs Python 3.11 or newer as python3, and pip."
    )
    if not machine.has_apt:
        return f"Building it instead takes Debian or Ubuntu. {instead}"
    if not machine.root:
        return f"Building it instead takes root: run `sudo make images` once. Or:\n{instead}"
    return ""


def build(machine: Machine) -> None:
    """Install a minimal system with Python into a folder and import that as an image.

    It has the release's packages without later security updates, which come from other places than the release;
    naming an image of one's own is the way to those.

    Raises:
        SetupError: a step failed; the folder is gone all the same.
    """
    source = find_mirror(machine.codename)
    if source is None:
        raise SetupError(
            f"The apt sources of this machine name no mirror of {machine.codename or 'its release'}, so the base image "
            f"cannot be built. Set {VARIABLE} to an image that the engine has."
        )
    if shutil.which("debootstrap") is None:
        apt_install(["debootstrap"], "(to build the base image)")
    with _root_folder() as root:
        run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", machine.codename, root, source.uri],
            "debootstrap could not build the base image.",
            timeout=DEBOOTSTRAP_SECONDS,
        )
        require_python(root)
        trim(root)
        _import(root, built_name(machine))
    say(f"built {built_name(machine)}")


def require_python(root: Path) -> None:
    """Raise unless the system in this folder has a Python that the runner starts on."""
    minors = [int(path.name.removeprefix("python3.")) for path in root.glob("usr/bin/python3.[0-9]*[0-9]")]
    if max(minors, default=0) < OLDEST_PYTHON:
        raise SetupError(
            f"This release's Python is older than 3.{OLDEST_PYTHON}, so the base image cannot be built from its "
            f"packages. Set {VARIABLE} to an image with a newer one."
        )


def trim(root: Path) -> None:
    """Remove what a sandbox never reads: package lists and caches, manuals, translations."""
    for pattern in WASTE:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in root.glob("usr/share/doc/**/*"):
        if path.is_file() and path.name != "copyright":
            path.unlink()


def _import(root: Path, name: str) -> None:
    """Stream the folder into the engine as an image of one layer."""
    pack = subprocess.Popen(
        ["tar", "--numeric-owner", "--one-file-system", "-C", root, "-c", "."],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert pack.stdout is not None  # noqa: S101 - both are pipes
    assert pack.stderr is not None  # noqa: S101
    changes = ("LABEL perstack.image=base", 'CMD ["/bin/sh"]')
    try:
        run(
            ["docker", "import", *(word for change in changes for word in ("--change", change)), "-", name],
            "docker could not import the base image.",
            timeout=IMPORT_SECONDS,
            stdin=pack.stdout,
        )
        complaint = pack.stderr.read().decode(errors="replace")
        if pack.wait() != 0:
            docker_cli.remove_image(name)
            raise SetupError(f"tar could not read the base image's files.\n{tail(complaint)}")
    finally:
        pack.stdout.close()
        pack.stderr.close()
        if pack.poll() is None:
            stop_group(pack)


@contextmanager
def _root_folder() -> Iterator[Path]:
    """An empty folder that is gone afterwards. Not in /tmp, which is often mounted without devices or in memory."""
    folder = Path(tempfile.mkdtemp(prefix="perstack-base-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a root folder, but never what is mounted in it: an interrupted debootstrap leaves /proc and /sys there."""
    # A second Ctrl-C must not leave half of it behind.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for mount in reversed(mounts_below(folder, Path("/proc/self/mounts").read_text())):
            subprocess.run(["umount", mount], capture_output=True, check=False)
        left = mounts_below(folder, Path("/proc/self/mounts").read_text())
        if left:
            say(f"left {folder} in place: {left[0]} is still mounted; unmount it and remove the folder")
            return
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, before)


def mounts_below(folder: Path, mounts: str) -> list[str]:
    """What is mounted below the folder, in the order in which it was mounted."""
    points = [line.split()[1] for line in mounts.splitlines() if line.strip()]
    return [point for point in points if Path(point).is_relative_to(folder)]
