"""The Jobs of the golden histories: between them, every kind of event and every way in which a Job goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.jobs.stage import Stage, call, done, talk, turn

ASK = {"type": "interactiveSkill", "tools": {"ask": {"inputJsonSchema": '{"type": "object"}'}}}
TEAM: dict[str, Any] = {"boss": {"delegates": ["aide"]}, "aide": {}}
_ONCE = "test -e begun || {{ touch begun; {}sleep 60; }}"
"""Takes long the first time alone: a model that is told of unknown effects calls it again."""


async def tree(stage: Stage) -> None:
    """Tools of every kind, two delegates at once and one under one of them; a retry, todos, reasoning."""
    await stage.play(
        {"boss": {"delegates": ["aide", "@org/clerk"]}, "aide": {"delegates": ["@org/clerk"]}, "@org/clerk": {}},
        talk(
            "boss",
            turn(
                call("todo", newTodos=["collect", "report"]),
                call("writeTextFile", path="notes/plan.md", text="# Plan\n"),
                {"name": "readTextFile", "arguments": '{"path": "notes'},
                call("launchMissiles", target="moon"),
                reasoning="First a plan.",
            ),
            turn(call("aide", query="Help."), call("org_clerk", query="File it."), text="Both of you, please."),
            turn(call("attemptCompletion")),
            turn(call("todo", completedTodos=[0, 1]), faults=[{"kind": "empty", "times": 1}]),
            *done("Everything is in its place: {{turn.1.result.0}} {{turn.1.result.1}}"),
        ),
        talk("aide", turn(call("org_clerk", query="Copy it.")), *done("Helped ✓")),
        talk("@org/clerk", turn(call("readTextFile", path="notes/plan.md")), turn(text="{{query}} Done.")),
        jobId="tree",
    )


async def interactive(stage: Stage) -> None:
    """Two questions in one answer beside a tool, answered one by one; then a further query."""
    await stage.play(
        {"boss": {"skills": {"user": ASK}}},
        talk(
            "boss",
            turn(call("listDirectory"), call("ask", what="First?"), call("ask", what="Second?")),
            turn(text="Thank you."),
            turn(text="Gladly."),
        ),
        jobId="interactive",
    )
    await stage.go_on(answer="one")
    await stage.go_on(answer="two")
    await stage.go_on("Once more.")


async def failed(stage: Stage) -> None:
    """A delegate fails, and then the coordinator."""
    refusal = {"kind": "status", "status": 401, "message": "who are you?"}
    await stage.play(
        TEAM,
        talk("boss", turn(call("aide", query="Help.")), turn(faults=[refusal])),
        talk("aide", turn(faults=[refusal])),
        jobId="failed",
    )


async def cancelled(stage: Stage) -> None:
    """Cancelled while a delegate's tool is under way."""
    await _cancelled(stage, "cancelled")


async def cancelled_and_continued(stage: Stage) -> None:
    """The same, and then it goes on."""
    await _cancelled(stage, "cancelled_and_continued")
    await stage.go_on()


async def left_off(stage: Stage) -> None:
    """The same, and then something else is asked for."""
    await _cancelled(stage, "left_off")
    await stage.go_on("Never mind.")


async def step_limit(stage: Stage) -> None:
    """The limit is reached and raised."""
    await stage.play(TEAM, talk("boss", turn(call("healthCheck"), repeat=3), *done()), maxSteps=2, jobId="step_limit")
    await stage.go_on(maxSteps=9)


async def branch(stage: Stage) -> None:
    """Two branches: from the end of a step with a query, and from one that waited for its delegate."""
    played = await stage.play(
        TEAM,
        talk("boss", turn(call("aide", query="Help.")), turn(text="First end."), turn(text="Second end.")),
        talk("aide", turn(text="Helped.")),
        jobId="branch",
    )
    (waiting,), (step,) = played.of("stopRunByDelegate"), played.of("continueToNextStep")
    await stage.go_on("Another way.", resumeFrom=step.checkpoint.id)
    await stage.go_on(resumeFrom=waiting.checkpoint.id)


async def lost_sandbox(stage: Stage) -> None:
    """A tool takes its sandbox with it, once."""
    script = _ONCE.format("kill -KILL $PPID; ")
    end_it = turn(call("healthCheck"), call("exec", command="sh", args=["-c", script]))
    await stage.play({"boss": {}}, talk("boss", end_it, *done()), maxSteps=5, jobId="lost_sandbox")


async def _cancelled(stage: Stage, job_id: str) -> None:
    job = asyncio.create_task(
        stage.play(
            TEAM,
            talk("boss", turn(call("aide", query="Help."), call("healthCheck")), turn(text="The end.")),
            talk("aide", turn(call("exec", command="sh", args=["-c", _ONCE.format("")])), turn(text="Slept.")),
            jobId=job_id,
        )
    )
    begun = stage.workspace / "begun"
    while not begun.exists():
        await asyncio.sleep(0.05)
    job.cancel()
    await job


SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        tree,
        interactive,
        failed,
        cancelled,
        cancelled_and_continued,
        left_off,
        step_limit,
        branch,
        lost_sandbox,
    )
}
"""By the ids of their Jobs."""
