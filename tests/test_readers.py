"""What a reader finds: everything for Grafana's and Metabase's, one client's rows for the reader of a client."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url

from pulsewatch.db import make_engine
from pulsewatch.migrate import migrate, readers
from pulsewatch.settings import Settings
from tests.conftest import TEMPLATE, create_database, drop_database
from tests.two_clients import AT, BOTH, MINE, THEIRS, fill

PASSWORD = "of-the-tests"
# Nobody but PulseWatch reads these.
WITHHELD = {
    "alembic_version",
    "alert_mark",
    "alert_tick",
    "analytics_object",
    "api_key",
    "dirty",
    "ingest_reject",
    "slot_mark",
    "slot_plan",
    "worker_heartbeat",
}
OF_THE_FLEET = {"fleet_day", "fleet_hour", "ingest_stat"}


@dataclass(frozen=True, slots=True)
class House:
    """A database with two clients, the fleet's reader, and the readers of each client."""

    owner: str
    fleet: str
    mine: str
    theirs: str
    prefix: str


@contextlib.contextmanager
def dropped_roles(server: str, prefix: str) -> Iterator[None]:
    """Roles are the server's, so they would outlive the database."""
    try:
        yield
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            # An owner may have made the others: it goes last.
            query = "select rolname from pg_roles where starts_with(rolname, %s) order by rolname like '%%owner'"
            for (name,) in admin.execute(query, [prefix]).fetchall():
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def sign_in(dsn: str, role: str) -> str:
    return make_url(dsn).set(username=role, password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def house(server: str) -> Iterator[House]:
    prefix, name = f"pw{secrets.token_hex(4)}", f"pulsewatch_{secrets.token_hex(4)}"
    settings = Settings.model_validate({"role_prefix": prefix})
    with dropped_roles(server, prefix):
        dsn = create_database(server, name, TEMPLATE)
        assert migrate(dsn, settings) == []
        engine = make_engine(dsn, pool_size=1, application_name="tests")
        fill(engine)
        with engine.begin() as connection:
            known = readers(connection, dsn, settings)
            roles = [f"{prefix}_grafana", known.create(MINE.slug), known.create(THEIRS.slug)]
            for role in roles:
                known.set_password(role, PASSWORD)
        engine.dispose()
        fleet, mine, theirs = (sign_in(dsn, role) for role in roles)
        yield House(dsn, fleet, mine, theirs, prefix)
        drop_database(server, name)


def rows(dsn: str, query: str, *parameters: object) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def names(dsn: str, query: str) -> list[str]:
    return [name for (name,) in rows(dsn, query)]


TABLES = (
    "select relname from pg_class where relnamespace = 'pulsewatch'::regnamespace and relkind in ('r', 'p')"
    " and not relispartition order by 1"
)
OBJECTS = "select name from pulsewatch.analytics_object where kind = '{}' order by 1"


# -- tables --------------------------------------------------------------------------------------------------


def test_each_table_holds_rows_of_both_clients(house: House) -> None:
    for table in set(names(house.owner, TABLES)) - WITHHELD - OF_THE_FLEET:
        column = "id" if table == "client" else "client_id"
        assert rows(house.owner, f"select {column} from pulsewatch.{table} order by 1") == [(1,), (2,)], table


def test_each_table_is_read_by_readers_or_known_to_be_withheld(house: House) -> None:
    granted = names(
        house.owner,
        "select distinct table_name from information_schema.column_privileges where table_schema = 'pulsewatch'"
        f" and grantee = '{house.prefix}_reader' and privilege_type = 'SELECT'",
    )
    assert set(names(house.owner, TABLES)) - WITHHELD == set(granted)


# Columns of tables that are read otherwise.
SECRET = {
    "channel": ["config", "secrets", "rate_per_min", "disabled_reason"],
    "notification": ["body", "rest", "lease_token", "provider_ref"],
}


def test_why_a_channel_failed_is_for_the_fleets_reader_alone(house: House) -> None:
    query = "select last_error from analytics.notifications order by client_id"
    errors = {"notification": "last_error", "notification_attempt": "error"}
    assert rows(house.fleet, query) == [(f"{MINE.slug} refused",), (f"{THEIRS.slug} refused",)]
    assert rows(house.mine, query) == [(None,)]
    for table, column in errors.items():
        assert len(rows(house.fleet, f"select {column} from pulsewatch.{table}")) == 2
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"permission denied for table {table}"):
            rows(house.mine, f"select {column} from pulsewatch.{table}")


