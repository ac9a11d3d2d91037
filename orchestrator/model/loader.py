"""Loading litellm beside everything else: its import takes seconds, for which nothing else should wait."""

import asyncio
import gc
import logging
import os
import warnings
from concurrent.futures import Future
from threading import Lock, Thread
from types import ModuleType
from typing import Any

_ENVIRONMENT = {
    # Prices come from the package itself: without this the import downloads them.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # Anything but DEV: the import would read the working directory's .env into this process.
    "LITELLM_MODE": "PRODUCTION",
    # `openai/` models go through litellm's own HTTP handler instead of the openai package, which checks every message
    # of the history again for each request (0.1 ms a message).
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "true",
}
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")

_lock = Lock()
_loading: Future[ModuleType] | None = None


def start_loading() -> None:
    """Begin to import litellm in a thread of its own, if nobody has yet. Returns at once."""
    _start()


async def loaded() -> ModuleType:
    """litellm, once it is imported and set up.

    Raises:
        ImportError: it cannot be imported.
    """
    return await asyncio.wrap_future(_start())


def _start() -> Future[ModuleType]:
    global _loading
    with _lock:
        if _loading is None:
            _loading = Future()
            # What runs cannot be cancelled: a caller that gives up leaves the import to the others.
            _loading.set_running_or_notify_cancel()
            # A daemon, so that a command that fails early exits without waiting for the import.
            Thread(target=_load, args=(_loading,), name="litellm-import", daemon=True).start()
        return _loading


def _load(loading: "Future[ModuleType]") -> None:
    try:
        module = _import()
    except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
        loading.set_exception(error)
    else:
        loading.set_result(module)


def _import() -> ModuleType:
    for name, value in _ENVIRONMENT.items():
        os.environ[name] = value
    # The import makes a million objects that live for ever. The collector would walk them again and again: a quarter
    # of the import's time, and pauses later. What other threads drop meanwhile waits until it is on again.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import litellm

        _set_up(litellm)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
    return litellm


def _set_up(litellm: Any) -> None:
    litellm.suppress_debug_info = True  # it prints to stdout, which carries events
    litellm.telemetry = False
    litellm.disable_streaming_logging = True
    litellm.disable_token_counter = True
    for name in _LOGGERS:
        # Its log lines repeat requests and headers. What matters in them reaches the user as a typed error.
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
    litellm.main.encoding = _LazyEncoding()
    # A request that is cancelled before its first byte leaves a coroutine of litellm's own behind.
    warnings.filterwarnings("ignore", r"coroutine '.*acompletion_stream_function' was never awaited", RuntimeWarning)


class _LazyEncoding:
    """Stands in for litellm's default tokenizer and loads it when it is used.

    litellm loads it with the first request (0.2 s), to hand it to code that counts tokens of answers not streamed.
    """

    def __getattr__(self, name: str) -> Any:
        from litellm.litellm_core_utils.default_encoding import encoding

        return getattr(encoding, name)
