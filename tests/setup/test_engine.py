import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from setup.engine import Silence, decide, forget_dead
from setup.machine import Machine, parse_os_release

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = Machine("Linux", root=True, distribution=frozenset({"debian"}), codename="bookworm")
FEDORA = Machine("Linux", root=True, distribution=frozenset({"fedora"}))
MAC = Machine("Darwin", root=False)
NOTHING = Silence(DEBIAN, "there is no docker command on PATH", command=False, daemon=False)


def test_root_on_debian_installs_the_engine() -> None:
    assert decide(NOTHING).action == "install"


def test_root_starts_an_engine_that_is_installed() -> None:
    assert decide(replace(NOTHING, command=True, daemon=True)).action == "start"
    assert decide(replace(NOTHING, machine=FEDORA, command=True, daemon=True)).action == "start"


def test_a_daemon_without_the_command_is_completed_from_packages() -> None:
    assert decide(replace(NOTHING, daemon=True)).action == "install"


@pytest.mark.parametrize(
    ("silence", "words"),
    [
        (replace(NOTHING, machine=replace(DEBIAN, root=False)), "sudo apt-get install docker.io"),
        (
            replace(NOTHING, machine=replace(DEBIAN, root=False, systemd=True), command=True, daemon=True),
            "sudo systemctl enable --now docker",
        ),
        (replace(NOTHING, machine=replace(DEBIAN, root=False), command=True, daemon=True), "sudo service docker start"),
        (replace(NOTHING, machine=FEDORA), "Install Docker the way this system installs software"),
        (replace(NOTHING, machine=MAC), "Docker Desktop"),
        (replace(NOTHING, machine=replace(MAC, system="FreeBSD")), "Install Docker"),
        (replace(NOTHING, command=True, daemon=True, reason="dial unix: permission denied"), 'usermod -aG docker "$'),
        (replace(NOTHING, chosen="tcp://far.example:2376", reason="refused"), "tcp://far.example:2376"),
    ],
)
def test_elsewhere_the_reader_is_told_what_to_do(silence: Silence, words: str) -> None:
    plan = decide(silence)
    assert plan.action == "tell"
    assert words in plan.advice


def test_an_engine_chosen_by_the_user_is_never_replaced_even_by_root_on_debian() -> None:
    plan = decide(replace(NOTHING, chosen="unix:///nowhere.sock", command=True, daemon=True))
    assert plan.action == "tell"
    assert "nothing was installed" in plan.advice


def test_os_release_names_the_distribution_and_what_it_is_like() -> None:
    facts = parse_os_release('# x\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=virginia\n')
    assert facts == {"ID": "linuxmint", "ID_LIKE": "ubuntu debian", "VERSION_CODENAME": "virginia"}


def test_a_started_daemon_is_in_a_session_of_its_own_and_holds_none_of_our_pipes(tmp_path: Path) -> None:
    daemon, log = tmp_path / "daemon", tmp_path / "daemon.log"
    daemon.write_text("#!/bin/sh\necho up\nexec sleep 60\n")
    daemon.chmod(0o755)
    starter = (
        "import sys; from pathlib import Path; from setup.engine import start_daemon;"
        "print(start_daemon(sys.argv[1], Path(sys.argv[2])).pid)"
    )
    # Returns only when every copy of the pipe is closed: a daemon that kept one would hold it for a minute.
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", starter, daemon, log],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    pid = int(result.stdout)
    try:
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, 9)


def test_a_dead_docker_host_ends_the_set_up_with_its_name() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "setup", "docker"],
        cwd=ROOT,
        env=os.environ | {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "unix:///nowhere/docker.sock" in result.stderr
    assert "nothing was installed" in result.stderr


def test_the_pid_file_of_a_killed_daemon_is_removed_and_a_living_ones_kept(tmp_path: Path) -> None:
    name = Path("/proc/self/comm").read_text().strip()
    for kept, text, program in (
        (True, str(os.getpid()), name),
        (False, str(os.getpid()), "dockerd"),
        (False, "", name),
    ):
        file = tmp_path / "pid"
        file.write_text(text)
        forget_dead(file, program)
        assert file.exists() == kept
