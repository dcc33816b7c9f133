"""The commands `pulsewatch rollup`: work out again what is worked out from runs and slots."""

from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from pulsewatch import rollups
from pulsewatch.cli_base import TIME, engine_of, options, utc
from pulsewatch.settings import get_settings


@click.group()
def rollup() -> None:
    """Look after the numbers of hours and days, and the state of pipelines."""


@rollup.command()
@click.option("--from", "from_at", type=TIME, metavar="TIME", help="From this hour on (UTC).  [default: all kept]")
@click.option("--to", "until_at", type=TIME, metavar="TIME", help="Up to this hour (UTC).  [default: all]")
@options("data_dir")
def rebuild(from_at: datetime | None, until_at: datetime | None, data_dir: Path | None) -> None:
    """Work out all numbers of a time anew from the runs and slots.

    A running PulseWatch does this by itself for whatever changes; this is for a database that was changed by hand. It
    may run beside PulseWatch, be interrupted and be repeated. A TIME is 2026-11-21 or 2026-11-21T12:00:00, with an
    offset if it is not UTC. Hours whose runs are past their keep time stay as they are.
    """
    from_at, until_at = utc(from_at), utc(until_at)
    if from_at is not None and until_at is not None and from_at >= until_at:
        raise click.UsageError("--from must be before --to")
    with engine_of(data_dir) as engine, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Working out", total=None)
        count = rollups.rebuild(
            engine,
            get_settings(),
            from_at,
            until_at,
            lambda done, total: progress.update(task, completed=done, total=total),
            as_of=datetime.now(UTC),
        )
        progress.update(task, completed=1, total=1)
    click.echo(f"worked out {count} hours of pipelines", err=True)
