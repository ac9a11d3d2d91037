"""The few things asked of Docker, through its command line: it knows about contexts, hosts and builders."""

import json
import subprocess
from typing import Any

ANSWER_SECONDS = 20.0


def server_version() -> tuple[str, str]:
    """The version of the engine that answers, or why none does: `(version, "")` or `("", reason)`."""
    return _ask("version", "--format", "{{.Server.Version}}")


def context_host() -> str:
    """The engine that a `docker context` other than the default one points at; empty for the default."""
    answer, _ = _ask("context", "inspect", "--format", "{{.Name}}\t{{.Endpoints.docker.Host}}")
    name, _, host = answer.partition("\t")
    return "" if name == "default" else host


def image(reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image, by name or id; None when it has none."""
    answer, _ = _ask("image", "inspect", "--format", "{{json .}}", reference)
    return json.loads(answer) if answer else None


def image_id(reference: str) -> str | None:
    found = image(reference)
    return found["Id"] if found else None


def image_label(reference: str, label: str) -> str | None:
    found = image(reference)
    return ((found or {}).get("Config", {}).get("Labels") or {}).get(label)


def images(*filters: str) -> list[str]:
    """Ids of the images that pass all filters, such as `label=name=value` or `dangling=true`."""
    words = [word for condition in filters for word in ("--filter", condition)]
    answer, _ = _ask("images", "--quiet", "--no-trunc", *words)
    return list(dict.fromkeys(answer.split()))


def remove_image(reference: str) -> bool:
    """Remove an image; False when something still uses it or it is gone."""
    _, error = _ask("image", "rm", reference)
    return not error


def _ask(*arguments: str) -> tuple[str, str]:
    try:
        result = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return "", "there is no docker command on PATH"
    except subprocess.TimeoutExpired:
        return "", f"no answer within {ANSWER_SECONDS:.0f} s"
    if result.returncode != 0:
        return "", result.stderr.strip() or f"docker {arguments[0]} failed with exit code {result.returncode}"
    return result.stdout.strip(), ""
