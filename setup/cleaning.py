"""`make clean`: what the set-up made in this checkout and in Docker. The Docker Engine itself stays."""

import shutil

from setup import base, docker_cli
from setup.checkout import Checkout
from setup.images import KINDS, image_name
from setup.machine import this_machine
from setup.process import say

CACHES = (".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache", ".ruff_cache")


def clean(checkout: Checkout) -> None:
    """Remove the virtual environment, the caches of the checks and the images of this version."""
    for folder in (checkout.venv, *(checkout.root / name for name in CACHES)):
        if folder.exists():
            say(f"removing {folder.name}")
            shutil.rmtree(folder)
    for kind in KINDS:
        _remove(image_name(checkout, kind))
    base_name = base.built_name(this_machine())
    others = [image for kind in KINDS for image in docker_cli.images(f"label=perstack.image={kind}")]
    if not others:
        _remove(base_name)
    elif docker_cli.image_id(base_name):
        say(f"left {base_name}: images of another version are built on it")


def _remove(name: str) -> None:
    if docker_cli.image_id(name) is None:
        return
    say(f"removed {name}" if docker_cli.remove_image(name) else f"left {name}: something still uses it")
