"""Every control of a sandbox: in the engine's own report, and in its effect on a program inside."""

import json
from pathlib import Path

import pytest

from orchestrator.sandbox.policy import MIB, SandboxPolicy
from orchestrator.sandbox.process_identity import process_identity
from tests.sandbox.docker_lab import FOREVER, Lab

pytestmark = pytest.mark.docker

POLICY = SandboxPolicy(
    memory_bytes=96 * MIB, cpus=0.5, pids=40, open_files=64, tmpfs_bytes=2 * MIB, log_bytes=64 * 1024
)

WRITABLE_FOLDERS = """
import os
writable = []
for folder, below, _ in os.walk("/"):
    if folder in ("/proc", "/sys"):
        below.clear()
        continue
    try:
        name = os.path.join(folder, "written")
        open(name, "x").close()
    except OSError:
        continue
    os.unlink(name)
    writable.append(folder)
print(sorted(writable))
"""

FORK_UNTIL_REFUSED = """
import errno, os, signal
children = []
try:
    while len(children) < 1000:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
except OSError as error:
    print(errno.errorcode[error.errno], len(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""

FILL_TMP = """
import errno
written = 0
try:
    with open("/tmp/full", "wb", buffering=0) as file:
        while written < 2**30:
            written += file.write(bytes(65536))
except OSError as error:
    print(errno.errorcode[error.errno], written)
"""

OPEN_UNTIL_REFUSED = """
import errno
files = []
try:
    while len(files) < 10000:
        files.append(open("/dev/null"))
except OSError as error:
    print(errno.errorcode[error.errno], len(files))
"""

MESSAGE_QUEUE = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.mq_open(b"/q", os.O_CREAT | os.O_RDWR, 0o600, None))
"""


async def test_inspect_shows_every_control(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(policy=POLICY))
    found = lab.engine.api.inspect_container(sandbox.id)
    config, host = found["Config"], found["HostConfig"]
    assert config["Image"] == lab.image
    assert config["Hostname"] == "sandbox"
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    # No other option: the engine's default seccomp profile stays.
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["IpcMode"] == "none"
    assert host["PidsLimit"] == POLICY.pids
    assert host["Memory"] == host["MemorySwap"] == POLICY.memory_bytes
    assert host["NanoCpus"] == 500_000_000
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {"nofile": 64, "core": 0, "msgqueue": 0}
    assert host["OomScoreAdj"] > 0
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["Init"] is False
    assert not host["Devices"]
    assert not host["PortBindings"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "65536", "max-file": "1"}}
    assert set(host["Tmpfs"]) == {"/tmp"}
    mounts = {mount["Destination"]: (mount["RW"], mount["Propagation"]) for mount in found["Mounts"]}
    assert mounts == {"/workspace": (True, "rprivate"), "/perstack/bus": (False, "rprivate")}


async def test_labels_tell_job_run_expert_owner_and_lease(lab: Lab) -> None:
    backend = await lab.opened()
    spec = lab.spec()
    sandbox = await backend.start(spec)
    container = lab.engine.containers.get(sandbox.id)
    assert container.labels["perstack.job"] == lab.job_id
    assert container.labels["perstack.run"] == spec.run_id
    assert container.labels["perstack.expert"] == "@test/expert"
    assert container.labels["perstack.owner"] == process_identity()
    assert container.labels["perstack.lease"] == lab.lease
    assert container.name == f"perstack-{lab.job_id[:12]}-{spec.run_id[:12]}"


async def test_in_force_is_what_the_engine_reports(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(policy=POLICY))
    lab.engine.containers.get(sandbox.id).update(mem_limit=80 * MIB, memswap_limit=80 * MIB)
    controls = await backend.in_force(sandbox)
    assert controls["memoryBytes"] == 80 * MIB
    assert controls["containerId"] == sandbox.id
    assert controls["imageDigest"] == lab.engine.images.get(lab.image).id
    assert controls["networkMode"] == "none"
    assert json.loads(json.dumps(controls)) == controls


