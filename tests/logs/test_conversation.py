"""Conversations whole, and checkpoints for people."""

from expert_runner.contract.events import StopRunByDelegate
from expert_runner.contract.messages import FileUrlPart, ImageInlinePart, TextPart, UserMessage
from expert_runner.contract.todos import Todo
from orchestrator.logs.conversation import conversation
from orchestrator.logs.message_text import checkpoint_lines, message_lines, said_lines
from orchestrator.logs.reading import JobReader
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store
from tests.logs.histories import ESCAPES, rewrite, run_of


def test_a_conversation_is_what_the_runs_checkpoint_holds(team: JobHistory) -> None:
    for run_id in team.runs:
        standing = team.standing(run_id)
        assert standing is not None
        assert tuple(said.message for said in conversation(JobReader(team), run_id)) == standing.checkpoint.messages


def test_a_branch_tells_which_messages_it_has_from_before(team: JobHistory) -> None:
    branch = team.coordinators[1].id
    said = list(conversation(JobReader(team), branch))
    base = team.base(branch)
    assert base is not None
    before = [part for part in said if part.step_number is None]
    assert tuple(part.message for part in before) == base.checkpoint.messages
    assert said[: len(before)] == before
    assert {part.run_id for part in said} == {branch}
    assert said[len(before)].step_number == 2


def test_a_damaged_log_gives_the_conversation_up_to_there(copy: Store) -> None:
    history = JobHistory(copy, "team")
    run_id = run_of(history, "boss")
    path = rewrite(copy, run_id, lambda lines: [*lines[:5], b"null\n", *lines[6:]])
    reader = JobReader(history)
    assert [said.message.type for said in conversation(reader, run_id)] == [
        "instructionMessage",
        "userMessage",
        "expertMessage",
    ]
    assert reader.damages[run_id].startswith(f"{path}:6: ")


def test_events_that_cannot_follow_each_other_are_a_damage(copy: Store) -> None:
    """A log whose lines are chained but tell of what cannot happen."""
    from orchestrator.store.log import EventLog

    history = JobHistory(copy, "team")
    run_id = run_of(history, "leaf")
    events = list(history.events(run_id))
    path = rewrite(copy, run_id, lambda _: [])
    log = EventLog(path)
    for event in (*events[:3], events[2]):
        log.append(event.model_copy(update={"prev": None}))
    log.close()
    reader = JobReader(history)
    assert len(list(conversation(reader, run_id))) == 2
    assert reader.damages[run_id].startswith(f"{path}:4: ")


def test_every_word_is_shown_and_nothing_reaches_the_terminal_raw(team: JobHistory) -> None:
    shown = [line for said in conversation(JobReader(team), run_of(team, "boss")) for line in said_lines(said)]
    text = "\n".join(shown)
    assert all(line.isprintable() for line in shown)
    for expected in (
        "You are an Expert",
        "  Go.",
        "  \\x1b[31mred",
        "  → todo (",
        '{"query": "Go left."}',
        "    left of leaf",
        " ERROR\n    Delegation failed: ",
        "→ askUser (",
        "  It is left of leaf.",
    ):
        assert expected in text
    assert "… " not in text


def test_pictures_and_files_are_named_not_shown() -> None:
    message = UserMessage(
        id="m1",
        contents=(
            TextPart(text=f"a\n{ESCAPES}"),
            ImageInlinePart(encoded_data="QUJD", mime_type="image/png"),
            FileUrlPart(url=f"https://example.com/{ESCAPES}", mime_type="application/pdf"),
        ),
    )
    lines = list(message_lines(message, "boss"))
    assert lines[0] == "── user (m1)"
    assert "  [image/png, 3 bytes]" in lines
    assert any(line.startswith("  [application/pdf at https://example.com/\\x1b") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_a_checkpoint_is_readable(team: JobHistory) -> None:
    waiting = team.standing(team.job.coordinator_run_id)
    assert waiting is not None
    checkpoint = waiting.checkpoint.model_copy(
        update={"todos": (Todo(id=0, title=ESCAPES), Todo(id=1, title="b", completed=True))}
    )
    lines = list(checkpoint_lines(checkpoint))
    text = "\n".join(lines)
    assert f"Checkpoint {checkpoint.id} of Run {checkpoint.run_id}, Job team" in text
    assert "status          stoppedByInteractiveTool, step 4" in text
    assert "pending call    askUser (" in text
    assert "todo            [ ] 0 \\x1b" in text
    assert "todo            [x] 1 b" in text
    assert "  Once more." in text
    assert all(line.isprintable() for line in lines)


def test_the_checkpoint_of_a_delegate_names_its_caller_and_its_error(team: JobHistory) -> None:
    failed = team.standing(run_of(team, "right"))
    assert failed is not None
    text = "\n".join(checkpoint_lines(failed.checkpoint))
    assert f"called by       boss (Run {run_of(team, 'boss')})" in text
    assert "error           ModelError: " in text


def test_a_coordinator_that_waits_names_its_delegates(team: JobHistory) -> None:
    stop = next(t for t in team.told(run_of(team, "boss")) if isinstance(t.event, StopRunByDelegate))
    text = "\n".join(checkpoint_lines(stop.standing.checkpoint))
    step = next(told for told in team.told(run_of(team, "boss")))
    assert "status          proceeding (FinishingStep), step 1" in list(checkpoint_lines(step.standing.checkpoint))[2]
    assert f"waits for       left (Run {run_of(team, 'left')})" in text
