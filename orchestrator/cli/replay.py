"""`perstack replay`: is the record of a Job what happened, and would it happen again?"""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.cancelling import cancelled_by_signals
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.errors import ConfigError, PerstackError
from orchestrator.replay.fold_check import check_fold
from orchestrator.store.history import JobHistory
from orchestrator.store.layout import Store, default_root

if TYPE_CHECKING:
    from orchestrator.api.setting import Runtime
    from orchestrator.replay.report import Report


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--run", "runs_again", is_flag=True, help="Run the Job again in fresh sandboxes and compare.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="With --run: perstack.toml (default: the nearest one upwards).",
)
@click.option("--runtime", type=click.Choice(["docker", "local"]), help="With --run (default: where the Job was run).")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    help="With --run: the folder that all Runs share, used as it is (default: an empty one, removed afterwards).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
def replay(
    job_id: str,
    *,
    runs_again: bool,
    config: Path | None,
    runtime: "Runtime | None",
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Check the record of JOB: fold all that was recorded again and report the first difference.

    With --run the newest branch of the Job is run again as well: with the model answers on record, no provider and no
    key, in fresh sandboxes and an empty workspace. Reported is the first thing that now goes differently, such as a
    tool's result. The Job itself is not touched.

    Exit codes: 0 nothing differs, 1 something does, 2 usage, 130 cancelled.
    """
    try:
        report = _replay(job_id, config, runtime, workspace, runs_again=runs_again)
    except PerstackError as error:
        click.echo(f"perstack: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except asyncio.CancelledError:
        raise SystemExit(ExitCode.CANCELLED) from None
    click.echo(report.encode().decode() if as_json else report.describe())
    if report.difference is not None:
        raise SystemExit(ExitCode.ERROR)


def _replay(
    job_id: str, config: Path | None, runtime: "Runtime | None", workspace: Path | None, *, runs_again: bool
) -> "Report":
    if not runs_again and (config, runtime, workspace) != (None, None, None):
        raise ConfigError("--config, --runtime and --workspace say how the Job is run again: give --run with them")
    history = JobHistory(Store(default_root()), job_id)
    return _run_again(history, config, runtime, workspace) if runs_again else check_fold(history)


def _run_again(
    history: JobHistory, config_path: Path | None, runtime: "Runtime | None", workspace: Path | None
) -> "Report":
    # Only this way of replaying needs the runtime.
    from orchestrator.config.env_files import read_env
    from orchestrator.config.perstack_toml import find_config, load_config
    from orchestrator.replay.rerun import recorded_runtime, run_again

    runtime = runtime or recorded_runtime(history)
    if runtime == "local":
        click.echo("perstack: runtime local: NO ISOLATION. Experts can do whatever you can.", err=True)
    path = config_path or find_config(Path.cwd())
    config = load_config(path)
    _, env_files = read_env(tuple(path.parent / name for name in config.env_path or ()), os.environ)
    return asyncio.run(
        cancelled_by_signals(
            run_again(
                history,
                config.experts,
                runtime=runtime,
                workspace=workspace,
                hidden=(*env_files, path.resolve()),
            )
        )
    )
