from dataclasses import replace
from pathlib import Path

import pytest

from setup.checkout import Checkout
from setup.images import expert_recipe, pip_conf, source_hash, write_context

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = '[project.optional-dependencies]\nrunner = ["pyzmq>=27,<28"]\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "checkout"
    (root / "expert_runner" / "contract").mkdir(parents=True)
    (root / "expert_runner" / "version.py").write_text('RUNTIME_VERSION = "0.0.0"\n')
    (root / "expert_runner" / "contract" / "wire.py").write_text("LIMIT = 1\n")
    (root / "Dockerfile.expert").write_text("FROM scratch\n")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / ".env").write_text("KEY=secret\n")
    return Checkout(root)


def digest(checkout: Checkout, base_id: str = "sha256:1") -> str:
    fresh = Checkout(checkout.root)
    return source_hash(fresh.root, expert_recipe(fresh), base_id)


def test_the_hash_does_not_care_for_dates_bytecode_and_settings_of_tools(checkout: Checkout) -> None:
    before = digest(checkout)
    (checkout.root / "expert_runner" / "version.py").touch()
    (checkout.root / "expert_runner" / "__pycache__").mkdir()
    (checkout.root / "expert_runner" / "__pycache__" / "version.cpython-311.pyc").write_bytes(b"x")
    (checkout.root / "pyproject.toml").write_text(PYPROJECT + "[tool.ruff]\nline-length = 120\n")
    assert digest(checkout) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("expert_runner/contract/wire.py", "LIMIT = 2\n"),
        ("expert_runner/contract/new.py", ""),
        ("Dockerfile.expert", "FROM other\n"),
        ("pyproject.toml", PYPROJECT.replace("27,", "27.1,")),
    ],
)
def test_the_hash_changes_with_what_goes_into_the_image(checkout: Checkout, name: str, text: str) -> None:
    before = digest(checkout)
    (checkout.root / name).write_text(text)
    assert digest(checkout) != before


def test_the_hash_changes_with_the_base_image_and_with_a_renamed_file(checkout: Checkout) -> None:
    before = digest(checkout)
    assert digest(checkout, "sha256:2") != before
    wire = checkout.root / "expert_runner" / "contract" / "wire.py"
    wire.rename(wire.with_name("erwi.py"))
    assert digest(checkout) != before


def test_the_build_context_holds_the_sources_and_how_to_reach_the_index_and_nothing_else(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    (checkout.root / "expert_runner" / "version.py").chmod(0o600)
    context = tmp_path / "context"
    context.mkdir()
    write_context(checkout.root, expert_recipe(checkout), context)
    found = {path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file()}
    assert found == {
        "Dockerfile",
        "ca.pem",
        "expert_runner/contract/wire.py",
        "expert_runner/version.py",
        "pip.conf",
        "pyproject.toml",
    }
    assert (context / "ca.pem").read_text() == "certificates"


def test_pip_in_the_build_uses_the_hosts_index_and_certificates() -> None:
    assert pip_conf({}, False) == "[global]\n"
    assert pip_conf({"PIP_INDEX_URL": "https://i.example/simple"}, True) == (
        "[global]\ncert = /build/ca.pem\nindex-url = https://i.example/simple\n"
    )


def test_the_image_installs_what_the_checkout_declares_for_the_runner() -> None:
    checkout = Checkout(ROOT)
    declared = checkout.pyproject["project"]["dependencies"]
    assert checkout.runner_requirements
    assert set(checkout.runner_requirements) <= set(declared)
    assert all(line in expert_recipe(checkout).files["pyproject.toml"] for line in checkout.runner_requirements)


def test_two_kinds_of_image_never_share_a_hash(checkout: Checkout) -> None:
    recipe = expert_recipe(checkout)
    more = replace(recipe, files={**recipe.files, "LICENSE": ""})
    assert source_hash(checkout.root, recipe, "sha256:1") != source_hash(checkout.root, more, "sha256:1")
