"""The Docker backend: one locked-down container per Run, on any Docker Engine from 20.10.

What is shared by a Job's sandboxes is made in `open`: how they reach the bus, and the workspace's mount. After that, a
start is two calls to the engine (create, start), and waiting costs none: the engine tells when a container ends.
"""

import asyncio
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import SandboxError
from orchestrator.sandbox.backend import Exit, ExitCause, Sandbox, SandboxOwner, SandboxSpec, Transport
from orchestrator.sandbox.docker_config import (
    BUS_PATH,
    WORKSPACE_PATH,
    JobSettings,
    container_name,
    controls,
    create_body,
)
from orchestrator.sandbox.docker_containers import Containers
from orchestrator.sandbox.docker_engine import Engine, EngineAwayError, EngineRefusedError
from orchestrator.sandbox.docker_exit import read_exit
from orchestrator.sandbox.docker_facts import check_image, read_facts
from orchestrator.sandbox.docker_network import (
    JobNetwork,
    choose_scheme,
    create_network,
    remove_networks,
    tcp_transport,
)
from orchestrator.sandbox.docker_watch import DeathWatch, EventStream
from orchestrator.sandbox.labels import LABEL_JOB, LABEL_LEASE, LABEL_OWNER
from orchestrator.sandbox.process_identity import process_identity
from orchestrator.sandbox.set_id_bits import strip_set_id_bits
from orchestrator.sandbox.workspace import masks, prepare_workspace, sandbox_user
from orchestrator.sandbox.workspace_mount import WorkspaceMount

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Life:
    """What is known of one container: that it was asked to end, and how it ended once that was read."""

    stopping: bool = False
    exit: Exit | None = None


