import json
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

Messages = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def messages() -> Messages:
    """A conversation: for each of `results`, an answer that made one call a text in it, and the results of those."""

    def build(query: str = "do it", *results: list[str], expert: str | None = "coordinator") -> list[dict[str, Any]]:
        key = f'Your Expert key is "{expert}".' if expert else "Be brief."
        built: list[dict[str, Any]] = [
            {"role": "system", "content": f"You are an Expert.\n{key}\nBe brief."},
            {"role": "user", "content": query},
        ]
        for turn, texts in enumerate(results):
            answer: dict[str, Any] = {"role": "assistant", "content": f"answer {turn}", "tool_calls": []}
            built.append(answer)
            for number, text in enumerate(texts):
                call_id = f"id_{turn}_{number}"
                function = {"name": "exec", "arguments": "{}"}
                answer["tool_calls"].append({"id": call_id, "type": "function", "function": function})
                built.append({"role": "tool", "tool_call_id": call_id, "content": text})
        return built

    return build


@pytest.fixture
def body(messages: Messages) -> Callable[..., bytes]:
    """The body of a request with that conversation."""

    def build(*args: Any, stream: bool = False, **kwargs: Any) -> bytes:
        return json.dumps({"model": "any", "stream": stream, "messages": messages(*args, **kwargs)}).encode()

    return build


@pytest.fixture(scope="session")
def litellm() -> ModuleType:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise the import downloads a price list
    import litellm

    return litellm
