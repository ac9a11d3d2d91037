"""What owns Jobs: it launches every Run in a sandbox of its own, calls the models and keeps the history.

The library's entry point is :func:`run`::

    from orchestrator import run

    checkpoint = await run(setting, event_listener=print)
"""

from typing import TYPE_CHECKING, Any

from expert_runner.version import RUNTIME_VERSION

if TYPE_CHECKING:
    from orchestrator.api.run import RunSetting, run

runtime_version = RUNTIME_VERSION
"""The version of this runtime."""

__all__ = ["RunSetting", "run", "runtime_version"]


def __getattr__(name: str) -> Any:
    # Imported on first use: commands that run no Job start without the runtime.
    if name in ("RunSetting", "run"):
        from orchestrator.api import run as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
