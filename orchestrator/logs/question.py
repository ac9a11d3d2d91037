"""What can be asked of the log."""

from dataclasses import dataclass

from orchestrator.errors import ConfigError
from orchestrator.logs.selection import EVERYTHING, Selection

_PAGE = frozenset({"--take", "--offset", "--context"})
_ABOUT_EVENTS = frozenset({"--type", "--errors", "--tools", "--delegations", "--filter"})
_EXCLUDED = {
    "--checkpoint": ("shows one checkpoint", _PAGE | _ABOUT_EVENTS | {"--step", "--summary"}),
    "--messages": ("shows conversations, not events", _ABOUT_EVENTS | {"--context", "--summary"}),
    "--summary": ("counts everything", _PAGE),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the log.

    Attributes:
        job_id: of which Job; None: of the latest.
        selection: of which events.
        checkpoint_id: one checkpoint, whole.
        messages: conversations instead of events.
        summary: a summary instead of events: of the Job, or of the events that `selection` names.
        take, offset: which page; None: the latest one, of the usual length. `take` 0 is all.
        context: how many events before and after each.
        as_json: as JSON lines; `is_pretty`: indented.
        is_verbose: everything, on as many lines as it takes.

    Raises:
        ConfigError: two things are asked for that exclude each other.
    """

    job_id: str | None = None
    selection: Selection = EVERYTHING
    checkpoint_id: str | None = None
    messages: bool = False
    summary: bool = False
    take: int | None = None
    offset: int | None = None
    context: int | None = None
    as_json: bool = False
    is_pretty: bool = False
    is_verbose: bool = False

    def __post_init__(self) -> None:
        given = self._given()
        for option, (does, excluded) in _EXCLUDED.items():
            other = next((other for other in given if option in given and other in excluded), None)
            if other is not None:
                raise ConfigError(f"{option} {does}: leave {other} out")

    @property
    def wants_summary(self) -> bool:
        """Whether a summary is asked for, be it by asking for nothing in particular."""
        return self.summary or not (
            self.is_verbose or self.selection != EVERYTHING or _PAGE.intersection(self._given())
        )

    def _given(self) -> tuple[str, ...]:
        """The options, as the command line names them, that narrow down what is shown."""
        selection = self.selection
        options = {
            "--checkpoint": self.checkpoint_id is not None,
            "--messages": self.messages,
            "--summary": self.summary,
            "--step": selection.steps is not None,
            "--type": bool(selection.types),
            "--errors": selection.errors,
            "--tools": selection.tools,
            "--delegations": selection.delegations,
            "--filter": selection.expression is not None,
            "--take": self.take is not None,
            "--offset": self.offset is not None,
            "--context": self.context is not None,
        }
        return tuple(option for option, is_given in options.items() if is_given)
