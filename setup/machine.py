"""What machine this is, and its package manager."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from setup.process import run, say

APT_SECONDS = 900.0


@dataclass(frozen=True)
class Machine:
    """The facts that the set-up's decisions rest on."""

    system: str
    """`Linux`, `Darwin`, …"""
    root: bool
    distribution: frozenset[str] = field(default_factory=frozenset)
    """The ids of the Linux distribution and of those it is like, such as `ubuntu` and `debian`."""
    codename: str = ""
    """The release's code name, such as `bookworm`."""
    systemd: bool = False
    """systemd is process 1, so services are its business."""

    @property
    def has_apt(self) -> bool:
        return bool(self.distribution & {"debian", "ubuntu"})


@cache
def this_machine() -> Machine:
    release = Path("/etc/os-release")
    facts = parse_os_release(release.read_text() if release.exists() else "")
    return Machine(
        system=platform.system(),
        root=os.geteuid() == 0,
        distribution=frozenset(f"{facts.get('ID', '')} {facts.get('ID_LIKE', '')}".split()),
        codename=facts.get("VERSION_CODENAME", ""),
        systemd=Path("/run/systemd/system").is_dir(),
    )


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in lines}


def apt_install(packages: Sequence[str], purpose: str) -> None:
    """Install Debian packages without what they merely recommend.

    Raises:
        SetupError: apt-get failed; says how it ended.
    """
    say(f"installing {' '.join(packages)} {purpose}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt_update()
    run(
        ["apt-get", "install", "-y", "--no-install-recommends", *packages],
        f"apt-get could not install {' '.join(packages)}.",
        timeout=APT_SECONDS,
        env=env,
    )


@cache
def apt_update() -> None:
    """Refresh the package lists, once a run. A third party's broken source is no reason to stop: installing tells."""
    try:
        subprocess.run(
            ["apt-get", "update", "-q"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        say("apt-get update did not finish; going on with the package lists as they are")


def apt_knows(package: str) -> bool:
    """Whether the package lists have a package of that name."""
    result = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
    return result.returncode == 0
