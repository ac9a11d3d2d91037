"""`perstack gc`: remove what dead orchestrators left."""

import asyncio

import click

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.gc import Leftover, LeftoverKind, collect
from orchestrator.store.layout import default_root

_NAMES = {
    LeftoverKind.PROCESSES: "processes",
    LeftoverKind.CONTAINER: "container",
    LeftoverKind.NETWORK: "network",
    LeftoverKind.RUNTIME_FOLDER: "folder",
}
_SHORT_ID = 12
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Show each as one JSON object a line.")
def gc(*, dry_run: bool, as_json: bool) -> None:
    """Remove containers, networks, processes and mounts that killed perstack processes left.

    Only what is provably left over: nothing of a process that still runs, here or elsewhere, is touched.

    Exit codes: 0 done, 1 something could not be removed.
    """
    collection = asyncio.run(collect(default_root(), dry_run=dry_run))
    for note in collection.notes:
        click.echo(f"perstack: {note}", err=True)
    for leftover in collection.leftovers:
        click.echo(leftover.encode().decode() if as_json else describe(leftover))
    if not collection.leftovers and not as_json:
        click.echo("Nothing is left over.")
    if any(leftover.problem for leftover in collection.leftovers):
        raise SystemExit(ExitCode.ERROR)


def describe(leftover: Leftover) -> str:
    """One line for people."""
    done = "removed" if leftover.removed else "could not remove" if leftover.problem else "would remove"
    shortened = leftover.kind in (LeftoverKind.CONTAINER, LeftoverKind.NETWORK)
    identifier = leftover.id[:_SHORT_ID] if shortened else leftover.id
    run = f", Run {leftover.run_id}" if leftover.run_id else ""
    age = f", {_age(leftover.age_s)} old" if leftover.age_s is not None else ""
    return (
        f"{done} {_NAMES[leftover.kind]} {identifier} of Job {leftover.job_id}{run}{age}: "
        f"{leftover.problem or leftover.why}"
    )


def _age(seconds: int) -> str:
    unit, length = next(((unit, length) for unit, length in _UNITS if seconds >= length), ("s", 1))
    return f"{seconds // length} {unit}"
