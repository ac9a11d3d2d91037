"""Keeping the beginning and the end of an output of any length in constant memory."""

from expert_runner.skills.base.definitions import MAX_TEXT
from expert_runner.skills.base.legible import decode, legible

HALF = MAX_TEXT // 2


class Capture:
    """The first and the last :data:`HALF` bytes of what it is fed. A byte is at most one character."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = b""
        self._fed = 0

    @property
    def dropped(self) -> int:
        """Bytes that were not kept."""
        return self._fed - len(self._head) - len(self._tail)

    def feed(self, data: bytes) -> None:
        self._fed += len(data)
        room = HALF - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail = (self._tail + data)[-HALF:]

    def text(self) -> tuple[str, list[str]]:
        """What was kept, with a line in the middle that says what was not; and notes on what had to be replaced."""
        if not self.dropped:
            return legible(decode(bytes(self._head) + self._tail))
        head, head_notes = legible(decode(_without_cut_end(bytes(self._head))))
        tail, tail_notes = legible(decode(_without_cut_start(self._tail)))
        notes = [f"Near the beginning: {note}" for note in head_notes] + [
            f"Near the end: {note}" for note in tail_notes
        ]
        return f"{head}\n[… {self.dropped:,} bytes left out …]\n{tail}", notes


def _without_cut_start(raw: bytes) -> bytes:
    """`raw` without the rest of a character that began before it."""
    for start in range(min(4, len(raw))):
        if raw[start] & 0xC0 != 0x80:
            return raw[start:]
    return raw


def _without_cut_end(raw: bytes) -> bytes:
    """`raw` without the beginning of a character that ends after it."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 != 0x80:
            width = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return raw[:-back] if width > back else raw
    return raw
