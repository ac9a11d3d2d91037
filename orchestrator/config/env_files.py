"""Env files and the variables that are passed into sandboxes. A value never stands in an error."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import parse_stream

from orchestrator.config.reading import read_text
from orchestrator.errors import ConfigError, MissingKeyError

DEFAULT_ENV_FILES = (Path(".env"), Path(".env.local"))


class Environment(NamedTuple):
    """What env files and the process set.

    Attributes:
        variables: all of them.
        files: the files that were read, absolute; where one is a link, what it leads to as well.
    """

    variables: dict[str, str]
    files: tuple[Path, ...]


def read_env(paths: Sequence[Path], base: Mapping[str, str], folder: Path | None = None) -> Environment:
    """The variables of env files and of the process: a later file wins over an earlier one, `base` over all of them.

    Args:
        paths: the files; none named: those of :data:`DEFAULT_ENV_FILES` that exist.
        base: the environment of the process.
        folder: what relative paths are relative to; None: the current folder.

    Raises:
        ConfigError: a named file does not exist, a file cannot be read or a line in it is no assignment.
    """
    variables: dict[str, str] = {}
    files: dict[Path, None] = {}
    for path in paths or DEFAULT_ENV_FILES:
        file = (folder or Path.cwd()) / path
        text = _read(file, str(path), is_optional=not paths)
        if text is not None:
            variables |= _parse(text, str(path))
            files |= dict.fromkeys((file.absolute(), file.resolve()))
    return Environment(variables | dict(base), tuple(files))


def check_passed_env(names: Iterable[str], key_names: Collection[str], variables: Mapping[str, str]) -> None:
    """Check that the variables `names` may and can be passed into sandboxes.

    Args:
        names: what the user wants to pass.
        key_names: the variables that hold provider keys.
        variables: all that is set.

    Raises:
        ConfigError: one is, or holds, a provider key, or is not set.
    """
    keys = {value: name for name in key_names if (value := variables.get(name))}
    for name in names:
        if name in key_names:
            raise ConfigError(
                f"--env {name}: a provider's key never enters a sandbox; model calls are made outside of it"
            )
        if name not in variables:
            raise MissingKeyError(f"--env {name}: not set; set it in the environment or in an env file (--env-path)")
        if variables[name] in keys:
            raise ConfigError(
                f"--env {name}: it holds the key {keys[variables[name]]}; a provider's key never enters a sandbox"
            )


def _read(file: Path, named: str, *, is_optional: bool) -> str | None:
    try:
        return read_text(file, named)
    except FileNotFoundError:
        if is_optional:
            return None
        raise ConfigError(f"{named}: there is no such env file") from None


def _parse(text: str, named: str) -> dict[str, str]:
    """The assignments in `text`. `${NAME}` in a value stands for itself: a key may hold a `$`."""
    variables = {}
    for binding in parse_stream(StringIO(text)):
        if binding.key is None and not binding.error:
            continue
        written = binding.original.string
        line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        if binding.error or binding.key is None or binding.value is None:
            raise ConfigError(
                f"{named}:{line}: not an assignment; expected NAME=value, or a comment that begins with #"
            )
        if "\0" in binding.value or "\0" in binding.key:
            raise ConfigError(f"{named}:{line}: has a NUL character, which no environment can hold")
        variables[binding.key] = binding.value
    return variables
