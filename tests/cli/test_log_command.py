"""`perstack log` as a user runs it."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from expert_runner.contract.checkpoints import Checkpoint, ExpertRef, State
from expert_runner.contract.checkpoints import CheckpointStatus as Status
from expert_runner.contract.events import ContinueToNextStep, FinishToolCall, ResolveToolResults, StartGeneration
from expert_runner.contract.fold import next_message_id, tool_message
from expert_runner.contract.jobs import Job, JobStatus
from expert_runner.contract.standing import Standing
from expert_runner.contract.tools import BASE_SKILL, SkillType, ToolCall, ToolResult
from expert_runner.contract.usage import Usage
from orchestrator.cli.log import log
from orchestrator.runs import outside
from orchestrator.runs.generation import ModelAnswer
from orchestrator.runs.ledger import Ledger, now_ms
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import RunRecord, Store
from orchestrator.store.log import EventLog
from tests.logs import histories
from tests.logs.histories import kill, rewrite, run_of

ROOT = Path(__file__).parents[2]
LONG = 10_000
"""Events of a long Job."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return histories.play(tmp_path_factory.mktemp("played"))


@pytest.fixture(scope="module")
def long_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long_job(tmp_path_factory.mktemp("long"))


@pytest.fixture
def copy(storage: Path, tmp_path: Path) -> Store:
    return histories.copied(storage, tmp_path)