class DockerBackend:
    """One Job's sandboxes in Docker.

    Args:
        job_id: becomes a label.
        workspace: the folder all sandboxes of the Job share; made if it is missing.
        lease: the token of the Job's lease, which the caller holds: all that carries it is this Job's.
        history: where Jobs are recorded; masked where it lies inside the workspace.
        hidden: files that hold keys; masked where they lie inside the workspace.
        image: the runner's image, which has to be there: nothing is pulled.
        runtime_folder: an existing folder of this Job, on this machine's disk; root's workspace is mounted in it. It
        must never
            be deleted recursively before `close` has returned without an error.
    """

    name = "docker"
    workspace_path = WORKSPACE_PATH
    bus_path: str | None = BUS_PATH
    isolates = True

    def __init__(
        self,
        job_id: str,
        workspace: Path,
        *,
        lease: str,
        history: Path,
        hidden: Sequence[Path],
        image: str,
        runtime_folder: Path,
    ) -> None:
        self._workspace = workspace
        self._history = history
        self._hidden = tuple(hidden)
        self._image = image
        self._job_id = job_id
        self._labels = {LABEL_JOB: job_id, LABEL_OWNER: process_identity(), LABEL_LEASE: lease}
        self._mount = WorkspaceMount(runtime_folder.resolve() / "workspace")
        self._engine = Engine()
        self._containers = Containers(self._engine, lease)
        self._settings: JobSettings | None = None
        self._network: JobNetwork | None = None
        self._watch: DeathWatch | None = None
        self._lives: dict[str, _Life] = {}
        self._starting: set[asyncio.Task[str]] = set()
        self._since_ns = time.time_ns()

    async def open(self) -> Transport:
        """Check workspace, engine and image, and make the workspace's mount and, for tcp, the Job's network.

        After an error, `close` still has to be called.

        Raises:
            SandboxError: one of them is not as it has to be; the message says which and what to do.
            ConfigError: `PERSTACK_BUS` holds something unknown.
        """
        engine = self._engine
        self._workspace = prepare_workspace(self._workspace, self._history)
        await engine.connect()
        info, image = await asyncio.gather(
            engine.run("describe itself", engine.api.info),
            self._inspect_image(),
        )
        check_image(image, self._image)
        facts = read_facts(info, local=engine.socket_path is not None)
        user = sandbox_user(self._workspace, rootless=facts.rootless)
        scheme = choose_scheme(shares_kernel=facts.shares_kernel)
        source = self._workspace
        if user.idmapped:
            source = await engine.run("mount the workspace", self._mount.attach, source, engine.socket_path)
        transport = Transport("ipc")
        if scheme == "tcp":
            self._network = await create_network(engine, container_name(self._job_id, "bus"), self._labels)
            transport = await tcp_transport(self._network)
        network = self._network.id if self._network else None
        self._settings = JobSettings(self._image, user, source, network, self._labels, facts)
        self._watch = DeathWatch(self._events, datetime.fromisoformat(info["SystemTime"]).timestamp())
        self._watch.start()
        return transport

    async def remove_earlier(self, since_ms: int) -> None:
        """As `SandboxBackend.remove_earlier`. The mount of an earlier orchestrator is in its own runtime folder."""
        self._since_ns = min(self._since_ns, since_ms * 1_000_000)
        await self._containers.remove_all()
        own = self._network.id if self._network else None
        await remove_networks(self._engine, self._containers.filters, but=own)

    @property
    def owner(self) -> SandboxOwner:
        return self._opened.user.owner

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """As `SandboxBackend.start`. What a start that was cancelled has made is removed by `close` at the latest."""
        task = asyncio.create_task(self._create_and_start(spec))
        self._starting.add(task)
        task.add_done_callback(self._started)
        container = await asyncio.shield(task)
        return Sandbox(container, spec)

    async def wait(self, sandbox: Sandbox) -> Exit:
        """As `SandboxBackend.wait`. May be called again, and by several tasks."""
        life = self._life(sandbox.id)
        changed = self._watching.changed(sandbox.id)
        while (ended := life.exit) is None:
            await changed.wait()
            changed.clear()
            life.exit = await self._look(sandbox.id, life)
        # For others who wait for the same sandbox.
        changed.set()
        return ended

    async def stop(self, sandbox: Sandbox) -> None:
        """As `SandboxBackend.stop`; takes well below a second, whatever runs in it: nothing is asked to end first."""
        self._life(sandbox.id).stopping = True
        await self._containers.remove(sandbox.id)

    async def park(self, sandbox: Sandbox) -> None:
        await self._containers.freeze(sandbox.id, frozen=True)

    async def unpark(self, sandbox: Sandbox) -> None:
        await self._containers.freeze(sandbox.id, frozen=False)

    async def in_force(self, sandbox: Sandbox) -> dict[str, Any]:
        """The controls as the engine reports them, not as they were asked for.

        Raises:
            SandboxError: the sandbox is gone, or the engine does not answer.
        """
        return controls(await self._containers.inspect(sandbox.id))

    async def close(self) -> None:
        """Remove everything of this Job: containers, network, mount. Each is tried, whatever happens to the others.

        Raises:
            SandboxError: something is left; the message says what, and how to remove it.
        """
        engine = self._engine
        if self._starting:
            await asyncio.wait(set(self._starting))
        await engine.drain()
        left: list[str] = []
        if engine.is_connected:
            for step in (self._containers.remove_all, self._remove_networks):
                try:
                    await step()
                except SandboxError as error:
                    left.append(str(error))
        if self._settings is not None and self._lives and sys.platform == "linux":
            await asyncio.to_thread(self._strip_set_id_bits)
        try:
            await asyncio.to_thread(self._mount.detach)
        except SandboxError as error:
            left.append(str(error))
        if self._watch is not None:
            await self._watch.stop()
        await engine.close()
        if left:
            raise SandboxError(
                " ".join(left) + f" See what is left with: docker ps -a --filter label={LABEL_JOB}={self._job_id}"
            )

    @property
    def _opened(self) -> JobSettings:
        if self._settings is None:
            raise SandboxError("The Docker sandbox has not been opened.")
        return self._settings

    @property
    def _watching(self) -> DeathWatch:
        if self._watch is None:
            raise SandboxError("The Docker sandbox has not been opened.")
        return self._watch

    def _life(self, container: str) -> _Life:
        return self._lives.setdefault(container, _Life())

    async def _inspect_image(self) -> dict[str, Any]:
        try:
            image: dict[str, Any] = await self._engine.run(
                "look for the image", lambda: self._engine.api.inspect_image(self._image)
            )
        except EngineRefusedError as error:
            if error.is_not_found:
                raise SandboxError(f"The image {self._image} is missing. Build it with: make images") from error
            raise
        return image

    def _events(self, since: float) -> EventStream:
        """In the watch's thread."""
        filters = {"type": "container", "event": ["die", "oom", "destroy"], **self._containers.filters}
        stream: EventStream = self._engine.api.events(since=since, filters=filters, decode=True)
        return stream

    def _started(self, task: "asyncio.Task[str]") -> None:
        self._starting.discard(task)
        if not task.cancelled():
            task.exception()

    async def _create_and_start(self, spec: SandboxSpec) -> str:
        def create_and_start() -> str:
            body = create_body(spec, self._opened, masks(self._workspace, self._history, self._hidden))
            names = (container_name(spec.job_id, spec.run_id, suffix) for suffix in ("", secrets.token_hex(3)))
            return self._containers.create_and_start(body, *names)

        container = await self._engine.run("start a sandbox", create_and_start)
        self._life(container)
        return container

    async def _look(self, container: str, life: _Life) -> Exit | None:
        """How the container ended; None while it runs."""
        try:
            inspected = await self._containers.inspect(container)
        except EngineRefusedError as error:
            if not error.is_not_found:
                return Exit(ExitCause.GONE, None, str(error))
            if life.stopping:
                return Exit(ExitCause.STOPPED, None, "removed by the orchestrator")
            return Exit(ExitCause.GONE, None, error.reason)
        except EngineAwayError as error:
            if self._watching.lost:
                return Exit(ExitCause.GONE, None, str(error))
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_SECONDS, self._watching.changed(container).set)
            return None
        ended = read_exit(inspected["State"], self._watching.memory_ran_out(container), stopping=life.stopping)
        if ended is None or life.stopping:
            return ended
        return Exit(ended.cause, ended.exit_code, ended.evidence, await self._containers.log_tail(container))

    async def _remove_networks(self) -> None:
        await remove_networks(self._engine, self._containers.filters)

    def _strip_set_id_bits(self) -> None:
        result = strip_set_id_bits(self._workspace, self._since_ns, skip=(self._history.resolve(),))
        if result.changed:
            logger.warning(
                "Took set-user-ID bits from %d files that Experts left in %s", result.changed, self._workspace
            )
        if not result.complete:
            logger.warning(
                "Not all of %s could be searched for set-user-ID files that Experts left. Look for them with: "
                "find -perm /6000",
                self._workspace,
            )
