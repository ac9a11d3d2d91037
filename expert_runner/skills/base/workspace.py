"""The workspace: every path a tool is given is resolved, checked and opened here.

A path may lead through links as long as it ends inside. It is resolved by name first, and that result is then walked
from the workspace's own descriptor, one component at a time, without following any link. So a link that is swapped in
between check and use makes the call fail and leads nowhere. (Not covered: a folder that is moved out of the workspace
while it is held open. Whoever can do that could as well have read or written there by themselves.)
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expert_runner.skills.base.failures import ToolError, about
from expert_runner.skills.base.legible import brief, is_system_text

MAX_PATH = 4_095

# O_PATH asks for no permission to list the folder; where it does not exist, reading must do.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Workspace:
    """The folder that a Run's tools are confined to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resolve(self, path: str) -> tuple[str, ...]:
        """The components of `path` below the workspace, all links followed. Nothing of it needs to exist.

        Raises:
            ToolError: it is not a path or leads outside.
        """
        if not path or not is_system_text(path):
            raise ToolError(f"{brief(path)} is not a path.")
        if len(path) > MAX_PATH:
            raise ToolError(f"The path has {len(path):,} characters; at most {MAX_PATH:,} are possible.")
        root = os.path.realpath(self.root)
        with about(path):
            real = os.path.realpath(os.path.join(root, self._relative(path)))  # noqa: PTH118 - no Path: it drops "x/.."
        if real != root and not real.startswith(root.rstrip("/") + "/"):
            raise ToolError(f"{brief(path)} is outside the workspace. Use a path relative to the workspace.")
        return tuple(part for part in real[len(root) :].split("/") if part)

    def _relative(self, path: str) -> str:
        """`path` without the workspace's own name in front, which may itself hold links."""
        name = str(self.root).rstrip("/")
        return path[len(name) + 1 :].lstrip("/") or "." if path == name or path.startswith(f"{name}/") else path

    @contextmanager
    def parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds `path`, and the name in it; the workspace itself is called `.`.

        The name may not exist. With `create`, missing folders above it are made.

        Raises:
            ToolError: `path` leads outside, or cannot be reached.
        """
        *above, name = self.resolve(path) or (".",)
        with about(path):
            folder = self._walk(above, create=create)
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _walk(self, names: list[str], *, create: bool) -> int:
        folder = os.open(self.root, _FOLDER)
        for name in names:
            held = folder
            try:
                folder = _enter(held, name, create=create)
            finally:
                os.close(held)
        return folder

    @contextmanager
    def regular_file(self, path: str) -> Iterator[int]:
        """A descriptor of the file at `path`, to read.

        Raises:
            ToolError: there is no such file, it is something else, or it is outside.
        """
        with self.parent(path) as (folder, name), about(path):
            # Without O_NONBLOCK, opening a named pipe would wait for a writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        try:
            with about(path):
                check_regular(path, os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def folder(self, path: str) -> Iterator[int]:
        """A descriptor of the folder at `path`, to list.

        Raises:
            ToolError: there is no such folder, or it is outside.
        """
        with self.parent(path) as (above, name), about(path):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def folder_path(self, path: str) -> str:
        """The absolute path of the folder at `path`, links resolved, for what takes no descriptor.

        Raises:
            ToolError: there is no such folder, it may not be entered, or it is outside.
        """
        names = self.resolve(path)
        with about(path):
            os.close(self._walk([*names, "."], create=False))
        return str(self.root.joinpath(*names))


def _enter(folder: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        pass  # somebody else made it just now
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)


def check_regular(path: str, status: os.stat_result) -> None:
    """Refuse what is not a regular file. To be asked of what is open: a name may mean something else a moment later.

    Raises:
        ToolError: `status` is that of something else.
    """
    if stat.S_ISREG(status.st_mode):
        return
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    advice = "; listDirectory shows what is in it" if stat.S_ISDIR(status.st_mode) else ""
    raise ToolError(f"{brief(path)} is {kind}, not a file{advice}.")
