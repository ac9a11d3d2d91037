"""Failures in words that a model can act on."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from expert_runner.skills.base.definitions import ToolSpec
from expert_runner.skills.base.legible import brief

MAX_SHOWN_ERRORS = 5


class ToolError(Exception):
    """A call cannot be carried out; the text says why and, where there is a way, what to do."""


_ADVICE = {
    errno.ENOENT: "does not exist. Paths are relative to the workspace; listDirectory shows what is there",
    errno.EISDIR: "is a folder, not a file; listDirectory shows what is in it",
    errno.ENXIO: "is a named pipe, a socket or a device, not a file",
    errno.ENOTDIR: "is not a folder, or leads through something that is not",
    errno.EACCES: "cannot be accessed: permission denied",
    errno.EPERM: "cannot be accessed: the operation is not permitted",
    errno.EROFS: "cannot be changed: it is on a read-only file system",
    errno.ENAMETOOLONG: "is too long: a name has at most 255 bytes, a path 4,095",
    errno.ELOOP: "is a link that leads in a circle, or that somebody changed meanwhile",
    errno.ENOSPC: "cannot be written: the disk is full",
    errno.EDQUOT: "cannot be written: the disk quota is used up",
    errno.EMFILE: "cannot be opened: too many files are open; try again with fewer calls at a time",
    errno.ENFILE: "cannot be opened: too many files are open; try again with fewer calls at a time",
}


def explain_os_error(error: OSError) -> str:
    """What went wrong, as the end of a sentence that names the thing."""
    if error.errno in _ADVICE:
        return _ADVICE[error.errno]
    return f"failed: {os.strerror(error.errno) if error.errno else error}"


@contextmanager
def about(path: str) -> Iterator[None]:
    """Turn an OSError into a ToolError about `path`, which is what the model called it."""
    try:
        yield
    except OSError as error:
        raise ToolError(f"{brief(path)} {explain_os_error(error)}.") from error


def explain_arguments(name: str, spec: ToolSpec, error: ValidationError) -> str:
    """Which arguments do not fit, what was expected and how a call looks."""
    fields = {field.alias or key: field.description for key, field in spec.args.model_fields.items()}
    details = error.errors(include_url=False)
    lines = [f"The arguments of {name} do not fit:"]
    for detail in details[:MAX_SHOWN_ERRORS]:
        where = ".".join(brief(str(part), quoted=False) for part in detail["loc"])
        lines.append(f"- {where}: {_expectation(detail, fields)}")
    if len(details) > MAX_SHOWN_ERRORS:
        lines.append(f"- and {len(details) - MAX_SHOWN_ERRORS} more")
    lines.append(f"Example: {json.dumps(spec.example, ensure_ascii=False)}")
    return "\n".join(lines)


def _expectation(detail: Any, fields: dict[str, str | None]) -> str:
    match detail["type"]:
        case "missing":
            return f"is required. {fields.get(detail['loc'][0])}"
        case "extra_forbidden":
            return f"is unknown. The tool takes: {', '.join(fields) or 'no arguments'}"
        case _:
            return f"{detail['msg']}; it is {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    match value:
        case str() if len(value) > 80:
            return f"a text of {len(value):,} characters"
        case list() | tuple() | dict() if len(value) > 5:
            return f"one with {len(value):,} elements"
        case _:
            return brief(repr(value), quoted=False)
