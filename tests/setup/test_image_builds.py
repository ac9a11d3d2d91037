"""Real builds of a tiny image, on the base image that `make images` left here."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from setup import docker_cli, images
from setup.checkout import Checkout
from setup.images import Recipe
from setup.process import SetupError

pytestmark = pytest.mark.docker

RECIPE = Recipe("setuptest", ("expert_runner",), {})
DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS builder
LABEL perstack.image=setuptest
COPY expert_runner /built
RUN test ! -e /built/broken.py
FROM ${BASE}
LABEL perstack.image=setuptest
COPY --from=builder /built /built
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    package = tmp_path / "expert_runner"
    package.mkdir()
    (package / "version.py").write_text(f'RUNTIME_VERSION = "0.0.0-{os.getpid()}"\n')
    (tmp_path / "Dockerfile.setuptest").write_text(DOCKERFILE)
    checkout = Checkout(tmp_path)
    yield checkout
    docker_cli.remove_image(name_of(checkout))


def name_of(checkout: Checkout) -> str:
    return images.image_name(checkout, RECIPE.kind)


def leftovers() -> list[str]:
    return docker_cli.images("dangling=true", f"label=perstack.image={RECIPE.kind}")


def test_a_second_run_builds_nothing(checkout: Checkout, capfd: pytest.CaptureFixture[str]) -> None:
    images.ensure(checkout, RECIPE)
    first = docker_cli.image(name_of(checkout))
    assert first is not None
    assert "building" in capfd.readouterr().out
    images.ensure(checkout, RECIPE)
    assert docker_cli.image(name_of(checkout)) == first
    assert capfd.readouterr().out == ""


def test_a_change_builds_anew_and_the_former_image_goes(checkout: Checkout) -> None:
    images.ensure(checkout, RECIPE)
    former = docker_cli.image_id(name_of(checkout))
    assert former is not None
    (checkout.root / "expert_runner" / "more.py").touch()
    images.ensure(checkout, RECIPE)
    assert docker_cli.image_id(name_of(checkout)) not in (None, former)
    assert docker_cli.image_id(former) is None
    assert leftovers() == []


def test_a_failed_build_says_why_keeps_the_former_image_and_leaves_nothing(checkout: Checkout) -> None:
    images.ensure(checkout, RECIPE)
    former = docker_cli.image_id(name_of(checkout))
    (checkout.root / "expert_runner" / "broken.py").touch()
    with pytest.raises(SetupError, match=r"could not build(?s:.*)broken\.py"):
        images.ensure(checkout, RECIPE)
    assert docker_cli.image_id(name_of(checkout)) == former
    assert leftovers() == []


def test_the_sandbox_image_runs_the_runner_as_process_1_and_not_as_root() -> None:
    checkout = Checkout(Path(__file__).resolve().parents[2])
    found = docker_cli.image(images.image_name(checkout, "expert"))
    assert found is not None, "run `make images` first"
    config = found["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python3", "-P", "-s", "-m", "expert_runner"]
    assert "PYTHONPATH=/opt/perstack/lib" in config["Env"]


def test_the_sandbox_image_holds_no_set_user_id_program_and_no_key_to_the_package_index() -> None:
    checkout = Checkout(Path(__file__).resolve().parents[2])
    look = "find / -xdev -perm /6000 -type f 2>/dev/null; ls -d /build 2>/dev/null; echo looked"
    name = images.image_name(checkout, "expert")
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", name, "-c", look]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "looked\n"
