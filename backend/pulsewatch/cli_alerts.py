"""The commands `pulsewatch alert`: what is done to alerts by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import select

from pulsewatch import alert_targets, models, rulebook
from pulsewatch.backfill import backfill
from pulsewatch.cli_base import TIME, engine_of, options, utc
from pulsewatch.settings import get_settings


@click.group()
def alert() -> None:
    """Look after alerts."""


@alert.command("backfill")
@click.argument("key")
@click.option("--client", help="Slug of the client whose rule it is.  [default: a rule of all clients]")
@click.option("--from", "from_at", type=TIME, metavar="TIME", help="From this time on (UTC).  [default: 30 days ago]")
@click.option("--to", "to_at", type=TIME, metavar="TIME", help="Up to this time (UTC).  [default: now]")
@options("data_dir")
def alert_backfill(
    key: str, client: str | None, from_at: datetime | None, to_at: datetime | None, data_dir: Path | None
) -> None:
    """Write down the alerts that rule KEY would have made before it was there. Nobody is told of them.

    They are marked as worked out afterwards. What the rule has found itself stays, and targets that have alerts of
    that time already are left alone. Until it is done, rules are not evaluated. A TIME is 2026-11-21 or
    2026-11-21T12:00:00, with an offset if it is not UTC.
    """
    now = datetime.now(UTC)
    oldest = now - timedelta(days=get_settings().keep_alerts_days)
    from_at, to_at = max(utc(from_at) or now - timedelta(days=30), oldest), min(utc(to_at) or now, now)
    if from_at >= to_at:
        raise click.UsageError("--from must be before --to")
    with (
        engine_of(data_dir) as engine,
        Progress(console=Console(stderr=True)) as progress,
        engine.begin() as connection,
    ):
        task = progress.add_task(key, total=None)
        rulebook.lock(connection)
        owner = None
        if client is not None:
            owner = connection.execute(select(models.client.c.id).where(models.client.c.slug == client)).scalar()
        row = None if client is not None and owner is None else rulebook.find(connection, owner, key)
        rules = [] if row is None or not row.is_enabled else alert_targets.load_rules(connection, [row.id])
        if not rules:
            raise LookupError(f"there is no rule {key!r} in force")
        count = backfill(
            connection, rules[0], from_at, to_at, lambda done, total: progress.update(task, completed=done, total=total)
        )
        progress.update(task, completed=1, total=1)
    click.echo(f"wrote {count} alert events", err=True)
