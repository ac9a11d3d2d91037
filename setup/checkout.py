"""What the set-up reads from the source tree."""

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from setup.process import SetupError


@dataclass(frozen=True)
class Checkout:
    """A source tree of Perstack, by its root."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        with (self.root / "pyproject.toml").open("rb") as file:
            return tomllib.load(file)

    @property
    def runner_requirements(self) -> list[str]:
        """What the sandbox image installs."""
        requirements: list[str] = self.pyproject["project"]["optional-dependencies"]["runner"]
        return requirements

    @cached_property
    def version(self) -> str:
        """The version that the packages state, which is also the tag of the images."""
        path = self.root / "expert_runner" / "version.py"
        found = re.search(r'^RUNTIME_VERSION = "([^"]+)"', path.read_text(), re.MULTILINE)
        if not found:
            raise SetupError(f"{path} does not state RUNTIME_VERSION")
        return found[1]
