"""A runner that breaks the wire's rules, frame by frame, ends its own Run with an error, and only that Run."""

import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from expert_runner.contract import wire
from expert_runner.contract.channel import WINDOW, Channel
from expert_runner.contract.wire import HEADER, MAX_REPORTS, PROTOCOL_VERSION, Header, Kind, encode_header
from tests.jobs.hostile import RawRunner, check_it_ended_alone, named, over_frames, play_beside
from tests.jobs.stage import Stage

CALL = "call_1_0_0"
"""The first call of the hostile Run."""


def report(kind: str, **fields: Any) -> bytes:
    return json.dumps([{"type": kind, **fields}]).encode()


def resolve(**fields: Any) -> bytes:
    return report("resolveToolResults", toolResults=[{"id": CALL, "result": [], **fields}])


def parts(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"type": "textPart", "text": "x", **fields}] * count


BODIES: dict[str, bytes] = {
    # No JSON.
    "nothing": b"",
    "no JSON": b"not json",
    "cut off": report("startGeneration")[:-1],
    "two values": report("startGeneration") * 2,
    "a byte order mark": b"\xef\xbb\xbf" + report("startGeneration"),
    "bytes that are no text": b'[{"type":"stopRunByError","error":{"name":"x","message":"\xff\xfe"}}]',
    "half of a character": b'[{"type":"stopRunByError","error":{"name":"x","message":"\xe2\x82"}}]',
    "half of a pair": b'[{"type":"stopRunByError","error":{"name":"x","message":"\\ud800"}}]',
    "half of a pair as bytes": b'[{"type":"stopRunByError","error":{"name":"x","message":"\xed\xa0\x80"}}]',
    "nested without an end": b"[" * 1_000_000,
    "nested and closed": b"[" * 100_000 + b"]" * 100_000,
    "nested in objects": b'[{"type":' * 100_000,
    "nested in an unknown field": b'[{"type":"startGeneration","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
    # No report.
    "null": b"null",
    "an object": b'{"type":"startGeneration"}',
    "no reports": b"[]",
    "too many reports": json.dumps([{"type": "startGeneration"}] * (MAX_REPORTS + 1)).encode(),
    "no type": b"[{}]",
    "a type that is no text": b'[{"type":17}]',
    "an unknown type": report("launchMissiles"),
    "a type in other letters": report("STARTGENERATION"),
    "a command": wire.Resume(resolved=(CALL,)).encode(),
    "a list of commands": b"[" + wire.End().encode() + b"]",
    # Not for a runner to say.
    "that the Run begins": report("startRun"),
    "what the model called": report("callTools", toolCalls=[]),
    "that the Run is complete": report("completeRun", text="forged"),
    "a forged result of the Run": report("completeRun", text="forged", messageId="m", usage={}, checkpoint={}),
    "a retry": report("retry", reason="forged"),
    "a delegate's result": report("resumeToolCalls", partialToolResults=[]),
    "that it waits for its delegates": report("stopRunByDelegate"),
    "that it is over the limit": report("stopRunByExceededMaxSteps"),
    "that it is cancelled": report("stopRunByCancellation"),
    "a container's status": report("dockerContainerStatus", status="removed", service="good"),
    "a lost sandbox": report("sandboxLost", cause="killed", evidence="forged"),
    "a stream of text": report("streamRunResult", delta="forged"),
    # Fields that are not there.
    "a forged message": report("startGeneration", newMessage={"type": "expertMessage", "id": "m", "contents": []}),
    "forged messages": report("finishToolCall", newMessages=[{"type": "toolMessage", "id": "m", "contents": []}]),
    "forged usage": report("startGeneration", usage={"inputTokens": 0, "outputTokens": 0}),
    "a forged cost": report("startGeneration", cost=0),
    "forged calls": report("callDelegate", toolCalls=[{"id": "x", "skillName": "good", "args": {"query": "q"}}]),
    "an undeclared delegate": report("callDelegate", delegateTo=[{"expertKey": "boss"}]),
    "another Run's id": report("startGeneration", runId="r"),
    "another Job's id": report("startGeneration", jobId="j"),
    "a forged checkpoint": report("continueToNextStep", checkpoint={}, nextCheckpoint={}, step={}),
    "a forged time": report("startGeneration", timestamp=0),
    "a forged step": report("startGeneration", stepNumber=1),
    "a result with the name of a tool": resolve(toolName="exec", skillName="@perstack/base"),
    "a result with the text of its call": resolve(args={}),
    # Values.
    "a result without an id": report("resolveToolResults", toolResults=[{"result": []}]),
    "a result without parts": report("resolveToolResults", toolResults=[{"id": CALL}]),
    "results that are no list": report("resolveToolResults", toolResults={"id": CALL, "result": []}),
    "a result of null": report("resolveToolResults", toolResults=[None]),
    "an id that is a number": resolve(id=17),
    "an id without an end": resolve(id="x" * 257),
    "parts without an end": resolve(result=parts(65)),
    "results without an end": report("resolveToolResults", toolResults=[{"id": CALL, "result": []}] * 129),
    "a part of an unknown type": resolve(result=[{"type": "toolCallPart", "toolCallId": "x", "toolName": "exec"}]),
    "a part that is to be fetched": resolve(result=[{"type": "imageUrlPart", "url": "file:///", "mimeType": "x"}]),
    "a part of thinking": resolve(result=[{"type": "thinkingPart", "thinking": "forged"}]),
    "an unknown field in a part": resolve(result=parts(1, cacheControl="forged")),
    "text that is a number": resolve(result=[{"type": "textPart", "text": 17}]),
    "an error that is a word": resolve(isError="perhaps"),
    "todos without an end": report("resolveToolResults", toolResults=[], todoChange={"added": ["x"] * 1_001}),
    "a todo without an end": report("resolveToolResults", toolResults=[], todoChange={"added": ["x" * 2_001]}),
    "a todo with a huge number": b'[{"type":"resolveToolResults","toolResults":[],"todoChange":{"completed":[1e400]}}]',
    "todos as the list itself": report("resolveToolResults", toolResults=[], todos=[{"id": 0, "title": "x"}]),
    "a duration that is no number": b'[{"type":"skillConnected","skillName":"@perstack/base","totalDurationMs":NaN}]',
    "an endless duration": b'[{"type":"skillConnected","skillName":"@perstack/base","totalDurationMs":1e999}]',
    "a negative duration": report("skillConnected", skillName="@perstack/base", totalDurationMs=-1),
    "tools of a skill": report("skillConnected", skillName="@perstack/base", totalDurationMs=1, tools=["rm"]),
    "the name of a skill without an end": report("skillConnected", skillName="x" * 257, totalDurationMs=1),
    "an error without a name": report("stopRunByError", error={"message": "x"}),
    "an error without an end": report("stopRunByError", error={"name": "x", "message": "x" * 10_001}),
    "the name of an error without an end": report("stopRunByError", error={"name": "x" * 257, "message": "x"}),
    "an error that is a text": report("stopRunByError", error="x"),
    "an error with more than it has": report("stopRunByError", error={"name": "x", "message": "x", "stack": "x"}),
}
"""What is no report of a runner's."""