@pytest.mark.parametrize("process", ["1", "self"])
async def test_process_has_no_privilege_and_cannot_gain_any(lab: Lab, process: str) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(sandbox, f"print(open('/proc/{process}/status').read())")
    status = dict(line.split(":\t", 1) for line in said.text.splitlines() if ":\t" in line)
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert "0" not in status["Groups"].split()


async def test_only_loopback_is_there(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(sandbox, "import socket; print([name for _, name in socket.if_nameindex()])")
    assert said.text.strip() == "['lo']"


async def test_nothing_can_be_written_but_workspace_and_tmp(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(sandbox, WRITABLE_FOLDERS)
    assert said.text.strip() == "['/tmp', '/workspace']"


async def test_no_message_queue_can_be_made(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    assert (await lab.inside(sandbox, MESSAGE_QUEUE)).text.strip() == "-1"


async def test_programs_in_tmp_can_run(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(
        sandbox, "import shutil, subprocess; shutil.copy('/bin/true', '/tmp/t'); subprocess.run(['/tmp/t'], check=True)"
    )
    assert said.exit_code == 0, said.text


async def test_tmp_is_bounded(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(policy=POLICY))
    name, written = (await lab.inside(sandbox, FILL_TMP)).text.split()
    assert name == "ENOSPC"
    assert int(written) <= POLICY.tmpfs_bytes


async def test_processes_are_bounded(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(policy=POLICY))
    name, made = (await lab.inside(sandbox, FORK_UNTIL_REFUSED)).text.split()
    assert name == "EAGAIN"
    assert int(made) < POLICY.pids


async def test_open_files_are_bounded(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(policy=POLICY))
    name, opened = (await lab.inside(sandbox, OPEN_UNTIL_REFUSED)).text.split()
    assert name == "EMFILE"
    assert int(opened) < POLICY.open_files


async def test_more_cpus_than_the_machine_has_are_all_it_has(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(policy=SandboxPolicy(cpus=4096)))
    assert (await backend.in_force(sandbox))["cpus"] == lab.engine.info()["NCPU"]


async def test_environment_holds_nothing_of_the_host(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proxies = {"proxies": {"default": {"httpProxy": "http://user:proxy-secret@proxy.invalid:3128"}}}
    (tmp_path / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "host-secret")
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec(env={"GIVEN": "yes"}))
    said = await lab.inside(
        sandbox, "import os; print(dict(os.environ)); print(open('/proc/1/environ').read().split(chr(0)))"
    )
    assert "'GIVEN': 'yes'" in said.text
    assert "GIVEN=yes" in said.text
    assert "secret" not in said.text


async def test_no_engine_socket_and_no_resolver_of_the_host(lab: Lab) -> None:
    backend = await lab.opened()
    sandbox = await backend.start(lab.spec())
    said = await lab.inside(
        sandbox,
        """
import os, stat
for folder, below, files in os.walk("/"):
    if folder in ("/proc", "/sys"):
        below.clear()
    for name in files:
        path = os.path.join(folder, name)
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            print("socket", path)
print([line for line in open("/etc/resolv.conf") if line.startswith(("nameserver", "search"))])
""",
    )
    assert said.text.strip() == "['nameserver 127.0.0.1\\n']"


async def test_the_bus_folder_can_be_read_and_not_changed(lab: Lab) -> None:
    backend = await lab.opened()
    spec = lab.spec(FOREVER)
    (spec.bus_folder / "identity").write_text("key")
    sandbox = await backend.start(spec)
    assert (await lab.inside(sandbox, "print(open('/perstack/bus/identity').read())")).text.strip() == "key"
    removal = await lab.inside(sandbox, "import os; os.unlink('/perstack/bus/identity')")
    assert "Read-only file system" in removal.text
    (spec.bus_folder / "identity").unlink()
    assert (await lab.inside(sandbox, "import os; print(os.listdir('/perstack/bus'))")).text.strip() == "[]"
