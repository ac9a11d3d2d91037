"""The certificates this machine trusts: an image that installs packages has to trust the same package index."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)


def find_bundle(env: Mapping[str, str] = os.environ, system: Sequence[Path] = SYSTEM_BUNDLES) -> Path | None:
    """The bundle that SSL_CERT_FILE names, else the system's, else the one of certifi; None when there is none.

    None is no error: pip then trusts what it brings along.
    """
    named = env.get("SSL_CERT_FILE", "")
    candidates = [Path(named)] if named else []
    for path in [*candidates, *system]:
        if path.is_file() and os.access(path, os.R_OK):
            return path
    return _certifi()


def _certifi() -> Path | None:
    try:
        import certifi
    except ImportError:
        return None
    path = Path(certifi.where())
    return path if path.is_file() else None