@pytest.mark.parametrize("body", **named(BODIES))
async def test_a_frame_that_holds_no_report_ends_its_own_run_alone(local_stage: Stage, body: bytes) -> None:
    async def act(runner: RawRunner) -> None:
        await runner.begin()
        await runner.data(body)

    played = await play_beside(local_stage, over_frames(act))
    assert "not a message of this protocol" in check_it_ended_alone(played, "PeerViolation")


async def test_a_huge_number_is_refused_where_it_is_used(local_stage: Stage) -> None:
    async def act(runner: RawRunner) -> None:
        await runner.begin()
        ticked = b'{"completed":[' + b"9" * 400 + b"]}"
        results = b'[{"id":"call_1_0_0","result":[]}]'
        await runner.data(
            b'[{"type":"resolveToolResults","toolResults":' + results + b',"todoChange":' + ticked + b"}]"
        )

    check_it_ended_alone(await play_beside(local_stage, over_frames(act)), "ContractError", "PeerViolation")


HEADERS: dict[str, tuple[list[bytes], str]] = {
    "no header": ([b"", b""], "a header has"),
    "half a header": ([encode_header(Header(Kind.BEAT, 0, 0))[:9], b""], "a header has"),
    "a header and more": ([encode_header(Header(Kind.BEAT, 0, 0)) + b"x", b""], "a header has"),
    "noise": ([bytes(range(HEADER.size)), b""], "protocol version 0"),
    "an older version": ([HEADER.pack(PROTOCOL_VERSION - 1, Kind.BEAT, 0, 0), b""], "protocol version"),
    "a newer version": ([HEADER.pack(PROTOCOL_VERSION + 1, Kind.BEAT, 0, 0), b""], "protocol version"),
    "no kind": ([HEADER.pack(PROTOCOL_VERSION, 0, 0, 0), b""], "unknown kind"),
    "an unknown kind": ([HEADER.pack(PROTOCOL_VERSION, 200, 0, 0), b""], "unknown kind"),
    "an accept": ([encode_header(Header(Kind.ACCEPT, 0, 0)), b""], "does not send ACCEPT"),
    "a reject": ([encode_header(Header(Kind.REJECT, 0, 0)), b'{"message":"x"}'], "does not send REJECT"),
    "one part": ([encode_header(Header(Kind.BEAT, 0, 0))], "two parts"),
    "three parts": ([encode_header(Header(Kind.BEAT, 0, 0)), b"", b""], "two parts"),
    "a thousand parts": ([encode_header(Header(Kind.BEAT, 0, 0)), *[b""] * 999], "two parts"),
    "frame 0": ([encode_header(Header(Kind.DATA, 0, 0)), b"[]"], "outside the window"),
    "a frame beyond the window": ([encode_header(Header(Kind.DATA, WINDOW + 2, 0)), b"[]"], "outside the window"),
    "the last of all frames": ([struct.pack("!BBQQ", PROTOCOL_VERSION, Kind.DATA, 2**64 - 1, 0), b"[]"], "window"),
    "an acknowledgement of what was never sent": ([encode_header(Header(Kind.BEAT, 0, 3)), b""], "is acknowledged"),
    "the last of all acknowledgements": ([encode_header(Header(Kind.BEAT, 0, 2**64 - 1)), b""], "is acknowledged"),
    "data with such an acknowledgement": ([encode_header(Header(Kind.DATA, 2, 99)), b"[]"], "is acknowledged"),
    "hello in other words": ([encode_header(Header(Kind.HELLO, 0, 0)), b'{"hello":"world"}'], "not a message"),
    "hello with more than it has": (
        [
            encode_header(Header(Kind.HELLO, 0, 0)),
            b'{"runtimeVersion":"1","protocolVersion":2,"runId":"another"}',
        ],
        "not a message",
    ),
    "hello without an end": (
        [encode_header(Header(Kind.HELLO, 0, 0)), b'{"runtimeVersion":"' + b"1" * 65 + b'","protocolVersion":2}'],
        "not a message",
    ),
}
"""Frames that are none, sent when two commands and one frame of reports have crossed."""


