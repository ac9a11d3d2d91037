"""What all tests share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder whose path is short enough for sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)
