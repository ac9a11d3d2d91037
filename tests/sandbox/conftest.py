"""Sandboxes on the real engine."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import docker
import pytest

from expert_runner.version import RUNTIME_VERSION
from tests.sandbox.docker_lab import Lab

# The image of the product, but process 1 runs whatever the test wants to see there.
DOCKERFILE = f"""
FROM perstack-expert:{RUNTIME_VERSION}
LABEL perstack.test=probe
ENTRYPOINT ["python3", "-c", "import os; exec(os.environ['PROBE'])"]
"""


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def probe_image(engine: docker.DockerClient) -> Iterator[str]:
    name = f"perstack-test-probe:{uuid4().hex}"
    engine.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag=name, rm=True, forcerm=True)
    yield name
    engine.images.remove(name, force=True)


@pytest.fixture
async def lab(short_path: Path, probe_image: str, engine: docker.DockerClient) -> AsyncIterator[Lab]:
    lab = Lab(short_path, probe_image, engine)
    lab.workspace.mkdir()
    lab.runtime_folder.mkdir()
    yield lab
    for backend in lab.backends:
        await backend.close()
    assert lab.leftovers() == []
