"""Statements by psycopg alone fail as SQLAlchemy's own do."""

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from pulsewatch.db import LoopConnection, fetch, fetch_all, fetch_named, make_engine

POOL_SIZE = 3
KILL_ALL = """
    select count(pg_terminate_backend(pid, 60000)) from pg_stat_activity
    where application_name = 'unprobed' and datname = current_database()
"""


@pytest.fixture
def unprobed(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=POOL_SIZE, application_name="unprobed", is_probing=False)
    yield engine
    engine.dispose()


def test_fetch_gives_rows_and_none_for_a_statement_without(connection: Connection) -> None:
    assert fetch(connection, "select %s::int, %s::text", (1, "a")) == [(1, "a")]
    assert fetch(connection, "select %(said)s::int", {"said": 2}) == [(2,)]
    assert fetch(connection, "insert into pulsewatch.client (slug) values ('acme')") == []


def test_fetch_works_in_the_connections_transaction(connection: Connection) -> None:
    with connection.begin_nested() as trial:
        fetch(connection, "insert into pulsewatch.client (slug) values ('acme')")
        trial.rollback()
    assert fetch(connection, "select slug from pulsewatch.client") == []


def test_named_rows_come_of_named_parameters_each_as_often_as_it_stands_there(connection: Connection) -> None:
    statement = """
    select %(one)s::integer as first, %(other)s::text as second, %(one)s::integer %% 2 as third, '%%(gone)s' as fourth
    """
    (row,) = fetch_named(connection, statement, {"other": "$1 %(one)s %%", "one": 7, "unused": object()})
    assert (row.first, row.second, row.third, row.fourth) == row == (7, "$1 %(one)s %%", 1, "%(gone)s")
    assert fetch_named(connection, "create temp table seen (id integer) on commit drop", {}) == []


def test_a_named_parameter_that_is_not_given_is_a_mistake_of_ours(connection: Connection) -> None:
    with pytest.raises(KeyError, match="one"):
        fetch_named(connection, "select %(one)s::integer", {})


def test_several_statements_are_done_in_their_order_each_seeing_the_ones_before(connection: Connection) -> None:
    insert = "insert into pulsewatch.client (slug) values (%(slug)s)"
    count = "select count(*), %(slug)s::text from pulsewatch.client"
    asked = [(count, {"slug": "a"}), (insert, {"slug": "acme"}), (count, {"slug": "100 %%"}), ("select 1", {})]
    assert fetch_all(connection, *asked) == [[(0, "a")], [], [(1, "100 %%")], [(1,)]]


def test_behind_a_statement_that_fails_none_is_done(connection: Connection) -> None:
    insert = "insert into pulsewatch.client (slug) values (%(slug)s)"
    fetch(connection, "create temp sequence done")
    count: tuple[str, dict[str, object]] = ("select nextval('done')", {})
    with connection.begin_nested() as trial:
        with pytest.raises(IntegrityError) as failed:
            fetch_all(connection, count, (insert, {"slug": "not a slug"}), count)
        trial.rollback()
    assert isinstance(failed.value.orig, psycopg.errors.CheckViolation)
    assert failed.value.params is None
    # A number that was drawn stays drawn, whatever is undone.
    assert fetch_all(connection, count) == [[(2,)]]


def test_a_refused_statement_is_sqlalchemys_error_and_tells_no_parameter(connection: Connection) -> None:
    statement = "insert into pulsewatch.client (slug) values (%s)"
    fetch(connection, statement, ("acme",))
    with pytest.raises(IntegrityError) as failed:
        fetch(connection, statement, ("acme",))
    assert isinstance(failed.value.orig, psycopg.errors.UniqueViolation)
    assert not failed.value.connection_invalidated
    assert failed.value.params is None


def test_one_connection_that_turns_out_dead_makes_the_pool_distrust_all_of_them(
    unprobed: Engine, database: str
) -> None:
    opened = [unprobed.connect() for _ in range(POOL_SIZE)]
    for one in opened:
        assert fetch(one, "select 1") == [(1,)]
        one.close()
    with psycopg.connect(database) as other:
        assert other.execute(KILL_ALL.encode()).fetchone() == (POOL_SIZE,)
    with pytest.raises(DBAPIError) as failed, unprobed.begin() as connection:
        fetch(connection, "select 1")
    assert failed.value.connection_invalidated
    for _ in range(POOL_SIZE):
        with unprobed.begin() as connection:
            assert fetch(connection, "select 1") == [(1,)]


def test_what_is_prepared_is_kept_from_commit_to_commit_and_forgotten_by_a_use_without_one(database: str) -> None:
    engine = make_engine(database, pool_size=1, application_name="tests", is_preparing=True)

    def times(connection: Connection) -> int:
        statement = "select count(*) from pg_prepared_statements where statement like %s"
        count: int = fetch(connection, statement, ("select % as answer",))[0][0]
        return count

    with engine.begin() as connection:
        fetch(connection, "select %s::int as answer", (42,))
    with engine.begin() as connection:
        assert times(connection) == 1
    with engine.connect() as connection:
        assert times(connection) == 1
    with engine.begin() as connection:
        assert times(connection) == 0
    engine.dispose()


@pytest.mark.parametrize("name", ["a space", "ümlaut%2F?&"])
def test_a_loop_reaches_the_server_that_an_engine_reaches(database: str, name: str) -> None:
    url = make_url(database)
    with psycopg.connect(database, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'drop database if exists "{name}"'.encode())
        admin.execute(f'create database "{name}" template "{url.database}"'.encode())
    dsn = database.removesuffix(str(url.database)) + quote(name, safe="")
    query = "select current_database(), current_setting('application_name'), current_setting('statement_timeout')"

    async def ask() -> list[tuple[object, ...]]:
        connection = LoopConnection(dsn, application_name="looping", statement_timeout_s=7)
        try:
            return await connection.fetch(f"{query}, %(one)s::int", {"one": 1})
        finally:
            await connection.close()

    engine = make_engine(dsn, pool_size=1, application_name="looping", statement_timeout_s=7)
    with engine.connect() as connection:
        assert fetch(connection, f"{query}, %s::int", (1,)) == asyncio.run(ask()) == [(name, "looping", "7s", 1)]
    engine.dispose()
    with psycopg.connect(database, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'drop database "{name}" with (force)'.encode())
