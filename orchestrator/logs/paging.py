"""A page of what was found, and what stands around it."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from orchestrator.logs.reading import Entry, JobReader

T = TypeVar("T")


class Page(Generic[T]):
    """The latest `take` (0: all) of what was found, without the `offset` last ones; the latest last. All of it is given
    while it is found; anything less is known only when everything was.

    Attributes:
        total: how much was found, once all was taken.
    """

    def __init__(self, found: Iterable[T], take: int, offset: int) -> None:
        self._found = found
        self._take = take
        self._offset = offset
        self.total = 0
        self.given = 0

    def __iter__(self) -> Iterator[T]:
        kept: deque[T] = deque()
        for item in self._found:
            self.total += 1
            kept.append(item)
            if len(kept) > self._take + self._offset:
                oldest = kept.popleft()
                if self._take == 0:
                    self.given += 1
                    yield oldest
        while len(kept) > self._offset:
            self.given += 1
            yield kept.popleft()


def with_context(reader: JobReader, matches: Iterable[Entry], around: int) -> Iterator[tuple[Entry, bool]]:
    """`matches`, with up to `around` events of the same Run before and after each, in the order of their time; of each
    whether it is a match. Every event comes once.
    """
    positions: dict[str, list[int]] = {}
    for match in matches:
        positions.setdefault(match.run_id, []).append(match.position)
    for entry in reader.interleaved(positions):
        of_run, here = positions[entry.run_id], entry.position
        # A Run's matches are in order: the nearest ones are on both sides of where this one belongs.
        place = bisect_left(of_run, here)
        is_match = of_run[place : place + 1] == [here]
        if any(abs(position - here) <= around for position in of_run[max(0, place - 1) : place + 1]):
            yield entry, is_match
