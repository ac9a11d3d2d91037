"""`python3 -m setup STEP...`: carries out the steps in the order given and says in one line what it does."""

import shutil
import sys
from collections.abc import Callable

# Old interpreters can read this file alone (hence the quoted types): they get a sentence, not a syntax error.
MINIMUM = (3, 11)


def too_old(version: "tuple[int, ...]", which: "Callable[[str], str | None]" = shutil.which) -> str:
    """What to say to somebody whose Python is of this version; empty when it is recent enough."""
    if version[:2] >= MINIMUM:
        return ""
    message = "Perstack needs Python 3.11 or newer, and {} is {}.{}.".format(sys.executable, *version)
    newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if which(name)]
    if newer:
        return message + "\nThis machine has " + newer[0] + ": run `make PYTHON=" + newer[0] + " ...`."
    return message + "\nInstall a newer one and name it: `make PYTHON=python3.12 ...`."


def start() -> int:
    complaint = too_old(sys.version_info[:2])
    if complaint:
        sys.stderr.write("setup: " + complaint + "\n")
        return 1
    from setup.steps import run_steps

    return run_steps(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(start())
