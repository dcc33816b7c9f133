"""What the commands share: options, settings, and the way to a database that has its tables."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import Engine

from pulsewatch.db import make_engine
from pulsewatch.embedded import database_url
from pulsewatch.migrate import MigrateError, is_migrated
from pulsewatch.migrate import migrate as migrate_database
from pulsewatch.settings import Settings, export

# What is given as a time, and read by `utc`.
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])


def utc(at: datetime | None) -> datetime | None:
    """A time from the command line, which is UTC unless it says otherwise."""
    return None if at is None else at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def options(*wanted: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that several commands share; each lays its value over the environment's."""
    known = {
        "data_dir": click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the embedded PostgreSQL.  [default: .pulsewatch]",
        ),
        "host": click.option("--host", help="Address to listen on.  [default: 127.0.0.1]"),
        "port": click.option(
            "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 8080]"
        ),
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(wanted):
            command = known[name](command)
        return command

    return decorate


def settings_with(**given: object) -> Settings:
    """The settings with what the command line said laid over them; None is not said."""
    return export({name: value for name, value in given.items() if value is not None})


@contextlib.contextmanager
def migrated(settings: Settings) -> Iterator[str]:
    """The address of a database that has its tables.

    The embedded one gets them here. One of the user's own is changed by `migrate`, `up` and `demo` alone: with several
    machines on it, a person decides when.
    """
    with database_url(settings) as dsn:
        engine = make_engine(dsn, pool_size=1, application_name="pulsewatch")
        try:
            ready = is_migrated(engine)
        finally:
            engine.dispose()
        if not ready and settings.database_url is not None:
            msg = "the database lacks the tables of this version; run `pulsewatch migrate`"
            raise MigrateError(msg)
        if not ready:
            migrate_database(dsn, settings)
        yield dsn


@contextlib.contextmanager
def engine_of(data_dir: Path | None) -> Iterator[Engine]:
    """An engine for a short command, on a database that has its tables."""
    with migrated(settings_with(data_dir=data_dir)) as dsn:
        engine = make_engine(dsn, pool_size=2, application_name="pulsewatch")
        try:
            yield engine
        finally:
            engine.dispose()