@pytest.mark.parametrize("whose", ["fleet", "mine"])
def test_addresses_secrets_and_messages_are_refused_to_every_reader(house: House, whose: str) -> None:
    for table, columns in SECRET.items():
        for column in [*columns, "*"]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"permission denied for table {table}"):
                rows(getattr(house, whose), f"select {column} from pulsewatch.{table}")
        known = names(house.owner, f"select attname from pg_attribute where attrelid = 'pulsewatch.{table}'::regclass")
        assert set(columns) <= set(known)


def test_rules_channels_and_silences_of_all_clients_are_for_the_fleets_reader_alone(house: House) -> None:
    with psycopg.connect(house.owner) as owner:
        owner.execute("set local pulsewatch.erasing = 'on'")  # versions are append-only
        for table in ("alert_rule", "alert_rule_version", "channel", "silence"):
            owner.execute(f"update pulsewatch.{table} set client_id = null where client_id = 1".encode())
            owner.execute(sql.SQL("set local role {}").format(sql.Identifier(f"{house.prefix}_client_1")))
            assert owner.execute(f"select client_id from pulsewatch.{table}".encode()).fetchall() == [], table
            owner.execute(sql.SQL("set local role {}").format(sql.Identifier(f"{house.prefix}_reader")))
            query = f"select client_id from pulsewatch.{table} order by 1"
            assert owner.execute(query.encode()).fetchall() == [(2,), (None,)], table
            owner.execute("reset role")
        owner.rollback()


@pytest.mark.parametrize("table", sorted(WITHHELD))
@pytest.mark.parametrize("whose", ["fleet", "mine"])
def test_what_is_withheld_is_refused_to_every_reader(house: House, table: str, whose: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"permission denied for table {table}"):
        rows(getattr(house, whose), f"select from pulsewatch.{table}")


def test_every_table_has_row_level_security(house: House) -> None:
    unprotected = f"{TABLES.removesuffix('order by 1')} and not relrowsecurity"
    assert names(house.owner, unprotected) == ["alembic_version"]


def test_a_clients_reader_finds_its_own_rows_in_each_table_and_no_others(house: House) -> None:
    for table in set(names(house.owner, TABLES)) - WITHHELD - OF_THE_FLEET:
        column = "id" if table == "client" else "client_id"
        assert rows(house.mine, f"select {column} from pulsewatch.{table}") == [(MINE.client_id,)], table
        assert rows(house.theirs, f"select {column} from pulsewatch.{table}") == [(THEIRS.client_id,)], table


def test_a_clients_reader_finds_nothing_about_the_fleet(house: House) -> None:
    for table in OF_THE_FLEET:
        assert rows(house.owner, f"select count(*) from pulsewatch.{table}") == [(1,)]
        assert rows(house.mine, f"select count(*) from pulsewatch.{table}") == [(0,)]


def test_partitions_are_read_through_their_table_only(house: House) -> None:
    partitions = names(house.owner, "select relname from pg_class where relispartition and relkind = 'r'")
    assert len(partitions) > 20
    for partition in partitions:
        for dsn in (house.fleet, house.mine):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table"):
                rows(dsn, f"select from pulsewatch.{partition}")


