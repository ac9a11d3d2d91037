"""Fixtures for Jobs; a test that fails shows the events of its Job."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.jobs.stage import Stage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    stage = getattr(item, "funcargs", {}).get("stage") or getattr(item, "funcargs", {}).get("local_stage")
    if report.when == "call" and report.failed and isinstance(stage, Stage):
        report.sections.append(("events of the Job", stage.show()))
    return report


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path, request.param)


@pytest.fixture
def local_stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "local")