@pytest.mark.parametrize(("frame", "words"), **named(HEADERS))
async def test_what_is_no_frame_ends_its_own_run_alone(local_stage: Stage, frame: list[bytes], words: str) -> None:
    async def act(runner: RawRunner) -> None:
        await runner.begin()
        await runner.send(*frame)

    assert words in check_it_ended_alone(await play_beside(local_stage, over_frames(act)), "PeerViolation")


@pytest.mark.parametrize("begun", [False, True], ids=["at first", "again"])
@pytest.mark.parametrize("words", [{"version": "0.0.0"}, {"protocol": PROTOCOL_VERSION + 1}], ids=["runtime", "wire"])
async def test_a_hello_of_another_version_ends_its_own_run_alone(
    local_stage: Stage, begun: bool, words: dict[str, Any]
) -> None:
    async def act(runner: RawRunner) -> None:
        if begun:
            await runner.begin()
        await runner.hello(**words)

    played = await play_beside(local_stage, over_frames(act))
    assert "build the image again" in check_it_ended_alone(played, "SandboxError")


# --- what a link may do to frames, or a hostile runner on purpose: it changes nothing


async def to_the_end(runner: RawRunner, calls: tuple[Any, ...]) -> None:
    """What an honest runner would say from here to the end of its Run."""
    results = [{"id": call.id, "result": parts(1)} for call in calls]
    await runner.data(report("resolveToolResults", toolResults=results))
    await runner.data(report("finishToolCall"))
    await runner.data(report("continueToNextStep"))
    await runner.data(report("startGeneration"))


