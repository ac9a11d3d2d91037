"""A sandbox's policy in the Docker Engine's terms: pure functions from values to the body of a create request, and
back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.sandbox.backend import SandboxSpec
from orchestrator.sandbox.docker_facts import EngineFacts
from orchestrator.sandbox.labels import LABEL_EXPERT, LABEL_RUN
from orchestrator.sandbox.workspace import Masks, SandboxUser

WORKSPACE_PATH = "/workspace"
BUS_PATH = "/perstack/bus"
TMP_PATH = "/tmp"  # noqa: S108 - inside the sandbox

_NO_NETWORK = "none"
_FROZEN_EMPTY = "ro,nosuid,nodev,noexec,size=4k,mode=0000"


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What all sandboxes of a Job have in common.

    Attributes:
        image: its name.
        user: as whom they run.
        workspace_source: what is mounted at `WORKSPACE_PATH`.
        network: the Job's own network, for a bus over tcp; None: no network at all.
        labels: say whose they are.
        engine: what the engine is.
    """

    image: str
    user: SandboxUser
    workspace_source: Path
    network: str | None
    labels: Mapping[str, str]
    engine: EngineFacts


def container_name(job_id: str, run_id: str, suffix: str = "") -> str:
    """A name a person can recognise; ids are whole in the labels."""
    return "-".join(part for part in ("perstack", _short(job_id), _short(run_id), suffix) if part)


def create_body(spec: SandboxSpec, settings: JobSettings, masks: Masks) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create`. Nothing of the host's environment or Docker configuration
    enters.

    `/tmp` may hold programs: tools that fetch what they run (uvx, npx) need that, and the workspace allows it anyway.
    """
    return {
        "Image": settings.image,
        "Hostname": "sandbox",
        "User": f"{settings.user.uid}:{settings.user.gid}",
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": {**settings.labels, LABEL_RUN: spec.run_id, LABEL_EXPERT: spec.expert_key},
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Healthcheck": {"Test": ["NONE"]},
        # Nothing in a sandbox is asked to end: an engine that is restarted would wait 10 s for it in vain.
        "StopSignal": "SIGKILL",
        "HostConfig": _host_config(spec, settings, masks),
    }


def _host_config(spec: SandboxSpec, settings: JobSettings, masks: Masks) -> dict[str, Any]:
    policy = spec.policy
    config: dict[str, Any] = {
        "NetworkMode": settings.network or _NO_NETWORK,
        # No resolver, and not the host's search domains either.
        "Dns": ["127.0.0.1"],
        "DnsSearch": ["."],
        "DnsOptions": ["timeout:1", "attempts:1"],
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        # seccomp is not named: the engine's default profile applies, which was seen to be on.
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "IpcMode": "none",
        "GroupAdd": [str(group) for group in settings.user.groups],
        "PidsLimit": policy.pids,
        "Memory": policy.memory_bytes,
        "MemorySwap": policy.memory_bytes,
        "NanoCpus": int(min(policy.cpus, settings.engine.cpus) * 1e9),
        "OomScoreAdj": 500,
        "Ulimits": [
            {"Name": "nofile", "Soft": policy.open_files, "Hard": policy.open_files},
            {"Name": "core", "Soft": 0, "Hard": 0},
            # /dev/mqueue is writable: no message queue, or it would be a place to keep data.
            {"Name": "msgqueue", "Soft": 0, "Hard": 0},
        ],
        "Init": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(policy.log_bytes), "max-file": "1"}},
        "Mounts": _mounts(spec, settings, masks),
        "Tmpfs": _tmpfs(policy.tmpfs_bytes, masks),
    }
    if settings.engine.cgroup_v1:
        # Where swap is not accounted for, MemorySwap has no effect; the second version needs no such help.
        config["MemorySwappiness"] = 0
    if settings.engine.remaps_users:
        # The user was chosen in the host's terms; it is not root, and holds no capability to be contained.
        config["UsernsMode"] = "host"
    return config


def _mounts(spec: SandboxSpec, settings: JobSettings, masks: Masks) -> list[dict[str, Any]]:
    """Workspace and bus, and nothing else but what hides parts of the workspace. The engine mounts parents first."""
    source = settings.workspace_source
    return [
        _bind(source, WORKSPACE_PATH, read_only=False),
        _bind(spec.bus_folder, BUS_PATH, read_only=True),
        *(_bind(source / path, _inside(path), read_only=False) for path in masks.pinned),
        *(_bind(Path("/dev/null"), _inside(path), read_only=True) for path in masks.files),
    ]


def _bind(source: Path, target: str, *, read_only: bool) -> dict[str, Any]:
    """Unlike a `-v` mount, one whose source is missing is refused instead of made as root."""
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _tmpfs(size: int, masks: Masks) -> dict[str, str]:
    return {
        TMP_PATH: f"rw,exec,nosuid,nodev,size={size},mode=1777",
        **{_inside(path): _FROZEN_EMPTY for path in masks.folders},
    }


def _inside(path: Path) -> str:
    return str(PurePosixPath(WORKSPACE_PATH, *path.parts))


def controls(container: Mapping[str, Any]) -> dict[str, Any]:
    """What `docker inspect` says is in force, as the JSON of an event."""
    config, host = container["Config"], container["HostConfig"]
    return {
        "backend": "docker",
        "containerId": container["Id"],
        "imageDigest": container["Image"],
        "runtime": host["Runtime"],
        "user": config["User"],
        "networkMode": host["NetworkMode"],
        "readOnlyRoot": host["ReadonlyRootfs"],
        "privileged": host["Privileged"],
        "capDrop": host["CapDrop"] or [],
        "capAdd": host["CapAdd"] or [],
        "securityOptions": host["SecurityOpt"] or [],
        "ipcMode": host["IpcMode"],
        "pidMode": host["PidMode"],
        "usernsMode": host["UsernsMode"],
        "devices": host["Devices"] or [],
        "pidsLimit": host["PidsLimit"],
        "memoryBytes": host["Memory"],
        "memorySwapBytes": host["MemorySwap"],
        "cpus": host["NanoCpus"] / 1e9,
        "ulimits": {limit["Name"]: limit["Hard"] for limit in host["Ulimits"] or []},
        "tmpfs": host["Tmpfs"] or {},
        "mounts": [
            {
                "source": mount.get("Source", ""),
                "target": mount["Destination"],
                "readOnly": not mount["RW"],
                "propagation": mount["Propagation"],
            }
            for mount in container["Mounts"]
        ],
    }


def _short(identifier: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "", identifier)[:12].strip("-.") or "x"
