"""A Job run again: in fresh sandboxes, with the model's recorded answers, beside its own history and workspace."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast, get_args

from expert_runner.contract import events as e
from expert_runner.contract.checkpoints import Checkpoint, CheckpointStatus, State
from expert_runner.contract.experts import Expert
from expert_runner.contract.machine import CONTINUABLE
from expert_runner.contract.messages import InstructionMessage
from orchestrator.api.run import sandbox_backend
from orchestrator.api.setting import RunInput, RunSetting, Runtime, check_experts
from orchestrator.earlier import Continuation
from orchestrator.errors import ConfigError
from orchestrator.job import JobPlan, JobRunner
from orchestrator.replay.comparison import Comparison
from orchestrator.replay.fold_check import check_fold
from orchestrator.replay.recorded_model import RecordedModels
from orchestrator.replay.report import Difference, Report
from orchestrator.replay.tree import courses
from orchestrator.runs.instruction import instruction_message
from orchestrator.runs.ledger import new_id
from orchestrator.runs.surroundings import FurtherInput
from orchestrator.sandbox.backend import SandboxBackend
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store


async def run_again(
    history: JobHistory,
    experts: Mapping[str, Expert],
    *,
    runtime: Runtime | None = None,
    workspace: Path | None = None,
    hidden: Sequence[Path] = (),
) -> Report:
    """Run a Job's newest branch again with its recorded inputs and model answers, and compare.

    Compared are the transitions of each Run, what the model's answers came to and the tools' results, without ids,
    times and what tells of the sandbox itself. Retries, failures, cancellations and step limits are not repeated; nor
    are their consequences compared. No provider is asked and no key needed. What is made for it is removed.

    Args:
        history: the recorded Job. Its fold is checked first: of a record that differs from it nothing is run.
        experts: all Experts by key, as they are to be now.
        runtime: where Runs live; None: where they did.
        workspace: the folder they share, used as it is; None: an empty one.
        hidden: files with keys, which sandboxes do not see.

    Raises:
        ConfigError: the Job cannot be run again, or not with these Experts.
        SandboxError: no sandbox can be started here.
        StoreError: the recorded or the temporary history cannot be read or written.
        asyncio.CancelledError: it was cancelled; everything it started is gone.
    """
    report = check_fold(history)
    if report.difference is not None:
        return report
    with TemporaryDirectory(prefix="perstack-replay-") as folder:
        rerun = _Rerun(history, experts, Path(folder), runtime, workspace, hidden)
        await rerun.run()
        return report.model_copy(update={"difference": rerun.compare()})


class _Rerun:
    def __init__(
        self,
        history: JobHistory,
        experts: Mapping[str, Expert],
        folder: Path,
        runtime: Runtime | None,
        workspace: Path | None,
        hidden: Sequence[Path],
    ) -> None:
        self._history = history
        self._recorded = courses(history)
        self._models = RecordedModels(self._recorded)
        self._store = Store(folder / "history")
        self._job_id = new_id()
        key = history.job.coordinator_expert_key
        check_experts(experts, key)
        self._plan = JobPlan(
            job_id=self._job_id,
            expert=experts[key],
            query=self._recorded[()].inputs[0].query,
            experts=experts,
            model_name=_beginning(history).model,
            models=self._models,
            store=self._store,
            make_backend=self._backend,
            # A recorded answer that cannot be used any more shows at once.
            max_retries=0,
        )
        self._setting = RunSetting(
            expert_key=key,
            input=RunInput(text=self._plan.query),
            experts=dict(experts),
            runtime=runtime or recorded_runtime(history),
            workspace=workspace or folder / "workspace",
            secret_files=tuple(hidden),
        )
        self._workspace = ""

    def _backend(self, folder: Path, lease: str) -> SandboxBackend:
        # Masked is the recorded history: the temporary one lies in no workspace.
        backend = sandbox_backend(self._setting, self._job_id, self._history.store, folder, lease)
        self._workspace = backend.workspace_path
        return backend

    async def run(self) -> None:
        """Give the coordinator its inputs, one after the other, as long as it takes them as it did."""
        end = await self._run(self._plan)
        for number, given in enumerate(self._recorded[()].inputs[1:], start=1):
            if not _takes(end, given):
                return
            self._models.begin(number)
            further = Continuation(query=given.query, answer=given.answer)
            end = await self._run(replace(self._plan, query=given.query, continuation=further))

    async def _run(self, plan: JobPlan) -> Checkpoint:
        end = await JobRunner(plan, lambda event, line: None).run()
        if end.status is CheckpointStatus.STOPPED_BY_CANCELLATION:
            raise asyncio.CancelledError
        return end

    def compare(self) -> Difference | None:
        replayed = courses(JobHistory(self._store, self._job_id))
        then = _workspace_of(self._history, self._plan.expert)
        return Comparison(self._recorded, replayed, (then, self._workspace)).first()


def _takes(end: Checkpoint, given: FurtherInput) -> bool:
    """Whether a Run that ended so can be given this."""
    if given.answer is not None:
        return end.state is State.STOPPED_BY_INTERACTIVE_TOOL
    return end.state in CONTINUABLE and (given.query is not None or end.state is not State.COMPLETED)


def _beginning(history: JobHistory) -> e.InitializeRuntime:
    """The surroundings in which the coordinator went on last."""
    told = [event for event in history.events(history.job.coordinator_run_id) if isinstance(event, e.InitializeRuntime)]
    if not told:
        raise ConfigError(f"Job {history.job.id} never began: there is nothing to run again")
    return told[-1]


def recorded_runtime(history: JobHistory) -> Runtime:
    """Where the Job was run last.

    Raises:
        ConfigError: it never began, or was run where nothing can be started from here.
    """
    name = _beginning(history).runtime
    if name in get_args(Runtime):
        return cast("Runtime", name)
    raise ConfigError(f"the Job was run by {name!r}, which cannot be started from here: name another with --runtime")


def _workspace_of(history: JobHistory, expert: Expert) -> str | None:
    """The folder that the recorded coordinator was told its workspace is; None if it was told in other words."""
    mark = "\0"
    before, _, after = instruction_message(expert, "", mark, ()).contents[0].text.partition(mark)
    after = after.partition("\n")[0] + "\n"
    for event in history.events(history.coordinators[0].id):
        if isinstance(event, e.StartRun) and isinstance(event.input_messages[0], InstructionMessage):
            told = event.input_messages[0].contents[0].text
            folder, found, _ = told.removeprefix(before).partition(after)
            return folder if found and told.startswith(before) else None
    return None
