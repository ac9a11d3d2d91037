"""A Run's todos while it works, and what changed in them since that was last reported."""

from expert_runner.contract.todos import Todo, TodoChange, change_todos


def merge(first: TodoChange, second: TodoChange) -> TodoChange:
    """One change that does what `first` and then `second` do.

    There always is one: a todo's id is its place on the list, which only a clear changes, and a clear makes what came
    before it irrelevant.
    """
    if second.cleared:
        return second
    return TodoChange(
        cleared=first.cleared,
        added=first.added + second.added,
        completed=tuple(dict.fromkeys(first.completed + second.completed)),
    )


class TodoList:
    """The todos of one Run. Changes happen at once, without waiting, so that parallel calls see one another's."""

    def __init__(self, todos: tuple[Todo, ...]) -> None:
        self._todos = todos
        self._unreported: TodoChange | None = None

    @property
    def todos(self) -> tuple[Todo, ...]:
        return self._todos

    @property
    def open(self) -> tuple[Todo, ...]:
        return tuple(todo for todo in self._todos if not todo.completed)

    def change(self, change: TodoChange) -> None:
        """Apply `change`.

        Raises:
            ContractError: it does not fit the list, which is then as before.
        """
        self._todos = change_todos(self._todos, change)
        self._unreported = change if self._unreported is None else merge(self._unreported, change)

    def drain(self) -> TodoChange | None:
        """All changes since the last call as one; None if there were none."""
        change, self._unreported = self._unreported, None
        return change
