"""The documented sequences of events, one by one."""

import pytest

from expert_runner.contract.checkpoints import Checkpoint, State
from expert_runner.contract.errors import ContractError, ForbiddenTransition
from expert_runner.contract.events import CallTools, StopRunByDelegate, history_event
from expert_runner.contract.fold import apply, begin, next_message_id, tool_message
from expert_runner.contract.messages import ExpertMessage, MessageRef, TextPart, ToolCallPart, ToolMessage, UserMessage
from expert_runner.contract.todos import TodoChange
from expert_runner.contract.tools import SkillType, ToolCall, ToolCallRef
from expert_runner.contract.usage import Usage
from tests.contract.story import Story, reference


@pytest.fixture
def story() -> Story:
    """A Run whose model is being asked."""
    return Story().until_answer()


def last_results(checkpoint: Checkpoint) -> list[str]:
    """The ids of the calls that the last tool message answers, in its order."""
    message = [message for message in checkpoint.messages if isinstance(message, ToolMessage)][-1]
    return [part.tool_call_id for part in message.contents]


def types(checkpoint: Checkpoint) -> list[str]:
    return [message.type.removesuffix("Message") for message in checkpoint.messages]


def test_a_normal_run() -> None:
    story = Story()
    story.happens("startRun")
    for _ in range(2):
        story.happens("startGeneration")
        story.happens("callTools", "tool")
        story.happens("resolveToolResults", resolved=["c0"])
        story.happens("finishToolCall")
        story.happens("continueToNextStep")
    story.happens("startGeneration")
    story.happens("callTools", "completion")
    story.happens("attemptCompletion", resolved=["c0"])
    end = story.happens("completeRun")
    assert end.status == "completed"
    assert end.step_number == 3
    assert types(end) == ["instruction", "user", *["expert", "tool"] * 3, "expert"]
    assert isinstance(end.messages[-1], ExpertMessage)
    assert end.text == end.messages[-1].text == story.marks[-1]
    assert end.usage.input_tokens == sum(10 + n for n in (1, 2, 3, 4))
    assert end.usage.output_tokens == 16


def test_an_answer_without_calls_completes_the_run_at_once(story: Story) -> None:
    end = story.happens("completeRun")
    assert end.state is State.COMPLETED
    assert story.told == ["startRun", "startGeneration", "completeRun"]


def test_an_answer_with_everything_is_worked_off_in_order_and_told_in_call_order(story: Story) -> None:
    kinds = ["completion", "interactive", "delegate", "tool", "interactive", "delegate", "unknown"]
    story.happens("callTools", *kinds)
    story.happens("resolveToolResults", resolved=["c6", "c3"])
    for forbidden in ("callInteractiveTool", "finishToolCall", "finishAllToolCalls"):
        with pytest.raises(ForbiddenTransition):
            story.happens(forbidden)
    with pytest.raises(ForbiddenTransition, match="attemptCompletion comes last: 5 calls"):
        story.happens("attemptCompletion", resolved=["c0"])
    story.happens("callDelegate")
    stopped = story.happens("stopRunByDelegate")
    assert [target.tool_call_id for target in stopped.delegate_to or ()] == ["c2", "c5"]
    with pytest.raises(ForbiddenTransition, match="every delegate has answered"):
        story.happens("resumeToolCalls", resolved=["c5"])
    resumed = story.happens("resumeToolCalls", resolved=["c5", "c2"])
    assert resumed.delegate_to is None
    for asked in ("c1", "c4"):
        story.happens("callInteractiveTool")
        story.happens("stopRunByInteractiveTool")
        story.happens("resumeToolCalls", resolved=[asked])
    story.happens("attemptCompletion", resolved=["c0"])
    end = story.happens("completeRun")
    assert last_results(end) == ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]
    assert types(end) == ["instruction", "user", "expert", "tool", "expert"]


def test_every_result_stands_beside_its_own_call(story: Story) -> None:
    story.happens("callTools", "tool", "delegate", "tool")
    story.happens("resolveToolResults", resolved=["c2", "c0"])
    second, first = story.marks[-2:]
    story.happens("callDelegate")
    story.happens("stopRunByDelegate")
    story.happens("resumeToolCalls", resolved=["c1"])
    delegated = story.marks[-1]
    message = story.happens("finishAllToolCalls").messages[-1]
    assert isinstance(message, ToolMessage)
    assert [part.contents[0] for part in message.contents] == [
        TextPart(text=text) for text in (first, delegated, second)
    ]
    assert [part.tool_name for part in message.contents] == ["exec", "scope-writer", "exec"]


