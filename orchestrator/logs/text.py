"""Texts for a terminal: made harmless, made short, and numbers with their units."""

import unicodedata
from datetime import UTC, datetime

_JOINERS = "\u200c\u200d"
"""Invisible, and parts of ordinary writing and of emoji."""

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


def safe(text: str) -> str:
    """`text` with everything escaped that could move the cursor, colour, reorder or hide: what models and tools wrote
    is shown, never carried out. Tabs stay; line breaks are escaped too.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def _is_harmless(character: str) -> bool:
    # Spaces of other widths are ordinary writing; Python calls them not printable.
    return (
        character.isprintable() or character in _JOINERS or character == "\t" or unicodedata.category(character) == "Zs"
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def lines_of(text: str) -> list[str]:
    """The lines of `text`, each harmless (:func:`safe`)."""
    return [safe(line) for line in text.replace("\r\n", "\n").split("\n")]


def one_line(text: str, width: int) -> str:
    """`text` on one line, its white space folded; what exceeds `width` characters is left out."""
    # A text can be megabytes long, of which a line shows the beginning.
    head = " ".join(text[: 4 * width].split())
    is_whole = len(text) <= 4 * width and len(head) <= width
    return head if is_whole else head[: width - 1] + "…"


def moment(timestamp: int) -> str:
    """A point in time (Unix milliseconds), to the millisecond and in UTC."""
    at = datetime.fromtimestamp(timestamp / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{timestamp % 1000:03}Z"


def duration(milliseconds: float) -> str:
    """A length of time, as exact as it is of use."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < _MINUTE_MS:
        return f"{milliseconds / 1000:.1f} s"
    if milliseconds < _HOUR_MS:
        return f"{milliseconds // _MINUTE_MS:.0f} min {milliseconds % _MINUTE_MS // 1000:.0f} s"
    return f"{milliseconds // _HOUR_MS:.0f} h {milliseconds % _HOUR_MS // _MINUTE_MS:.0f} min"


def number_of(number: int, singular: str, plural: str | None = None) -> str:
    """`number` of some things; their `plural` is that with an s unless it is given."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def cost(dollars: float | None) -> str:
    """US dollars; nothing can be said of a model without known prices."""
    return "unknown" if dollars is None else f"${dollars:,.4f}"
