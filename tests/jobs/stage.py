"""Jobs against the scripted model: real HTTP, real ZeroMQ, and real containers or processes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.events import BaseRunEvent, Stop
from orchestrator import run
from orchestrator.scripted_model import Script, ScriptedModel
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store

KEY = "sk-canary-0123456789"
"""The provider key of every test Job: found anywhere but in the orchestrator, it is a leak."""


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def turn(*calls: dict[str, Any], text: str | None = None, **more: Any) -> dict[str, Any]:
    return {"toolCalls": list(calls), **({"text": text} if text else {}), **more}


def done(text: str = "done") -> list[dict[str, Any]]:
    """The two turns that end a Run: the completion and its result."""
    return [turn(call("attemptCompletion")), turn(text=text)]


def talk(expert: str, *turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"expert": expert, "turns": list(turns), **more}


@dataclass
class Played:
    """A Job that was run."""

    end: Checkpoint | None
    events: list[Any]

    def types(self, run_id: str | None = None, *, without: Iterable[str] = ()) -> list[str]:
        left_out = set(without)
        return [e.type for e in self.events if (run_id is None or e.run_id == run_id) and e.type not in left_out]

    def of(self, kind: str, expert: str | None = None) -> list[Any]:
        return [
            e for e in self.events if e.type == kind and (expert is None or getattr(e, "expert_key", None) == expert)
        ]

    def runs(self, expert: str) -> list[str]:
        return [e.run_id for e in self.events if e.type == "initializeRuntime" and e.expert_name == expert]


class Stage:
    """Where a test's Jobs are run: a workspace, a history and a model that says what the test wrote."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self.folder = folder
        self.runtime = runtime
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.storage = folder / "history"
        self.model: ScriptedModel | None = None
        self.played: Played | None = None
        self._experts: Mapping[str, Any] = {}
        self._conversations: tuple[dict[str, Any], ...] = ()

    @property
    def store(self) -> Store:
        return Store(self.storage)

    def setting(
        self, model: ScriptedModel, experts: Mapping[str, Any], query: str | None, **more: Any
    ) -> dict[str, Any]:
        goes_on = more.keys() & {"continueJob", "continueLatest"}
        key = more.pop("expert_key", None if goes_on else next(iter(experts)))
        return {
            "expertKey": key,
            "input": {"text": query} if query is not None else None,
            "experts": {name: {"instruction": f"Be {name}.", **expert} for name, expert in experts.items()},
            "providerConfig": {"providerName": "openai", "setting": {"baseUrl": model.url}},
            "model": "gpt-4o",
            "runtime": self.runtime,
            "workspace": self.workspace,
            "storage": self.storage,
            "environment": {"OPENAI_API_KEY": KEY},
            **more,
        }

    async def play(
        self, experts: Mapping[str, Any], *conversations: dict[str, Any], query: str | None = "Go.", **more: Any
    ) -> Played:
        """Run a Job to its end and check what holds of every Job.

        `more` are fields of the setting, and `options` a `RunOptions`, and `event_listener` a listener.
        """
        self._experts, self._conversations = experts, conversations
        script = Script.model_validate({"conversations": list(conversations)})
        events: list[Any] = []
        self.played = Played(None, events)
        listener, options = more.pop("event_listener", None), more.pop("options", None)

        def listen(event: Any) -> None:
            events.append(event)
            if listener is not None:
                listener(event)

        async with ScriptedModel(script, keep_bodies=True) as model:
            self.model = model
            setting = self.setting(model, experts, query, **more)
            self.played.end = await run(setting, options, event_listener=listen)
        self.check_history(self.played)
        return self.played

    async def go_on(self, query: str | None = None, *, answer: str | None = None, **more: Any) -> Played:
        """Let the last Job go on, with the same Experts and the same model."""
        if answer is not None:
            more["input"] = {"interactiveToolCallResult": {"text": answer}}
        if "continueLatest" not in more:
            more.setdefault("continueJob", self.store.job_ids()[0])
        return await self.play(self._experts, *self._conversations, query=query, **more)

    def history(self) -> JobHistory:
        """What is recorded of the only Job."""
        (job_id,) = self.store.job_ids()
        return JobHistory(self.store, job_id)

    def check_history(self, played: Played) -> None:
        """What was told is what is stored, every Run ends, and the fold of each log is what the events said."""
        if not played.events:
            return
        history = JobHistory(self.store, played.events[0].job_id)
        for run_id in {event.run_id for event in played.events}:
            stored = list(history.events(run_id))
            told = [e for e in played.events if e.run_id == run_id and "stream" not in e.type.lower()]
            assert [e.id for e in stored][-len(told) :] == [e.id for e in told]
            standing = history.standing(run_id)
            assert standing is not None
            assert standing.checkpoint.state.is_end
            last = [e for e in stored if isinstance(e, BaseRunEvent)][-1]
            assert isinstance(last, Stop)
            assert last.checkpoint.status is standing.checkpoint.status
            stops = [e for e in told if isinstance(e, Stop)]
            assert not stops or stops[-1].checkpoint == standing.checkpoint, "events are whole for listeners"

    def show(self) -> str:
        """For a test that failed: every event, and the containers' logs where some are left."""
        lines = [event.encode().decode() for event in (self.played.events if self.played else [])]
        return "\n".join(line[:2_000] for line in lines)
