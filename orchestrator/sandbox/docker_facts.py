"""What a Docker Engine and an image say of themselves, and whether that is enough to keep the promises of a sandbox."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SandboxError


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a running engine is and can do.

    Attributes:
        rootless: it runs as an ordinary user, whom it calls 0 inside containers.
        remaps_users: it translates ids of containers that do not ask otherwise.
        shares_kernel: its containers run on this machine's kernel, so that a socket file works on both sides.
        cpus: how many it has.
        cgroup_v1: limits are those of the first version of control groups.
    """

    rootless: bool
    remaps_users: bool
    shares_kernel: bool
    cpus: int
    cgroup_v1: bool


def read_facts(info: Mapping[str, Any], *, local: bool) -> EngineFacts:
    """Read `docker info`, and refuse an engine that cannot enforce what every sandbox is promised.

    Args:
        local: the engine is reached through a Unix socket of this machine.

    Raises:
        SandboxError: a control is missing; the message names it.
    """
    if info.get("OSType", "linux") != "linux":
        raise SandboxError("The Docker Engine runs Windows containers. Switch it to Linux containers.")
    options = [dict(part.partition("=")[::2] for part in option.split(",")) for option in info["SecurityOptions"] or ()]
    names = {option.get("name", "") for option in options}
    profiles = [option.get("profile", "") for option in options if option.get("name") == "seccomp"]
    if not profiles or "unconfined" in profiles:
        raise SandboxError(
            "The Docker Engine does not filter system calls (seccomp is off), so an Expert would not be confined. "
            "Use a kernel with seccomp and start dockerd without --seccomp-profile=unconfined."
        )
    limits = {
        "memory": info.get("MemoryLimit"),
        "processes": info.get("PidsLimit"),
        "CPU": info.get("CpuCfsQuota", info.get("CPUCfsQuota")),
    }
    missing = [name for name, is_there in limits.items() if not is_there]
    if missing:
        raise SandboxError(
            f"The Docker Engine cannot limit {' and '.join(missing)} here, so an Expert could take the whole machine. "
            "Enable these control groups (with rootless Docker: delegate them to your user)."
        )
    system = str(info.get("OperatingSystem", ""))
    return EngineFacts(
        rootless="rootless" in names,
        remaps_users="userns" in names,
        shares_kernel=(
            local
            and sys.platform == "linux"
            and "Docker Desktop" not in system
            and info.get("KernelVersion") == platform.release()
        ),
        cpus=int(info["NCPU"]),
        cgroup_v1=str(info.get("CgroupVersion", "1")) == "1",
    )


def check_image(image: Mapping[str, Any], name: str) -> None:
    """Refuse an image that would give a sandbox more places to write than it is promised.

    Raises:
        SandboxError: the image declares volumes.
    """
    volumes = sorted((image.get("Config") or {}).get("Volumes") or ())
    if volumes:
        raise SandboxError(
            f"The image {name} declares the volumes {', '.join(volumes)}: an Expert could fill the disk through them. "
            "Use an image without VOLUME."
        )
