"""What a Job has used, counted from its events."""

from dataclasses import dataclass

from expert_runner.contract import events as e
from expert_runner.contract.usage import NO_USAGE, Usage


@dataclass(slots=True)
class Totals:
    """A count that grows by one event at a time. `cost` is in US dollars, None while no price is known."""

    steps: int = 0
    usage: Usage = NO_USAGE
    cost: float | None = None

    def add(self, event: object) -> None:
        match event:
            case e.StartGeneration():
                self.steps += 1
            case e.Answer() | e.Retry() | e.CompleteRun():
                self.usage += event.usage
                cost = getattr(event, "cost", None)
                if cost is not None:
                    self.cost = (self.cost or 0.0) + cost
