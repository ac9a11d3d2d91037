"""What a sandbox of a real Job can see and do, looked at from inside by a probe and from outside by docker inspect."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.jobs.stage import KEY, Played, Stage, call, done, talk, turn

pytestmark = pytest.mark.docker

PROBE = (Path(__file__).parent / "probe.py").read_text()
EXPERTS = {"boss": {"delegates": ["one", "two"]}, "one": {}, "two": {}}
PROBING = turn(call("exec", command="python3", args=["-c", PROBE, KEY, "/"]))


def findings(played: Played, expert: str) -> dict[str, Any]:
    """What the probe printed in that Expert's sandbox."""
    (event,) = [e for e in played.of("resolveToolResults", expert) if e.tool_results[0].tool_name == "exec"]
    text = event.tool_results[0].result[0].text
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


@pytest.fixture
def docker_stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "docker")


async def play(stage: Stage, inspected: dict[str, Any]) -> Played:
    client = docker.from_env()

    def look(event: Any) -> None:
        if event.type == "callTools" and event.tool_calls[0].tool_name == "exec":
            for container in client.containers.list(filters={"label": f"perstack.run={event.run_id}"}):
                inspected[event.expert_key] = container.attrs

    try:
        return await stage.play(
            EXPERTS,
            talk("boss", PROBING, turn(call("one", query="1"), call("two", query="2")), *done()),
            talk("one", PROBING | {"delayMs": 200}, turn(text="one is done", delayMs=1000)),
            talk("two", PROBING | {"delayMs": 200}, turn(text="two is done", delayMs=1000)),
            event_listener=look,
        )
    finally:
        client.close()


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, dict[str, Any]]:
    """One Job of three Runs, each of which ran the probe, and what docker inspect said of each meanwhile."""
    inspected: dict[str, Any] = {}
    played = asyncio.run(play(Stage(tmp_path_factory.mktemp("probed"), "docker"), inspected))
    return played, inspected


def test_three_runs_are_three_containers_whose_lives_overlap(probed: tuple[Played, dict[str, Any]]) -> None:
    status = probed[0].of("dockerContainerStatus")
    started = {e.service: (e.container_id, e.timestamp) for e in status if e.status == "running"}
    removed = {e.service: (e.container_id, e.timestamp) for e in status if e.status == "removed"}
    assert set(started) == {"boss", "one", "two"}
    assert len({container for container, _ in started.values()}) == 3
    assert {s: c for s, (c, _) in started.items()} == {s: c for s, (c, _) in removed.items()}
    for delegate, other in (("one", "two"), ("two", "one")):
        assert started[delegate][1] < removed[other][1]
        assert started["boss"][1] < started[delegate][1] < removed["boss"][1]


def test_every_control_is_in_force_in_every_container(probed: tuple[Played, dict[str, Any]]) -> None:
    inspected = probed[1]
    assert set(inspected) == {"boss", "one", "two"}
    for attributes in inspected.values():
        host, config = attributes["HostConfig"], attributes["Config"]
        assert host["NetworkMode"] == "none"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["Privileged"] is False
        assert host["SecurityOpt"] == ["no-new-privileges"], "and nothing that loosens seccomp or AppArmor"
        assert config["User"].split(":")[0] not in ("", "0", "root")
        assert host["PidsLimit"] == 256
        assert host["Memory"] == host["MemorySwap"] == 512 * 1024 * 1024
        assert 0 < host["NanoCpus"] <= 1e9
        assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]}["nofile"] == 1024
        assert "size=" in host["Tmpfs"]["/tmp"]
        assert {m["Destination"]: m["RW"] for m in attributes["Mounts"]} == {"/workspace": True, "/perstack/bus": False}
        assert {"perstack.job", "perstack.run", "perstack.expert", "perstack.owner"} <= set(config["Labels"])
        assert KEY not in json.dumps(attributes)


def test_nothing_but_workspace_and_tmp_is_there_to_use(probed: tuple[Played, dict[str, Any]]) -> None:
    for expert in ("boss", "one", "two"):
        found = findings(probed[0], expert)
        assert found["interfaces"] == ["lo"]
        assert found["leaks"] == [], "the provider's key is nowhere: environment, processes, files"
        assert found["sockets"] == [], "no Docker socket"
        assert found["uid"] != 0
        assert found["capabilities"] == ["0" * 16] * 5
        assert found["noNewPrivs"] == "1"
        assert found["seccomp"] == "2"
        assert found["processOneHidden"] is True
        assert set(found["writable"]) <= {"/workspace", "/tmp", "/dev/shm", "/dev/mqueue"}
        assert {"/workspace", "/tmp"} <= set(found["writable"])
        assert found["identity"] is False, "the identity file is gone after hello"
        assert found["reaches"] == []


