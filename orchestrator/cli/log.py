"""`perstack log`: what happened in a Job."""

import os
import sys
from typing import Any

import click

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.errors import PerstackError
from orchestrator.logs.filter import parse_filter
from orchestrator.logs.question import Question
from orchestrator.logs.report import Report
from orchestrator.logs.selection import Selection, parse_types
from orchestrator.logs.step_range import parse_steps
from orchestrator.logs.text import lines_of, one_line
from orchestrator.store.layout import Store, default_root

_PROBLEM_WIDTH = 500


@click.command()
@click.option("--job", "job_id", metavar="ID", help="This Job (default: the one begun or continued last).")
@click.option("--run", "run_id", metavar="ID", help="Events of this Run.")
@click.option("--checkpoint", "checkpoint_id", metavar="ID", help="This checkpoint, whole.")
@click.option("--step", "steps", metavar="RANGE", help="Events of these steps of each Run: 5, >5, >=5, <5, <=5, 1-10.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Events of this type; repeatable, or separated by commas."
)
@click.option("--errors", is_flag=True, help="Errors, retries, lost sandboxes, failed tools and delegates.")
@click.option("--tools", is_flag=True, help="Calls and results of tools.")
@click.option("--delegations", is_flag=True, help="Calls and results of delegates.")
@click.option("--filter", "expression", metavar="EXPR", help="Events for which this holds; see above.")
@click.option("--json", "as_json", is_flag=True, help="JSON: the stored lines as they are, or one object.")
@click.option("--pretty", "is_pretty", is_flag=True, help="Indented JSON.")
@click.option("--verbose", "is_verbose", is_flag=True, help="Texts whole, on as many lines as they take.")
@click.option("--take", type=click.IntRange(min=0), metavar="N", help="The latest N (default: 100; 0: all).")
@click.option("--offset", type=click.IntRange(min=0), metavar="N", help="Without the N latest.")
@click.option("--context", type=click.IntRange(min=0), metavar="N", help="And N events of its Run around each.")
@click.option("--messages", is_flag=True, help="Conversations instead of events.")
@click.option("--summary", is_flag=True, help="The summary; of selected events, how many there are of each type.")
def log(**options: Any) -> None:
    """Show what happened in a Job.

    Without options: its summary, with the tree of its Runs, the last error, and how it goes on. With options that
    select events: those events, the latest last. Options narrow each other down, but --tools and --delegations together
    show both.

    \b
    A filter compares paths into an event's JSON:
      .type == "completeRun"             == != < <= > >=
      .toolCalls[].skillName =~ "^@"     =~ (regular expression), contains
      .stepNumber > 5 and not (.toolResults[0].isError or .type == "retry")
    [] is any element; a field that is not there is null.

    Exit codes: 0 shown, 1 a log is damaged (everything readable is shown) or there is no such thing, 2 usage.
    """
    try:
        code = _show(_question(options))
    except PerstackError as error:
        _complain(*lines_of(str(error)))
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read this has seen enough. What is still in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.COMPLETED
    raise SystemExit(code)


def _question(options: dict[str, Any]) -> Question:
    """
    Raises:
        ConfigError: an option is wrong, or two exclude each other.
    """
    selection = Selection(
        run_id=options["run_id"],
        steps=parse_steps(options["steps"]) if options["steps"] is not None else None,
        types=parse_types(options["types"]),
        errors=options["errors"],
        tools=options["tools"],
        delegations=options["delegations"],
        expression=parse_filter(options["expression"]) if options["expression"] is not None else None,
    )
    same = ("job_id", "checkpoint_id", "messages", "summary", "take", "offset", "context", "is_pretty", "is_verbose")
    return Question(
        selection=selection,
        as_json=options["as_json"] or options["is_pretty"],
        **{name: options[name] for name in same},
    )


def _show(question: Question) -> int:
    report = Report(Store(default_root()), question)
    output = sys.stdout.buffer
    try:
        for line in report.lines():
            output.write(line + b"\n")
    finally:
        # Before what is said on standard error.
        output.flush()
        for damage in report.damages:
            _complain(one_line(damage, _PROBLEM_WIDTH))
    if report.note is not None and not question.as_json:
        _complain(report.note)
    return ExitCode.ERROR if report.damages else ExitCode.COMPLETED


def _complain(*lines: str) -> None:
    click.echo("\n".join(("perstack: " + lines[0], *lines[1:])), err=True)
