"""The names under which delegates are offered."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_runner.contract.experts import Expert
from orchestrator.config.tool_names import delegate_tool_name

part = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,100}", fullmatch=True)
keys = st.builds(
    lambda scope, name, version: (f"@{scope}/" if scope else "") + name + (f"@{version}" if version else ""),
    st.none() | part,
    part,
    st.sampled_from([None, "1.0.0", "2.1.3-beta.1", "latest"]),
).filter(lambda key: len(key) <= 214)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("writer", "writer"),
        ("@scope/writer", "scope-writer"),
        ("@scope/writer@1.0.0", "scope-writer"),
        ("writer@latest", "writer"),
        ("my_writer-2", "my_writer-2"),
    ],
)
def test_a_delegates_tool_is_named_like_its_expert(key: str, name: str) -> None:
    assert delegate_tool_name(key) == name


@given(keys)
def test_every_key_gives_a_name_that_providers_take(key: str) -> None:
    assert Expert(key=key, instruction="x").key == key
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", delegate_tool_name(key))


def test_long_names_that_begin_alike_stay_apart() -> None:
    first, second = (delegate_tool_name(f"@scope/{'x' * 80}{end}") for end in "ab")
    assert first != second
    assert len(first) == len(second) == 64
    assert first.startswith("scope-xxx")
