"""What owns Jobs: it launches every Run in a sandbox of its own, calls the models and keeps the history.

The library's entry point is :func:`run`::

    from orchestrator import run

    checkpoint = await run(setting, event_listener=print)

Look-ups tell what is on disk of earlier Jobs; the state machine of a Run is in :mod:`orchestrator.state_machine`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from expert_runner.version import RUNTIME_VERSION

if TYPE_CHECKING:
    from orchestrator.api.lookups import (
        EventSummary,
        create_initial_job,
        get_all_jobs,
        get_all_runs,
        get_checkpoint_dir,
        get_checkpoint_path,
        get_checkpoints_by_job_id,
        get_event_contents,
        get_events_by_run,
        get_job_dir,
        get_jobs_dir,
        get_run_dir,
        retrieve_checkpoint,
        retrieve_job,
        store_job,
    )
    from orchestrator.api.models import calculate_context_window_usage, get_context_window, get_model
    from orchestrator.api.run import RunOptions, RunSetting, run
    from orchestrator.api.tools import get_tool_definitions

runtime_version = RUNTIME_VERSION
"""The version of this runtime."""

__all__ = [
    "EventSummary",
    "RunOptions",
    "RunSetting",
    "calculate_context_window_usage",
    "create_initial_job",
    "get_all_jobs",
    "get_all_runs",
    "get_checkpoint_dir",
    "get_checkpoint_path",
    "get_checkpoints_by_job_id",
    "get_context_window",
    "get_event_contents",
    "get_events_by_run",
    "get_job_dir",
    "get_jobs_dir",
    "get_model",
    "get_run_dir",
    "get_tool_definitions",
    "retrieve_checkpoint",
    "retrieve_job",
    "run",
    "runtime_version",
    "store_job",
]

_MODULES = {
    "orchestrator.api.run": ("RunOptions", "RunSetting", "run"),
    "orchestrator.api.models": ("calculate_context_window_usage", "get_context_window", "get_model"),
    "orchestrator.api.tools": ("get_tool_definitions",),
}
_LOOKUPS = "orchestrator.api.lookups"


def __getattr__(name: str) -> Any:
    # Imported on first use: commands that run no Job start without the runtime.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), _LOOKUPS)
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return __all__
