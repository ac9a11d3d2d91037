"""Bytes and names from anywhere as text that is safe in JSON, in a model's request and in a log."""

import os
import re

MAX_BRIEF = 200


_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def decode(raw: bytes) -> str:
    """`raw` as text that is still to be made :func:`legible`: at most one character a byte."""
    return raw.decode("utf-8", errors="surrogateescape")


def legible(text: str) -> tuple[str, list[str]]:
    """What :func:`decode` gave, or a piece of it, fit to be shown; and what had to be replaced, in words."""
    notes = []
    text, broken = _NOT_UTF8.subn("\ufffd", text)
    if broken:
        notes.append(f"{broken:,} bytes are not UTF-8 and shown as \ufffd.")
    nuls = text.count("\0")
    if nuls:
        notes.append(f"{nuls:,} NUL bytes are shown as \u2400.")
        text = text.replace("\0", "\u2400")
    return text, notes


def is_system_text(text: str) -> bool:
    """Whether `text` can be a path or an argument of a program."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def brief(name: str, *, quoted: bool = True) -> str:
    """A name on one line: cut when it is long, escaped where it is not printable."""
    if len(name) > MAX_BRIEF:
        name = f"{name[:MAX_BRIEF]}…"
    if not name.isprintable():
        name = "".join(
            character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
            for character in name
        )
    return f"'{name}'" if quoted else name
