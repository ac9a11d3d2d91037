"""Jobs against the scripted model: real HTTP, real ZeroMQ, and real containers or processes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.contract.events import BaseRunEvent, Stop
from expert_runner.contract.fold import fold
from orchestrator import run
from orchestrator.scripted_model import Script, ScriptedModel
from orchestrator.store.layout import Store
from orchestrator.store.log import read_events

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

    @property
    def store(self) -> Store:
        return Store(self.storage)

    def setting(self, model: ScriptedModel, experts: Mapping[str, Any], query: str, **more: Any) -> dict[str, Any]:
        key = more.pop("expert_key", next(iter(experts)))
        return {
            "expertKey": key,
            "input": {"text": query},
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
        self, experts: Mapping[str, Any], *conversations: dict[str, Any], query: str = "Go.", **more: Any
    ) -> Played:
        """Run a Job to its end and check what holds of every Job."""
        script = Script.model_validate({"conversations": list(conversations)})
        events: list[Any] = []
        self.played = Played(None, events)
        listener = more.pop("event_listener", None)

        def listen(event: Any) -> None:
            events.append(event)
            if listener is not None:
                listener(event)

        async with ScriptedModel(script, keep_bodies=True) as model:
            self.model = model
            self.played.end = await run(self.setting(model, experts, query, **more), event_listener=listen)
        self.check_history(self.played)
        return self.played

    def check_history(self, played: Played) -> None:
        """What was told is what is stored, every Run ends, and the fold of each log is what the events said."""
        for run_id in {event.run_id for event in played.events}:
            job_id = played.events[0].job_id
            stored = list(read_events(self.store.events_path(job_id, run_id)))
            told = [
                e for e in played.events if e.run_id == run_id and "treaming" not in e.type and "stream" not in e.type
            ]
            assert [e.id for e in stored] == [e.id for e in told]
            transitions = [e for e in stored if isinstance(e, BaseRunEvent)]
            final = fold(transitions)
            assert final.state.is_end
            last = transitions[-1]
            assert isinstance(last, Stop)
            assert last.checkpoint.status is final.status
            assert [e for e in told if isinstance(e, Stop)][-1].checkpoint == final, "events are whole for listeners"

    def show(self) -> str:
        """For a test that failed: every event, and the containers' logs where some are left."""
        lines = [event.encode().decode() for event in (self.played.events if self.played else [])]
        return "\n".join(line[:2_000] for line in lines)