def write_long_job(folder: Path) -> Path:
    """A Job of one Run with at least `LONG` events, each written as the orchestrator writes it."""
    store, now = Store(folder), now_ms()
    store.make_job_folder("long")
    job = Job(
        id="long",
        status=JobStatus.COMPLETED,
        coordinator_expert_key="boss",
        coordinator_run_id="r",
        runtime_version="0",
        started_at=now,
    )
    store.write_job(job)
    path = store.open_run(RunRecord(id="r", job_id="long", expert_key="boss", query="q", created_at=now))
    expert = ExpertRef(key="boss", name="boss", version="1.0.0")
    begin = Checkpoint(
        id="c", job_id="long", run_id="r", status=Status.INIT, state=State.INIT, step_number=1, expert=expert
    )
    log = EventLog(path)
    ledger = Ledger(Standing.at(begin, now), log, lambda *_: None)
    outside.start(ledger, (outside.user_message(begin, "q"),), None)
    for step in range(LONG // 5):
        ledger.record(StartGeneration, messages=())
        call = ToolCall(
            id=f"c{step}",
            skill_name=BASE_SKILL,
            skill_type=SkillType.MCP,
            tool_name="exec",
            args={"command": "x" * 300},
        )
        usage = Usage(input_tokens=1, total_tokens=1)
        outside.answered(ledger, ModelAnswer(text="so", thinking=(), calls=(call,), usage=usage))
        ledger.record(ResolveToolResults, tool_results=(ToolResult.of(call, "y" * 500),))
        message = tool_message(ledger.checkpoint, next_message_id(ledger.checkpoint))
        ledger.record(FinishToolCall, new_messages=(message,))
        ledger.record(ContinueToNextStep)
    log.close()
    return folder


def ask(storage: Path, *options: str) -> Result:
    return CliRunner().invoke(log, options, env={"PERSTACK_STORAGE_PATH": str(storage)}, prog_name="perstack log")


def shown(storage: Path, *options: str) -> str:
    """What the command prints when all is well."""
    result = ask(storage, *options)
    assert (result.exit_code, result.exception is None or isinstance(result.exception, SystemExit)) == (0, True), result
    return result.stdout


def events(storage: Path, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown(storage, "--json", *options).splitlines()]


def types(storage: Path, *options: str) -> list[str]:
    return [event["type"] for event in events(storage, "--take", "0", *options)]


def history_of(storage: Path, job_id: str = "team") -> JobHistory:
    return JobHistory(Store(storage), job_id)


def process(storage: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *arguments]
    environment = {**os.environ, "PERSTACK_STORAGE_PATH": str(storage), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, **more)


LOG = ("-m", "orchestrator.cli.main", "log")


# --- which Job, and the summary


def test_without_options_the_latest_job_is_summed_up(storage: Path) -> None:
    text = shown(storage)
    assert text.startswith("Job team: stoppedByInteractiveTool\n")
    assert "├─ left" in text
    assert "│  └─ leaf" in text
    assert "└─ right" in text


def test_the_latest_is_the_job_that_was_continued_last(copy: Store) -> None:
    simple = copy.read_job("simple")
    copy.write_job(simple.model_copy(update={"continued_at": now_ms()}))
    assert shown(copy.root).startswith("Job simple: completed\n")


def test_a_job_can_be_named(storage: Path) -> None:
    assert "result       Simply done." in shown(storage, "--job", "simple")
    assert {event["jobId"] for event in events(storage, "--job", "simple", "--take", "0")} == {"simple"}


def test_the_summary_as_json_is_one_object(storage: Path) -> None:
    (line,) = shown(storage, "--json").splitlines()
    summary = json.loads(line)
    assert (summary["jobId"], summary["status"], len(summary["runs"])) == ("team", "stoppedByInteractiveTool", 8)
    assert json.loads(shown(storage, "--pretty")) == summary
    assert shown(storage, "--pretty").startswith('{\n  "jobId": "team",\n')


# --- events


def test_all_events_as_json_are_the_stored_bytes(storage: Path) -> None:
    result = ask(storage, "--json", "--take", "0")
    stored = {
        line for run_id in history_of(storage).runs for line in log_bytes(storage, run_id).splitlines(keepends=True)
    }
    printed = result.stdout_bytes.splitlines(keepends=True)
    assert len(printed) == len(stored)
    assert set(printed) == stored
    for run_id in history_of(storage).runs:
        of_run = ask(storage, "--json", "--take", "0", "--run", run_id).stdout_bytes
        assert of_run == log_bytes(storage, run_id)


def log_bytes(storage: Path, run_id: str) -> bytes:
    return Store(storage).events_path("team", run_id).read_bytes()


def test_pretty_indents_the_same_events(storage: Path) -> None:
    run_id = run_of(history_of(storage), "leaf")
    text = shown(storage, "--run", run_id, "--pretty")
    decoder, found = json.JSONDecoder(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    assert found == events(storage, "--run", run_id)


def test_events_are_lines_indented_by_depth_in_the_order_of_time(storage: Path) -> None:
    lines = shown(storage, "--take", "0").splitlines()
    times = [line[:24] for line in lines]
    assert times == sorted(times)
    assert len(lines) == len(types(storage))
    indents = {line[25:].split()[0]: len(line[25:]) - len(line[25:].lstrip()) for line in lines}
    assert indents == {"boss": 0, "left": 2, "right": 2, "leaf": 4}


def test_steps_types_and_kinds_select(storage: Path) -> None:
    assert {event["stepNumber"] for event in events(storage, "--step", "2-3", "--take", "0")} == {2, 3}
    assert {event["stepNumber"] for event in events(storage, "--step", ">3", "--take", "0")} == {4, 5}
    assert set(types(storage, "--type", "completeRun,retry", "--type", "startRun")) == {"completeRun", "startRun"}
    errors = types(storage, "--errors")
    assert errors == ["resolveToolResults", "stopRunByError", "resumeToolCalls"] * 2
    assert set(types(storage, "--delegations")) == {"callDelegate", "stopRunByDelegate", "resumeToolCalls"}
    tools = types(storage, "--tools")
    assert "callDelegate" not in tools
    assert {"callTools", "resolveToolResults", "attemptCompletion", "callInteractiveTool", "resumeToolCalls"} == set(
        tools
    )
    assert types(storage, "--tools", "--delegations", "--errors") == errors[:1] + errors[2:4] + errors[5:]


def test_a_filter_selects(storage: Path) -> None:
    found = events(storage, "--filter", '.toolCalls[].skillName == "left" and .stepNumber >= 2')
    assert [event["type"] for event in found] == ["callDelegate", "callDelegate"]
    assert types(storage, "--filter", '.type =~ "^complete" and not .expertKey == "boss"') == ["completeRun"] * 4


def test_pages_go_back_from_the_latest(storage: Path) -> None:
    everything = [event["id"] for event in events(storage, "--take", "0")]
    assert len(everything) > 100
    page = [event["id"] for event in events(storage, "--offset", "0")]
    assert page == everything[-100:], "a hundred unless told otherwise"
    assert [event["id"] for event in events(storage, "--take", "5", "--offset", "3")] == everything[-8:-3]
    assert [event["id"] for event in events(storage, "--take", "0", "--offset", "3")] == everything[:-3]
    assert events(storage, "--take", "5", "--offset", "9999") == []


def test_what_a_page_leaves_out_is_said_beside_it(storage: Path) -> None:
    total = len(types(storage))
    result = ask(storage, "--take", "5", "--offset", "3")
    assert result.stderr == f"perstack: 5 of {total} events; --take 0 shows all, --offset 8 those before\n"
    assert ask(storage, "--take", "0").stderr == ""
    assert ask(storage, "--take", "5", "--json").stderr == ""
    assert ask(storage, "--type", "retry").stderr == "perstack: no event fits\n"


def test_context_shows_what_stands_around_in_the_same_run(storage: Path) -> None:
    right = run_of(history_of(storage), "right")
    lines = shown(storage, "--run", right, "--type", "stopRunByError", "--context", "1").splitlines()
    assert [line.split()[-0] == "*" for line in lines] == [False, True, False]
    found = events(storage, "--run", right, "--type", "stopRunByError", "--context", "1")
    assert [event["type"] for event in found] == ["startGeneration", "stopRunByError", "skillDisconnected"]


def test_verbose_shows_texts_whole(storage: Path) -> None:
    left = run_of(history_of(storage), "left")
    short, whole = (shown(storage, "--run", left, "--take", "0", *more) for more in ((), ("--verbose",)))
    assert "You are an Expert" not in short
    assert "instruction: You are an Expert" in whole
    assert len(short.splitlines()) == len(events(storage, "--run", left, "--take", "0"))


def test_selected_events_are_counted_by_type(storage: Path) -> None:
    run_id = run_of(history_of(storage), "right")
    counts = json.loads(shown(storage, "--summary", "--run", run_id, "--errors", "--json"))
    assert counts == {"jobId": "team", "events": 2, "byType": {"resolveToolResults": 1, "stopRunByError": 1}}
    text = shown(storage, "--summary", "--tools")
    assert text.splitlines()[:2] == ["Job team: 15 events", "  6  callTools"]
    assert shown(storage, "--summary") == shown(storage)


# --- checkpoints and messages


def test_a_checkpoint_is_shown_whole(storage: Path) -> None:
    history = history_of(storage)
    told = list(history.told(run_of(history, "boss")))[2]
    checkpoint = told.standing.checkpoint
    (line,) = shown(storage, "--checkpoint", checkpoint.id, "--json").splitlines()
    assert Checkpoint.model_validate_json(line) == checkpoint
    assert len(checkpoint.messages) > 4
    assert Checkpoint.model_validate_json(shown(storage, "--checkpoint", checkpoint.id, "--pretty")) == checkpoint
    text = shown(storage, "--checkpoint", checkpoint.id)
    assert text.startswith(f"Checkpoint {checkpoint.id} of Run {checkpoint.run_id}, Job team\n")
    messages = shown(storage, "--checkpoint", checkpoint.id, "--messages")
    assert text.endswith(messages)
    assert "    left of leaf\n" in messages
    as_json = [
        json.loads(m) for m in shown(storage, "--checkpoint", checkpoint.id, "--messages", "--json").splitlines()
    ]
    assert [message["id"] for message in as_json] == [message.id for message in checkpoint.messages]


def test_messages_are_conversations_run_by_run_in_tree_order(storage: Path) -> None:
    headings = [line for line in shown(storage, "--messages", "--take", "0").splitlines() if line.startswith("━━")]
    assert [heading.split()[1] for heading in headings] == ["boss,", "left,", "leaf,", "right,"] * 2
    left = run_of(history_of(storage), "left")
    said = events(storage, "--messages", "--run", left)
    assert [m["message"]["type"] for m in said] == [
        "instructionMessage",
        "userMessage",
        "expertMessage",
        "toolMessage",
        "expertMessage",
    ]
    assert {m["runId"] for m in said} == {left}
    assert [m["message"]["type"] for m in events(storage, "--messages", "--run", left, "--step", "2")] == [
        "expertMessage"
    ]
    assert len(events(storage, "--messages", "--take", "2")) == 2


# --- what is wrong


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--job", "nothing"), 1, "there is no Job nothing in "),
        (("--job", "../x"), 2, "job id '../x': use 1 to 64 letters"),
        (("--run", "nothing"), 1, "Job team has no Run nothing: it has "),
        (("--run", "nothing", "--messages"), 1, "Job team has no Run nothing: it has "),
        (("--checkpoint", "nothing"), 1, "Job team has no checkpoint nothing: `perstack log --job team --type "),
        (("--checkpoint", "\x1b[2J"), 1, "Job team has no checkpoint \\x1b[2J: "),
        (("--type", "nothing"), 2, "--type nothing: the history has these: startRun, "),
        (("--step", "x"), 2, "--step 'x': write 5, >5, >=5, <5, <=5 or 1-10"),
        (
            ("--filter", ".type = 1"),
            2,
            "--filter: character 7: unexpected '=': equal is `==`\n  .type = 1\n        ^\n",
        ),
        (("--filter", ".a\x1b[31m"), 2, "--filter: character 3: unexpected '\\x1b'\n  .a [31m\n    ^\n"),
        (("--take", "-1"), 2, "Invalid value for '--take'"),
        (("--messages", "--errors"), 2, "--messages shows conversations, not events: leave --errors out"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_else_shown(
    storage: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    before = snapshot(storage)
    result = ask(storage, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "\x1b" not in result.stderr
    assert snapshot(storage) == before


def test_reading_changes_nothing(storage: Path) -> None:
    before = snapshot(storage)
    for options in ((), ("--take", "0"), ("--messages",), ("--summary", "--tools"), ("--context", "2")):
        shown(storage, *options)
    assert snapshot(storage) == before


def snapshot(storage: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in storage.rglob("*") if path.is_file()}


def test_where_there_is_no_job_that_is_said(tmp_path: Path) -> None:
    result = ask(tmp_path / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"perstack: there is no Job in {tmp_path}/none/jobs yet\n"


def test_a_history_of_a_newer_version_is_refused(copy: Store) -> None:
    path = copy.job_folder("team") / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "historyVersion": 999}))
    result = ask(copy.root, "--job", "team")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "history version 999" in result.stderr


def test_a_filter_that_would_take_years_is_stopped(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.logs.report.MATCH_LIMIT_S", 0.2)
    result = ask(storage, "--filter", '.inputMessages[].contents[].text =~ "^(\\\\S+\\\\s*)+#$"')
    assert result.exit_code == 2, result
    assert "for event " in result.stderr
    assert "without repetitions inside of repetitions" in result.stderr


@pytest.mark.parametrize("options", [(), ("--take", "0"), ("--take", "0", "--json"), ("--messages", "--take", "0")])
def test_a_damaged_log_is_shown_as_far_as_it_goes_then_told_with_its_place(
    copy: Store, options: tuple[str, ...]
) -> None:
    history = JobHistory(copy, "team")
    left = run_of(history, "left")
    path = rewrite(copy, left, lambda lines: [*lines[:6], b"\x1b[2J\xff garbage\n", *lines[7:]])
    result = ask(copy.root, *options)
    assert result.exit_code == 1
    assert f"perstack: {path}:7: not an event" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert b"\x1b" not in result.stdout_bytes + result.stderr_bytes
    assert left[:6] in result.stdout, "what stands before it"
    assert run_of(history, "right")[:6] in result.stdout, "and the other Runs"
    if "--json" in options:
        of_left = [line for line in result.stdout_bytes.splitlines() if json.loads(line)["runId"] == left]
        assert of_left == path.read_bytes().splitlines()[:6]


def test_a_run_is_shown_whatever_happened_to_the_logs_of_others(copy: Store) -> None:
    history = JobHistory(copy, "team")
    rewrite(copy, run_of(history, "left"), lambda lines: [b"garbage\n", *lines])
    for options in ((), ("--messages",), ("--summary",)):
        result = ask(copy.root, "--run", run_of(history, "right"), *options)
        assert (result.exit_code, result.stderr) == (0, "")


def test_an_interrupted_job_is_shown_as_such(copy: Store) -> None:
    kill(copy)
    result = ask(copy.root)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Job team: interrupted (nobody works on it)\n")
    assert json.loads(ask(copy.root, "--json").stdout)["isInterrupted"] is True


def test_a_running_job_is_told_from_an_interrupted_one(copy: Store) -> None:
    kill(copy)
    folder = copy.job_folder("team")
    script = (
        "import sys; from pathlib import Path; from orchestrator.store.lease import JobLease\n"
        f"lease = JobLease.take(Path({str(folder)!r})); lease.announce(); print('held', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"held\n"
        assert f"Job team: running (process {worker.pid} on " in shown(copy.root)
        worker.send_signal(signal.SIGKILL)
    assert "Job team: interrupted" in shown(copy.root)


# --- as a process


def test_nothing_of_what_models_and_tools_wrote_reaches_the_terminal_raw(storage: Path) -> None:
    allowed = set(range(0x20, 0x7F)) | {0x0A}
    for options in ((), ("--take", "0"), ("--take", "0", "--verbose"), ("--messages", "--take", "0")):
        text = ask(storage, *options).stdout
        assert [c for c in text if ord(c) < 0x80 and ord(c) not in allowed] == []
        assert not {"\x9b", "\u202e"} & set(text)
    assert "\\x1b[31mred\\x1b]0;title\\x07 \\u202egnp.exe \\x9b2J" in ask(storage, "--take", "0").stdout


def test_it_starts_without_what_it_does_not_need(storage: Path) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['perstack', 'log', '--take', '0', '--filter', '.type =~ \"x\"']\n"
        "try:\n    runpy.run_module('orchestrator.cli.main', run_name='__main__')\n"
        "except SystemExit as ended:\n    assert ended.code == 0\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    ended = process(storage, "-c", code)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stderr.decode().split())
    assert "orchestrator.logs.report" in loaded
    assert not loaded & {"litellm", "docker", "aiohttp", "httpx", "openai", "requests", "orchestrator.api.run"}


@pytest.mark.parametrize("options", [("--take", "0"), ("--json", "--take", "0"), ("--messages", "--take", "0")])
def test_a_reader_that_goes_away_ends_it_quietly(long_storage: Path, options: tuple[str, ...]) -> None:
    environment = {**os.environ, "PERSTACK_STORAGE_PATH": str(long_storage), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, *LOG, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 0


def test_output_is_utf_8_whatever_the_locale(storage: Path) -> None:
    ended = process(storage, "-X", "utf8=0", *LOG)
    assert ended.returncode == 0, ended.stderr
    assert "├─ left" in ended.stdout.decode()


def test_a_long_job_is_shown_at_once(long_storage: Path) -> None:
    assert len(log_lines(long_storage)) > LONG
    for options in ((), ("--json", "--take", "0"), ("--errors",), ("--messages", "--take", "1")):
        before = cpu_time_of_children()
        assert process(long_storage, *LOG, *options).returncode == 0
        # About half a second where nothing else runs; that of the processor, because here other tests do.
        assert cpu_time_of_children() - before < 3


def cpu_time_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def log_lines(storage: Path) -> list[bytes]:
    return Store(storage).events_path("long", "r").read_bytes().splitlines()
