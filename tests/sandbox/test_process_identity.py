"""What proves a process dead, and what does not."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.sandbox.process_identity import (
    Life,
    ProcessIdentity,
    is_provably_dead,
    judge,
    life_of,
    process_identity,
)

ROOT = Path(__file__).parents[2]
OURS = ProcessIdentity("machine", "boot", "4026531836", "100", "5000")
THEIRS = replace(OURS, pid="200", started="6000")

SAY_AND_WAIT = """
import signal
from orchestrator.sandbox.process_identity import process_identity
print(process_identity(), flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("theirs", "ours", "started", "life"),
    [
        (THEIRS, OURS, "6000", Life.ALIVE),
        (THEIRS, OURS, None, Life.DEAD),
        (THEIRS, OURS, "7000", Life.DEAD),
        (THEIRS, OURS, "-", Life.UNKNOWN),
        (replace(THEIRS, boot="earlier"), OURS, "6000", Life.DEAD),
        (replace(THEIRS, boot="other", machine="other"), OURS, None, Life.UNKNOWN),
        (replace(THEIRS, boot="other", machine="-"), OURS, None, Life.UNKNOWN),
        (replace(THEIRS, boot="other", machine="-"), replace(OURS, machine="-"), None, Life.UNKNOWN),
        (replace(THEIRS, boot="other"), replace(OURS, machine="-"), None, Life.UNKNOWN),
        (replace(THEIRS, boot="-"), OURS, None, Life.UNKNOWN),
        (replace(THEIRS, boot="-"), replace(OURS, boot="-"), None, Life.UNKNOWN),
        (THEIRS, replace(OURS, boot="-"), None, Life.UNKNOWN),
        (replace(THEIRS, machine="other"), OURS, None, Life.UNKNOWN),
        (replace(THEIRS, machine="-"), OURS, None, Life.DEAD),
        (replace(THEIRS, machine="-"), replace(OURS, machine="-"), "6000", Life.ALIVE),
        (replace(THEIRS, namespace="1"), OURS, None, Life.UNKNOWN),
        (replace(THEIRS, namespace="-"), replace(OURS, namespace="-"), None, Life.UNKNOWN),
        (replace(THEIRS, started="-"), OURS, None, Life.UNKNOWN),
    ],
)
def test_only_what_is_certain_is_proof(
    theirs: ProcessIdentity, ours: ProcessIdentity, started: str | None, life: Life
) -> None:
    assert judge(theirs, ours, lambda pid: started if pid == 200 else "6000") is life


@pytest.mark.parametrize(
    "text", ["", "-", "a:b:c:1", "a:b:c:1:2:3", "a:b:c:x:2", "a:b:c:-1:2", "a:b:c:²:2", "a::c:1:2", "a:b:c:-:2"]
)
def test_what_is_no_identity_proves_nothing(text: str) -> None:
    assert life_of(text) is Life.UNKNOWN
    assert not is_provably_dead(text)


def test_the_identity_of_a_process_stays_and_names_it() -> None:
    first = process_identity()
    assert process_identity() == first
    assert str(ProcessIdentity.parse(first)) == first
    assert first.split(":")[3] == str(os.getpid())


@pytest.mark.skipif(sys.platform != "linux", reason="needs procfs")
def test_a_killed_process_is_dead_even_before_its_parent_has_collected_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", SAY_AND_WAIT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        assert life_of(identity) is Life.ALIVE
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert life_of(identity) is Life.ALIVE
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert is_provably_dead(identity)
    assert is_provably_dead(identity)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root")
def test_a_process_in_another_namespace_is_not_judged() -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", SAY_AND_WAIT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        assert life_of(identity) is Life.UNKNOWN
        process.kill()
    assert life_of(identity) is Life.UNKNOWN
    assert identity.startswith("-:"), "the machine's id may be an image's there"
