"""Fixtures for replays: where Jobs are recorded, and temporary folders that have to be gone afterwards."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.stage import Stage


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path, request.param)


@pytest.fixture
def local_stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "local")


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, short_path: Path, tmp_path: Path) -> Iterator[Path]:
    """Where replays make what they need; nothing of it stays, and no provider's key is there to be used."""
    # pytest makes its own temporary folder before this one takes its place.
    assert tmp_path.is_dir()
    folder = short_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield folder
    assert list(folder.glob("perstack-replay-*")) == []
