"""A Run's todo list: part of its checkpoint, changed by small differences so that a step costs the same at any
length.
"""

from typing import Annotated

from pydantic import FailFast, Field

from expert_runner.contract.errors import ContractError
from expert_runner.contract.model import Model

MAX_TODOS = 1_000
"""Todos a Run may hold."""

Title = Annotated[str, Field(max_length=2_000)]


class Todo(Model):
    id: int = Field(ge=0)
    title: Title
    completed: bool = False


class TodoChange(Model):
    """A difference: first everything is dropped if `cleared`, then `added` get the next ids, then `completed` are
    ticked.
    """

    cleared: bool = False
    added: Annotated[tuple[Title, ...], Field(max_length=MAX_TODOS), FailFast()] = ()
    completed: Annotated[tuple[int, ...], Field(max_length=MAX_TODOS), FailFast()] = ()


def change_todos(todos: tuple[Todo, ...], change: TodoChange) -> tuple[Todo, ...]:
    """`todos` after `change`. A todo's id is its position.

    Raises:
        ContractError: an id that is not on the list, or more than :data:`MAX_TODOS` todos.
    """
    result = [] if change.cleared else list(todos)
    result += [Todo(id=len(result) + n, title=title) for n, title in enumerate(change.added)]
    if len(result) > MAX_TODOS:
        raise ContractError(f"a Run holds at most {MAX_TODOS} todos: complete some and call clearTodo")
    for number in change.completed:
        if not 0 <= number < len(result):
            raise ContractError(f"there is no todo {number}")
        result[number] = result[number].model_copy(update={"completed": True})
    return tuple(result)
