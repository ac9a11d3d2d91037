"""`run`: one Job, new or continued, from a setting to its last checkpoint."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from expert_runner.contract.checkpoints import Checkpoint, Step
from expert_runner.contract.experts import Expert
from expert_runner.version import RUNTIME_VERSION
from orchestrator.api.setting import RunSetting, as_setting, check_experts
from orchestrator.earlier import Continuation
from orchestrator.errors import ConfigError
from orchestrator.job import JobPlan, JobRunner
from orchestrator.model.gateway import Gateway
from orchestrator.model.loader import start_loading
from orchestrator.model.provider import default_model, resolve
from orchestrator.runs.ledger import Emit, new_id
from orchestrator.sandbox.backend import SandboxBackend
from orchestrator.store.history import latest_job
from orchestrator.store.layout import Store, check_id, default_root

T = TypeVar("T")

__all__ = ["RunOptions", "RunSetting", "run", "run_emitting"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How an embedding program takes part in a Job. All are called in the event loop and should return soon.

    Attributes:
        event_listener: called with every event (:mod:`expert_runner.contract.events`), in order. The checkpoints and
            messages of events are whole here.
        should_continue_run: asked after each step of each Run, with the setting, the checkpoint and the step; False
            ends that Run with `stopRunByCancellation`, from which the Job can be continued.
        store_checkpoint: called with each checkpoint, whole, at the end of each step and at each stop, after it has
            been recorded in the history.
        retrieve_checkpoint: asked, with the Job's and the checkpoint's id, for the checkpoint that `resume_from` names,
            instead of the history. It has to be one that `store_checkpoint` was given.
        resolve_expert_to_run: asked for an Expert that the setting's do not hold, by its key, with those it holds;
            before anything is started, for every Expert that may run.
        get_run_dir: says, by the ids of Job and Run, in which folder a Run's record is kept; in the Job's folder is
            then a link to it.
        return_on_delegation_complete: end when the coordinator's delegates have ended. The checkpoint's status is
            `stoppedByDelegate`; continuing the Job goes on with their results.
    """

    event_listener: Callable[[Any], None] | None = None
    should_continue_run: Callable[[RunSetting, Checkpoint, Step], bool | Awaitable[bool]] | None = None
    store_checkpoint: Callable[[Checkpoint], None] | None = None
    retrieve_checkpoint: Callable[[str, str], Checkpoint | Awaitable[Checkpoint]] | None = None
    resolve_expert_to_run: Callable[[str, Mapping[str, Expert]], Expert | Awaitable[Expert]] | None = None
    get_run_dir: Callable[[str, str], Path] | None = None
    return_on_delegation_complete: bool = False


async def run(
    setting: RunSetting | Mapping[str, Any],
    options: RunOptions | None = None,
    *,
    event_listener: Callable[[Any], None] | None = None,
) -> Checkpoint:
    """Run a Job, or let an earlier one go on, and return the coordinator's last checkpoint: its `status` says how it
    ended, `text` is the result.

    Cancelling the task that awaits this ends every Run of the Job with `stopRunByCancellation` and removes its
    sandboxes; the checkpoint then tells so, and the Job can be continued.

    Args:
        setting: the Job; a mapping is validated as one.
        options: how the calling program takes part.
        event_listener: short for `RunOptions(event_listener=…)`.

    Raises:
        ConfigError: the setting cannot be run, or the Job cannot go on like this; nothing was started or changed.
        SandboxError: no sandbox can be started here; the text says what to do.
        StoreError: the history cannot be written or is damaged, or another process holds the Job.
    """
    options = options or RunOptions()
    listen = event_listener or options.event_listener
    return await run_emitting(as_setting(setting), lambda event, _: listen(event) if listen else None, options)


async def run_emitting(setting: RunSetting, emit: Emit, options: RunOptions | None = None) -> Checkpoint:
    """As :func:`run`; `emit` also gets each event's line, the very bytes that are stored."""
    plan = await make_plan(setting, options or RunOptions())
    start_loading()
    try:
        return await JobRunner(plan, emit).run()
    finally:
        await plan.models.close()


