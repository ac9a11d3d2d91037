"""A Run's todo list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_runner.contract.errors import ContractError
from expert_runner.contract.todos import MAX_TODOS, Todo, TodoChange, change_todos

changes = st.builds(
    TodoChange,
    cleared=st.booleans(),
    added=st.lists(st.text(max_size=3), max_size=3).map(tuple),
    completed=st.lists(st.integers(-1, 6), max_size=3).map(tuple),
)


@given(st.lists(changes, max_size=8))
def test_a_list_is_what_its_changes_say_and_a_refused_change_is_none(history: list[TodoChange]) -> None:
    todos: tuple[Todo, ...] = ()
    titles: list[str] = []
    done: set[int] = set()
    for change in history:
        base = [] if change.cleared else titles
        expected = [*base, *change.added]
        if any(not 0 <= todo < len(expected) for todo in change.completed):
            with pytest.raises(ContractError, match="there is no todo"):
                change_todos(todos, change)
            continue
        titles, done = expected, (set() if change.cleared else done) | set(change.completed)
        todos = change_todos(todos, change)
    assert todos == tuple(Todo(id=n, title=title, completed=n in done) for n, title in enumerate(titles))


def test_clearing_comes_before_adding_and_adding_before_completing() -> None:
    before = change_todos((), TodoChange(added=("old",)))
    after = change_todos(before, TodoChange(cleared=True, added=("new",), completed=(0,)))
    assert after == (Todo(id=0, title="new", completed=True),)


def test_completing_twice_is_completing_once() -> None:
    once = change_todos((), TodoChange(added=("a",), completed=(0,)))
    assert change_todos(once, TodoChange(completed=(0, 0))) == once


def test_a_list_is_bounded_and_can_be_cleared_then() -> None:
    full = change_todos((), TodoChange(added=("x",) * MAX_TODOS))
    with pytest.raises(ContractError, match=f"at most {MAX_TODOS} todos"):
        change_todos(full, TodoChange(added=("one more",)))
    assert len(change_todos(full, TodoChange(cleared=True, added=("one more",)))) == 1
