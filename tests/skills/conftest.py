from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract.messages import TextPart
from expert_runner.skills.base.definitions import BASE_TOOLS
from expert_runner.skills.base.skill import BaseSkill, Outcome

Call = Callable[..., Awaitable[str]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def skill(workspace: Path) -> Iterator[BaseSkill]:
    skill = BaseSkill(workspace=workspace, env={"FROM_SKILL": "yes"}, tools=tuple(BASE_TOOLS), todos=())
    yield skill
    skill.close()


@pytest.fixture
def read() -> Callable[[Outcome], str]:
    """All text of an outcome."""

    def text(outcome: Outcome) -> str:
        texts = [part.text for part in outcome.parts if isinstance(part, TextPart)]
        assert all(texts), "an empty text part is refused by some providers"
        return "\n".join(texts)

    return text


@pytest.fixture
def ok(skill: BaseSkill, read: Callable[[Outcome], str]) -> Call:
    """Call a tool that must succeed; its text."""

    async def call(name: str, first: dict[str, Any] | None = None, /, **more: Any) -> str:
        outcome = await skill.call(name, {**(first or {}), **more})
        assert not outcome.is_error, read(outcome)
        return read(outcome)

    return call


@pytest.fixture
def refused(skill: BaseSkill, read: Callable[[Outcome], str]) -> Call:
    """Call a tool that must fail; its text."""

    async def call(name: str, first: dict[str, Any] | None = None, /, **more: Any) -> str:
        outcome = await skill.call(name, {**(first or {}), **more})
        assert outcome.is_error, read(outcome)
        return read(outcome)

    return call
