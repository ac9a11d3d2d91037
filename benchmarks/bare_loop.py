"""The floors of a step: the same loop in one process, without any sandbox, record or check.

`python -m benchmarks.bare_loop gateway URL` asks by the model gateway as Jobs do, `… litellm URL` by litellm as it is.
Both send what `perstack run` sends, the same instruction, tools and history, and answer each call on the spot, until
the model calls no more.
"""

import asyncio
import json
import os
import sys
from typing import Any

from benchmarks.stage import COORDINATOR, MODEL, QUERY
from expert_runner.contract.experts import Expert
from expert_runner.contract.messages import (
    ExpertMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)
from orchestrator.model.conversation import Conversation, tool_schemas
from orchestrator.model.gateway import Gateway, RawCall
from orchestrator.model.provider import ProviderConfig, resolve
from orchestrator.runs.instruction import instruction_message
from orchestrator.runs.tools import ToolBox

EXPERT = Expert(key=COORDINATOR, instruction="Be quick.")
DEFINITIONS = ToolBox(EXPERT, {EXPERT.key: EXPERT}, is_coordinator=True).definitions
INSTRUCTION = instruction_message(EXPERT, "1", "/workspace", DEFINITIONS)
TOOLS = tool_schemas(DEFINITIONS)
RESULT = json.dumps({"status": "ok", "workspace": "/workspace", "pid": 1, "uptimeSeconds": 1.234})


async def by_gateway(url: str) -> None:
    provider = ProviderConfig.model_validate({"providerName": "openai", "setting": {"baseUrl": url}})
    gateway = Gateway(resolve(provider, MODEL, {"OPENAI_API_KEY": "none"}), timeout_ms=60_000)
    conversation = Conversation()
    conversation.extend((INSTRUCTION, UserMessage(id="2", contents=(TextPart(text=QUERY),))))
    try:
        while calls := (await gateway.generate(conversation, TOOLS, lambda _: None)).calls:
            conversation.extend(_turn(calls))
    finally:
        await gateway.close()


def _turn(calls: tuple[RawCall, ...]) -> tuple[ExpertMessage, ToolMessage]:
    """An answer and the results of its calls."""
    asked = (ToolCallPart(tool_call_id=call.id, tool_name=call.name, args=json.loads(call.arguments)) for call in calls)
    results = (
        ToolResultPart(tool_call_id=call.id, tool_name=call.name, contents=(TextPart(text=RESULT),)) for call in calls
    )
    return ExpertMessage(id="", contents=tuple(asked)), ToolMessage(id="", contents=tuple(results))


async def by_litellm(url: str) -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "".join(part.text for part in INSTRUCTION.contents)},
        {"role": "user", "content": QUERY},
    ]
    while True:
        stream = await litellm.acompletion(
            model=f"openai/{MODEL}",
            api_base=url,
            api_key="none",
            messages=messages,
            tools=TOOLS,
            stream=True,
            stream_options={"include_usage": True},
            # With tools, litellm asks for its MCP client otherwise, which is a package of its own.
            _skip_mcp_handler=True,
        )
        calls = await _calls(stream)
        if not calls:
            return
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": RESULT} for call in calls]


async def _calls(stream: Any) -> list[dict[str, Any]]:
    """The tool calls of a streamed answer."""
    calls: dict[int, dict[str, Any]] = {}
    async for chunk in stream:
        for piece in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            call = calls.setdefault(piece.index, {"type": "function", "function": {"name": "", "arguments": ""}})
            call["id"] = piece.id or call["id"]
            call["function"]["name"] += piece.function.name or ""
            call["function"]["arguments"] += piece.function.arguments or ""
    return list(calls.values())


LOOPS = {"gateway": by_gateway, "litellm": by_litellm}

if __name__ == "__main__":
    asyncio.run(LOOPS[sys.argv[1]](sys.argv[2]))
