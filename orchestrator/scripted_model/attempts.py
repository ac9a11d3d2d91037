"""How often each turn was asked for, which decides when its faults are over."""

import json
from collections import OrderedDict
from hashlib import blake2b

from orchestrator.scripted_model.answer import Cue
from orchestrator.scripted_model.prompt import Prompt

MAX_TURNS = 10_000
"""Turns that are counted; beyond them the one asked for longest ago starts again from zero."""


class Attempts:
    """Counts requests for the same turn of the same history.

    Runs with the same Expert, query and answers so far cannot be told apart, and share their count.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[int, int, bytes], int] = OrderedDict()

    def count(self, cue: Cue, prompt: Prompt) -> int:
        """The number of earlier requests for this turn; this one is counted from now on."""
        digest = blake2b(json.dumps(prompt.settled).encode(), digest_size=16).digest()
        key = (cue.conversation, cue.index, digest)
        attempt = self._counts.pop(key, 0)
        self._counts[key] = attempt + 1
        if len(self._counts) > MAX_TURNS:
            self._counts.popitem(last=False)
        return attempt
