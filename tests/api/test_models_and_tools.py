"""What an embedding program can know of models and tools without running a Job."""

from pathlib import Path
from typing import Any

import pytest

from expert_runner.contract.messages import TextPart, UserMessage
from expert_runner.contract.usage import Usage
from orchestrator import calculate_context_window_usage, get_context_window, get_model, get_tool_definitions
from orchestrator.errors import ConfigError, MissingKeyError
from orchestrator.model.conversation import Conversation
from orchestrator.scripted_model import Script, ScriptedModel
from tests.jobs.stage import KEY, Stage, talk, turn

ASK = {"type": "interactiveSkill", "tools": {"ask": {"inputJsonSchema": '{"type": "object"}'}}}
TEAM: dict[str, Any] = {
    "boss": {"instruction": "Be.", "delegates": ["@org/aide"], "skills": {"user": ASK}},
    "@org/aide": {"instruction": "Be.", "description": "Helps"},
}


async def test_the_tools_of_an_expert_are_those_its_model_is_offered(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "local")
    await stage.play(TEAM, talk("boss", turn(text="end")))
    assert stage.model is not None
    offered = [tool["function"]["name"] for tool in stage.model.requests[0].body["tools"]]
    tools = await get_tool_definitions("boss", TEAM)
    assert [tool.name for tool in tools] == offered
    kinds = {tool.name: (tool.skill_name, tool.skill_type, tool.description) for tool in tools}
    assert kinds["ask"][:2] == ("user", "interactive")
    assert ("@org/aide", "delegate", "Helps") in kinds.values()
    as_delegate = await get_tool_definitions("boss", TEAM, is_coordinator=False)
    assert [tool.name for tool in tools if tool not in as_delegate] == ["ask"]


async def test_an_expert_that_is_not_there_has_no_tools() -> None:
    with pytest.raises(ConfigError, match="there is no Expert 'nobody'"):
        await get_tool_definitions("nobody", TEAM)


async def test_a_model_can_be_asked_directly() -> None:
    script = Script.model_validate({"conversations": [talk("*", turn(text="Hello."))]})
    async with ScriptedModel(script) as server:
        config = {"providerName": "openai", "setting": {"baseUrl": server.url}}
        model = await get_model("gpt-4o", config, environment={"OPENAI_API_KEY": KEY})
        try:
            conversation = Conversation()
            conversation.extend([UserMessage(id="1", contents=(TextPart(text="Hello?"),))])
            answer = await model.generate(conversation, [], lambda delta: None)
        finally:
            await model.close()
    assert answer.text == "Hello."
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        await get_model("gpt-4o", config, environment={})
    with pytest.raises(ConfigError, match="providerName"):
        await get_model("gpt-4o", {"providerName": "nobody"})


async def test_the_context_window_is_known_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert await get_context_window("gpt-4o", {"providerName": "openai"}) == 128_000
    assert await get_context_window("claude-sonnet-4-5") is not None
    assert await get_context_window("never-heard-of", {"providerName": "ollama"}) is None


async def test_the_share_of_the_window_is_the_one_checkpoints_tell(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "local")
    played = await stage.play({"boss": {}}, talk("boss", turn(text="end")))
    assert played.end is not None
    assert played.end.context_window is not None
    share = await calculate_context_window_usage(played.end.usage, played.end.context_window)
    assert share > 0
    assert share == played.end.context_window_usage
    with pytest.raises(ValueError, match="0 tokens"):
        await calculate_context_window_usage(Usage(), 0)
