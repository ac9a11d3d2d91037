from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expert_runner.skills.base import skill as skill_module
from expert_runner.skills.base.skill import BaseSkill, Outcome


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("readTextFile", {}, ["path: is required"]),
        ("readTextFile", {"path": 5}, ["path: ", "valid string", "it is 5"]),
        ("readTextFile", {"path": "a", "lines": 3}, ["lines: is unknown", "path, from, to"]),
        ("readTextFile", {"path": "a", "from": -1}, ["from: ", "greater than or equal to 0", "it is -1"]),
        ("readTextFile", {"path": "a", "from": "two"}, ["from: ", "valid integer", "it is 'two'"]),
        ("writeTextFile", {"path": "a"}, ["text: is required"]),
        ("writeTextFile", {"path": "a", "text": "x" * 10_001}, ["text: ", "at most 10000", "10,001 characters"]),
        ("listDirectory", {"path": ["a"]}, ["path: ", "valid string"]),
        ("exec", {"command": ""}, ["command: ", "at least 1"]),
        ("exec", {"command": "ls", "args": "-la"}, ["args: ", "valid tuple", "it is '-la'"]),
        ("exec", {"command": "ls", "args": ["a", 7]}, ["args.1: ", "valid string", "it is 7"]),
        ("exec", {"command": "ls", "env": {"A": 1}}, ["env.A: ", "valid string"]),
        ("exec", {"command": "ls", "timeout": 600_001}, ["timeout: ", "less than or equal to 600000"]),
        ("exec", {"command": "ls", "timeout": 0}, ["timeout: ", "greater than or equal to 1"]),
        ("exec", {"command": "ls", "stdout": "maybe"}, ["stdout: ", "valid boolean"]),
        ("todo", {"newTodos": ["ok", "  "]}, ["newTodos.1: ", "at least 1"]),
        ("todo", {"newTodos": ["x" * 2_001]}, ["newTodos.0: ", "at most 2000", "2,001 characters"]),
        ("todo", {"newTodos": ["x"] * 101}, ["newTodos: ", "at most 100", "one with 101 elements"]),
        ("todo", {"completedTodos": ["first"]}, ["completedTodos.0: ", "valid integer"]),
        ("clearTodo", {"sure": True}, ["sure: is unknown", "no arguments"]),
    ],
)
async def test_bad_arguments_say_what_is_wrong_and_show_a_call(
    skill: BaseSkill, read: Callable[[Outcome], str], name: str, args: dict[str, Any], says: list[str]
) -> None:
    outcome = await skill.call(name, args)
    text = read(outcome)
    assert outcome.is_error
    assert f"The arguments of {name} do not fit" in text
    assert "Example: {" in text
    for part in says:
        assert part in text


async def test_many_bad_arguments_give_a_short_text(skill: BaseSkill, read: Callable[[Outcome], str]) -> None:
    outcome = await skill.call("todo", {f"{'x' * 5_000}{n}": n for n in range(500)})
    assert len(read(outcome)) < 3_000
    assert "and 495 more" in read(outcome)


async def test_null_means_absent(skill: BaseSkill, workspace: Path, read: Callable[[Outcome], str]) -> None:
    (workspace / "a").write_text("text")
    outcome = await skill.call("readTextFile", {"path": "a", "from": None, "to": None})
    assert read(outcome) == "text"


async def test_a_tool_that_was_omitted_cannot_be_called(workspace: Path, read: Callable[[Outcome], str]) -> None:
    skill = BaseSkill(workspace=workspace, env={}, tools=("todo", "clearTodo"), todos=())
    for name in ("exec", "launchMissiles", "x\n" * 1_000):
        outcome = await skill.call(name, {"command": "touch", "args": ["made"]})
        assert outcome.is_error
        assert "The base tools are: todo, clearTodo." in read(outcome)
        assert len(read(outcome)) < 700
    assert not (workspace / "made").exists()


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (RuntimeError("can't start new thread"), "healthCheck failed: RuntimeError: can't start new thread"),
        (OSError(28, "No space left on device"), "healthCheck cannot be written: the disk is full."),
    ],
)
async def test_whatever_a_tool_raises_is_an_outcome(
    skill: BaseSkill,
    read: Callable[[Outcome], str],
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    says: str,
) -> None:
    async def fail(*_: object) -> Outcome:
        raise failure

    monkeypatch.setitem(skill_module.HANDLERS, "healthCheck", fail)
    outcome = await skill.call("healthCheck", {})
    assert outcome.is_error
    assert read(outcome) == says
