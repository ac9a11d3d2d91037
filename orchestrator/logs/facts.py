"""What matters of each event to a person who reads the log."""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from expert_runner.contract import events as e
from expert_runner.contract.messages import ResultPart, TextPart, ThinkingPart, UserMessage
from expert_runner.contract.tools import SkillType, ToolCall, ToolCallRef, ToolResult
from orchestrator.logs.text import duration, number_of
from orchestrator.store.history import HistoryEvent


class Fact(NamedTuple):
    """A text, and what it is where that does not speak for itself. One with `is_detail` is left out of short lines."""

    text: str
    label: str = ""
    is_detail: bool = False


def facts_of(event: HistoryEvent) -> Iterator[Fact]:
    """The facts of `event`, the most important first. Their texts are raw: escape them for a terminal."""
    match event:
        case e.StartRun():
            yield from _input(event)
        case e.StartGeneration():
            yield Fact(number_of(len(event.messages), "further message"))
        case e.Retry():
            yield from _retry(event)
        case e.Answer():
            yield from _answer(event)
        case e.ResolveToolResults():
            yield from _results(event.tool_results)
        case e.AttemptCompletion():
            yield from _results((event.tool_result,))
        case e.ResumeToolCalls():
            yield from _results(event.partial_tool_results)
        case e.FinishToolCall() | e.FinishAllToolCalls():
            yield Fact(", ".join(message.id for message in event.new_messages), "message", is_detail=True)
        case e.ContinueToNextStep():
            yield Fact(event.checkpoint.id, "checkpoint")
        case e.BaseRunEvent():
            yield from _stop(event)
        case _:
            yield from _around(event)


def _input(event: e.StartRun) -> Iterator[Fact]:
    for message in event.input_messages:
        is_user = isinstance(message, UserMessage)
        for part in message.contents:
            text = part.text if isinstance(part, TextPart) else f"[{part.type}, {part.mime_type}]"
            # The user knows what the Expert was told to be; what it was asked is the news.
            yield Fact(text, "" if is_user else "instruction", is_detail=not is_user)


def _retry(event: e.Retry) -> Iterator[Fact]:
    yield Fact(event.reason)
    if event.status_code is not None:
        yield Fact(str(event.status_code), "status")
    yield Fact(str(event.attempt), "attempt")
    yield Fact(duration(event.delay_ms), "after")
    for message in event.new_messages:
        for part in message.contents:
            if isinstance(part, TextPart):
                yield Fact(part.text, "told", is_detail=True)


def _answer(event: e.Answer) -> Iterator[Fact]:
    for call in event.tool_calls:
        # An answer that an earlier event brought is not told again, only which of its calls are meant now.
        if event.new_message is not None or _is_meant(call, event):
            yield Fact(_arguments(call), f"→ {call.tool_name}")
    if event.new_message is None:
        return
    for part in event.new_message.contents:
        if isinstance(part, TextPart):
            yield Fact(part.text, "says")
        elif isinstance(part, ThinkingPart):
            yield Fact(part.thinking, "thinks", is_detail=True)
    yield Fact(f"{event.usage.total_tokens:,}", "tokens", is_detail=True)


def _is_meant(call: ToolCallRef, event: e.Answer) -> bool:
    if isinstance(event, e.CallInteractiveTool):
        return call.id == event.tool_call.id
    return call.skill_type is (SkillType.DELEGATE if isinstance(event, e.CallDelegate) else SkillType.MCP)


def _arguments(call: ToolCallRef) -> str:
    if not isinstance(call, ToolCall):
        return ""
    if call.args is None:
        return f"(not an object) {call.invalid_args or ''}"
    return json.dumps(call.args, ensure_ascii=False)


def _results(results: Iterable[ToolResult]) -> Iterator[Fact]:
    for result in results:
        text = "\n".join(_part(part) for part in result.result)
        yield Fact(text, f"← {result.tool_name}{' ERROR' if result.is_error else ''}")


def _part(part: ResultPart) -> str:
    if isinstance(part, TextPart):
        return part.text
    return f"[{part.mime_type}, {len(part.encoded_data) * 3 // 4:,} bytes]"


def _stop(event: e.BaseRunEvent) -> Iterator[Fact]:
    match event:
        case e.CompleteRun():
            yield Fact(event.text)
            for part in event.thinking:
                yield Fact(part.thinking, "thinks", is_detail=True)
        case e.StopRunByError():
            yield Fact(event.error.message, event.error.name)
            if event.error.status_code is not None:
                yield Fact(str(event.error.status_code), "status")
        case e.StopRunByDelegate():
            for target in event.checkpoint.delegate_to or ():
                yield Fact(target.run_id, f"waits for {target.expert_key}, Run")
    if isinstance(event, e.Stop):
        yield Fact(event.checkpoint.id, "checkpoint")


def _around(event: HistoryEvent) -> Iterator[Fact]:
    match event:
        case e.InitializeRuntime():
            yield Fact(event.model, "model")
            yield Fact(event.runtime, "runtime")
            if event.branched_from is not None:
                yield Fact(event.branched_from.checkpoint_id, "from checkpoint")
            yield Fact(event.runtime_version, "version", is_detail=True)
        case e.SkillStarting():
            yield Fact(" ".join((event.skill_name, event.command or "", *event.args)))
        case e.SkillConnected():
            yield Fact(event.skill_name)
            if event.total_duration_ms is not None:
                yield Fact(duration(event.total_duration_ms), "in")
        case e.SkillStderr():
            yield Fact(event.message, event.skill_name)
        case e.SkillDisconnected():
            yield Fact(event.skill_name)
        case e.DockerBuildProgress():
            yield Fact(event.message, event.stage)
        case e.DockerContainerStatus():
            yield Fact(event.message or "", event.status)
            if event.details is not None:
                yield Fact(json.dumps(event.details, ensure_ascii=False), "details", is_detail=True)
        case e.SandboxLost():
            yield Fact(event.cause)
            yield Fact(event.evidence, "evidence")
            yield Fact(str(event.losses), "losses")
            if event.log:
                yield Fact(event.log, "log", is_detail=True)
        case e.ProxyAccess():
            yield Fact(f"{event.domain}:{event.port}", event.action)
            if event.reason is not None:
                yield Fact(event.reason)
