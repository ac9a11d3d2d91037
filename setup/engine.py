"""A Docker Engine that answers: the one at hand, or on Debian and Ubuntu one that is installed and started here."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from setup import docker_cli
from setup.checkout import Checkout
from setup.machine import Machine, apt_install, apt_knows, apt_update, this_machine
from setup.process import SetupError, run, say, tail

START_SECONDS = 60.0
POLL_SECONDS = 0.25
LOG = Path("/var/log/perstack-dockerd.log")
PID_FILE = Path("/var/run/docker.pid")
CONTAINERD_PID_FILE = Path("/var/run/docker/containerd/containerd.pid")

CHOSEN = """\
DOCKER_HOST or `docker context` chose that one, so nothing was installed or started here. Start it, or choose another
(`unset DOCKER_HOST`, `docker context use default`), and run make again."""
NOT_ALLOWED = """\
A Docker Engine runs here, but this user may not talk to it. Join its group, log in again, and run make again:
    sudo usermod -aG docker "$USER\""""
MACOS = """\
No Docker Engine answers. Start Docker Desktop, or install one of these and run make again:
    brew install --cask docker && open -a Docker
    brew install colima docker && colima start"""
STOPPED_SYSTEMD = """\
Docker is installed but does not run. Start it and run make again:
    sudo systemctl enable --now docker"""
STOPPED = """\
Docker is installed but does not run. Start it and run make again:
    sudo service docker start"""
APT_WITHOUT_ROOT = """\
There is no Docker Engine here, and installing one takes root. Run this, log in again, and run make again:
    sudo apt-get install docker.io && sudo usermod -aG docker "$USER\""""
OTHER = """\
There is no Docker Engine here. Install Docker the way this system installs software, start it, let this user talk
to it (`docker info` must answer), and run make again."""


@dataclass(frozen=True)
class Silence:
    """What is known where no engine answers."""

    machine: Machine
    reason: str
    """Docker's own words."""
    command: bool
    """There is a `docker` command."""
    daemon: bool
    """There is a `dockerd` program."""
    chosen: str = ""
    """Where the user said the engine is, through DOCKER_HOST or a context; empty when they said nothing."""


@dataclass(frozen=True)
class Plan:
    """What to do about it. `advice` is for the reader, who has to act when the action is `tell`."""

    action: Literal["start", "install", "tell"]
    advice: str = ""


def ensure(checkout: Checkout) -> None:
    """Make sure that an engine answers. An engine that was named with DOCKER_HOST or a context is only asked.

    Raises:
        SetupError: none answers and none can be started here; says what to do.
    """
    version, reason = docker_cli.server_version()
    if version:
        return
    silence = _look(reason)
    plan = decide(silence)
    if plan.action == "tell":
        raise SetupError(plan.advice)
    if plan.action == "install":
        _install(silence)
    _start(silence.machine)


def decide(silence: Silence) -> Plan:
    """What to do where no engine answers."""
    machine = silence.machine
    if silence.chosen:
        return Plan("tell", f"No Docker Engine answers at {silence.chosen}:\n{tail(silence.reason)}\n{CHOSEN}")
    if "permission denied" in silence.reason.lower():
        return Plan("tell", NOT_ALLOWED)
    if machine.system == "Darwin":
        return Plan("tell", MACOS)
    if machine.system != "Linux":
        return Plan("tell", OTHER)
    if silence.daemon and silence.command:
        if machine.root:
            return Plan("start")
        return Plan("tell", STOPPED_SYSTEMD if machine.systemd else STOPPED)
    if machine.has_apt:
        return Plan("install") if machine.root else Plan("tell", APT_WITHOUT_ROOT)
    return Plan("tell", OTHER)


def _look(reason: str) -> Silence:
    return Silence(
        machine=this_machine(),
        reason=reason,
        command=shutil.which("docker") is not None,
        daemon=_daemon_program() is not None,
        chosen=os.environ.get("DOCKER_HOST", "") or docker_cli.context_host(),
    )


def _daemon_program() -> str | None:
    return shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def _install(silence: Silence) -> None:
    apt_update()
    packages = ["docker.io"]
    # Newer releases have the command in a package of its own, which the engine's merely recommends.
    if not silence.command and apt_knows("docker-cli"):
        packages.append("docker-cli")
    apt_install(packages, "(no Docker Engine answers on this machine)")


def _start(machine: Machine) -> None:
    if machine.systemd:
        say("starting Docker with systemctl")
        run(["systemctl", "start", "docker"], "systemctl could not start Docker.", timeout=START_SECONDS)
        _wait(None)
    elif _is_running(PID_FILE, "dockerd"):
        # The package's own start script was quicker; it is only not ready yet.
        _wait(None)
    else:
        forget_dead(PID_FILE, "dockerd")
        forget_dead(CONTAINERD_PID_FILE, "containerd")
        say(f"starting dockerd in the background (its log: {LOG})")
        _wait(start_daemon(_daemon_program() or "dockerd", LOG))


def start_daemon(program: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a daemon that outlives `make`: in a session of its own, without our input, output and descriptors."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )


def forget_dead(pid_file: Path, program: str) -> None:
    """Remove the pid file of a daemon that was killed: it would stop a start once its number is another process's."""
    if not _is_running(pid_file, program):
        pid_file.unlink(missing_ok=True)


def _is_running(pid_file: Path, program: str) -> bool:
    try:
        return Path(f"/proc/{int(pid_file.read_text())}/comm").read_text().strip() == program
    except (OSError, ValueError):
        return False


def _wait(daemon: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    reason = ""
    while time.monotonic() < deadline:
        version, reason = docker_cli.server_version()
        if version:
            say(f"Docker Engine {version} answers")
            return
        if daemon and daemon.poll() is not None:
            reason = f"dockerd ended with exit code {daemon.returncode}"
            break
        time.sleep(POLL_SECONDS)
    log = f"\nThe end of {LOG}:\n{tail(LOG.read_text(errors='replace'))}" if daemon and LOG.exists() else ""
    raise SetupError(f"Docker was started but does not answer: {reason}{log}")
