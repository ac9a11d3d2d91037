"""What went wrong with a model call: from litellm's many exceptions to one that says what happened and what to do."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from orchestrator.errors import PerstackError
from orchestrator.model.provider import Target

_RETRYABLE = frozenset({408, 409, 429})
_MAX_MESSAGE = 1_000
_CHAIN = 20

_CONNECTING = frozenset({"ConnectError", "ConnectTimeout", "ClientConnectorError", "ProxyError"})
_BREAKING = frozenset(
    {"ReadError", "RemoteProtocolError", "ClientPayloadError", "ServerDisconnectedError", "ClientOSError", "WriteError"}
)
_TIMEOUTS = frozenset({"TimeoutException", "Timeout", "APITimeoutError", "TimeoutError"})
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
)
_LITELLM_PREFIXES = re.compile(r"^(?:litellm\.\w+: |(?:\w+ )?\w*(?:Error|Exception|error): |\w+Exception - ?)+")


class ModelError(PerstackError):
    """One attempt at an answer failed. No secret of the provider is in its message.

    `status_code` is the provider's HTTP status, where there is one (408 for our own timeout). `retry_after_s` is how
    long the provider asks to be left alone.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        is_retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s


def timed_out(target: Target, timeout_ms: int) -> ModelError:
    """The answer was not complete in time."""
    message = (
        f"{_who(target)} gave no complete answer within {timeout_ms} ms: raise the timeout (--timeout) or ask for less"
    )
    return ModelError(message, status_code=408, is_retryable=True)


def broken_off(target: Target) -> ModelError:
    """The answer ended in the middle."""
    return ModelError(f"{_who(target)} broke its answer off: the connection was lost midway", is_retryable=True)


def model_error(error: BaseException, target: Target) -> ModelError:
    """What `error`, raised by litellm or below it, means."""
    chain = list(_chain(error))
    kinds = {kind.__name__ for each in chain for kind in type(each).__mro__}
    missing = next((each for each in chain if isinstance(each, ImportError)), None)
    if missing is not None:
        package = missing.name or str(missing)
        return ModelError(
            f"the provider {target.provider} needs the Python package {package}: install it beside perstack"
        )
    if kinds & _NO_CREDENTIALS:
        message = f"no credentials for {target.provider} were found where its own tools look: {_told(error, target)}"
        return ModelError(message, status_code=401)
    if kinds & _CONNECTING:
        where = target.base_url or f"the provider {target.provider}"
        message = f"cannot connect to {where}: check that it is running and that the address (baseUrl) is right"
        return ModelError(message, is_retryable=True)
    # The provider's own status is on the HTTP error at the bottom; litellm knows fewer.
    chain.sort(key=lambda each: not any(kind.__name__ == "HTTPStatusError" for kind in type(each).__mro__))
    status = next((code for code in map(_status, chain) if code is not None), None)
    if kinds & _TIMEOUTS and status in (None, 408):
        message = f"{_who(target)} took too long: {_told(error, target)}"
        return ModelError(message, status_code=408, is_retryable=True)
    # litellm gives a broken connection the status 500, as if the provider had said so.
    if kinds & _BREAKING:
        return broken_off(target)
    return ModelError(
        _explain(status, "ContextWindowExceededError" in kinds, _told(error, target), target),
        status_code=status,
        is_retryable=status is not None and (status in _RETRYABLE or 500 <= status <= 599),
        retry_after_s=next((wait for wait in map(_retry_after_s, chain) if wait is not None), None),
    )


def _explain(status: int | None, is_context_full: bool, told: str, target: Target) -> str:
    who, key = _who(target), target.key_name or "its credentials"
    if is_context_full:
        return f"the conversation no longer fits the context window of {who} ({status}): {told}"
    match status:
        case 401:
            return f"{who} refused the key (401): check {key}. It said: {told}"
        case 403:
            return f"{who} does not allow this request (403): check what {key} may use. It said: {told}"
        case 404:
            where = f" at {target.base_url}" if target.base_url else ""
            what = f"{target.provider} has no model {target.model!r}{where} (404)"
            return f"{what}: check the model and baseUrl. It said: {told}"
        case 429:
            return f"{who} limits the rate of requests (429): {told}"
        case None:
            return f"the call of {who} failed: {told}"
        case _ if status >= 500:
            return f"{who} has a problem of its own ({status}): {told}"
        case _:
            return f"{who} refused the request ({status}): {told}"


def _who(target: Target) -> str:
    return f"{target.provider} ({target.model})"


def _told(error: BaseException, target: Target) -> str:
    """The provider's own words, without what litellm puts around them and without secrets."""
    original = getattr(error, "original_exception", None) or error
    text = target.scrub(str(getattr(original, "message", None) or original))
    text = text.partition("\nTraceback (most recent call last)")[0].strip()
    text = _message_in(_LITELLM_PREFIXES.sub("", text)) or type(original).__name__
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


def _message_in(text: str) -> str:
    """The message in an error's body: most providers send JSON like `{"error": {"message": …}}`."""
    try:
        body = json.loads(text.removeprefix("b'").removesuffix("'"))
    except ValueError:
        return text
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it came from."""
    seen: list[BaseException] = []
    following: list[BaseException | None] = [error]
    while following and len(seen) < _CHAIN:
        each = following.pop(0)
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        original = getattr(each, "original_exception", None)
        following += [original if isinstance(original, BaseException) else None, each.__cause__, each.__context__]


def _status(error: BaseException) -> int | None:
    try:
        status = int(getattr(error, "status_code", None) or 0)
    except (TypeError, ValueError):
        return None
    return status if 400 <= status <= 599 else None


def _retry_after_s(error: BaseException) -> float | None:
    response = getattr(error, "response", None)
    for headers in (getattr(error, "litellm_response_headers", None), getattr(response, "headers", None)):
        if isinstance(headers, Mapping):
            wait = parse_retry_after(headers)
            if wait is not None:
                return wait
    return None


def parse_retry_after(headers: Mapping[str, Any]) -> float | None:
    """Seconds to wait according to `headers`, as `Retry-After` in seconds or as a date, or in milliseconds."""
    given = {name.lower(): str(value) for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(given[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        return max(parsedate_to_datetime(given["retry-after"]).timestamp() - time.time(), 0.0)
    except (KeyError, ValueError, OverflowError):
        return None
