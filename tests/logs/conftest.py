"""One history for all tests that only read it; those that change it get a copy."""

from pathlib import Path

import pytest

from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.logs import histories


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return histories.play(tmp_path_factory.mktemp("played"))


@pytest.fixture
def team(storage: Path) -> JobHistory:
    return JobHistory(Store(storage), "team")


@pytest.fixture
def copy(storage: Path, tmp_path: Path) -> Store:
    return histories.copied(storage, tmp_path)
