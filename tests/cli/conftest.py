"""The `perstack` command in a folder of each test's own."""

from pathlib import Path

import pytest

from tests.cli.shell import Shell


@pytest.fixture
def shell(short_path: Path) -> Shell:
    return Shell(short_path)