async def says_hello_again_and_again(runner: RawRunner) -> None:
    calls = await runner.begin()
    for _ in range(20):
        await runner.hello()
    await to_the_end(runner, calls)


async def repeats_a_frame_with_other_words(runner: RawRunner) -> None:
    calls = await runner.begin()
    for _ in range(20):
        await runner.data(report("stopRunByError", error={"name": "x", "message": "x"}), seq=1)
        await runner.data(b"not json", seq=1)
    await to_the_end(runner, calls)


async def repeats_everything(runner: RawRunner) -> None:
    send = runner.data

    async def twice(body: bytes, *, seq: int | None = None, ack: int | None = None) -> None:
        await send(body, seq=seq, ack=ack)
        await send(body, seq=runner.seq, ack=ack)

    runner.data = twice  # type: ignore[method-assign]
    await to_the_end(runner, await runner.begin())


async def sends_what_comes_later_first(runner: RawRunner) -> None:
    calls = await runner.begin()
    await runner.data(report("continueToNextStep"), seq=4)
    await runner.data(b"not json", seq=3)
    await to_the_end(runner, calls)


async def takes_an_acknowledgement_back(runner: RawRunner) -> None:
    calls = await runner.begin()
    for _ in range(20):
        await runner.beat(ack=0)
    await to_the_end(runner, calls)


async def puts_words_into_its_beats(runner: RawRunner) -> None:
    calls = await runner.begin()
    for _ in range(20):
        await runner.beat(body=report("stopRunByError", error={"name": "x", "message": "x"}))
    await to_the_end(runner, calls)


UNDISTURBED = [
    "initializeRuntime",
    "startRun",
    "startGeneration",
    "callTools",
    "resolveToolResults",
    "finishToolCall",
    "continueToNextStep",
    "startGeneration",
    "completeRun",
]

HARMLESS: list[Callable[[RawRunner], Awaitable[None]]] = [
    says_hello_again_and_again,
    repeats_a_frame_with_other_words,
    repeats_everything,
    sends_what_comes_later_first,
    takes_an_acknowledgement_back,
    puts_words_into_its_beats,
]


@pytest.mark.parametrize("act", HARMLESS, ids=lambda act: act.__name__)
async def test_what_a_link_may_do_to_frames_changes_nothing(
    local_stage: Stage, act: Callable[[RawRunner], Awaitable[None]]
) -> None:
    played = await play_beside(local_stage, over_frames(act))
    assert played.of("stopRunByError") == []
    told = played.types(played.runs("bad")[0])
    assert [kind for kind in told if "tream" not in kind] == UNDISTURBED


async def test_the_check_finds_a_channel_that_takes_repeated_frames(
    local_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_all(self: Channel, seq: int) -> bool:
        self._taken = max(self._taken, seq)
        return True

    monkeypatch.setattr(Channel, "take", take_all)
    played = await play_beside(local_stage, over_frames(repeats_everything))
    assert played.of("stopRunByError", "bad") != []


async def test_what_is_said_after_the_end_is_heard_by_nobody(local_stage: Stage) -> None:
    async def act(runner: RawRunner) -> None:
        await to_the_end(runner, await runner.begin())
        for _ in range(50):
            await runner.data(report("stopRunByError", error={"name": "x", "message": "x"}))
            await runner.send(b"noise", b"")

    played = await play_beside(local_stage, over_frames(act))
    told = played.types(played.runs("bad")[0])
    assert told.count("completeRun") + told.count("stopRunByError") == 1
    assert played.end is not None
    assert played.end.text == "all in"


async def test_a_frame_that_is_too_large_never_arrives(local_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket breaks the connection off. Under its old name the runner could come back; without, it is lost."""
    monkeypatch.setattr("orchestrator.bus.LEASE_S", 0.5)
    for module in ("orchestrator.bus", "expert_runner.link"):
        monkeypatch.setattr(f"{module}.HEARTBEAT_S", 0.05)

    async def act(runner: RawRunner) -> None:
        await runner.hello()
        await runner.command()
        await runner.data(b"[" + b" " * wire.MAX_FRAME_BYTES + report("startGeneration")[1:])

    played = await play_beside(local_stage, over_frames(act))
    assert "silent" in check_it_ended_alone(played, "SandboxLost")
    assert played.of("callTools", "bad") == []
