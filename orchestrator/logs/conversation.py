"""What was said in a Run: its messages whole, in order."""

from collections.abc import Iterator

from expert_runner.contract.messages import Message
from expert_runner.contract.model import Model
from orchestrator.errors import StoreError
from orchestrator.logs.reading import JobReader


class Said(Model):
    """A message of a Run's conversation.

    `step_number` and `timestamp` (Unix milliseconds) are absent where a branch has it from what it was made from.
    """

    run_id: str
    expert_key: str
    step_number: int | None = None
    timestamp: int | None = None
    message: Message


def conversation(reader: JobReader, run_id: str) -> Iterator[Said]:
    """All messages of a Run, folded from its events as far as its log can be read."""
    history = reader.history
    expert_key = history.run(run_id).expert_key
    try:
        base = history.base(run_id)
        for message in base.checkpoint.messages if base is not None else ():
            yield Said(run_id=run_id, expert_key=expert_key, message=message)
        for event, before, after in history.passages(run_id):
            for message in after.checkpoint.messages[len(before.checkpoint.messages) :]:
                yield Said(
                    run_id=run_id,
                    expert_key=expert_key,
                    step_number=event.step_number,
                    timestamp=event.timestamp,
                    message=message,
                )
    except StoreError as error:
        reader.damages[run_id] = str(error)
