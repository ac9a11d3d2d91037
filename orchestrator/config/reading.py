"""Text files that the user wrote."""

from pathlib import Path

from orchestrator.errors import ConfigError

MAX_FILE_BYTES = 4 * 1024 * 1024
"""A larger file is taken for something else."""


def read_text(path: Path, named: str) -> str:
    """The text in the file `path`, which errors call `named`.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it cannot be read, is too large or is not UTF-8.
    """
    try:
        with path.open("rb") as source:
            raw = source.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{named}: larger than {MAX_FILE_BYTES // 1024 // 1024} MB; is this the right file?")
    try:
        # Some editors begin a file with a byte order mark.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{named}:{line}: not UTF-8 text") from None
