"""What a base tool gets and what it gives."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from expert_runner.contract.messages import ResultPart, TextPart
from expert_runner.skills.base.process_tree import Mark
from expert_runner.skills.base.todo_list import TodoList
from expert_runner.skills.base.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave.

    Attributes:
        parts: what the model sees; no text among them is empty.
        is_error: tells the model that the call failed.
        completes: the Expert may end here (only attemptCompletion says so).
    """

    parts: tuple[ResultPart, ...]
    is_error: bool = False
    completes: bool = False

    @classmethod
    def text(cls, *texts: str) -> "Outcome":
        """Each of `texts` that is not empty as a part of its own."""
        return cls(parts=tuple(TextPart(text=text) for text in texts if text))

    @classmethod
    def error(cls, text: str) -> "Outcome":
        return cls(parts=(TextPart(text=text),), is_error=True)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all tools of one Run share.

    Attributes:
        env: what commands find in their environment besides a minimal one.
        mark: is in the environment of every command, so that what a command leaves behind can be found.
        started_at: `time.monotonic()` at the Run's start.
    """

    workspace: Workspace
    env: Mapping[str, str]
    todos: TodoList
    mark: Mark
    started_at: float


Handler = Callable[[Surroundings, Any], Awaitable[Outcome]]
"""Carries a tool out with its checked arguments.

Raises:
    ToolError: it cannot be done; the text is for the model.
    OSError: likewise, in the system's words.
"""