def test_the_probe_itself_finds_what_is_left_open(tmp_path: Path) -> None:
    """The control: outside of a sandbox the same probe finds interfaces, a writable folder and planted keys."""
    (tmp_path / "leak.txt").write_text(KEY)
    found = json.loads(
        subprocess.run(
            [sys.executable, "-c", PROBE, KEY, str(tmp_path)],
            env={"CANARY": KEY},
            capture_output=True,
            check=True,
        ).stdout
    )
    assert {"environment CANARY", str(tmp_path / "leak.txt")} <= set(found["leaks"])
    assert found["writable"] == [str(tmp_path)]
    assert len(found["interfaces"]) > 1
    assert found["capabilities"] != ["0" * 16] * 5 or os.geteuid() != 0
    assert found["seccomp"] == "0" or found["noNewPrivs"] == "0"


async def test_files_of_the_workspace_belong_to_the_invoking_user(docker_stage: Stage) -> None:
    await docker_stage.play(
        {"solo": {}},
        talk(
            "solo",
            turn(
                call("writeTextFile", path="deep/a.txt", text="a"),
                call("exec", command="sh", args=["-c", "echo b > b.txt; mkdir d; chmod 700 d; touch d/c"]),
            ),
            *done(),
        ),
    )
    paths = list(docker_stage.workspace.rglob("*"))
    assert {p.name for p in paths} == {"deep", "a.txt", "b.txt", "d", "c"}
    assert {(p.stat().st_uid, p.stat().st_gid) for p in paths} == {(os.geteuid(), os.getegid())}


async def test_a_history_inside_the_workspace_is_masked(docker_stage: Stage) -> None:
    """Invariant 6: nothing in a sandbox reads, writes or forges the history, wherever it lies; keys' files neither."""
    docker_stage.storage = docker_stage.workspace / "sub" / "perstack"
    secret = docker_stage.workspace / ".env"
    secret.write_text(f"OPENAI_API_KEY={KEY}\n")
    shell = (
        "cat .env; ls -la sub/perstack; rm -rf sub .env; mv sub elsewhere; "
        "echo forged > sub/perstack/x; find / -name '*.jsonl'"
    )
    played = await docker_stage.play(
        {"solo": {}},
        talk(
            "solo",
            turn(call("exec", command="sh", args=["-c", shell])),
            turn(call("readTextFile", path=".env")),
            *done(),
        ),
        secret_files=(secret,),
    )
    texts = [r.result[0].text for e in played.of("resolveToolResults") for r in e.tool_results]
    assert KEY not in "".join(texts)
    assert "events.jsonl" not in texts[0]
    assert secret.read_text() == f"OPENAI_API_KEY={KEY}\n"
    assert not list(docker_stage.workspace.rglob("x"))


async def test_an_expert_that_eats_memory_ends_alone(docker_stage: Stage) -> None:
    hog = "x = []\nwhile True: x.append(bytearray(16 * 1024 * 1024))"
    played = await docker_stage.play(
        {"boss": {"delegates": ["hog", "good"]}, "hog": {}, "good": {}},
        talk("boss", turn(call("hog", query="h"), call("good", query="g")), *done()),
        talk("hog", turn(call("exec", command="python3", args=["-c", hog])), *done("survived")),
        talk("good", turn(text="good answer", delayMs=500)),
    )
    hogged, good = played.of("resumeToolCalls", "boss")[0].partial_tool_results
    assert good.result[0].text == "good answer"
    # Either only the command was killed and its Expert was told, or the whole sandbox was lost and the caller was.
    assert "survived" in hogged.result[0].text or "outOfMemory" in hogged.result[0].text
    assert played.end is not None
    assert played.end.status == "completed"


async def test_nothing_in_a_sandbox_can_end_its_runner(docker_stage: Stage) -> None:
    attack = "for s in KILL STOP TERM INT HUP QUIT SEGV; do kill -$s 1; done; kill -9 -1; echo unreached"
    played = await docker_stage.play(
        {"solo": {}},
        talk(
            "solo",
            turn(call("exec", command="sh", args=["-c", attack])),
            turn(call("exec", command="echo", args=["alive"])),
            *done("{{turn.1.result.0}}"),
        ),
    )
    assert played.end is not None
    assert "alive" in (played.end.text or "")


async def test_a_job_over_tcp_is_the_same_job(docker_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine does not share this machine's files the bus is reached over a network of the Job's own."""
    monkeypatch.setenv("PERSTACK_BUS", "tcp")
    interfaces = "import socket; print([name for _, name in socket.if_nameindex()])"
    played = await docker_stage.play(
        {"boss": {"delegates": ["aide"]}, "aide": {}},
        talk("boss", turn(call("aide", query="q")), *done("{{turn.0.result.0}}")),
        talk("aide", turn(call("exec", command="python3", args=["-c", interfaces])), turn(text="{{turn.0.result.0}}")),
    )
    assert played.end is not None
    assert "eth0" in (played.end.text or "")
    client = docker.from_env()
    try:
        assert client.networks.list(filters={"label": f"perstack.job={played.end.job_id}"}) == []
    finally:
        client.close()
