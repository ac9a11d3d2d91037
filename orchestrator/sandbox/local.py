"""The `local` backend: each Run as a plain process of this user. For development: it isolates nothing."""

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path

from expert_runner.__main__ import IDENTITY_VARIABLE
from expert_runner.skills.base.process_tree import VARIABLE, kill_tree
from orchestrator.bus import IDENTITY_NAME
from orchestrator.errors import SandboxError
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxOwner, SandboxSpec, Transport
from orchestrator.sandbox.labels import Marks
from orchestrator.sandbox.local_processes import MODULE, arguments, end_run, find_runs, run_mark
from orchestrator.sandbox.process_identity import process_identity

LOG_TAIL = 8 * 1024


class LocalBackend:
    """Runs without any sandbox: they can read and write what this user can, and reach the network.

    Args:
        workspace: the folder all Runs of the Job share; made if it is missing.
        lease: the token of the Job's lease, which the caller holds: all that carries it is this Job's.
    """

    name = "local"
    bus_path: str | None = None
    isolates = False

    def __init__(self, workspace: Path, *, lease: str) -> None:
        self._workspace = workspace.absolute()
        self._lease = lease
        self.workspace_path = str(self._workspace)
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._marks: dict[str, str] = {}
        self._tails: dict[str, asyncio.Task[bytes]] = {}

    @property
    def owner(self) -> SandboxOwner:
        return SandboxOwner(os.geteuid(), os.getegid())

    async def open(self) -> Transport:
        try:
            self._workspace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SandboxError(f"the workspace {self._workspace} cannot be made: {error.strerror}") from error
        if not os.access(self._workspace, os.W_OK | os.X_OK):
            raise SandboxError(f"the workspace {self._workspace} is not writable")
        return Transport("ipc")

    async def remove_earlier(self, since_ms: int) -> None:
        """As `SandboxBackend.remove_earlier`. Not found is what lost its runner and dropped its environment."""
        for run in await asyncio.to_thread(find_runs):
            if run.marks.lease == self._lease:
                await asyncio.to_thread(end_run, run.marks)

    async def start(self, spec: SandboxSpec) -> Sandbox:
        packages = Path(__file__).parents[2]
        marks = Marks(process_identity(), self._lease, spec.job_id, spec.run_id)
        # A Run that lost its sandbox goes on in another while the first is being removed.
        mark = f"{run_mark(marks)}{secrets.token_hex(4)}."
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(packages),
            VARIABLE: mark,
            IDENTITY_VARIABLE: str(spec.bus_folder / IDENTITY_NAME),
            **spec.env,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-s",
                "-m",
                MODULE,
                *arguments(marks),
                cwd=self._workspace,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start {sys.executable}: {error.strerror}") from error
        sandbox = Sandbox(str(process.pid), spec)
        self._processes[sandbox.id] = process
        self._marks[sandbox.id] = mark
        self._tails[sandbox.id] = asyncio.create_task(_tail(process))
        return sandbox

    async def wait(self, sandbox: Sandbox) -> Exit:
        process = self._processes.get(sandbox.id)
        if process is None:
            return Exit(ExitCause.GONE, None, "the process was stopped before")
        code = await process.wait()
        cause = ExitCause.EXITED if code >= 0 else ExitCause.KILLED
        evidence = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        log = await asyncio.shield(self._tails[sandbox.id])
        return Exit(cause, code, evidence, log.decode(errors="replace"))

    async def stop(self, sandbox: Sandbox) -> None:
        process = self._processes.pop(sandbox.id, None)
        if process is None:
            return
        # Commands run in sessions of their own, below the runner. One that left its parent before this moment is not
        # found: there is no sandbox here to hold it.
        kill_tree(self._marks.pop(sandbox.id), process.pid)
        await process.wait()
        tail = self._tails.pop(sandbox.id)
        tail.cancel()
        await asyncio.gather(tail, return_exceptions=True)

    async def park(self, sandbox: Sandbox) -> None:
        """Nothing: without a sandbox there is nothing to freeze as a whole."""

    async def unpark(self, sandbox: Sandbox) -> None:
        """Nothing, as `park`."""

    async def close(self) -> None:
        return


async def _tail(process: asyncio.subprocess.Process) -> bytes:
    """Read the process's stderr to its end, so that it never blocks, and keep the last of it."""
    kept = b""
    while process.stderr is not None and (piece := await process.stderr.read(64 * 1024)):
        kept = (kept + piece)[-LOG_TAIL:]
    return kept
