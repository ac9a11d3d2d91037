"""What the events of one Run say in sum, in one pass over them."""

from collections.abc import Iterable

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import CheckpointStatus, RunError
from expert_runner.contract.messages import TextPart, UserMessage
from expert_runner.contract.tools import SkillType, ToolCall
from orchestrator.store.history import HistoryEvent
from orchestrator.store.layout import RunRecord
from orchestrator.store.totals import Totals


class Digest:
    """One Run in sum.

    Attributes:
        status: where the Run stands.
        totals: steps, tokens and cost of this Run alone, without what a branch was made from.
        worked_ms: milliseconds it was at work or waited for its delegates; not those between two processes, in which
            it waited for the user or had been killed.
        last_at: when its last event happened (Unix milliseconds).
        checkpoint_id: the last checkpoint it told of.
        text: its result, once completed.
        queries: what it was asked. A branch begins with its second query, or with none.
        question: the interactive call whose answer it waits for.
        failure: the event that stopped it with an error, the last time it was.
        sandboxes_lost: how often its sandbox ended before it did.
    """

    def __init__(self) -> None:
        self.status = CheckpointStatus.INIT
        self.totals = Totals()
        self.events = 0
        self.worked_ms = 0
        self.last_at: int | None = None
        self.checkpoint_id: str | None = None
        self.text: str | None = None
        self.queries: list[str] = []
        self.question: ToolCall | None = None
        self.failure: e.StopRunByError | None = None
        self.sandboxes_lost = 0
        self._clock: int | None = None
        self._calls: dict[str, ToolCall] = {}
        self._delegating: list[tuple[int, tuple[str, ...]]] = []

    @classmethod
    def of(cls, events: Iterable[HistoryEvent]) -> "Digest":
        digest = cls()
        for event in events:
            digest.add(event)
        return digest

    @property
    def error(self) -> RunError | None:
        """Why the Run is stopped, if it is by an error."""
        is_stopped = self.status is CheckpointStatus.STOPPED_BY_ERROR
        return self.failure.error if self.failure is not None and is_stopped else None

    def add(self, event: HistoryEvent) -> None:
        """Take the Run's next event into account."""
        self.events += 1
        self.last_at = event.timestamp
        self.totals.add(event)
        if isinstance(event, e.InitializeRuntime):
            self._clock = event.timestamp
        elif isinstance(event, e.SandboxLost):
            self.sandboxes_lost += 1
        elif isinstance(event, e.BaseRunEvent):
            self._count_time(event.timestamp)
            self._follow(event)

    def place_of(self, delegate: RunRecord) -> tuple[int, int]:
        """Where in this Run `delegate` was called: in which of its answers, and where in that. Providers that number
        calls give the same ids in every answer, so the time tells which one it was.
        """
        call_id = delegate.delegated_by.tool_call_id if delegate.delegated_by is not None else ""
        for answer in range(len(self._delegating) - 1, -1, -1):
            answered_at, ids = self._delegating[answer]
            if call_id in ids and answered_at <= delegate.created_at:
                return answer, ids.index(call_id)
        return len(self._delegating), 0

    def _count_time(self, now: int) -> None:
        if self._clock is not None:
            # The system's clock may have been set back.
            self.worked_ms += max(0, now - self._clock)
        self._clock = now

    def _follow(self, event: e.BaseRunEvent) -> None:
        self.status = CheckpointStatus.PROCEEDING
        match event:
            case e.StartRun():
                self.text = None
                self.queries += [text for text in map(_text, event.input_messages) if text is not None]
            case e.Answer():
                self._remember_calls(event)
            case e.ResumeToolCalls():
                self.question = None
            case e.ContinueToNextStep():
                self.checkpoint_id = event.checkpoint.id
            case e.Stop():
                self.status = event.checkpoint.status
                self.checkpoint_id = event.checkpoint.id
                if isinstance(event, e.StopRunByError):
                    self.failure = event
                elif isinstance(event, e.CompleteRun):
                    self.text = event.text

    def _remember_calls(self, event: e.Answer) -> None:
        if event.new_message is not None:
            self._calls = {call.id: call for call in event.tool_calls if isinstance(call, ToolCall)}
            delegating = tuple(call.id for call in event.tool_calls if call.skill_type is SkillType.DELEGATE)
            if delegating:
                self._delegating.append((event.timestamp, delegating))
        if isinstance(event, e.CallInteractiveTool):
            # The event names the call; its arguments are where the answer is.
            self.question = self._calls.get(event.tool_call.id)


def _text(message: object) -> str | None:
    """The words of a message of the user's."""
    if not isinstance(message, UserMessage):
        return None
    return "".join(part.text for part in message.contents if isinstance(part, TextPart))
