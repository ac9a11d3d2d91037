"""writeTextFile: replace a file whole, so that nobody ever sees half of it."""

import os
import secrets
import stat

from expert_runner.skills.base.allowance import work_on_files
from expert_runner.skills.base.definitions import WriteTextFileArgs
from expert_runner.skills.base.failures import about
from expert_runner.skills.base.legible import brief
from expert_runner.skills.base.tool import Outcome, Surroundings
from expert_runner.skills.base.workspace import check_regular


async def write_text_file(surroundings: Surroundings, args: WriteTextFileArgs) -> Outcome:
    data = args.text.encode()

    def write() -> None:
        with surroundings.workspace.parent(args.path, create=True) as (folder, name), about(args.path):
            replace(folder, name, data, path=args.path)

    await work_on_files(lambda _: write())
    return Outcome.text(f"Wrote {len(data):,} bytes to {brief(args.path)}.")


def replace(folder: int, name: str, data: bytes, *, path: str) -> None:
    """Make `data` the content of file `name` in `folder`, which the model called `path`.

    The content is written beside the file and takes its place at once: readers see the old or the new one, and a full
    disk loses neither. The mode stays; a hard link to the old content is no longer one to this file.

    Raises:
        ToolError: something that is not a file is in the way.
        OSError: it cannot be written.
    """
    mode = _mode_of(folder, name, path)
    temporary = f".perstack-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o666, dir_fd=folder)
    try:
        try:
            if mode is not None:
                os.fchmod(file, mode)
            while data:
                data = data[os.write(file, data) :]
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def _mode_of(folder: int, name: str, path: str) -> int | None:
    """The permissions of the file that is there, which must be one that may be written; None if there is none."""
    try:
        # Opening it is what tells whether it may be written. Without O_NONBLOCK a named pipe would wait for a reader.
        file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    check_regular(path, status)
    return stat.S_IMODE(status.st_mode)
