"""A Docker Engine of the tests' own, which may be ended and started again, beside whatever engine the machine has.

It is a dockerd, and the containerd which that starts, with folders, a socket and a process file of their own, all of
them in memory.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from expert_runner.version import RUNTIME_VERSION

IMAGE = f"perstack-expert:{RUNTIME_VERSION}"
START_SECONDS = 60.0
SIZE = "1g"
"""Of its images and containers at most; what they do not take is not taken."""
STOP_SECONDS = 40.0
"""An engine that is asked to end gives its containers 10 s, and what does not end another few."""

_POLL_SECONDS = 0.05
_LOG_TAIL = 3_000


class PrivateEngine:
    """Every call blocks. `stop` and `start` may be repeated; `remove` has to be the last.

    Args:
        folder: an empty one with a short path, for there are sockets in it. A file system in memory is mounted there.
        program: dockerd.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/d.sock"
        self._program = program
        self._daemon: subprocess.Popen[bytes] | None = None
        # Copying the image to a busy disk, and deleting it there, would take longer than all the tests.
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", folder], check=True)
        (folder / "daemon.json").write_text("{}")

    def start(self) -> None:
        """Start dockerd, which starts its containerd, and wait until it answers. One that runs is left as it is."""
        if self._daemon is not None:
            return
        folder = self.folder
        # What a killed one leaves. The numbers may be others' by now, or of processes that nobody has reaped.
        for file in (folder / "pid", folder / "exec/containerd/containerd.pid"):
            file.unlink(missing_ok=True)
        with (folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    # A network of its own: with --bridge=none it would delete the machine's docker0.
                    *("unshare", "--net", self._program),
                    *("--config-file", str(folder / "daemon.json")),
                    *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
                    *("--host", self.url, "--pidfile", str(folder / "pid")),
                    # Sandboxes have none.
                    *("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )
        daemon = self._daemon
        self._await("does not answer", START_SECONDS, lambda: daemon.poll() is not None or self._answers())
        if daemon.returncode is not None:
            self._daemon = None
            raise RuntimeError(f"dockerd ended with {daemon.returncode}: {self._log()}")

    def stop(self, number: signal.Signals) -> None:
        """End dockerd with a signal, and wait until it and its containerd are gone."""
        if self._daemon is None:
            return
        self._daemon.send_signal(number)
        self._daemon.wait(STOP_SECONDS)
        self._daemon = None
        self._await("its containerd goes on", STOP_SECONDS, lambda: not self._processes("containerd"))

    def restart(self, number: signal.Signals) -> None:
        self.stop(number)
        self.start()

    def load(self, image: str) -> None:
        """Copy an image from the machine's engine."""
        source = docker.from_env()
        try:
            with self.client() as client, tempfile.TemporaryFile(dir=self.folder) as archive:
                for piece in source.images.get(image).save(named=image):
                    archive.write(piece)
                archive.seek(0)
                client.images.load(archive)
        finally:
            source.close()

    @contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(self.url)
        try:
            yield client
        finally:
            client.close()

    def containers(self) -> list[str]:
        """The names of all containers, whatever their state."""
        with self.client() as client:
            return [str(found.name) for found in client.containers.list(all=True, ignore_removed=True)]

    def remove(self) -> None:
        """End everything of it and delete it: processes, mounts, folders. Also after a start that failed."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._remove_containers()
            self.stop(signal.SIGTERM)
        self._kill_rest()
        for point in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", point], capture_output=True)
        self.folder.rmdir()

    @property
    def has_own_network(self) -> bool:
        """Whether what it does to interfaces and bridges, it does not do to the machine's."""
        assert self._daemon is not None
        return Path(f"/proc/{self._daemon.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()

    def leftovers(self) -> list[str]:
        """What there still is of it outside its folder."""
        return [*(f"process {pid}" for pid in self._processes()), *self._mounts()]

    # --- what it consists of

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        # The SDK and what lies below it raise many kinds of errors; all mean the same: not yet.
        except Exception:  # noqa: BLE001
            return False

    def _remove_containers(self) -> None:
        with self.client() as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                container.remove(force=True, v=True)

    def _kill_rest(self) -> None:
        """Whatever a killed dockerd left: its containerd, the shims, and what they watch over."""
        if not (processes := self._processes()):
            return
        for pid in processes:
            for victim in (*_children(pid), pid):
                _kill(victim)
        self._await("processes go on", STOP_SECONDS, lambda: not self._processes())

    def _processes(self, program: str = "") -> list[int]:
        """Those whose command line names a path of ours: dockerd, containerd and the shims."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue  # it ended meanwhile
            is_ours = any(word.removeprefix("unix://").startswith(f"{self.folder}/") for word in words)
            if is_ours and (not program or Path(words[0]).name == program):
                found.append(int(entry.name))
        return found

    def _mounts(self) -> list[str]:
        points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return [point for point in points if f"{point}/".startswith(f"{self.folder}/")]

    def _await(self, problem: str, seconds: float, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the tests' Docker Engine: {problem} for {seconds:.0f} s: {self._log()}")
            time.sleep(_POLL_SECONDS)

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-_LOG_TAIL:]


def why_none_here() -> str | None:
    """Why no private engine can be started here; None: it can."""
    if os.geteuid() != 0:
        return "starting a Docker Engine takes root"
    if _program() is None:
        return "there is no dockerd"
    return None


@contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """An engine that runs and holds the runner's image; nothing is left of it afterwards.

    Raises:
        RuntimeError: it cannot be started; the text ends as its log does.
    """
    program = _program()
    if program is None:
        raise RuntimeError(why_none_here())
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp")), program)
    try:
        engine.start()
        engine.load(IMAGE)
        yield engine
    finally:
        engine.remove()
    assert engine.leftovers() == []


def _program() -> str | None:
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _children(pid: int) -> list[int]:
    """In a sandbox all end with process 1, which is a child of the shim."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
