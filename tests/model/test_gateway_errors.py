"""A model that cannot or will not answer, over HTTP."""

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import StoreError
from orchestrator.model import assembly
from orchestrator.model.gateway import Delta, Gateway, ModelError
from orchestrator.scripted_model import Conversation as Turns
from orchestrator.scripted_model import DisconnectFault, HangFault, Script, ScriptedModel, StatusFault, Turn
from tests.model.stub_provider import KEY, TOOL, StubProvider, chunk, conversation, openai, sse


@pytest.fixture
def fail(gateway: Callable[..., Gateway]) -> Callable[..., Any]:
    """The error of asking a scripted model that fails."""

    async def fail(turn: Turn, **options: Any) -> ModelError:
        async with ScriptedModel(Script(conversations=(Turns(expert="*", turns=(turn,)),))) as server:
            with pytest.raises(ModelError) as raised:
                await gateway(openai(server.url), **options).generate(conversation(), [TOOL], lambda delta: None)
        return raised.value

    return fail


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_stays_wrong_is_final(fail: Callable[..., Any], status: int) -> None:
    error = await fail(Turn(faults=(StatusFault(status=status, message="its words"),)))
    assert (error.status_code, error.is_retryable) == (status, False)
    assert "its words" in str(error)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_what_may_pass_is_retryable(fail: Callable[..., Any], status: int) -> None:
    error = await fail(Turn(faults=(StatusFault(status=status, message="its words"),)))
    assert (error.status_code, error.is_retryable) == (status, True)
    assert "its words" in str(error)


async def test_each_attempt_is_one_request(gateway: Callable[..., Gateway]) -> None:
    turn = Turn(faults=(StatusFault(status=503),))
    async with ScriptedModel(Script(conversations=(Turns(expert="*", turns=(turn,)),))) as server:
        with pytest.raises(ModelError):
            await gateway(openai(server.url)).generate(conversation(), [], lambda delta: None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_that_is_asked_for_is_told(fail: Callable[..., Any], status: int) -> None:
    error = await fail(Turn(faults=(StatusFault(status=status, retry_after=7),)))
    assert error.retry_after_s == 7


async def test_the_variable_of_a_refused_key_is_named(fail: Callable[..., Any]) -> None:
    assert "OPENAI_API_KEY" in str(await fail(Turn(faults=(StatusFault(status=401),))))


async def test_an_unknown_model_is_named_with_the_address(fail: Callable[..., Any]) -> None:
    text = str(await fail(Turn(faults=(StatusFault(status=404),))))
    assert "'gpt-4o'" in text
    assert "http://127.0.0.1" in text


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_no_key_is_in_an_error_its_traceback_or_the_log(
    fail: Callable[..., Any], status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    error = await fail(Turn(faults=(StatusFault(status=status, message=f"bad key {KEY}"),)))
    assert KEY not in "".join(traceback.format_exception(error))
    assert KEY not in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("turn", [Turn(faults=(HangFault(),)), Turn(text="late", delay_ms=60_000)])
async def test_an_answer_that_takes_too_long_is_given_up(fail: Callable[..., Any], turn: Turn) -> None:
    async with asyncio.timeout(10):
        error = await fail(turn, timeout_ms=200)
    assert (error.status_code, error.is_retryable) == (408, True)
    assert "200 ms" in str(error)


async def test_the_timeout_is_for_the_whole_answer(gateway: Callable[..., Gateway], stub: StubProvider) -> None:
    stub.parts = [sse([chunk({"content": "begun"})]), asyncio.Event()]
    deltas: list[Delta] = []
    with pytest.raises(ModelError, match="200 ms"):
        await gateway(openai(f"{stub.url}/v1"), timeout_ms=200).generate(conversation(), [], deltas.append)
    assert deltas == [("text", "begun")]


async def test_a_stream_that_breaks_off_is_retryable(fail: Callable[..., Any]) -> None:
    error = await fail(Turn(text="x" * 500, faults=(DisconnectFault(),)))
    assert (error.status_code, error.is_retryable) == (None, True)
    assert "broke its answer off" in str(error)


@pytest.mark.parametrize("events", [[], [chunk({"content": "half"})], [": a comment"]])
async def test_a_stream_that_ends_too_early_is_broken_off(ask_stub: Callable[..., Any], events: list[Any]) -> None:
    with pytest.raises(ModelError, match="broke its answer off") as raised:
        await ask_stub(events)
    assert raised.value.is_retryable


async def test_a_connection_lost_before_the_answer_is_retryable(
    gateway: Callable[..., Gateway], stub: StubProvider
) -> None:
    stub.parts = [None]
    with pytest.raises(ModelError) as raised:
        await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], lambda delta: None)
    assert raised.value.is_retryable


