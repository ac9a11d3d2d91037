"""What went wrong, in words that say what to do and in no secret."""

from email.utils import formatdate
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import PerstackError
from orchestrator.model.failures import ModelError, broken_off, model_error, parse_retry_after, timed_out
from tests.model.stub_provider import KEY, openai

TARGET = openai("https://api.example.com/v1")


class LitellmError(Exception):
    """Shaped like litellm's."""

    def __init__(self, message: str = "", status_code: Any = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.__dict__.update(fields)


def named(name: str, base: type[Exception] = LitellmError) -> type[Exception]:
    return type(name, (base,), {})


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    try:
        raise error from cause
    except BaseException as chained:  # noqa: BLE001
        return chained


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529, 599])
def test_what_passes_is_retryable(status: int) -> None:
    error = model_error(LitellmError("no", status), TARGET)
    assert (error.status_code, error.is_retryable) == (status, True)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_what_stays_is_not(status: int) -> None:
    error = model_error(LitellmError("no", status), TARGET)
    assert (error.status_code, error.is_retryable) == (status, False)


@pytest.mark.parametrize(
    ("status", "parts"),
    [
        (401, ("refused the key", "OPENAI_API_KEY")),
        (403, ("does not allow", "OPENAI_API_KEY")),
        (404, ("no model 'gpt-4o'", "https://api.example.com/v1")),
        (429, ("limits the rate",)),
        (400, ("refused the request",)),
        (503, ("problem of its own",)),
    ],
)
def test_the_message_says_what_happened_and_what_to_look_at(status: int, parts: tuple[str, ...]) -> None:
    text = str(model_error(LitellmError("the provider's words", status), TARGET))
    assert all(part in text for part in (*parts, "openai", str(status), "the provider's words"))


def test_no_secret_is_in_a_message() -> None:
    target = openai("https://api.example.com/v1", headers={"X-Token": "header-secret"})
    error = model_error(LitellmError(f"Incorrect API key: {KEY}, token header-secret", 401), target)
    assert KEY not in str(error)
    assert "header-secret" not in str(error)
    assert "Incorrect API key" in str(error)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('litellm.AuthenticationError: AuthenticationError: OpenAIException - {"error": {"message": "bad"}}', "bad"),
        ('{"message": "bad"}', "bad"),
        ('{"error": "bad"}', "bad"),
        ('{"detail": [1]}', '{"detail": [1]}'),
        ("[1]", "[1]"),
        ("litellm.InternalServerError: bad\nTraceback (most recent call last):\n  File", "bad"),
        ("", "LitellmError"),
    ],
)
def test_the_providers_words_are_found_in_what_is_around_them(message: str, words: str) -> None:
    assert str(model_error(LitellmError(message, 400), TARGET)).endswith(f"(400): {words}")


def test_a_long_message_is_cut() -> None:
    assert len(str(model_error(LitellmError("x" * 10**6, 400), TARGET))) < 1200


def test_a_full_context_window_is_named() -> None:
    error = model_error(named("ContextWindowExceededError")("too long", 400), TARGET)
    assert "context window" in str(error)
    assert not error.is_retryable


def test_a_refused_connection_names_the_address() -> None:
    error = model_error(raised_from(LitellmError("Connection error.", 500), named("ConnectError")("no")), TARGET)
    assert "cannot connect to https://api.example.com/v1" in str(error)
    assert (error.status_code, error.is_retryable) == (None, True)


@pytest.mark.parametrize("kind", ["ReadError", "RemoteProtocolError", "ClientPayloadError", "ServerDisconnectedError"])
def test_a_broken_stream_is_retryable_and_no_status_of_the_provider(kind: str) -> None:
    error = model_error(raised_from(LitellmError("boom", 500), named(kind)("x")), TARGET)
    assert (error.status_code, error.is_retryable) == (None, True)
    assert "broke its answer off" in str(error)


def test_the_error_inside_litellms_wrapper_counts() -> None:
    inner = LitellmError("Overloaded", 529)
    error = model_error(LitellmError("MidStreamFallbackError", None, original_exception=inner), TARGET)
    assert (error.status_code, error.is_retryable) == (529, True)
    assert "Overloaded" in str(error)


def test_a_missing_package_is_named_and_final() -> None:
    cause = ModuleNotFoundError("No module named 'boto3'", name="boto3")
    error = model_error(raised_from(LitellmError("x", 500), cause), TARGET)
    assert "boto3" in str(error)
    assert not error.is_retryable


def test_missing_credentials_are_final() -> None:
    error = model_error(raised_from(LitellmError("x", 500), named("NoCredentialsError")("Unable to locate")), TARGET)
    assert (error.status_code, error.is_retryable) == (401, False)


def test_an_error_of_no_known_kind_is_final() -> None:
    error = model_error(KeyError("choices"), TARGET)
    assert (error.status_code, error.is_retryable) == (None, False)
    assert "choices" in str(error)


@pytest.mark.parametrize("status", ["429", 429.0, 200, 0, "many", None])
def test_a_status_is_read_whatever_it_is(status: Any) -> None:
    error = model_error(LitellmError("x", status), TARGET)
    assert error.status_code == (429 if str(status).startswith("429") else None)


def test_errors_that_cause_each_other_are_no_trap() -> None:
    first, second = LitellmError("first"), LitellmError("second", 503)
    first.__cause__, second.__cause__ = second, first
    assert model_error(first, TARGET).status_code == 503


def test_our_own_timeout_says_how_to_raise_it() -> None:
    error = timed_out(TARGET, 60_000)
    assert (error.status_code, error.is_retryable) == (408, True)
    assert "60000 ms" in str(error)
    assert "--timeout" in str(error)


def test_a_model_error_is_one_of_ours() -> None:
    assert isinstance(broken_off(TARGET), PerstackError)
    assert broken_off(TARGET).is_retryable
    assert ModelError("x").is_retryable is False


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "9", "Retry-After-Ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


def test_retry_after_as_a_date_is_a_wait_from_now() -> None:
    wait = parse_retry_after({"retry-after": formatdate(time() + 100, usegmt=True)})
    assert wait is not None
    assert 95 < wait <= 100


def test_retry_after_is_found_on_the_response_or_beside_it() -> None:
    beside = LitellmError("x", 429, litellm_response_headers={"retry-after": "3"})
    inside = LitellmError("x", 429, response=SimpleNamespace(headers={"retry-after": "4"}))
    assert model_error(beside, TARGET).retry_after_s == 3
    assert model_error(inside, TARGET).retry_after_s == 4