def test_an_answer_of_delegates_alone_is_brought_by_call_delegate(story: Story) -> None:
    story.happens("callDelegate", "delegate", "delegate")
    story.happens("stopRunByDelegate")
    story.happens("resumeToolCalls", resolved=["c0", "c1"])
    story.happens("finishAllToolCalls")
    assert story.happens("continueToNextStep").step_number == 2


def test_an_answer_of_a_question_alone_is_brought_by_call_interactive_tool(story: Story) -> None:
    story.happens("callInteractiveTool", "interactive")
    story.happens("stopRunByInteractiveTool")
    story.happens("resumeToolCalls", resolved=["c0"])
    assert last_results(story.happens("finishAllToolCalls")) == ["c0"]


def test_attempt_completion_beside_another_call_waits_for_it(story: Story) -> None:
    story.happens("callTools", "completion", "tool")
    with pytest.raises(ForbiddenTransition, match="comes last"):
        story.happens("attemptCompletion", resolved=["c0"])
    story.happens("resolveToolResults", resolved=["c1"])
    assert last_results(story.happens("attemptCompletion", resolved=["c0"])) == ["c0", "c1"]


def test_of_two_attempts_in_one_answer_the_last_completes(story: Story) -> None:
    story.happens("callTools", "completion", "completion")
    story.happens("resolveToolResults", resolved=["c0"])
    assert last_results(story.happens("attemptCompletion", resolved=["c1"])) == ["c0", "c1"]


def test_attempt_completion_with_open_todos_is_an_ordinary_result(story: Story) -> None:
    story.happens("callTools", "tool", "completion")
    added = TodoChange(added=("first", "second"), completed=(0,))
    assert len(story.happens("resolveToolResults", resolved=["c0"], todo_change=added).open_todos) == 1
    with pytest.raises(ForbiddenTransition, match="1 open todos"):
        story.happens("attemptCompletion", resolved=["c1"])
    story.happens("resolveToolResults", resolved=["c1"])
    story.happens("finishToolCall")
    story.happens("continueToNextStep")
    story.happens("startGeneration")
    story.happens("callTools", "tool", "completion")
    story.happens("resolveToolResults", resolved=["c0"], todo_change=TodoChange(completed=(1,)))
    assert story.happens("attemptCompletion", resolved=["c1"]).state is State.GENERATING_RUN_RESULT


def test_a_retry_asks_again_with_what_it_adds(story: Story) -> None:
    first = story.happens("retry")
    second = story.happens("retry")
    assert (first.retry_count, second.retry_count) == (1, 2)
    assert second.state is State.GENERATING_TOOL_CALL
    assert types(second) == ["instruction", "user", "user", "user"]
    assert second.usage.output_tokens == 8
    assert story.happens("callTools", "tool", "tool", "tool").retry_count == 0


def test_a_retry_of_the_result_asks_for_the_result_again(story: Story) -> None:
    story.happens("callTools", "completion")
    story.happens("attemptCompletion", resolved=["c0"])
    assert story.happens("retry").state is State.GENERATING_RUN_RESULT
    assert story.happens("completeRun").retry_count == 0


@pytest.mark.parametrize("stop", ["stopRunByError", "stopRunByCancellation"])
def test_a_stop_amid_tools_is_resumed_with_the_calls_that_wait(story: Story, stop: str) -> None:
    story.happens("callTools", "tool", "tool")
    story.happens("resolveToolResults", resolved=["c1"])
    stopped = story.happens(stop)
    assert [call.id for call in stopped.pending_tool_calls or ()] == ["c0"]
    with pytest.raises(ForbiddenTransition, match="startRun cannot happen"):
        story.happens("startRun")
    resumed = story.happens("resumeToolCalls")
    assert resumed.error is None
    story.happens("resolveToolResults", resolved=["c0"])
    assert last_results(story.happens("finishAllToolCalls")) == ["c0", "c1"]


@pytest.mark.parametrize("stop", ["stopRunByError", "stopRunByCancellation"])
def test_a_stop_before_the_model_was_told_the_results_leaves_no_call_without_one(story: Story, stop: str) -> None:
    story.happens("callTools", "tool")
    story.happens("resolveToolResults", resolved=["c0"])
    story.happens(stop)
    continued = story.happens("startRun")
    assert types(continued) == ["instruction", "user", "expert", "tool", "user"]


@pytest.mark.parametrize("stop", ["stopRunByError", "stopRunByCancellation"])
def test_a_stop_while_a_delegate_works_can_delegate_again(story: Story, stop: str) -> None:
    story.happens("callDelegate", "delegate")
    story.happens("stopRunByDelegate")
    story.happens(stop)
    story.happens("resumeToolCalls")
    story.happens("callDelegate")
    story.happens("stopRunByDelegate")
    assert story.happens("resumeToolCalls", resolved=["c0"]).state is State.RESUMING_FROM_STOP


