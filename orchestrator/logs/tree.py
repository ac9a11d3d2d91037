"""The Runs of a Job as a tree: the coordinator and its branches, below each Run its delegates in the order of their
calls.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from orchestrator.store.layout import RunRecord


class Node(NamedTuple):
    """A Run in its tree. The depth of a coordinator is 0."""

    record: RunRecord
    depth: int


def tree(runs: Mapping[str, RunRecord], place: Callable[[RunRecord], tuple[int, int]]) -> tuple[Node, ...]:
    """All of `runs`, each after its caller.

    A Run whose caller is not among them, as an incomplete copy of a history may have, stands as a root after the
    others.

    Args:
        runs: by id, oldest first.
        place: where in its caller a delegate was called.
    """
    delegates: dict[str, list[RunRecord]] = {}
    for record in runs.values():
        if record.delegated_by is not None:
            delegates.setdefault(record.delegated_by.run_id, []).append(record)
    nodes: dict[str, Node] = {}

    def grow(roots: Iterable[RunRecord]) -> None:
        waiting = [Node(root, 0) for root in roots][::-1]
        while waiting:
            node = waiting.pop()
            if node.record.id in nodes:
                continue
            nodes[node.record.id] = node
            called = sorted(delegates.get(node.record.id, ()), key=place)
            waiting += [Node(record, node.depth + 1) for record in reversed(called)]

    grow(record for record in runs.values() if record.delegated_by is None)
    grow(r for r in runs.values() if r.delegated_by is not None and r.delegated_by.run_id not in runs)
    # What is left calls itself in a circle: damaged, and not to be left out.
    for record in runs.values():
        grow([record])
    return tuple(nodes.values())
