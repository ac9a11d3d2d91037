import os
import sys
import time
from pathlib import Path

import pytest

from setup.__main__ import too_old
from setup.process import SetupError, run
from setup.steps import run_steps


def test_a_failure_shows_its_exit_code_and_the_end_of_the_output() -> None:
    script = "print('early');print(*range(100), sep='\\n'); raise SystemExit(7)"
    with pytest.raises(SetupError) as caught:
        run([sys.executable, "-c", script], "It broke.", timeout=20)
    text = str(caught.value)
    assert text.startswith("It broke. (exit code 7)")
    assert text.endswith("    99")
    assert "early" not in text


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(SetupError, match="no-such-program"):
        run(["no-such-program"], "It broke.", timeout=5)


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; wait"
    with pytest.raises(SetupError, match="no end after"):
        run(["sh", "-c", script], "It hung.", timeout=1)
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "the child survived"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # An ended child that nobody has collected yet still has its number.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_an_old_python_is_told_what_to_do() -> None:
    complaint = too_old((3, 9), {"python3.12": "/usr/bin/python3.12"}.get)
    assert "needs Python 3.11 or newer" in complaint
    assert "make PYTHON=python3.12" in complaint


def test_a_recent_python_is_fine() -> None:
    assert too_old((3, 11)) == ""


@pytest.mark.parametrize("names", [[], ["venv", "nonsense"]])
def test_an_unknown_step_is_refused_before_anything_runs(names: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run_steps(names) == 2
    assert "orchestrator-image" in capfd.readouterr().err
