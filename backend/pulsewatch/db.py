"""Engine and connections: one way to reach PostgreSQL."""

import re
import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.pq.abc import PGconn
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError

SCHEMA = "pulsewatch"

# Alembic compares names, and errors name the constraint: so every one is named, by one rule.
NAMING = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}
metadata = MetaData(schema=SCHEMA, naming_convention=NAMING)

# Append-only tables refuse DELETE unless the transaction says this.
ERASING = "set local pulsewatch.erasing = 'on'"

CONNECT_TIMEOUT_S = 5
# The session's zone decides how text without an offset is read and how hours are cut: always UTC.
SESSION_OPTIONS = "-c timezone=UTC -c client_encoding=UTF8"
# To plan anew what is done again and again takes longer than to do it. Tables whose rows come and go are read by index,
# not by a bitmap, which is made of all that the index ever held and does not find out what is gone.
PLAN_ONCE = " -c plan_cache_mode=force_generic_plan -c jit=off -c enable_seqscan=off -c enable_bitmapscan=off"
# What stands between forgets a connection that is silent for minutes, and tells nobody: it must not be silent.
KEEPALIVE = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}


class Binary(bytes):
    """A parameter that stands in PostgreSQL's binary form already, of the type that the statement gives it."""


class _BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, value: Binary) -> Binary:
        return value


# Before any connection is made: each takes what is registered by then.
psycopg.adapters.register_dumper(Binary, _BinaryDumper)


def sqlalchemy_url(dsn: str) -> URL:
    """A libpq URL (`postgresql://...`) as the URL that SQLAlchemy needs for psycopg 3."""
    return make_url(dsn).set(drivername="postgresql+psycopg")


