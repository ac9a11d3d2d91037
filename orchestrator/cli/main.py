"""The `perstack` command."""

import os
import signal
import sys
from importlib import import_module

import click

from expert_runner.version import RUNTIME_VERSION
from orchestrator.cli.exit_codes import ExitCode

COMMANDS = {
    "gc": "orchestrator.cli.gc",
    "log": "orchestrator.cli.log",
    "replay": "orchestrator.cli.replay",
    "run": "orchestrator.cli.run",
    "scripted-model": "orchestrator.cli.scripted_model",
}
"""Each command's module, imported when the command is used; the module's command has the module's name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(RUNTIME_VERSION, prog_name="perstack")
def cli() -> None:
    """Run Experts, each in a sandbox of its own."""


def main() -> None:
    """The entry point of the `perstack` command."""
    # Until a command takes the signal over there is nothing to clean up.
    signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.CANCELLED))
    if sys.argv[1:2] == ["run"]:
        # The slowest thing a Job waits for: it goes on while everything else starts.
        from orchestrator.model.loader import start_loading

        start_loading()
    cli(prog_name="perstack")


if __name__ == "__main__":
    main()
