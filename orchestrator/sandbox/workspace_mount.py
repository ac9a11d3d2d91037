"""The place where root's workspace is mounted with its owners translated, for one Job."""

import socket
import struct
import sys
from pathlib import Path

from orchestrator.errors import SandboxError
from orchestrator.sandbox.idmap import SANDBOX_ID, detach, is_mounted, mount_idmapped


class WorkspaceMount:
    """At most one mount, at `point`. Both calls block."""

    def __init__(self, point: Path) -> None:
        self.point = point

    def attach(self, workspace: Path, engine_socket: str | None) -> Path:
        """Mount `workspace` and make sure that the engine sees it: else it would mount the empty folder below.

        Returns:
            What is to be mounted in sandboxes.

        Raises:
            SandboxError: it cannot be done on this machine; the message says what to do instead.
        """
        way_out = (
            "Run perstack as an ordinary user, or give the workspace to one, for example: "
            f"chown -R {SANDBOX_ID}:{SANDBOX_ID} {workspace}"
        )
        try:
            self.point.mkdir(mode=0o700)
            mount_idmapped(workspace, self.point)
            is_seen = is_mounted(self.point, _listening_process(engine_socket))
        except OSError as error:
            raise SandboxError(
                f"Experts never run as root, and root's workspace {workspace} cannot be shown to them as theirs: "
                f"{error}. {way_out}"
            ) from error
        if not is_seen:
            raise SandboxError(
                f"The Docker Engine does not see what this process mounts, so root's workspace {workspace} cannot "
                f"be shown to Experts as theirs. {way_out}"
            )
        return self.point

    def detach(self) -> None:
        """End the mount. The files it showed are not touched, whatever happens.

        Raises:
            SandboxError: it is still there.
        """
        if sys.platform != "linux":
            return
        try:
            detach(self.point)
        except OSError as error:
            raise SandboxError(
                f"The workspace is still mounted at {self.point} ({error}). Do not delete that folder: it shows your "
                f"own files. End the mount with: umount {self.point}"
            ) from error


def _listening_process(engine_socket: str | None) -> int:
    """Who made the engine's socket: the engine, or the system's process 1 on its behalf.

    Raises:
        OSError: the engine is not on this machine, or in another container.
    """
    if engine_socket is None:
        raise OSError("the Docker Engine is on another machine")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        probe.connect(engine_socket)
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = int(struct.unpack("3i", credentials)[0])
    if pid == 0 or not Path("/proc", str(pid)).exists():
        raise OSError("the Docker Engine cannot be seen from this container")
    return pid
