"""The courses of a Job's Runs, recorded and run again, compared."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall
from orchestrator.replay.course import SETTLED, Course, Moment, Told
from orchestrator.replay.report import Difference, Place, Unlike, first_unlike
from orchestrator.replay.tree import Lineage

SURROUNDINGS_TOOLS = frozenset({(BASE_SKILL, "healthCheck")})
"""Tools that tell of the sandbox and the moment: of theirs only whether they failed is compared."""

_WORKSPACE = "{workspace}"

Courses = Mapping[Lineage, Course]


class Comparison:
    """What was recorded and what happened when it was run again.

    Args:
        recorded, replayed: the courses of all Runs.
        workspaces: the folders the tools saw then and now: texts that differ in them alone are the same.
    """

    def __init__(self, recorded: Courses, replayed: Courses, workspaces: tuple[str | None, str]) -> None:
        self._recorded = recorded
        self._replayed = replayed
        self._then, self._now = workspaces

    def first(self) -> Difference | None:
        """Of all Runs' first differences, the one that was recorded first."""
        found = [found for lineage in self._recorded for found in self._of_run(lineage)]
        found.sort(key=lambda item: item[0].event.timestamp)
        return found[0][1] if found else None

    def _of_run(self, lineage: Lineage) -> Iterator[tuple[Place, Difference]]:
        replayed = self._replayed.get(lineage)
        # A Run that is not made any more shows in its caller's.
        if replayed is not None:
            for place, difference in self._differences(lineage, self._recorded[lineage], replayed):
                yield place, difference
                return

    def _differences(self, lineage: Lineage, recorded: Course, replayed: Course) -> Iterator[tuple[Place, Difference]]:
        for index, moment in enumerate(recorded.moments):
            if index == len(replayed.moments):
                kind = moment.place.event.type
                yield _unlike(moment.place, Unlike("type", kind, _end(replayed.end)))
                return
            again = replayed.moments[index]
            if unlike := first_unlike(moment.content, again.content):
                yield _unlike(moment.place, unlike)
            for call in moment.calls:
                if told := recorded.results.get(call.id):
                    yield from self._result(call, told, replayed.results.get(call.id))
            if not moment.was_disturbed:
                yield from self._delegates(lineage, moment)
                yield from _follows(moment, again)
        yield from _ends(recorded, replayed)

    def _result(self, call: ToolCall, told: Told, again: Told | None) -> Iterator[tuple[Place, Difference]]:
        if told.is_made_up:
            return
        if again is None:
            yield _unlike(told.place, Unlike(told.field, self._content(told, self._then), None))
            return
        is_about_itself = (call.skill_name, call.tool_name) in SURROUNDINGS_TOOLS
        # How a delegate fails is not repeated: it is one that has nothing more to say.
        has_failed = call.skill_type is SkillType.DELEGATE and told.result.is_error
        if is_about_itself or has_failed:
            if told.result.is_error != again.result.is_error:
                yield _unlike(told.place, Unlike(f"{told.field}.isError", told.result.is_error, again.result.is_error))
            return
        unlike = first_unlike(self._content(told, self._then), self._content(again, self._now))
        if unlike is not None:
            yield _unlike(told.place, unlike._replace(field=f"{told.field}.{unlike.field}"))

    def _content(self, told: Told, workspace: str | None) -> Any:
        text = told.result.encode().decode()
        return json.loads(text.replace(workspace, _WORKSPACE) if workspace else text)

    def _delegates(self, lineage: Lineage, moment: Moment) -> Iterator[tuple[Place, Difference]]:
        """Whether the same calls began a Run."""
        for index, call in enumerate(moment.calls):
            theirs = (*lineage, call.id)
            if call.skill_type is SkillType.DELEGATE and (theirs in self._recorded) != (theirs in self._replayed):
                then, now = ("its Run" if theirs in runs else None for runs in (self._recorded, self._replayed))
                yield _unlike(moment.place, Unlike(f"toolCalls[{index}]", then, now))


def _follows(moment: Moment, again: Moment) -> Iterator[tuple[Place, Difference]]:
    """Whether the same transitions follow."""
    for index, follow in enumerate(moment.follows):
        kind = again.follows[index].type if index < len(again.follows) else None
        if kind != follow.type:
            yield _unlike(follow.place, Unlike("type", follow.type, kind))
            return
    if len(again.follows) > len(moment.follows):
        last = moment.follows[-1].place if moment.follows else moment.place
        yield last, last.problem(f"{again.follows[len(moment.follows)].type} follows when the Job is run again")


def _ends(recorded: Course, replayed: Course) -> Iterator[tuple[Place, Difference]]:
    last = recorded.last
    if last is None or recorded.end is None:
        return
    more = replayed.moments[len(recorded.moments) :]
    if more:
        what = more[0].place.event.type
        yield last, last.problem(f"the Run goes on with {what} when the Job is run again, where its record ends")
    elif recorded.end.state in SETTLED and (replayed.end is None or replayed.end.state is not recorded.end.state):
        yield _unlike(last, Unlike("checkpoint.state", recorded.end.state, _end(replayed.end)))


def _unlike(place: Place, unlike: Unlike) -> tuple[Place, Difference]:
    return place, place.difference(unlike)


def _end(checkpoint: Checkpoint | None) -> str | None:
    """How a Run ended, for people."""
    if checkpoint is None:
        return None
    why = f": {checkpoint.error.message}" if checkpoint.error is not None else ""
    return f"{checkpoint.state}{why}"
