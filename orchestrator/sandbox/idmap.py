"""Idmapped bind mounts: a folder shown at a second place with its files' owners translated (Linux 5.12 and later).

Root's own workspace has to be writable by a sandbox whose user is never root, and what a sandbox leaves there has to
belong to root again. Changing owners on disk would do neither without walking the whole tree twice, and would leave it
changed after a crash. An idmapped mount translates at the time of access: on-disk 0 is seen as `SANDBOX_ID` and the
other way round.

All other ids are seen as they are on disk: a file of another user in root's workspace can be used as far as its mode
lets "others", because several on-disk ids cannot be shown as one.

**Never delete recursively at or above a mount point of this module**: it shows the user's own files. `detach` ends the
mount and removes the empty mount point, and `os.path.ismount` does not see such a mount: use `is_mounted`.
"""

import ctypes
import os
import select
import struct
import subprocess
import sys
from pathlib import Path

SANDBOX_ID = 65532

# These calls have one number on all architectures.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x100000
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

# As /proc/PID/uid_map wants it: on-disk id, id as seen, how many. 2**32 - 1 is no id.
_ID_MAP = (
    f"0 {SANDBOX_ID} 1\n"
    f"1 1 {SANDBOX_ID - 1}\n"
    f"{SANDBOX_ID} 0 1\n"
    f"{SANDBOX_ID + 1} {SANDBOX_ID + 1} {2**32 - 1 - (SANDBOX_ID + 1)}\n"
)

# A user namespace can only be made by a process that enters it, and one with threads cannot: hence a process of its
# own, which says that it is inside and waits until its namespace has been taken hold of. Forking this process instead
# would run Python in a copy of a process with threads.
_NAMESPACE_HOLDER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(1, b"+")
os.read(0, 1)
"""
_HOLDER_SECONDS = 10


class IdmapError(OSError):
    """Kernel, file system or a missing privilege do not allow an idmapped mount; the message says what failed."""


def mount_idmapped(source: Path, target: Path) -> None:
    """Show the folder `source` at the empty folder `target`, with what is mounted below it, owners translated.

    Blocks for some 30 ms. Set-user-ID bits and devices have no effect through the mount.

    Raises:
        IdmapError: it cannot be done here; nothing was mounted.
    """
    namespace = _user_namespace()
    try:
        tree = _syscall(
            "open_tree",
            _SYS_OPEN_TREE,
            _AT_FDCWD,
            os.fsencode(source),
            _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC,
        )
        try:
            # struct mount_attr: attributes to set, to clear, propagation (as it is), user namespace.
            set_attributes = _MOUNT_ATTR_IDMAP | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
            attributes = struct.pack("=QQQQ", set_attributes, 0, 0, namespace)
            _syscall(
                "mount_setattr",
                _SYS_MOUNT_SETATTR,
                tree,
                b"",
                _AT_EMPTY_PATH | _AT_RECURSIVE,
                attributes,
                len(attributes),
            )
            _syscall("move_mount", _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)
    finally:
        os.close(namespace)


def detach(target: Path) -> None:
    """End every mount at `target`, then remove the empty mount point. Nothing to do is not an error.

    Processes that use the mount (a sandbox that is being removed) keep it until they end.

    Raises:
        IdmapError: the mount could not be ended; `target` still shows the mounted files.
        OSError: the mount point is not empty, so it is left.
    """
    while is_mounted(target):
        if _libc().umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            raise _last_error("umount2")
    try:
        target.rmdir()
    except FileNotFoundError:
        pass


def is_mounted(target: Path, pid: int | None = None) -> bool:
    """Whether something is mounted exactly at `target` (absolute, links resolved), as process `pid` sees it (None: this
    one).

    Raises:
        OSError: that process's mounts cannot be read.
    """
    wanted = os.fsencode(target)
    table = Path("/proc", "self" if pid is None else str(pid), "mountinfo").read_bytes()
    return any(_unescape(line.split(b" ")[4]) == wanted for line in table.splitlines())


def _unescape(field: bytes) -> bytes:
    """The kernel writes blanks, tabs, line ends and backslashes in octal."""
    for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, character)
    return field


def _user_namespace() -> int:
    """A file descriptor of a new user namespace with the id map."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _NAMESPACE_HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
    ) as holder:
        if holder.stdout is None or holder.stderr is None:
            raise AssertionError("both were asked for")
        try:
            ready, _, _ = select.select([holder.stdout], [], [], _HOLDER_SECONDS)
            if not ready or holder.stdout.read(1) != b"+":
                holder.kill()
                reason = holder.stderr.read(1000).decode(errors="replace").strip()
                raise IdmapError(f"no user namespace can be made: {reason}")
            proc = Path("/proc", str(holder.pid))
            try:
                (proc / "uid_map").write_text(_ID_MAP)
                (proc / "gid_map").write_text(_ID_MAP)
                return os.open(proc / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise IdmapError(error.errno, f"the user namespace's id map is refused: {error.strerror}") from error
        finally:
            holder.kill()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(name: str, number: int, *arguments: int | bytes) -> int:
    """All arguments as the kernel takes them: a whole register each (ctypes would pass an int as 32 bits)."""
    result = _libc().syscall(
        ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments)
    )
    if result < 0:
        raise _last_error(name)
    return int(result)


def _last_error(name: str) -> IdmapError:
    number = ctypes.get_errno()
    return IdmapError(number, f"{name}: {os.strerror(number)}")