def test_the_statistics_of_the_tables_tell_a_clients_reader_nothing(house: House) -> None:
    with psycopg.connect(house.owner, autocommit=True) as owner:
        owner.execute("analyze")
    seen = "select count(*) from pg_stats where schemaname = 'pulsewatch'"
    assert rows(house.owner, seen) != [(0,)]
    assert rows(house.mine, seen) == [(0,)]


# Words that are PulseWatch's own; all others are those of producers.
OUR_WORDS = {
    "status", "last_run_status", "last_outcome", "last_slot_status", "kind", "source", "change", "state", "from_state",
    "resolve_reason", "reason", "held_by", "outcome",
}  # fmt: skip


def test_the_server_keeps_no_statistics_of_the_words_of_producers(house: House) -> None:
    """Estimates in plans come from the statistics of all rows: by asking on, words could be read from them."""
    with psycopg.connect(house.owner, autocommit=True) as owner:
        owner.execute("analyze")
    query = (
        "select distinct tablename::text, attname::text from pg_stats join pg_attribute as described using (attname)"
        " where attrelid = format('%%I.%%I', schemaname, tablename)::regclass and atttypid = 'text'::regtype"
        " and schemaname = 'pulsewatch'"
    )
    kept = rows(house.owner, query)
    assert {column for table, column in kept if table not in WITHHELD} == OUR_WORDS


# -- every object of the schema analytics --------------------------------------------------------------------


def is_foreign(column: str, cell: object) -> bool:
    """Whether this tells something of the other client. Ages in seconds, which depend on the clock, may be large."""
    if column == "client_id":
        return cell not in {MINE.client_id, None}
    if isinstance(cell, str):
        return THEIRS.slug in cell or BOTH.slug in cell
    if isinstance(cell, UUID):
        return cell == THEIRS.uuid
    if isinstance(cell, float):
        return round(cell, 3) in {THEIRS.number, BOTH.number}
    return isinstance(cell, int) and cell in {THEIRS.number, BOTH.number}


def look(dsn: str, query: str, parameters: dict[str, object] | None = None) -> list[dict[str, object]]:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def foreign_cells(found: list[dict[str, object]]) -> list[tuple[str, object]]:
    return [(name, cell) for row in found for name, cell in row.items() if is_foreign(name, cell)]


def test_each_view_shows_a_clients_reader_its_own_rows_and_no_others(house: House) -> None:
    views = names(house.owner, OBJECTS.format("view"))
    assert len(views) >= 4
    for view in views:
        query = f"select * from analytics.{view}"
        everything, seen = look(house.owner, query), look(house.mine, query)
        assert foreign_cells(everything), f"{view} shows no row of the other client: this test would prove nothing"
        wanted = [row for row in everything if row.get("client_id") == MINE.client_id]
        assert (len(seen), foreign_cells(seen)) == (len(wanted), []), view
        assert seen or "client_id" not in everything[0], view


def test_each_view_shows_the_fleets_reader_all_rows(house: House) -> None:
    for view in names(house.owner, OBJECTS.format("view")):
        query = f"select count(*) from analytics.{view}"
        assert rows(house.fleet, query) == rows(house.owner, query), view


# What the arguments of functions are tried with, by name.
ARGUMENTS: dict[str, list[object]] = {
    "from_at": [AT - timedelta(days=2)],
    "to_at": [AT + timedelta(days=1)],
    "client": [None, MINE.slug, THEIRS.slug],
    "of_client": [None, MINE.slug, THEIRS.slug],
    "pipeline": [None, MINE.slug, THEIRS.slug],
    "of_pipeline": [None, MINE.slug, THEIRS.slug],
    "of_pipelines": [None, [MINE.slug], [THEIRS.slug]],
    "most": [1, 20],
    "step": ["auto", "hour", "day"],
    "level": ["fleet", "client", "pipeline"],
    "of_client_id": [MINE.client_id, THEIRS.client_id],
    "of_notification_id": [MINE.uuid, THEIRS.uuid],
}
# Functions that read; those that only calculate (immutable) are left out.
FUNCTIONS = (
    "select proname, proargnames[1:pronargs], provariadic <> 0 from pg_proc"
    " join pulsewatch.analytics_object as ours on ours.name = proname and ours.kind = 'function'"
    " where pronamespace = 'analytics'::regnamespace and provolatile <> 'i' order by 1"
)


