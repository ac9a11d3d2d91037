"""readTextFile: part of a text file of any size, in constant memory."""

import os

from expert_runner.skills.base.allowance import Allowance, work_on_files
from expert_runner.skills.base.definitions import MAX_TEXT, ReadTextFileArgs
from expert_runner.skills.base.failures import ToolError, about
from expert_runner.skills.base.legible import brief, decode, legible
from expert_runner.skills.base.tool import Outcome, Surroundings

CHUNK = 256 * 1024

ENOUGH_BYTES = 4 * (MAX_TEXT + 1)
"""More than :data:`MAX_TEXT` characters, whatever they are: a character of UTF-8 has at most four bytes."""


async def read_text_file(surroundings: Surroundings, args: ReadTextFileArgs) -> Outcome:
    if args.to_line is not None and args.to_line <= args.from_line:
        raise ToolError(
            f"`to` ({args.to_line}) must be greater than `from` ({args.from_line}): it is the line to stop before."
        )
    return await work_on_files(lambda allowance: _read(surroundings, args, allowance))


def _read(surroundings: Surroundings, args: ReadTextFileArgs, allowance: Allowance) -> Outcome:
    with surroundings.workspace.regular_file(args.path) as file, about(args.path):
        raw = _raw_lines(file, args, allowance)
    if not raw:
        return Outcome.text(f"{brief(args.path)} is empty.")
    if args.to_line is not None:
        raw = _first_lines(raw, args.to_line - args.from_line)
    return _excerpt(raw, args.from_line)


def _raw_lines(file: int, args: ReadTextFileArgs, allowance: Allowance) -> bytes:
    """The bytes from line `from` on, at most :data:`ENOUGH_BYTES`; none only if the file is empty.

    Raises:
        ToolError: there is no such line.
    """
    os.lseek(file, _offset_of_line(file, args, allowance), os.SEEK_SET)
    raw = b""
    while len(raw) < ENOUGH_BYTES and (chunk := os.read(file, ENOUGH_BYTES - len(raw))):
        allowance.check()
        raw += chunk
    if not raw and args.from_line:
        raise _beyond(args, args.from_line)
    return raw


def _offset_of_line(file: int, args: ReadTextFileArgs, allowance: Allowance) -> int:
    """Where line `from` begins, in bytes. A line of any length takes no memory."""
    wanted, line, offset, last = args.from_line, 0, 0, b"\n"
    while line < wanted:
        allowance.check()
        chunk = os.read(file, CHUNK)
        if not chunk:
            raise _beyond(args, line + (last != b"\n"))
        breaks = chunk.count(b"\n")
        if line + breaks >= wanted:
            at = -1
            for _ in range(wanted - line):
                at = chunk.index(b"\n", at + 1)
            return offset + at + 1
        line, offset, last = line + breaks, offset + len(chunk), chunk[-1:]
    return offset


def _beyond(args: ReadTextFileArgs, lines: int) -> ToolError:
    return ToolError(
        f"{brief(args.path)} has {lines:,} lines; `from` ({args.from_line:,}, counted from 0) is beyond its end."
    )


def _first_lines(raw: bytes, count: int) -> bytes:
    at = -1
    for _ in range(count):
        at = raw.find(b"\n", at + 1)
        if at < 0:
            return raw
    return raw[: at + 1]


def _excerpt(raw: bytes, first: int) -> Outcome:
    text = decode(raw)
    if len(text) <= MAX_TEXT:
        shown, notes = legible(text)
        return Outcome.text(shown, " ".join(notes))
    end = text.rfind("\n", 0, MAX_TEXT) + 1
    if end:
        following = first + text.count("\n", 0, end)
        cut = f"This is not all: lines {first:,} to {following - 1:,} are shown. Read on with `from`: {following}."
    else:
        end = MAX_TEXT
        cut = (
            f"Line {first:,} is longer than {MAX_TEXT:,} characters; only its beginning is shown. Read the rest of it "
            f"with exec (cut, head -c, tail -c), or the next line with `from`: {first + 1}."
        )
    shown, notes = legible(text[:end])
    return Outcome.text(shown, " ".join([*notes, cut]))
