import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_runner.contract.errors import ContractError
from expert_runner.contract.todos import MAX_TODOS, Todo, TodoChange, change_todos
from expert_runner.skills.base.skill import BaseSkill, Outcome
from expert_runner.skills.base.todo_list import TodoList

Call = Callable[..., Awaitable[str]]
Read = Callable[[Outcome], str]

changes = st.builds(
    TodoChange,
    cleared=st.booleans(),
    added=st.lists(st.text(max_size=3), max_size=4).map(tuple),
    completed=st.lists(st.integers(0, 12), max_size=4).map(tuple),
)


@given(st.lists(st.one_of(changes, st.none()), max_size=30), st.integers(0, 5))
def test_what_is_drained_does_to_another_list_what_the_changes_did_to_this_one(
    steps: list[TodoChange | None], count: int
) -> None:
    start = tuple(Todo(id=number, title="before") for number in range(count))
    todos, mirror = TodoList(start), start
    for step in [*steps, None]:
        if step is not None:
            before = todos.todos
            try:
                todos.change(step)
            except ContractError:
                assert todos.todos == before
            continue
        drained = todos.drain()
        if drained is not None:
            mirror = change_todos(mirror, TodoChange.model_validate_json(drained.encode()))
        assert mirror == todos.todos
        assert todos.drain() is None


async def test_todos_are_added_and_ticked_off(ok: Call, skill: BaseSkill) -> None:
    assert (
        await ok("todo", newTodos=["read", " write "]) == "Added todos 0 to 1.\nOpen todos (2):\n- 0: read\n- 1: write"
    )
    assert await ok("todo", completedTodos=[0], newTodos=["send"]) == (
        "Added todo 2.\nCompleted 1: 0.\nOpen todos (2):\n- 1: write\n- 2: send"
    )
    assert await ok("todo") == "Open todos (2):\n- 1: write\n- 2: send"
    assert await ok("todo", completedTodos=[1, 2, 2]) == "Completed 2: 1, 2.\nNo todo is open."
    assert [todo.completed for todo in skill.todos] == [True, True, True]
    assert skill.drain_changes() == TodoChange(added=("read", "write", "send"), completed=(0, 1, 2))
    assert skill.drain_changes() is None


async def test_todos_go_on_from_a_checkpoint(workspace: Path, read: Read) -> None:
    todos = (Todo(id=0, title="done", completed=True), Todo(id=1, title="open"))
    skill = BaseSkill(workspace=workspace, env={}, tools=("todo",), todos=todos)
    assert "Added todo 2." in read(await skill.call("todo", {"newTodos": ["new"]}))
    assert skill.drain_changes() == TodoChange(added=("new",))


async def test_an_unknown_id_changes_nothing(refused: Call, skill: BaseSkill) -> None:
    await skill.call("todo", {"newTodos": ["one"]})
    skill.drain_changes()
    text = await refused("todo", newTodos=["two"], completedTodos=[0, 7])
    assert text == "Nothing was changed: there is no todo 7. Open todos (1):\n- 0: one"
    assert len(skill.todos) == 1
    assert skill.drain_changes() is None


async def test_a_full_list_takes_no_more(ok: Call, refused: Call, skill: BaseSkill) -> None:
    for _ in range(MAX_TODOS // 100):
        await ok("todo", newTodos=["x"] * 100)
    assert "at most 1000 todos" in await refused("todo", newTodos=["one more"])
    await ok("clearTodo")
    assert "Added todo 0." in await ok("todo", newTodos=["first"])


async def test_clearing_drops_everything_and_numbers_start_again(ok: Call, skill: BaseSkill) -> None:
    await ok("todo", newTodos=["a", "b"])
    assert await ok("clearTodo") == "Dropped 2 todos. There are none now."
    await ok("todo", newTodos=["c"])
    assert [(todo.id, todo.title) for todo in skill.todos] == [(0, "c")]
    assert skill.drain_changes() == TodoChange(cleared=True, added=("c",))
    await ok("clearTodo")
    skill.drain_changes()
    await ok("clearTodo")
    assert skill.drain_changes() is None


async def test_a_result_names_twenty_open_todos_and_does_not_grow_with_the_list(ok: Call) -> None:
    sizes = [len(await ok("todo", newTodos=["x" * 2_000] * 100)) for _ in range(10)]
    assert "- and 980 more" in await ok("todo")
    assert max(sizes) < 6_000
    assert max(sizes) - min(sizes) < 20
    assert len(await ok("todo", completedTodos=list(range(900)))) < 6_000


async def test_parallel_calls_get_numbers_of_their_own(skill: BaseSkill, read: Read) -> None:
    calls = [skill.call("todo", {"newTodos": [f"todo {number}"]}) for number in range(50)]
    others = [skill.call("exec", {"command": "true"}), skill.call("todo", {"completedTodos": [3]})]
    outcomes = await asyncio.gather(*calls, *others)
    for number, outcome in enumerate(outcomes[:50]):
        assert f"Added todo {number}." in read(outcome)
    assert [todo.title for todo in skill.todos] == [f"todo {number}" for number in range(50)]
    change = skill.drain_changes()
    assert change is not None
    assert change_todos((), change) == skill.todos


async def test_completion_waits_for_open_todos(ok: Call, skill: BaseSkill, read: Read) -> None:
    await ok("todo", newTodos=[f"todo {number}" for number in range(25)])
    outcome = await skill.call("attemptCompletion", {})
    assert not outcome.is_error
    assert not outcome.completes
    assert "Open todos (25)" in read(outcome)
    assert "- 19: todo 19\n- and 5 more" in read(outcome)
    await ok("todo", completedTodos=list(range(25)))
    outcome = await skill.call("attemptCompletion", {})
    assert outcome.completes
    assert not outcome.is_error
    assert len(read(outcome)) < 100


@pytest.mark.parametrize("tool", ["todo", "clearTodo", "healthCheck"])
async def test_no_other_tool_completes(skill: BaseSkill, tool: str) -> None:
    assert not (await skill.call(tool, {})).completes