def calls(dsn: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every function that reads, with every combination of arguments."""
    for name, arguments, is_variadic in rows(dsn, FUNCTIONS):
        given = [f"{argument} => %({argument})s" for argument in arguments]
        if is_variadic:
            given[-1] = f"variadic {given[-1]}"
        for chosen in product(*(ARGUMENTS[argument] for argument in arguments)):
            yield f"select * from analytics.{name}({', '.join(given)})", dict(zip(arguments, chosen, strict=True))


def told(dsn: str, query: str, arguments: dict[str, object]) -> list[dict[str, object]]:
    """What a call tells; nothing where it refuses its arguments. A reader's lack of rights is no refusal of those."""
    try:
        return look(dsn, query, arguments)
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error:
        return []


def test_no_function_tells_a_clients_reader_anything_of_another_client(house: House) -> None:
    telling = set()
    for query, arguments in calls(house.owner):
        assert foreign_cells(told(house.mine, query, arguments)) == [], (query, arguments)
        if foreign_cells(told(house.owner, query, arguments)):
            telling.add(query)
    silent = {query for query, _ in calls(house.owner)} - telling
    assert silent == set(), "these tell nobody anything of the other client: this test would prove nothing"


def test_each_function_tells_a_clients_reader_of_its_own_client_what_it_tells_the_owner(house: House) -> None:
    for query, arguments in calls(house.owner):
        if MINE.slug in {arguments.get("client"), arguments.get("of_client")}:
            wanted = told(house.owner, query, arguments)
            assert told(house.mine, query, arguments) == wanted, (query, arguments)


# -- plans ---------------------------------------------------------------------------------------------------


def plan(dsn: str, query: str) -> str:
    with psycopg.connect(dsn) as connection:
        for way in ("seqscan", "sort"):  # they would be the cheaper ones: the tables hold two rows
            connection.execute(f"set local enable_{way} = off".encode())
        return "\n".join(line for (line,) in connection.execute(f"explain {query}".encode()))


@pytest.mark.parametrize(
    ("source", "column"),
    [
        ("analytics.runs where first_at >= now() - interval '30 days' order by first_at desc limit 100", "first_at"),
        ("analytics.runs_hourly where hour_at >= now() - interval '30 days'", "hour_at"),
    ],
)
def test_the_policy_of_a_clients_reader_is_a_condition_of_the_index_beside_the_querys_own(
    house: House, source: str, column: str
) -> None:
    found = plan(house.mine, f"select * from {source}")
    conditions = [line for line in found.splitlines() if "Index Cond" in line and column in line]
    assert conditions, found
    assert all("client_id = '1'::bigint" in condition for condition in conditions)


def test_a_fleets_reader_gets_the_plan_of_the_owner(house: House) -> None:
    for query in (
        "select * from analytics.runs where client = 'acme' and first_at >= now() - interval '30 days'",
        "select * from analytics.runs_hourly where client_id = 1 and hour_at >= now() - interval '30 days'",
    ):
        assert plan(house.fleet, query) == plan(house.owner, query)


def test_a_view_of_the_users_own_is_granted_by_nobody_but_the_user(house: House) -> None:
    engine = make_engine(house.owner, pool_size=1, application_name="tests")
    with engine.begin() as connection:
        connection.execute(text("create view analytics.mine as select * from pulsewatch.run"))
    engine.dispose()
    migrate(house.owner, Settings.model_validate({"role_prefix": house.prefix}))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(house.mine, "select from analytics.mine")