async def make_plan(setting: RunSetting, options: RunOptions | None = None) -> JobPlan:
    """Decide and check everything about a Job that can be known before anything starts.

    Raises:
        ConfigError: see :func:`run`.
        StoreError: there is no such Job to go on with.
    """
    options = options or RunOptions()
    store = Store((setting.storage or default_root()).absolute(), options.get_run_dir)
    job_id = _job_id(setting, store)
    key = _coordinator_key(setting, store, job_id)
    experts = await _all_experts(setting.experts, key, options)
    check_experts(experts, key)
    model = setting.model or default_model(setting.provider_config.provider_name)
    if model is None:
        name = setting.provider_config.provider_name
        raise ConfigError(f"provider {name} has no default model: set `model` in perstack.toml or --model")
    target = resolve(setting.provider_config, model, setting.provider_environment)
    should_continue = options.should_continue_run
    return JobPlan(
        job_id=job_id,
        expert=experts[key],
        query=setting.input.text if setting.input is not None else None,
        experts=experts,
        model_name=model,
        models=Gateway(target, timeout_ms=setting.timeout, reasoning_budget=setting.reasoning_budget),
        store=store,
        make_backend=lambda folder, lease: sandbox_backend(setting, job_id, store, folder, lease),
        continuation=await _continuation(setting, job_id, options) if setting.continues else None,
        max_steps=setting.max_steps,
        max_retries=setting.max_retries,
        timeout_ms=setting.timeout,
        env=setting.env,
        returns_on_delegation=options.return_on_delegation_complete,
        should_continue_run=should_continue and (lambda checkpoint, step: should_continue(setting, checkpoint, step)),
        store_checkpoint=options.store_checkpoint,
    )


def _job_id(setting: RunSetting, store: Store) -> str:
    if setting.continue_latest:
        return latest_job(store).id
    return check_id("job id", setting.continue_job or setting.job_id or new_id())


def _coordinator_key(setting: RunSetting, store: Store, job_id: str) -> str:
    if not setting.continues:
        # A new Job's setting names its Expert; the setting itself sees to that.
        return setting.expert_key or ""
    key = store.read_job(job_id).coordinator_expert_key
    if setting.expert_key not in (None, key):
        raise ConfigError(f"Job {job_id} is {key}'s, not {setting.expert_key}'s: leave EXPERT out, or name {key}")
    return key


async def _continuation(setting: RunSetting, job_id: str, options: RunOptions) -> Continuation:
    given = setting.input
    answer = given.interactive_tool_call_result if given is not None else None
    base = None
    if setting.resume_from is not None and options.retrieve_checkpoint is not None:
        base = await _awaited(options.retrieve_checkpoint(job_id, setting.resume_from))
    return Continuation(
        query=given.text if given is not None else None,
        answer=answer.text if answer is not None else None,
        answers_call=answer.tool_call_id if answer is not None else None,
        resume_from=setting.resume_from,
        base=base,
    )


async def _all_experts(experts: Mapping[str, Expert], key: str, options: RunOptions) -> dict[str, Expert]:
    """The Experts, with those that may run and are not among them resolved."""
    known = dict(experts)
    waiting = [key] if options.resolve_expert_to_run is not None else []
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        if wanted not in known and options.resolve_expert_to_run is not None:
            known[wanted] = await _awaited(options.resolve_expert_to_run(wanted, known))
        waiting += known[wanted].delegates
    return known


async def _awaited(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value


def sandbox_backend(setting: RunSetting, job_id: str, store: Store, folder: Path, lease: str) -> SandboxBackend:
    # Imported when it is chosen: neither pays for the other.
    if setting.runtime == "local":
        from orchestrator.sandbox.local import LocalBackend

        return LocalBackend(setting.workspace, lease=lease)
    from orchestrator.sandbox.docker import DockerBackend

    return DockerBackend(
        job_id,
        setting.workspace,
        history=store.root,
        hidden=setting.secret_files,
        image=setting.image or f"perstack-expert:{RUNTIME_VERSION}",
        runtime_folder=folder,
        lease=lease,
    )
