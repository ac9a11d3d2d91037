"""The images, each built once for what goes into it and left alone until that changes."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from setup import base, certificates, docker_cli
from setup.checkout import Checkout
from setup.process import SetupError, run, say

KINDS = ("expert", "orchestrator")
BUILD_SECONDS = 1200.0
LABEL = "perstack.source"
# Docker hands these to a build without keeping them in the image.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Recipe:
    """An image and all that goes into it.

    The certificates and the package index do not: they serve the build and end with its first stage, so new ones are
    no reason to build again.
    """

    kind: str
    """The image is `perstack-{kind}`, its Dockerfile `Dockerfile.{kind}`, its label `perstack.image={kind}`."""
    folders: tuple[str, ...]
    """Packages of the checkout that are copied into it."""
    files: Mapping[str, str]
    """Further files of its build context: name → text."""


def expert_recipe(checkout: Checkout) -> Recipe:
    # Of pyproject.toml only what the Dockerfile reads: a tool's setting is no reason to build.
    requirements = f"[project.optional-dependencies]\nrunner = {json.dumps(checkout.runner_requirements)}\n"
    return Recipe("expert", ("expert_runner",), {"pyproject.toml": requirements})


def orchestrator_recipe(checkout: Checkout) -> Recipe:
    names = [name for name in ("pyproject.toml", "README.md", "LICENSE") if (checkout.root / name).exists()]
    files = {name: (checkout.root / name).read_text() for name in names}
    return Recipe("orchestrator", ("expert_runner", "orchestrator"), files)


def ensure_expert(checkout: Checkout) -> None:
    """Make sure that the sandbox image is there and up to date.

    Raises:
        SetupError: there is no base image, or the build failed.
    """
    ensure(checkout, expert_recipe(checkout))


def ensure_orchestrator(checkout: Checkout) -> None:
    """Make sure that the orchestrator's image is there and up to date.

    Raises:
        SetupError: there is no base image, or the build failed.
    """
    ensure(checkout, orchestrator_recipe(checkout))


def image_name(checkout: Checkout, kind: str) -> str:
    return f"perstack-{kind}:{checkout.version}"


def ensure(checkout: Checkout, recipe: Recipe) -> None:
    """Build the recipe's image unless the engine has one of the same content; the one it replaces is removed."""
    base_name = base.ensure()
    base_id = docker_cli.image_id(base_name)
    if base_id is None:
        raise SetupError(f"The base image {base_name} was removed just now. Run make again.")
    wanted = source_hash(checkout.root, recipe, base_id)
    name = image_name(checkout, recipe.kind)
    if docker_cli.image_label(name, LABEL) == wanted:
        return
    say(f"building {name} from {base_name}")
    with tempfile.TemporaryDirectory(prefix="perstack-build-") as folder:
        context = Path(folder)
        write_context(checkout.root, recipe, context)
        try:
            _build(name, base_name, wanted, context)
        finally:
            _remove_unnamed(recipe.kind)
    if docker_cli.image_label(name, LABEL) != wanted:
        raise SetupError(
            f"docker build ended well, but the engine has no {name}. A buildx builder of its own keeps its images to "
            "itself: run `docker buildx use default` and make again."
        )


def source_hash(root: Path, recipe: Recipe, base_id: str) -> str:
    """A digest of everything that goes into an image. Dates, owners and compiled files do not count."""
    digest = hashlib.sha256()

    def add(name: str, content: bytes) -> None:
        # Lengths keep the parts apart: moving a byte from one to the next gives another digest.
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)

    add("base", base_id.encode())
    add("Dockerfile", (root / f"Dockerfile.{recipe.kind}").read_bytes())
    for name, text in sorted(recipe.files.items()):
        add(name, text.encode())
    for path in source_files(root, recipe.folders):
        add(path.relative_to(root).as_posix(), path.read_bytes())
    return digest.hexdigest()


def source_files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    """The files of the packages, sorted, without what Python compiled from them."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                yield path


def write_context(root: Path, recipe: Recipe, context: Path) -> None:
    """Fill an empty folder with what the build needs and nothing else: no key or history can slip into an image."""
    shutil.copy(root / f"Dockerfile.{recipe.kind}", context / "Dockerfile")
    for name, text in recipe.files.items():
        (context / name).write_text(text)
    for path in source_files(root, recipe.folders):
        target = context / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    bundle = certificates.find_bundle()
    if bundle:
        shutil.copyfile(bundle, context / "ca.pem")
    (context / "pip.conf").write_text(pip_conf(os.environ, bundle is not None))


def pip_conf(env: Mapping[str, str], certificates_given: bool) -> str:
    """How pip reaches its package index during a build: as it does on this host."""
    settings = {"cert": "/build/ca.pem"} if certificates_given else {}
    if env.get("PIP_INDEX_URL"):
        settings["index-url"] = env["PIP_INDEX_URL"]
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in settings.items())])


def _build(name: str, base_name: str, source: str, context: Path) -> None:
    build_arguments = [f"BASE={base_name}", *(variable for variable in PROXY_VARIABLES if variable in os.environ)]
    run(
        [
            "docker",
            "build",
            "--force-rm",
            *(word for argument in build_arguments for word in ("--build-arg", argument)),
            *("--label", f"{LABEL}={source}"),
            *("--tag", name),
            context,
        ],
        f"docker could not build {name}.",
        timeout=BUILD_SECONDS,
    )


def _remove_unnamed(kind: str) -> None:
    """Remove the stages of builds and the images that lost their name to a newer one. One that a container still uses
    stays, and goes with the next build."""
    for image in docker_cli.images("dangling=true", f"label=perstack.image={kind}"):
        docker_cli.remove_image(image)
