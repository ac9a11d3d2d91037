"""The one place that knows litellm's ways."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from expert_runner.contract.usage import Usage
from orchestrator.model.assembly import Assembly, get_field, merge_usage
from orchestrator.model.conversation import Conversation, Extra
from orchestrator.model.provider import ProviderName, Target
from orchestrator.model.reasoning import Effort, reasoning_options

_TAIL_S = 2.0
"""Seconds to wait for the usage and the end of a stream whose answer is complete."""

_SLACK_S = 5.0
"""Seconds by which litellm's own timeouts come after ours, which says more."""

_PLACEHOLDER = {"role": "user", "content": "."}

_ANY_TOOL = {"type": "function", "function": {"name": "any", "parameters": {"type": "object", "properties": {}}}}
"""Stands for tools where only matters that there are some."""

_CACHED = [{"location": "message", "role": "system"}, {"location": "message", "index": -1}]
"""Up to where Anthropic is asked to cache the prompt, which it does not do unasked: each step sends all of it again."""


_SIGNED = frozenset({Extra.THINKING_BLOCKS, Extra.CALL_SIGNATURES})
_EXTRAS: dict[ProviderName, frozenset[Extra]] = {
    ProviderName.ANTHROPIC: _SIGNED,
    ProviderName.AMAZON_BEDROCK: _SIGNED,
    ProviderName.GOOGLE: _SIGNED,
    ProviderName.GOOGLE_VERTEX: _SIGNED,
    ProviderName.DEEPSEEK: frozenset({Extra.REASONING}),
    ProviderName.OLLAMA: frozenset({Extra.REASONING}),
    ProviderName.AZURE_OPENAI: frozenset(),
}


def wanted_extras(target: Target) -> frozenset[Extra]:
    """What `target` wants back of its answers. Those in a Run may be another provider's, which wants other things."""
    if target.provider is ProviderName.OPENAI:
        # OpenAI itself discloses no reasoning and takes none; servers that speak its language may do both.
        host = urlsplit(target.base_url or "").hostname or ""
        is_openai = host == "openai.com" or host.endswith(".openai.com")
        return frozenset() if is_openai else frozenset({Extra.REASONING})
    return _EXTRAS[target.provider]


