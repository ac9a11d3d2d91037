"""The runner's loop, driven by commands of the test's: what it reports, and in which pieces."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract import wire
from expert_runner.contract.checkpoints import State
from expert_runner.contract.errors import ContractError
from expert_runner.contract.messages import TextPart
from expert_runner.contract.model import Model
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall
from expert_runner.run import MAX_BATCH_BYTES, Run, batches
from expert_runner.skills.base.skill import BaseSkill


class Script:
    """An orchestrator that gives the commands it was made with, and remembers the reports."""

    def __init__(self, *commands: Model) -> None:
        self._commands = list(commands)
        self.reports: list[Any] = []

    async def report(self, *messages: Model) -> None:
        self.reports += messages

    async def next_command(self) -> Any:
        return self._commands.pop(0)

    @property
    def types(self) -> list[str]:
        return [report.type for report in self.reports]


def base_call(number: int, name: str, **args: Any) -> ToolCall:
    return ToolCall(id=str(number), skill_name=BASE_SKILL, skill_type=SkillType.MCP, tool_name=name, args=args)


def delegate_call(number: int) -> ToolCall:
    return ToolCall(
        id=str(number), skill_name="aide", skill_type=SkillType.DELEGATE, tool_name="aide", args={"query": "q"}
    )


async def drive(tmp_path: Path, script: Script, **assignment: Any) -> Script:
    assign = wire.Assign(
        job_id="j",
        run_id="r",
        expert_key="a",
        base_tools=("todo", "attemptCompletion"),
        workspace=str(tmp_path),
        **assignment,
    )
    base = BaseSkill(workspace=tmp_path, env={}, tools=assign.base_tools, todos=assign.todos)
    async with asyncio.timeout(30):
        await Run(assign, script, base).drive()
    return script


async def test_what_the_orchestrator_records_itself_is_not_reported(tmp_path: Path) -> None:
    script = await drive(tmp_path, Script(wire.End()))
    assert script.types == ["startGeneration"]


async def test_each_kind_of_call_has_its_turn(tmp_path: Path) -> None:
    answer = wire.Answered(
        tool_calls=(base_call(1, "attemptCompletion"), delegate_call(2), base_call(3, "todo", newTodos=[]))
    )
    script = await drive(tmp_path, Script(answer, wire.Resume(resolved=("2",)), wire.End()))
    assert script.types[1:] == ["resolveToolResults", "callDelegate", "attemptCompletion"]


async def test_an_answer_of_delegates_alone_needs_no_report(tmp_path: Path) -> None:
    answer = wire.Answered(tool_calls=(delegate_call(2),))
    script = await drive(tmp_path, Script(answer, wire.Resume(resolved=("2",)), wire.End()))
    assert script.types[1:] == ["finishAllToolCalls", "continueToNextStep", "startGeneration"]


async def test_of_two_completions_the_last_one_counts(tmp_path: Path) -> None:
    answer = wire.Answered(tool_calls=(base_call(1, "attemptCompletion"), base_call(2, "attemptCompletion")))
    script = await drive(tmp_path, Script(answer, wire.End()))
    assert script.types[1:] == ["resolveToolResults", "attemptCompletion"]
    assert script.reports[-1].tool_result.id == "2"


async def test_a_run_goes_on_from_where_it_stood(tmp_path: Path) -> None:
    """In a new sandbox: what was pending is carried out, what was done is not."""
    script = await drive(
        tmp_path,
        Script(wire.End()),
        state=State.CALLING_MCP_TOOLS,
        pending_tool_calls=(base_call(7, "todo", newTodos=["x"]),),
    )
    assert script.types == ["resolveToolResults", "finishToolCall", "continueToNextStep", "startGeneration"]


@pytest.mark.parametrize(
    "command",
    [wire.Resume(resolved=("1",)), wire.Assign(job_id="j", run_id="r", expert_key="a", base_tools=(), workspace="/")],
    ids=["resume", "assign"],
)
async def test_a_command_that_cannot_follow_is_refused(tmp_path: Path, command: Model) -> None:
    with pytest.raises(ContractError, match=r"cannot (follow|happen)"):
        await drive(tmp_path, Script(command))


@pytest.mark.parametrize(
    "commands",
    [[wire.End()], [wire.Answered(tool_calls=(delegate_call(1),)), wire.End()]],
    ids=["while the model is asked", "while delegates work"],
)
async def test_an_end_ends_it_wherever_it_waits(tmp_path: Path, commands: list[Model]) -> None:
    script = await drive(tmp_path, Script(*commands))
    assert script.types == ["startGeneration"]


def test_results_that_would_not_fit_a_frame_are_reported_in_several() -> None:
    results = [wire.WireResult(id=str(n), result=(TextPart(text="\0" * (MAX_BATCH_BYTES // 15)),)) for n in range(10)]
    found = list(batches(results))
    assert [r.id for batch in found for r in batch] == [r.id for r in results]
    assert len(found) > 1
    for batch in found:
        assert len(wire.Resolved(tool_results=batch).encode()) < wire.MAX_FRAME_BYTES


def test_few_results_are_reported_together() -> None:
    results = [wire.WireResult(id=str(n), result=(TextPart(text="x"),)) for n in range(128)]
    assert list(batches(results)) == [tuple(results)]
