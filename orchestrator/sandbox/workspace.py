"""The workspace on the host: made ready, whose it is, and what in it no sandbox may see. No container engine here."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SandboxError
from orchestrator.sandbox.backend import SandboxOwner
from orchestrator.sandbox.idmap import SANDBOX_ID


@dataclass(frozen=True, slots=True)
class SandboxUser:
    """As whom everything in a sandbox runs.

    Attributes:
        uid, gid: as the engine is told.
        groups: supplementary groups.
        owner: the same user as the host sees it.
        idmapped: the workspace must be mounted through an idmapped mount for this user to own it.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    owner: SandboxOwner
    idmapped: bool = False


@dataclass(frozen=True, slots=True)
class Masks:
    """What the mount of the workspace hides. All paths are relative to the workspace.

    Attributes:
        folders: shown empty.
        files: shown empty.
        pinned: the folders on the way to them. Each is mounted on itself, because a mount point cannot be renamed:
        otherwise a
            sandbox could move `a` to `b`, and the next sandbox, which masks `a/secret`, would see `b/secret`.
    """

    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    pinned: tuple[Path, ...] = ()


def prepare_workspace(workspace: Path, history: Path) -> Path:
    """Make the workspace if it is missing; give its path with links resolved.

    Raises:
        SandboxError: it is no folder, cannot be made or written, or lies inside the history.
    """
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        resolved = workspace.resolve(strict=True)
    except FileExistsError as error:
        raise SandboxError(f"The workspace {workspace} is not a folder. Choose another with --workspace.") from error
    except (OSError, RuntimeError) as error:
        raise SandboxError(f"The workspace {workspace} cannot be made: {error}.") from error
    if resolved.is_relative_to(history.resolve()):
        raise SandboxError(
            f"The workspace {workspace} lies inside the history {history}, which no Expert may touch. "
            "Choose another with --workspace."
        )
    if not os.access(resolved, os.R_OK | os.W_OK | os.X_OK):
        raise SandboxError(
            f"The workspace {workspace} cannot be written by {_user_text(os.geteuid())}. "
            "Choose another with --workspace, or make it writable."
        )
    return resolved


def sandbox_user(workspace: Path, *, rootless: bool) -> SandboxUser:
    """Choose the user for whom the workspace is writable and whose files belong, on the host, to whoever owns the
    workspace.

    An ordinary user: that user. Root in another user's workspace: that other user. Root in root's own workspace: a user
    without a name, behind an idmapped mount. An engine that itself runs without root (`rootless`) calls its own user 0.

    Raises:
        SandboxError: the mode of the workspace keeps its own owner from writing it.
    """
    folder = workspace.stat()
    uid, gid = os.geteuid(), os.getegid()
    if rootless:
        return SandboxUser(0, 0, (), SandboxOwner(uid, gid))
    if uid != 0:
        # The group through which the workspace may be writable, and no other: the sandbox needs none of the rest.
        shared = folder.st_gid != gid and folder.st_gid != 0 and folder.st_gid in os.getgroups()
        return SandboxUser(uid, gid, (folder.st_gid,) if shared else (), SandboxOwner(uid, gid))
    if folder.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        raise SandboxError(
            f"The workspace {workspace} cannot be written by {_user_text(folder.st_uid)}, as whom Experts run there. "
            f"Make it writable with: chmod u+rwx {workspace}"
        )
    if folder.st_uid != 0:
        # A group 0 would be root's group inside: harmless without capabilities, but files of the host may trust it.
        group = folder.st_gid or folder.st_uid
        return SandboxUser(folder.st_uid, group, (), SandboxOwner(folder.st_uid, group))
    return SandboxUser(SANDBOX_ID, SANDBOX_ID, (), SandboxOwner(SANDBOX_ID, SANDBOX_ID), idmapped=True)


def masks(workspace: Path, history: Path, hidden: Sequence[Path]) -> Masks:
    """What has to be masked now. Cheap enough to ask before every start, so that a file made since is masked too.

    A file that is replaced on the host (as editors do) while a sandbox runs becomes visible in that sandbox: the kernel
    ends the mask with the file it covered. The history is only ever made, never replaced.

    Args:
        workspace: with links resolved.
        history: made if it lies inside the workspace and is missing: otherwise a sandbox could make it first.

    Raises:
        SandboxError: the history inside the workspace cannot be made or is not a folder.
    """
    history = history.resolve()
    folders: list[Path] = []
    files: list[Path] = []
    if history.is_relative_to(workspace):
        try:
            history.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SandboxError(f"The history {history} cannot be made: {error}.") from error
        folders.append(history.relative_to(workspace))
    for path in {path.resolve() for path in hidden}:
        if path.is_relative_to(workspace) and not path.is_relative_to(history) and path.exists():
            (folders if path.is_dir() else files).append(path.relative_to(workspace))
    pinned = {ancestor for path in (*folders, *files) for ancestor in _between(path)}
    return Masks(tuple(sorted(folders)), tuple(sorted(files)), tuple(sorted(pinned - set(folders))))


def _between(path: Path) -> Iterator[Path]:
    """The folders between the workspace and `path`."""
    return (ancestor for ancestor in path.parents if ancestor.parts)


def _user_text(uid: int) -> str:
    try:
        import pwd

        return f"user {pwd.getpwuid(uid).pw_name}"
    except (ImportError, KeyError):
        return f"user {uid}"