async def test_a_refused_connection_names_the_address(gateway: Callable[..., Gateway]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match=url) as raised:
        await gateway(openai(url)).generate(conversation(), [], lambda delta: None)
    assert (raised.value.status_code, raised.value.is_retryable) == (None, True)


@pytest.mark.parametrize(("code", "is_retryable"), [(429, True), (503, True), (400, False)])
async def test_an_error_inside_a_stream_has_its_own_status(
    ask_stub: Callable[..., Any], code: int, is_retryable: bool
) -> None:
    events = [chunk({"content": "begun"}), {"error": {"message": "its words", "code": code}}]
    with pytest.raises(ModelError, match="its words") as raised:
        await ask_stub(events)
    assert (raised.value.status_code, raised.value.is_retryable) == (code, is_retryable)


async def test_a_page_that_is_no_answer_is_an_error(gateway: Callable[..., Gateway], stub: StubProvider) -> None:
    stub.parts, stub.headers = [b"<html>welcome</html>"], {"Content-Type": "text/html"}
    with pytest.raises(ModelError):
        await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], lambda delta: None)


async def test_an_answer_that_the_filter_stopped_is_final(ask_stub: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="content filter") as raised:
        await ask_stub([chunk({"content": "I "}), chunk(finish="content_filter"), "[DONE]"])
    assert not raised.value.is_retryable


async def test_an_answer_beyond_all_limits_is_final(
    ask_stub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "MAX_TEXT", 10)
    with pytest.raises(ModelError, match="more than 10 characters of text") as raised:
        await ask_stub([chunk({"content": "x" * 11})])
    assert not raised.value.is_retryable


async def test_a_listeners_own_error_stays_what_it_is(gateway: Callable[..., Gateway], stub: StubProvider) -> None:
    def listen(delta: Delta) -> None:
        raise StoreError("disk full")

    stub.parts = [sse([chunk({"content": "hi"}), chunk(finish="stop"), "[DONE]"])]
    with pytest.raises(StoreError, match="disk full"):
        await gateway(openai(f"{stub.url}/v1")).generate(conversation(), [], listen)


async def test_a_cancelled_generation_closes_its_connection(
    gateway: Callable[..., Gateway], stub: StubProvider
) -> None:
    arrived = asyncio.Event()
    stub.parts = [sse([chunk({"content": "begun"})]), asyncio.Event()]
    asked = gateway(openai(f"{stub.url}/v1"))
    task = asyncio.create_task(asked.generate(conversation(), [], lambda delta: arrived.set()))
    await asyncio.wait_for(arrived.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stub.gone.wait(), 10)


async def test_after_an_error_the_next_attempt_succeeds(gateway: Callable[..., Gateway]) -> None:
    faults = (StatusFault(status=500, times=1), DisconnectFault(times=1), HangFault(times=1))
    turn = Turn(text="at last", faults=faults)
    async with ScriptedModel(Script(conversations=(Turns(expert="*", turns=(turn,)),))) as server:
        asked = gateway(openai(server.url), timeout_ms=500)
        for _ in faults:
            with pytest.raises(ModelError) as raised:
                await asked.generate(conversation(), [], lambda delta: None)
            assert raised.value.is_retryable
        assert (await asked.generate(conversation(), [], lambda delta: None)).text == "at last"
