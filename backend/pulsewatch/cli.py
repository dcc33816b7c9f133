"""The command `pulsewatch`. It composes and decides nothing; what is expected to fail fails in one line."""

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.exc import DBAPIError, OperationalError

from pulsewatch import __version__, auth, erasure
from pulsewatch import supervisor as up_
from pulsewatch.cli_alerts import alert
from pulsewatch.cli_base import engine_of, migrated, options, settings_with
from pulsewatch.cli_metabase import metabase
from pulsewatch.cli_roles import role
from pulsewatch.cli_rollups import rollup
from pulsewatch.embedded import EmbeddedError, database_url
from pulsewatch.migrate import MigrateError
from pulsewatch.migrate import migrate as migrate_database
from pulsewatch.problems import Problem
from pulsewatch.roles import RoleError, script
from pulsewatch.secretbox import SecretKeyError, key_setting
from pulsewatch.settings import PREFIX, export
from pulsewatch.telemetry import configure_logging

EXPECTED = (EmbeddedError, MigrateError, RoleError, SecretKeyError, up_.UpError, LookupError)


class Commands(click.Group):
    """A group whose commands end expected failures with one line and code 1, without a stack trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _sigterm_as_exception():
                return super().invoke(ctx)
        except (KeyError, IndexError):
            raise  # faults of ours, which want their trace, though they are a LookupError each
        except EXPECTED as error:
            raise click.ClickException(str(error)) from error
        except ValidationError as error:
            raise click.ClickException("; ".join(_settings_faults(error))) from error
        except Problem as error:
            faults = [f"{fault.pointer.lstrip('/')}: {fault.detail}" for fault in error.errors]
            raise click.ClickException("; ".join(faults) or error.detail) from error
        except OperationalError as error:
            said = str(error.orig).strip().split("\n")[0]
            raise click.ClickException(f"the database does not answer: {said}") from error
        except DBAPIError as error:
            if not isinstance(error.orig, (InsufficientPrivilege, ReadOnlySqlTransaction)):
                raise  # a fault of ours, which wants its trace
            said = str(error.orig).strip().split("\n")[0]
            raise click.ClickException(f"the database refuses: {said}") from error


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that the last user of the embedded server stops it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python takes signals in the main thread alone
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _settings_faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        name = "_".join(map(str, fault["loc"])).upper()
        said = fault["msg"].removeprefix("Value error, ")
        yield f"{PREFIX}{name}: {said}" if name else said


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every setting is an environment variable PULSEWATCH_...; .env.example lists them.",
)
@click.version_option(__version__, prog_name="pulsewatch")
def cli() -> None:
    """Run history for pipelines, scheduled jobs and checks, kept in your own PostgreSQL.

    Without PULSEWATCH_DATABASE_URL the commands share an embedded PostgreSQL in --data-dir, which the first of them
    starts and the last one stops.
    """


@cli.command()
@options("data_dir", "host", "port")
def up(data_dir: Path | None, host: str | None, port: int | None) -> None:
    """Run everything on this machine: database, api and worker.

    The database is migrated first, one of your own too. Prints a line that starts with "ready http://" once requests
    are taken. Ctrl-C or SIGTERM stops it.
    """
    settings = settings_with(data_dir=data_dir, host=host, port=port)
    configure_logging(settings)
    signals = up_.Signals()
    with up_.running(settings) as stack:
        stack.wait_until_ready(signals.is_over)
        if not signals.is_over():
            click.echo(f"ready {stack.url}")
        while not signals.is_over():
            stack.turn()


@cli.command()
@click.option("--fresh", is_flag=True, help="Remove what an earlier demo has left and start over.")
@options("data_dir", "host", "port")
def demo(fresh: bool, data_dir: Path | None, host: str | None, port: int | None) -> None:
    """Run everything with a made-up history of two months and live events."""
    settings = settings_with(data_dir=data_dir, host=host, port=port)
    configure_logging(settings)
    from pulsewatch.demo import run  # no other command needs what it imports

    run(settings, fresh=fresh)


def _be_child(parent: int) -> None:
    """Live under `up`: die with it, and leave to it to tell what starts and ends."""
    up_.die_with_parent(parent)
    level = logging.getLogger().level
    if level > logging.DEBUG:
        for name in ("uvicorn.error", "pulsewatch.worker.life"):
            logging.getLogger(name).setLevel(max(level, logging.WARNING))


@cli.command()
@click.option("--socket", "descriptor", type=int, hidden=True, help="Listening socket inherited from `up`.")
@click.option("--parent", type=int, hidden=True, help="Pipe that closes when `up` dies.")
@options("data_dir", "host", "port")
def api(descriptor: int | None, parent: int | None, data_dir: Path | None, host: str | None, port: int | None) -> None:
    """Run the api alone."""
    from pulsewatch.serving import serve  # no other command needs what it imports

    settings = settings_with(data_dir=data_dir, host=host, port=port)
    configure_logging(settings)
    if parent is not None:
        _be_child(parent)
    listener = up_.listen(settings.host, settings.port) if descriptor is None else socket.socket(fileno=descriptor)
    with listener, migrated(settings) as dsn:
        export({"database_url": dsn, **key_setting(settings)})
        if not serve(listener):
            sys.exit(3)


@cli.command()
@click.option("--parent", type=int, hidden=True, help="Pipe that closes when `up` dies.")
@options("data_dir")
def worker(parent: int | None, data_dir: Path | None) -> None:
    """Run the worker alone: it works out numbers, judges slots and removes what is past its keep time."""
    from pulsewatch.worker import Worker

    settings = settings_with(data_dir=data_dir)
    configure_logging(settings)
    if parent is not None:
        _be_child(parent)
    with migrated(settings) as dsn:
        Worker(settings, dsn).run()


@cli.command()
@options("data_dir")
def migrate(data_dir: Path | None) -> None:
    """Bring the database to the state that this version needs.

    All of it in one transaction; it may be repeated, and run beside a running PulseWatch. With
    PULSEWATCH_OWNER_DATABASE_URL it runs as that role. If that one may not make the readers' roles, the SQL that
    is left for another one to run is printed.
    """
    settings = settings_with(data_dir=data_dir)
    configure_logging(settings)
    with database_url(settings) as dsn:
        missing = migrate_database(dsn, settings)
    click.echo("migrated", err=True)
    for statement in script(missing):
        click.echo(statement)


@cli.command()
@click.option("--client", required=True, help="Slug of the client to erase.")
@click.option("--confirm", required=True, help="The same slug again.")
@options("data_dir")
def purge(client: str, confirm: str, data_dir: Path | None) -> None:
    """Erase a client and everything of it, for ever.

    New events of it are refused from the start. If it is interrupted, run it again.
    """
    if client != confirm:
        raise click.UsageError(f"--confirm must repeat the client: '{confirm}' is not '{client}'")
    with engine_of(data_dir) as engine, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"Erasing {client}", total=None)
        purged = erasure.purge(
            engine, client, lambda done, total: progress.update(task, completed=done, total=max(total, done))
        )
        progress.update(task, completed=1, total=1)
    click.echo(
        f"erased {client}: {purged.events} events, {purged.runs} runs, {purged.pipelines} pipelines, "
        f"{purged.keys} keys",
        err=True,
    )


@cli.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command("create")
@click.option("--role", required=True, type=click.Choice([role.value for role in auth.Role]), help="What it may do.")
@click.option("--client", help="The one client it may touch; it is made if need be.  [default: all clients]")
@click.option("--name", help="What it is for.")
@click.option("--expires-in", type=click.IntRange(1, 36_500), metavar="DAYS", help="Refuse it after so many days.")
@options("data_dir")
def key_create(role: str, client: str | None, name: str | None, expires_in: int | None, data_dir: Path | None) -> None:
    """Make a key and print it. It is shown this once only."""
    expires_at = None if expires_in is None else datetime.now(UTC) + timedelta(days=expires_in)
    with engine_of(data_dir) as engine, engine.begin() as connection:
        _, secret = auth.create_key(connection, auth.Role(role), client, name=name, expires_at=expires_at)
    click.echo(secret)


@key.command("list")
@options("data_dir")
def key_list(data_dir: Path | None) -> None:
    """List the keys: id, role, client, name, made, expires, last used, state. Columns are separated by tabs."""
    with engine_of(data_dir) as engine, engine.begin() as connection:
        rows = auth.list_keys(connection)
    now = datetime.now(UTC)
    for row in rows:
        expired = row.expires_at is not None and row.expires_at <= now
        state = "revoked" if row.revoked_at is not None else "expired" if expired else "valid"
        times = (_time(at) for at in (row.created_at, row.expires_at, row.last_used_at))
        click.echo("\t".join((str(row.id), row.role, row.client or "-", row.name or "-", *times, state)))


def _time(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@key.command("revoke")
@click.argument("key_id", type=click.UUID)
@options("data_dir")
def key_revoke(key_id: UUID, data_dir: Path | None) -> None:
    """Refuse the key with this id; every process knows within 5 seconds."""
    with engine_of(data_dir) as engine, engine.begin() as connection:
        found = auth.revoke_key(connection, key_id)
    if not found:
        msg = f"there is no key {key_id}"
        raise LookupError(msg)


cli.add_command(alert)
cli.add_command(metabase)
cli.add_command(role)
cli.add_command(rollup)


def main() -> None:
    cli(prog_name="pulsewatch")
