"""The base skill of one Run: checks a call's arguments, carries it out, and puts every failure into words."""

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from expert_runner.contract.todos import Todo, TodoChange
from expert_runner.contract.tools import ATTEMPT_COMPLETION
from expert_runner.skills.base.definitions import BASE_TOOLS
from expert_runner.skills.base.exec import exec_program
from expert_runner.skills.base.failures import ToolError, explain_arguments, explain_os_error
from expert_runner.skills.base.health_check import health_check
from expert_runner.skills.base.legible import brief
from expert_runner.skills.base.list_directory import list_directory
from expert_runner.skills.base.process_tree import Mark, kill_tree
from expert_runner.skills.base.read_text_file import read_text_file
from expert_runner.skills.base.todo import attempt_completion, clear_todo, todo
from expert_runner.skills.base.todo_list import TodoList
from expert_runner.skills.base.tool import Handler, Outcome, Surroundings
from expert_runner.skills.base.workspace import Workspace
from expert_runner.skills.base.write_text_file import write_text_file

__all__ = ["HANDLERS", "BaseSkill", "Outcome"]

HANDLERS: dict[str, Handler] = {
    "readTextFile": read_text_file,
    "writeTextFile": write_text_file,
    "listDirectory": list_directory,
    "exec": exec_program,
    "todo": todo,
    "clearTodo": clear_todo,
    ATTEMPT_COMPLETION: attempt_completion,
    "healthCheck": health_check,
}
"""What carries each of :data:`~expert_runner.skills.base.definitions.BASE_TOOLS` out."""


class BaseSkill:
    """The base tools of one Run.

    Args:
        workspace: the folder that file tools are confined to and commands run in.
        env: what commands find in their environment besides a minimal one.
        tools: the names of the tools this Expert may call.
        todos: the Run's todos so far.
    """

    def __init__(
        self, *, workspace: Path, env: Mapping[str, str], tools: Collection[str], todos: tuple[Todo, ...]
    ) -> None:
        self.tools = tuple(tools)
        self._surroundings = Surroundings(
            workspace=Workspace(workspace),
            env=env,
            todos=TodoList(todos),
            mark=Mark(),
            started_at=time.monotonic(),
        )

    @property
    def todos(self) -> tuple[Todo, ...]:
        return self._surroundings.todos.todos

    def drain_changes(self) -> TodoChange | None:
        """What all calls since the last drain changed in the todos, as one change; None if nothing."""
        return self._surroundings.todos.drain()

    async def call(self, name: str, args: dict[str, Any]) -> Outcome:
        """Carry a call out. Whatever goes wrong is an outcome; only cancellation is raised."""
        spec = BASE_TOOLS.get(name)
        if spec is None or name not in self.tools:
            return Outcome.error(
                f"There is no tool {brief(name)}. The base tools are: {', '.join(self.tools) or 'none'}."
            )
        try:
            # Some models send null for what they mean to leave out.
            checked = spec.args.model_validate({key: value for key, value in args.items() if value is not None})
        except ValidationError as error:
            return Outcome.error(explain_arguments(name, spec, error))
        try:
            return await HANDLERS[name](self._surroundings, checked)
        except ToolError as error:
            return Outcome.error(str(error))
        except OSError as error:
            return Outcome.error(f"{name} {explain_os_error(error)}.")
        except Exception as error:  # noqa: BLE001 - a defect of one tool, or a sandbox out of threads, fails one call
            return Outcome.error(f"{name} failed: {type(error).__name__}: {brief(str(error), quoted=False)}")

    def close(self) -> None:
        """Kill what commands left running in sessions of their own."""
        kill_tree(self._surroundings.mark.value)
