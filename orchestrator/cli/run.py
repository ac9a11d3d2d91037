"""`perstack run`: a Job without a user interface, its events as JSON lines on standard output."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from expert_runner.contract.checkpoints import CheckpointStatus
from orchestrator.api.run import run_emitting
from orchestrator.api.setting import DEFAULT_WORKSPACE, RunSetting, as_setting
from orchestrator.cli.cancelling import cancelled_by_signals
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.stdout import EventOutput
from orchestrator.config.env_files import check_passed_env, read_env
from orchestrator.config.perstack_toml import find_config, load_config
from orchestrator.errors import ConfigError, PerstackError
from orchestrator.model.provider import KEY_NAMES, ProviderConfig, ProviderName
from orchestrator.model.reasoning import parse_budget

EXIT_CODES = {
    CheckpointStatus.COMPLETED: ExitCode.COMPLETED,
    CheckpointStatus.STOPPED_BY_INTERACTIVE_TOOL: ExitCode.WAITING_FOR_ANSWER,
    CheckpointStatus.STOPPED_BY_EXCEEDED_MAX_STEPS: ExitCode.STEP_LIMIT,
    CheckpointStatus.STOPPED_BY_CANCELLATION: ExitCode.CANCELLED,
}
"""Every other end is an error."""


def _budget(context: click.Context, parameter: click.Parameter, value: str | None) -> str | int | None:
    try:
        return parse_budget(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("arguments", nargs=-1, metavar="EXPERT QUERY")
@click.option("--config", type=click.Path(path_type=Path), help="perstack.toml (default: the nearest one upwards).")
@click.option(
    "--env-path",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Env file, repeatable (default: .env, .env.local).",
)
@click.option("--provider", type=click.Choice([name.value for name in ProviderName]), help="Model provider.")
@click.option("--model", help="The provider's name of the model.")
@click.option("--reasoning-budget", callback=_budget, help="none, minimal, low, medium, high or tokens.")
@click.option("--max-steps", type=click.IntRange(min=1), help="Steps of all Runs together (default: no limit).")
@click.option("--max-retries", type=click.IntRange(min=0), help="Further attempts for each generation (default: 5).")
@click.option("--timeout", type=click.IntRange(min=1), help="Milliseconds a generation may take (default: 60000).")
@click.option(
    "--runtime", type=click.Choice(["docker", "local"]), help="docker (default), or local: no isolation at all."
)
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    default=DEFAULT_WORKSPACE,
    show_default=True,
    help="The folder that all Runs share.",
)
@click.option(
    "--env", "env_names", multiple=True, metavar="NAME", help="Pass this variable into the sandboxes, repeatable."
)
@click.option("--job-id", help="The new Job's id (default: any).")
@click.option("--continue", "continue_latest", is_flag=True, help="Go on with the Job that was run last.")
@click.option("--continue-job", metavar="ID", help="Go on with this Job.")
@click.option(
    "--resume-from",
    metavar="CHECKPOINT",
    help="With --continue-job: go on from this checkpoint of the coordinator's, as a branch.",
)
@click.option(
    "-i",
    "--interactive-tool-call-result",
    "is_answer",
    is_flag=True,
    help="QUERY is the answer that the Job waits for.",
)
@click.option("--verbose", is_flag=True, help="Show the traceback of an unexpected error.")
def run(arguments: tuple[str, ...], *, verbose: bool, **options: Any) -> None:
    """Run EXPERT on QUERY and print the events, one JSON object a line.

    With --continue or --continue-job an earlier Job goes on from wherever it was stopped or killed. EXPERT may then be
    left out, and QUERY too, unless the Job is completed or waits for an answer.

    Exit codes: 0 completed, 1 error, 2 usage, 3 waiting for an interactive answer, 4 step limit, 130 cancelled.
    """
    with EventOutput() as output:
        try:
            setting = make_setting(arguments, options)
            if setting.runtime == "local":
                click.echo("perstack: --runtime local: NO ISOLATION. Experts can do whatever you can.", err=True)
            end = asyncio.run(cancelled_by_signals(run_emitting(setting, output.write)))
        except PerstackError as error:
            click.echo(f"perstack: {error}", err=True)
            code = error.exit_code
        except asyncio.CancelledError:
            # Before the first Run began.
            code = ExitCode.CANCELLED
        except Exception as error:
            if verbose:
                raise
            click.echo(f"perstack: unexpected {type(error).__name__}: {error} (--verbose shows where)", err=True)
            code = ExitCode.ERROR
        else:
            code = EXIT_CODES.get(end.status, ExitCode.ERROR)
            if end.error is not None:
                click.echo(f"perstack: {end.error.name}: {end.error.message}", err=True)
    # Everything is written and removed; what is left is the teardown of a large interpreter, which nobody waits for.
    sys.stderr.flush()
    os._exit(code)


def make_setting(arguments: tuple[str, ...], options: dict[str, Any]) -> RunSetting:
    """The setting that the configuration and the options (which win) give.

    Raises:
        ConfigError: one of them is wrong.
    """
    continues = options["continue_latest"] or options["continue_job"] is not None
    expert_key, query = _expert_and_query(arguments, continues=continues)
    if options["is_answer"] and (query is None or not continues):
        raise ConfigError(
            "-i (--interactive-tool-call-result) answers what a Job waits for: give the answer as QUERY, and the Job "
            "with --continue or --continue-job"
        )
    path = options["config"] or find_config(Path.cwd())
    config = load_config(path)
    env_paths = options["env_path"] or tuple(path.parent / name for name in config.env_path or ())
    environment, env_files = read_env(env_paths, os.environ)
    check_passed_env(options["env_names"], KEY_NAMES, environment)
    provider = config.provider or ProviderConfig()
    model = options["model"] or config.model
    if options["provider"] and options["provider"] != provider.provider_name:
        # Another provider: neither the configured one's settings nor its model fit.
        provider = ProviderConfig.model_validate({"providerName": options["provider"]})
        model = options["model"]
    given = {
        "reasoning_budget": _first(options["reasoning_budget"], config.reasoning_budget),
        "max_steps": _first(options["max_steps"], config.max_steps),
        "max_retries": _first(options["max_retries"], config.max_retries),
        "timeout": _first(options["timeout"], config.timeout),
        "runtime": _first(options["runtime"], config.runtime),
    }
    return as_setting(
        {
            "expert_key": expert_key,
            "input": _input(query, is_answer=options["is_answer"]),
            "experts": config.experts,
            "provider_config": provider,
            "model": model,
            "environment": environment,
            "env": {name: environment[name] for name in options["env_names"]},
            # Headers may authenticate: a configuration that has some is as secret as an env file.
            "secret_files": (*env_files, path.resolve()) if provider.setting.headers else env_files,
            **{name: options[name] for name in ("workspace", "job_id", *CONTINUING)},
            **{name: value for name, value in given.items() if value is not None},
        }
    )


CONTINUING = ("continue_latest", "continue_job", "resume_from")


def _expert_and_query(arguments: tuple[str, ...], *, continues: bool) -> tuple[str | None, str | None]:
    """What was named: both for a new Job; where one goes on also the query alone, or nothing."""
    match arguments:
        case (expert_key, query):
            return expert_key, query
        case (query,) if continues:
            return None, query
        case () if continues:
            return None, None
        case _:
            raise ConfigError("give EXPERT and QUERY (quote a query of several words): see perstack run --help")


def _input(query: str | None, *, is_answer: bool) -> dict[str, Any] | None:
    if query is None:
        return None
    return {"interactive_tool_call_result": {"text": query}} if is_answer else {"text": query}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