def test_a_completed_run_goes_on_with_a_further_query(story: Story) -> None:
    story.happens("completeRun")
    continued = story.happens("startRun")
    assert continued.text is None
    assert types(continued) == ["instruction", "user", "expert", "user"]
    assert story.happens("startGeneration").state is State.GENERATING_TOOL_CALL


@pytest.mark.parametrize("steps", [0, 1])
def test_the_step_limit_ends_a_run_before_a_step_and_a_query_goes_on(steps: int) -> None:
    story = Story()
    story.happens("startRun")
    for _ in range(steps):
        story.happens("startGeneration")
        story.happens("callTools", "tool")
        story.happens("resolveToolResults", resolved=["c0"])
        story.happens("finishToolCall")
    assert story.happens("stopRunByExceededMaxSteps").status == "stoppedByExceededMaxSteps"
    assert story.happens("startRun").state is State.PREPARING_FOR_STEP


def test_a_history_begins_with_its_query() -> None:
    story = Story()
    for event in ("stopRunByError", "stopRunByCancellation", "startGeneration"):
        with pytest.raises(ForbiddenTransition):
            story.happens(event)


@pytest.mark.parametrize("resolved", [["forged"], ["c0", "c0"], ["c0", "forged"], ["c1"]])
def test_a_forged_result_is_refused_and_changes_nothing(story: Story, resolved: list[str]) -> None:
    before = story.happens("callTools", "tool", "delegate")
    with pytest.raises(ForbiddenTransition):
        story.happens("resolveToolResults", resolved=resolved)
    assert story.checkpoint is before


def test_a_result_given_twice_is_refused(story: Story) -> None:
    story.happens("callTools", "tool", "tool")
    story.happens("resolveToolResults", resolved=["c0"])
    with pytest.raises(ForbiddenTransition, match="no waiting call"):
        story.happens("resolveToolResults", resolved=["c0"])


def test_the_users_answer_cannot_come_from_the_sandbox(story: Story) -> None:
    story.happens("callTools", "tool", "interactive")
    with pytest.raises(ForbiddenTransition, match="no waiting call"):
        story.happens("resolveToolResults", resolved=["c1"])


def test_a_result_of_an_earlier_step_is_refused(story: Story) -> None:
    story.happens("callTools", calls=(story.call("old", "tool"),))
    story.happens("resolveToolResults", resolved=["old"])
    story.happens("finishToolCall")
    story.happens("continueToNextStep")
    story.happens("startGeneration")
    story.happens("callTools", "tool")
    with pytest.raises(ForbiddenTransition, match="no waiting call"):
        story.happens("resolveToolResults", resolved=["old"])


@pytest.mark.parametrize("kind", ["delegate", "interactive"])
def test_a_second_answer_is_refused_also_without_calls(story: Story, kind: str) -> None:
    event = "callDelegate" if kind == "delegate" else "callInteractiveTool"
    story.happens("callTools", "tool", kind)
    before = story.happens("resolveToolResults", resolved=["c0"])
    second = ExpertMessage(id=next_message_id(before), contents=(TextPart(text="and another thing"),))
    made = story.make(event)
    for calls in ((), story.calls("delegate")):
        with pytest.raises(ForbiddenTransition):
            apply(before, made.model_copy(update={"new_message": second, "tool_calls": calls}))


def test_an_answer_without_the_arguments_of_its_calls_is_refused(story: Story) -> None:
    event = story.make("callTools", calls=story.calls("tool"))
    assert isinstance(event, CallTools)
    hollow = event.model_copy(update={"tool_calls": tuple(reference(call) for call in story.calls("tool"))})
    with pytest.raises(ContractError, match="without the arguments"):
        apply(story.checkpoint, hollow)


@pytest.mark.parametrize(
    "references",
    [
        (),
        (MessageRef(type="toolMessage", id="run.4"), MessageRef(type="toolMessage", id="run.5")),
        (MessageRef(type="userMessage", id="run.4"),),
    ],
    ids=["none", "two", "another type"],
)
def test_the_end_of_the_tool_calls_brings_one_tool_message(story: Story, references: tuple[MessageRef, ...]) -> None:
    story.happens("callTools", "tool")
    story.happens("resolveToolResults", resolved=["c0"])
    with pytest.raises(ContractError):
        story.happens("finishToolCall", new_messages=references)