def fetch(
    connection: Connection, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """The rows of a statement (none, where it gives none), by psycopg alone, in the connection's transaction.

    For the statements of every ingest transaction and every tick: SQLAlchemy's way through `exec_driver_sql` takes
    three times the processor time, which a lone event would pay for. Errors are SQLAlchemy's all the same.
    """
    with _driver(connection, statement) as driver:
        return _rows(driver.execute(statement.encode(), parameters))


def fetch_named(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
    """The same as named tuples, for statements of any length: psycopg takes longer ones apart each time.

    Each column has a name of its own. Parameters are `%(name)s`; raises KeyError for one that is not given.
    """
    text, names = _numbered(statement)
    with _driver(connection, statement) as driver:
        cursor = psycopg.RawCursor(driver, row_factory=namedtuple_row)
        return _rows(cursor.execute(text, [parameters[name] for name in names]))


def fetch_all(connection: Connection, *asked: tuple[str, Mapping[str, Any]]) -> list[list[tuple[Any, ...]]]:
    """The rows of each of several statements, done one after the other in one round trip, after that of BEGIN.

    To wait for each takes longer than most take. Parameters as for `fetch_named`. Where one fails, those behind it are
    not done, and the transaction has failed.
    """
    cursors = []
    with _driver(connection, ";".join(statement for statement, _ in asked)) as driver:
        with driver.pipeline():
            for statement, parameters in asked:
                text, names = _numbered(statement)
                cursors.append(psycopg.RawCursor(driver).execute(text, [parameters[name] for name in names]))
        return [_rows(cursor) for cursor in cursors]


def _rows(cursor: psycopg.Cursor[Any]) -> list[Any]:
    return [] if cursor.rownumber is None else cursor.fetchall()


@lru_cache(1024)
def _numbered(statement: str) -> tuple[bytes, list[str]]:
    """A statement with PostgreSQL's own $1, $2 in place of %(names)s, and these in order."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${numbers.setdefault(found[1], len(numbers) + 1)}" if found[1] else "%"

    return re.sub(r"%\((\w+)\)s|%%", number, statement).encode(), list(numbers)


@contextmanager
def _driver(connection: Connection, statement: str) -> Iterator[psycopg.Connection]:
    """psycopg's own connection; its errors become SQLAlchemy's."""
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    try:
        yield driver
    except psycopg.Error as error:
        if driver.closed:
            # It fails at once, and SQLAlchemy draws its conclusions about the connection and the pool.
            connection.exec_driver_sql("select 1")
        raise DBAPIError.instance(statement, None, error, psycopg.Error, hide_parameters=True) from error


def make_engine(
    dsn: str,
    *,
    pool_size: int,
    application_name: str,
    statement_timeout_s: float | None = None,
    is_probing: bool = True,
    is_preparing: bool = False,
) -> Engine:
    """An engine with a bounded pool; a statement that runs longer than the timeout is cancelled.

    Routes run in a pool of threads that is set to the same size, so that no thread waits for a connection
    that another waiting thread holds. `is_probing` looks before each use whether the server has closed the connection,
    and takes another then: only who tries again by himself can do without. `is_preparing` prepares each statement at
    its first use, not only at its sixth, and plans it once, whatever the parameters: for connections that do the same
    again and again. A rollback makes a connection forget what it has prepared, and so does each use that ends without
    a commit.
    """
    session = _session(application_name, statement_timeout_s)
    if is_preparing:
        session |= {"prepare_threshold": 0, "options": session["options"] + PLAN_ONCE}
    engine = create_engine(
        sqlalchemy_url(dsn),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        # A traceback must not carry what clients sent.
        hide_parameters=True,
        connect_args=session,
    )
    if is_probing:
        event.listen(engine, "checkout", _reconnect_if_dead)
    return engine


def _reconnect_if_dead(driver: psycopg.Connection, *_: object) -> None:
    """Have the pool connect anew where the server hung up, or the system found that nobody answers (KEEPALIVE).

    Asking the server would take a round trip each time.
    """
    if driver.closed or is_dead(driver.pgconn):
        raise InvalidatePoolError


def _session(application_name: str, statement_timeout_s: float | None) -> dict[str, Any]:
    """What a connection says of itself, beside its address."""
    options = SESSION_OPTIONS
    if statement_timeout_s is not None:
        options += f" -c statement_timeout={int(statement_timeout_s * 1000)}"
    return {
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": options,
        **KEEPALIVE,
    }


def is_dead(pgconn: PGconn) -> bool:
    """Whether the server closed a connection while nobody used it.

    Who sends a statement first cannot tell any more whether it broke before or after the commit.
    """
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


class LoopConnection:
    """The connection of an event loop. Its statements wait for no thread, which would have to wait for the loop.

    One statement at a time, each a transaction of its own. It connects when it is first used, and again when it broke.
    """

    def __init__(self, dsn: str, *, application_name: str, statement_timeout_s: float | None = None) -> None:
        url = sqlalchemy_url(dsn)
        # The same that an engine gives to psycopg: whatever is in the address reaches the same server.
        _, address = url.get_dialect()().create_connect_args(url)
        self._arguments: dict[str, Any] = {**address, **_session(application_name, statement_timeout_s)}
        self._driver: psycopg.AsyncConnection | None = None
        self._cursor: psycopg.AsyncRawCursor | None = None  # its own, made once

    async def fetch(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of a statement, its parameters as for `fetch_named`.

        Raises psycopg.OperationalError where it cannot connect, then nothing was sent; else DBAPIError. Where that
        has connection_invalidated set, the connection broke and nobody knows whether the statement was committed.
        """
        text, names = _numbered(statement)
        cursor = await self._connected()
        try:
            await cursor.execute(text, [parameters[name] for name in names])
            return await cursor.fetchall()
        except psycopg.Error as error:
            is_closed = cursor.connection.closed
            raise DBAPIError.instance(
                statement, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_closed
            ) from error

    async def close(self) -> None:
        if self._driver is not None:
            await self._driver.close()

    async def _connected(self) -> psycopg.AsyncRawCursor:
        if self._driver is not None and self._cursor is not None:
            if not self._driver.closed and not is_dead(self._driver.pgconn):
                return self._cursor
            await self._driver.close()
        self._driver = await psycopg.AsyncConnection.connect(autocommit=True, **self._arguments)
        self._cursor = psycopg.AsyncRawCursor(self._driver)
        return self._cursor
