"""Models for embedding programs: one to ask, and how much one holds."""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from expert_runner.contract.usage import Usage
from orchestrator.api.setting import ReasoningBudget
from orchestrator.errors import ConfigError
from orchestrator.model.backend import Backend
from orchestrator.model.gateway import Gateway
from orchestrator.model.loader import loaded
from orchestrator.model.provider import LITELLM_PREFIXES, ProviderConfig, Target, resolve

Provider = ProviderConfig | Mapping[str, Any]
"""A provider's configuration; a mapping is validated as one."""


async def get_model(
    model: str,
    provider_config: Provider | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    timeout_ms: int = 60_000,
    reasoning_budget: ReasoningBudget | None = None,
) -> Gateway:
    """A model as it answers Experts: `generate` asks it once, `close` closes its connections.

    Args:
        model: the provider's name of it.
        provider_config: its provider; None: Anthropic.
        environment: where the provider's key is looked up; None: this process's environment.
        timeout_ms: milliseconds that an answer may take.
        reasoning_budget: an effort or a number of tokens; None leaves it to the provider.

    Raises:
        MissingKeyError: the provider's key is not set.
        ConfigError: the provider cannot be used like this.
    """
    target = resolve(_provider(provider_config), model, os.environ if environment is None else environment)
    return Gateway(target, timeout_ms=timeout_ms, reasoning_budget=reasoning_budget)


async def get_context_window(model: str, provider_config: Provider | None = None) -> int | None:
    """The tokens that a model's input can hold; None if nobody knows. No key is needed and nobody is asked.

    Raises:
        ConfigError: `provider_config` is none.
    """
    provider = _provider(provider_config).provider_name
    target = Target(
        provider,
        model,
        f"{LITELLM_PREFIXES[provider]}/{model}",
        base_url=None,
        key_name=None,
        options={},
        secrets=frozenset(),
    )
    return Backend(await loaded(), target, None).context_window


async def calculate_context_window_usage(usage: Usage, context_window: int) -> float:
    """The share (0 to 1) of a context window of so many tokens that a request and its answer took, as checkpoints tell
    it.

    Args:
        usage: of one answer, not of a Run.

    Raises:
        ValueError: the window holds nothing.
    """
    if context_window <= 0:
        raise ValueError(f"a context window of {context_window} tokens")
    return round((usage.input_tokens + usage.output_tokens) / context_window, 6)


def _provider(given: Provider | None) -> ProviderConfig:
    try:
        return ProviderConfig.model_validate(given or {})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError(f"the provider's configuration is not valid: {problems}") from None
