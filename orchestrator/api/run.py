"""`run`: one Job from a setting to its last checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from expert_runner.contract.checkpoints import Checkpoint
from expert_runner.version import RUNTIME_VERSION
from orchestrator.api.setting import RunSetting, as_setting, coordinator_of
from orchestrator.errors import ConfigError
from orchestrator.job import JobPlan, JobRunner
from orchestrator.model.gateway import Gateway
from orchestrator.model.loader import start_loading
from orchestrator.model.provider import default_model, resolve
from orchestrator.runs.ledger import Emit, new_id
from orchestrator.sandbox.backend import SandboxBackend
from orchestrator.store.layout import Store, check_id, default_root

__all__ = ["RunSetting", "run", "run_emitting"]


async def run(
    setting: RunSetting | Mapping[str, Any], *, event_listener: Callable[[Any], None] | None = None
) -> Checkpoint:
    """Run a Job and return the coordinator's last checkpoint: its `status` says how it ended, `text` is the result.

    Cancelling the task that awaits this ends every Run of the Job with `stopRunByCancellation` and removes its
    sandboxes; the checkpoint then tells so.

    Args:
        setting: the Job; a mapping is validated as one.
        event_listener: called with every event (:mod:`expert_runner.contract.events`), in order, in the event loop. The
            checkpoints and messages of events are whole here.

    Raises:
        ConfigError: the setting cannot be run; nothing was started.
        SandboxError: no sandbox can be started here; the text says what to do.
        StoreError: the history cannot be written.
    """
    return await run_emitting(as_setting(setting), lambda event, _: event_listener(event) if event_listener else None)


async def run_emitting(setting: RunSetting, emit: Emit) -> Checkpoint:
    """As :func:`run`; `emit` also gets each event's line, the very bytes that are stored."""
    plan = make_plan(setting)
    start_loading()
    try:
        return await JobRunner(plan, emit).run()
    finally:
        await plan.gateway.close()


def make_plan(setting: RunSetting) -> JobPlan:
    """Decide and check everything about a Job that can be known before anything starts.

    Raises:
        ConfigError: see :func:`run`.
    """
    expert = coordinator_of(setting)
    model = setting.model or default_model(setting.provider_config.provider_name)
    if model is None:
        name = setting.provider_config.provider_name
        raise ConfigError(f"provider {name} has no default model: set `model` in perstack.toml or --model")
    target = resolve(setting.provider_config, model, setting.provider_environment)
    job_id = check_id("job id", setting.job_id or new_id())
    store = Store((setting.storage or default_root()).absolute())
    return JobPlan(
        job_id=job_id,
        expert=expert,
        query=setting.input.text,
        experts=setting.experts,
        model=model,
        gateway=Gateway(target, timeout_ms=setting.timeout, reasoning_budget=setting.reasoning_budget),
        store=store,
        make_backend=lambda folder: _backend(setting, job_id, store, folder),
        max_steps=setting.max_steps,
        max_retries=setting.max_retries,
        timeout_ms=setting.timeout,
        env=setting.env,
    )


def _backend(setting: RunSetting, job_id: str, store: Store, folder: Path) -> SandboxBackend:
    # Imported when it is chosen: neither pays for the other.
    if setting.runtime == "local":
        from orchestrator.sandbox.local import LocalBackend

        return LocalBackend(setting.workspace)
    from orchestrator.sandbox.docker import DockerBackend

    return DockerBackend(
        job_id,
        setting.workspace,
        history=store.root,
        hidden=setting.secret_files,
        image=setting.image or f"perstack-expert:{RUNTIME_VERSION}",
        runtime_folder=folder,
    )
