"""The virtual environment at `.venv`, with the perstack command and the development tools."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from setup.checkout import Checkout
from setup.machine import Machine, apt_install, this_machine
from setup.process import SetupError, run, say

PIP_SECONDS = 1200.0
VENV_SECONDS = 120.0


def ensure(checkout: Checkout) -> None:
    """Create `.venv`, or bring it up to date with pyproject.toml. Does nothing when nothing changed.

    Raises:
        SetupError: this Python cannot make virtual environments, or the installation failed.
    """
    python = checkout.venv / "bin" / "python"
    stamp = checkout.venv / "setup.stamp"
    wanted = fingerprint(checkout)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if not python.exists() or not _same_python(checkout.venv):
        say(f"creating .venv with Python {sys.version_info.major}.{sys.version_info.minor}")
        _create(checkout.venv)
    stamp.unlink(missing_ok=True)
    say("installing Perstack and its Python packages into .venv (a minute or so the first time)")
    run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--editable",
            f"{checkout.root}[dev]",
        ],
        "pip could not install the packages. Is the package index reachable (`.venv/bin/pip download click`)?",
        timeout=PIP_SECONDS,
    )
    stamp.write_text(wanted)


def fingerprint(checkout: Checkout) -> str:
    """What an installed `.venv` depends on: the declared packages, the interpreter, and where the checkout lies.

    The tools' settings, which share pyproject.toml, are left out: changing them installs nothing.
    """
    pyproject = checkout.pyproject
    inputs = {
        "build": pyproject["build-system"],
        "project": pyproject["project"],
        "hatch": pyproject.get("tool", {}).get("hatch"),
        "version": checkout.version,
        "python": sys.version_info[:2],
        "root": str(checkout.root),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def missing_venv_advice(machine: Machine, version: str) -> str:
    """What to say where Python comes without its venv module, as Debian's does."""
    start = "This Python cannot create virtual environments: its venv or ensurepip module is missing."
    if machine.has_apt:
        return f"{start}\nInstall it and run make again: sudo apt-get install python{version}-venv"
    return f"{start}\nInstall your system's venv package for Python {version}, or name another Python: make PYTHON=..."


def _create(folder: Path) -> None:
    _require_venv_module(this_machine())
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder], "python3 -m venv failed.", timeout=VENV_SECONDS)


def _require_venv_module(machine: Machine) -> None:
    if _has_venv_module():
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if machine.has_apt and machine.root and sys.executable.startswith("/usr/bin/"):
        apt_install([f"python{version}-venv"], "(this Python comes without its venv module)")
    if not _has_venv_module():
        raise SetupError(missing_venv_advice(machine, version))


def _has_venv_module() -> bool:
    # A fresh process: this one would remember that it did not find the module.
    probe = subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return probe.returncode == 0


def _same_python(folder: Path) -> bool:
    """Whether the environment was made with this minor version; another one keeps its packages elsewhere."""
    return (folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}").is_dir()
