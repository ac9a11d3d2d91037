import sys
from pathlib import Path

import pytest

from setup import venv
from setup.checkout import Checkout
from setup.machine import Machine

PYPROJECT = """\
[build-system]
requires = []
[project]
dependencies = ["click"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "expert_runner").mkdir()
    (tmp_path / "expert_runner" / "version.py").write_text('RUNTIME_VERSION = "1.0"\n')
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


def test_only_what_is_installed_counts_for_the_environment(root: Path) -> None:
    before = venv.fingerprint(Checkout(root))
    (root / "pyproject.toml").write_text(PYPROJECT + "[tool.ruff]\nline-length = 99\n")
    assert venv.fingerprint(Checkout(root)) == before
    (root / "pyproject.toml").write_text(PYPROJECT.replace("click", "click<9"))
    assert venv.fingerprint(Checkout(root)) != before


def test_an_environment_that_is_up_to_date_is_left_alone(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkout = Checkout(root)
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to(sys.executable)
    (checkout.venv / "setup.stamp").write_text(venv.fingerprint(checkout))
    venv.ensure(checkout)
    assert capfd.readouterr().out == ""


def test_a_python_without_venv_gets_the_name_of_the_package() -> None:
    debian = Machine("Linux", root=False, distribution=frozenset({"debian"}))
    assert "apt-get install python3.12-venv" in venv.missing_venv_advice(debian, "3.12")
    assert "PYTHON=" in venv.missing_venv_advice(Machine("Darwin", root=False), "3.12")