class Report:
    """What a provider says about its answer. `finish_reason` is None if the stream broke off."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.finish_reason: str | None = None
        self.last_usage: Any = None

    def take(self, chunk: Any) -> None:
        """Read a chunk as it came: litellm strips, replaces or estimates these things on their way up."""
        usage = get_field(chunk, "usage")
        if usage is not None:
            self.usage, self.last_usage = merge_usage(self.usage, usage), usage
        # The end of a stream comes as a chunk of its own that says "stop" and must not hide an earlier reason.
        for place in (*(get_field(chunk, "choices") or ()), chunk):
            self.finish_reason = self.finish_reason or get_field(place, "finish_reason") or None


class Backend:
    """One model at one provider, through litellm.

    Args:
        litellm: the module, loaded.
        target: the model.
        budget: how much it may reason.
    """

    def __init__(self, litellm: Any, target: Target, budget: Effort | int | None) -> None:
        self._litellm = litellm
        self._target = target
        self._name = {"model": target.model, "custom_llm_provider": target.litellm_model.partition("/")[0]}
        reasoning = reasoning_options(target.provider, budget, self._takes)
        self._extras = wanted_extras(target)
        self._effort = reasoning.get("reasoning_effort")
        self._is_chat: dict[bool, bool] = {}
        self._options = {
            **target.options,
            **reasoning,
            "model": target.litellm_model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "num_retries": 0,
            # Nothing here is a tool of litellm's own proxy, and looking costs an import of its MCP client.
            "_skip_mcp_handler": True,
        }
        if target.provider is ProviderName.ANTHROPIC:
            self._options["cache_control_injection_points"] = _CACHED

    def _takes(self, options: dict[str, Any]) -> bool:
        """Whether the model has these options, as far as litellm knows."""
        supported = self._litellm.get_supported_openai_params(**self._name) or ()
        if not set(options) <= set(supported):
            return False
        try:
            self._litellm.get_optional_params(**self._name, **options)
        except self._litellm.UnsupportedParamsError:
            return False
        return True

    @cached_property
    def context_window(self) -> int | None:
        """Tokens; None if litellm's table does not have the model."""
        window = self._info.get("max_input_tokens")
        return window if isinstance(window, int) else None

    @cached_property
    def _info(self) -> dict[str, Any]:
        try:
            return dict(self._litellm.get_model_info(**self._name))
        except Exception:  # noqa: BLE001 - a bare Exception is how litellm says that it does not know a model
            return {}

    @cached_property
    def _http(self) -> "_Http":
        return _Http()

    async def ask(
        self, conversation: Conversation, tools: Sequence[dict[str, Any]], assembly: Assembly, *, timeout_s: float
    ) -> Report:
        """Stream one answer into `assembly`. Raises whatever litellm raises."""
        report = Report()
        stream = await self._open(conversation, list(tools), timeout_s)
        try:
            if stream.completion_stream is None:
                await stream.fetch_stream()  # some providers are asked only now
            tap = stream.completion_stream = _Tap(stream.completion_stream, report)
            async for chunk in stream:
                assembly.take(chunk)
                stream.chunks.clear()  # litellm keeps them to estimate what the tap has read
                if stream.sent_last_chunk:
                    break
            await _drain(tap)
        finally:
            await stream.aclose()
        return report

    async def _open(self, conversation: Conversation, tools: list[dict[str, Any]], timeout_s: float) -> Any:
        options = {**self._options, "timeout": timeout_s + _SLACK_S}
        if tools:
            options["tools"] = tools
        if self._takes_messages_as_they_are(has_tools=bool(tools)):
            with self._http.splicing.holding(conversation.encoded(self._extras)) as marker:
                return await self._litellm.acompletion(
                    **options,
                    messages=[_PLACEHOLDER],
                    extra_body={"messages": marker},
                    client=self._http.splicing_client,
                )
        if self._target.provider is not ProviderName.AZURE_OPENAI:  # which takes a client of the openai package's
            options["client"] = self._http.client
        return await self._litellm.acompletion(**options, messages=conversation.messages(self._extras))

    def _takes_messages_as_they_are(self, *, has_tools: bool) -> bool:
        """Whether it goes to OpenAI's chat completions: litellm asks some of their models by another API."""
        if self._target.provider is not ProviderName.OPENAI:
            return False
        if has_tools not in self._is_chat:
            info, _ = self._litellm.main.responses_api_bridge_check(
                **self._name,
                tools=[_ANY_TOOL] if has_tools else [],
                reasoning_effort=self._effort,
                api_base=self._target.base_url,
            )
            self._is_chat[has_tools] = info.get("mode") != "responses"
        return self._is_chat[has_tools]

    def cost(self, report: Report) -> float | None:
        """US dollars; None if the usage or the price is not known."""
        usage = report.usage
        if not usage.total_tokens or not self._info:
            return None
        known = report.last_usage
        # What litellm made of the report tells kinds of tokens apart that have prices of their own.
        if not isinstance(known, self._litellm.Usage) or known.prompt_tokens != usage.input_tokens:
            known = self._litellm.Usage(
                prompt_tokens=usage.input_tokens,
                completion_tokens=usage.output_tokens,
                total_tokens=usage.total_tokens,
                prompt_tokens_details={"cached_tokens": usage.cached_input_tokens},
                completion_tokens_details={"reasoning_tokens": usage.reasoning_tokens},
            )
        try:
            prompt, completion = self._litellm.cost_per_token(**self._name, usage_object=known)
        except Exception:  # noqa: BLE001 - as in _info
            return None
        # A table without a price says nothing, or zero; only what runs at home is free.
        is_free = self._target.provider is ProviderName.OLLAMA
        return float(prompt + completion) if prompt or completion or is_free else None

    async def close(self) -> None:
        """Close what was opened."""
        if "_http" in self.__dict__:
            await self._http.inner.aclose()


class _Http:
    """litellm's HTTP client, with our transports between it and its own."""

    def __init__(self) -> None:
        # These come with litellm: not before it is loaded.
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, get_ssl_configuration

        from orchestrator.model.lines import LineTransport, mend_line, mend_openai_line
        from orchestrator.model.splice import SplicingTransport

        verify = get_ssl_configuration()
        handler: Any = AsyncHTTPHandler
        self.inner = handler.create_async_transport(
            ssl_context=verify if isinstance(verify, ssl.SSLContext) else None,
            ssl_verify=verify if isinstance(verify, bool) else None,
        )
        self.client = AsyncHTTPHandler(transport=LineTransport(self.inner, mend_line))
        self.splicing = SplicingTransport(LineTransport(self.inner, mend_openai_line))
        self.splicing_client = AsyncHTTPHandler(transport=self.splicing)


class _Tap:
    """A provider's stream on its way into litellm's, with `report` reading along."""

    def __init__(self, chunks: Any, report: Report) -> None:
        self._chunks = chunks
        self._report = report

    def __aiter__(self) -> AsyncIterator[Any]:
        self._iterator = aiter(self._chunks)
        return self

    async def __anext__(self) -> Any:
        chunk = await anext(self._iterator)
        self._report.take(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


async def _drain(tap: _Tap) -> None:
    """Read what follows a complete answer: its usage, and the end that lets the connection be used again."""
    try:
        async with asyncio.timeout(_TAIL_S):
            async for _ in tap:
                pass
    except Exception:  # noqa: BLE001, S110 - the answer is complete; all that can be lost is its usage
        pass
