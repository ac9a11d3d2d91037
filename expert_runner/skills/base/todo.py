"""todo, clearTodo and attemptCompletion. None of them waits, so parallel calls change the list one after the other."""

from expert_runner.contract.errors import ContractError
from expert_runner.contract.todos import Todo, TodoChange
from expert_runner.skills.base.definitions import NoArgs, TodoArgs
from expert_runner.skills.base.failures import ToolError
from expert_runner.skills.base.legible import brief
from expert_runner.skills.base.tool import Outcome, Surroundings

MAX_SHOWN = 20
"""Todos that a result names. If its size grew with the list, a history would grow with the square of its length."""


async def todo(surroundings: Surroundings, args: TodoArgs) -> Outcome:
    todos = surroundings.todos
    before = len(todos.todos)
    completed = tuple(dict.fromkeys(args.completed_todos))
    if args.new_todos or completed:
        try:
            todos.change(TodoChange(added=args.new_todos, completed=completed))
        except ContractError as error:
            raise ToolError(f"Nothing was changed: {error}. {_open(todos.open)}") from error
    lines = []
    if args.new_todos:
        last = before + len(args.new_todos) - 1
        lines.append(f"Added {f'todo {before}' if last == before else f'todos {before} to {last}'}.")
    if completed:
        ids = ", ".join(map(str, completed[:MAX_SHOWN]))
        lines.append(f"Completed {len(completed)}: {ids}{', …' if len(completed) > MAX_SHOWN else ''}.")
    return Outcome.text("\n".join([*lines, _open(todos.open)]))


async def clear_todo(surroundings: Surroundings, _: NoArgs) -> Outcome:
    count = len(surroundings.todos.todos)
    if count:
        surroundings.todos.change(TodoChange(cleared=True))
    return Outcome.text(f"Dropped {count} todos. There are none now.")


async def attempt_completion(surroundings: Surroundings, _: NoArgs) -> Outcome:
    still_open = surroundings.todos.open
    if still_open:
        return Outcome.text(
            "Not completed: there are open todos. Do and tick them off with `todo`, or drop them with `clearTodo`.\n"
            + _open(still_open)
        )
    return Outcome(
        parts=Outcome.text("No todo is open: the task is complete. Give your final answer.").parts, completes=True
    )


def _open(todos: tuple[Todo, ...]) -> str:
    if not todos:
        return "No todo is open."
    lines = [f"- {todo.id}: {brief(todo.title, quoted=False)}" for todo in todos[:MAX_SHOWN]]
    if len(todos) > MAX_SHOWN:
        lines.append(f"- and {len(todos) - MAX_SHOWN} more")
    return "\n".join([f"Open todos ({len(todos)}):", *lines])