def test_the_next_step_is_the_next_number(story: Story) -> None:
    story.happens("callTools", "tool")
    story.happens("resolveToolResults", resolved=["c0"])
    before = story.happens("finishToolCall")
    for wrong in (before.step_number, before.step_number + 2):
        following = before.model_copy(update={"step_number": wrong})
        with pytest.raises(ContractError):
            story.happens("continueToNextStep", next_checkpoint=following)


def test_a_todo_that_does_not_exist_is_refused_and_changes_nothing(story: Story) -> None:
    before = story.happens("callTools", "tool")
    with pytest.raises(ContractError, match="no todo 0"):
        story.happens("resolveToolResults", resolved=["c0"], todo_change=TodoChange(completed=(0,)))
    assert story.checkpoint is before


def test_the_model_is_not_told_of_calls_without_a_result(story: Story) -> None:
    story.happens("callTools", "tool", "tool", "delegate")
    story.happens("resolveToolResults", resolved=["c1"])
    with pytest.raises(ContractError, match="calls without a result: c0, c2"):
        tool_message(story.checkpoint, "run.4")


def test_a_run_cannot_begin_with_messages_no_event_brought(story: Story) -> None:
    with pytest.raises(ContractError, match="begins with 2 messages"):
        begin(story.checkpoint)


def test_arguments_that_are_no_object_stay_in_the_conversation_as_they_were_written(story: Story) -> None:
    call = story.garbled_call("c0")
    answer = story.happens("callTools", calls=(call,)).messages[-1]
    assert isinstance(answer, ExpertMessage)
    part = answer.contents[-1]
    assert isinstance(part, ToolCallPart)
    assert (part.args, part.invalid_args) == (None, call.invalid_args)


def test_the_windows_usage_is_what_it_holds_now_and_not_what_the_run_has_used(story: Story) -> None:
    assert story.happens("callTools", "tool").context_window_usage == (11 + 4) / 1000
    story.happens("resolveToolResults", resolved=["c0"])
    story.happens("finishToolCall")
    story.happens("continueToNextStep")
    story.happens("startGeneration")
    assert story.happens("callTools", "tool").context_window_usage == (12 + 4) / 1000


def test_without_a_known_window_there_is_no_usage_of_it() -> None:
    story = Story(context_window=None).until_answer()
    assert story.happens("completeRun").context_window_usage is None


def test_usage_adds_every_count() -> None:
    one = Usage(input_tokens=1, output_tokens=2, reasoning_tokens=3, total_tokens=4, cached_input_tokens=5)
    assert one + one == Usage(
        input_tokens=2, output_tokens=4, reasoning_tokens=6, total_tokens=8, cached_input_tokens=10
    )


def test_what_is_declared_by_reference_is_written_without_its_texts(story: Story) -> None:
    """The whole messages, calls and checkpoints stand in memory; the line holds their names."""
    story.happens("callTools", "delegate", "tool", "interactive")
    story.happens("resolveToolResults", resolved=["c1"])
    marks = list(story.marks)
    story.happens("callDelegate")
    story.happens("stopRunByDelegate")
    event = story.history[-1]
    assert isinstance(event, StopRunByDelegate)
    assert isinstance(event.checkpoint, Checkpoint)
    assert event.checkpoint.messages
    for line in (told.encode().decode() for told in story.history[-2:]):
        assert not [mark for mark in marks if mark in line]
    decoded = history_event.validate_json(event.encode())
    assert isinstance(decoded, StopRunByDelegate)
    pending = decoded.checkpoint.pending_tool_calls or ()
    assert [(type(call), call.id) for call in pending] == [(ToolCallRef, "c0"), (ToolCallRef, "c2")]
    assert decoded.checkpoint.last_message_id == story.checkpoint.messages[-1].id


def test_an_events_line_is_one_line_of_camel_case_without_absent_fields(story: Story) -> None:
    call = ToolCall(id="c", skill_name="s\n", skill_type=SkillType.MCP, tool_name="t", args={})
    story.happens("callTools", calls=(call,))
    line = story.history[-1].encode().decode()
    assert "\n" not in line
    assert '"stepNumber":1' in line
    assert '"args":{}' in line
    assert "null" not in line
    assert "step_number" not in line


def test_messages_keep_the_order_and_the_ids_their_events_gave(story: Story) -> None:
    story.happens("retry", new_messages=(UserMessage(id="mine", contents=()),))
    assert [message.id for message in story.checkpoint.messages] == ["run.1", "run.2", "mine"]
    assert next_message_id(story.checkpoint) == "run.4"
    assert next_message_id(story.checkpoint, 1) == "run.5"
