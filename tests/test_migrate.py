"""Migration on real databases: what it makes, what it leaves alone, and that it is all or nothing."""

import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from pulsewatch import migrate as migration
from pulsewatch import models
from pulsewatch.db import make_engine, metadata
from pulsewatch.migrate import MigrateError, check_version, is_migrated, migrate, months_to_keep
from pulsewatch.settings import Settings
from tests.conftest import create_database, drop_database

SETTINGS = Settings()
NOVEMBER = datetime(2026, 11, 21, tzinfo=UTC)

# Everything that tells one schema from another: columns, constraints, indexes, comments.
PARTITION = r"_\d{4}_\d{2}$"
SHAPE = """
    select 'column', class.relname, attribute.attname, attribute.attnum, format_type(atttypid, atttypmod), attnotnull,
        attidentity, pg_get_expr(adbin, adrelid), col_description(class.oid, attnum)
    from pg_attribute as attribute
    join pg_class as class on class.oid = attrelid and relkind in ('r', 'p') and not relispartition
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where relnamespace = 'pulsewatch'::regnamespace and attnum > 0 and relname <> 'alembic_version'
    union all
    select 'constraint', conrelid::regclass::text, conname, 0, pg_get_constraintdef(pg_constraint.oid), true, contype,
        null, null
    from pg_constraint
    join pg_class as class on class.oid = conrelid and not relispartition
    where connamespace = 'pulsewatch'::regnamespace and conrelid <> 0
        and conrelid::regclass::text <> 'pulsewatch.alembic_version'
    union all
    select 'index', tablename, indexname, 0, indexdef, true, '', null, null
    from pg_indexes
    where schemaname = 'pulsewatch' and tablename !~ '_[0-9]{4}_[0-9]{2}$' and tablename <> 'alembic_version'
    union all
    select 'table', relname, relname, 0, obj_description(oid), true, relkind, null,
        substring(array_to_string(reloptions, ' ') from 'fillfactor=[0-9]+')
    from pg_class
    where relnamespace = 'pulsewatch'::regnamespace and relkind in ('r', 'p') and not relispartition
        and relname <> 'alembic_version'
    order by 1, 2, 3
"""


def rows(dsn: str, query: str, *parameters: object) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def own_engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=2, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def sql_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the analytics files that a test may change, as a later release would."""
    folder = tmp_path / "sql"
    shutil.copytree(migration.data_folder("sql"), folder)
    original = migration.data_folder
    monkeypatch.setattr(migration, "data_folder", lambda name: folder if name == "sql" else original(name))
    return folder / "analytics"


def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upgrade: str) -> None:
    """Another revision after ours, as a later release would have one."""
    folder = tmp_path / "migrations"
    shutil.copytree(migration.data_folder("migrations"), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "2099_01_01_later.py").write_text(
        "from alembic import op\nrevision = '9999'\n"
        f"down_revision = '{migration.newest_revision()}'\nbranch_labels = depends_on = None\n"
        f"def upgrade() -> None:\n{upgrade}"
    )
    original = migration.data_folder
    monkeypatch.setattr(migration, "data_folder", lambda name: folder if name == "migrations" else original(name))


def view(name: str, columns: str) -> str:
    return f"create or replace view analytics.{name} with (security_invoker = true) as select {columns};\n"


# -- tables --------------------------------------------------------------------------------------------------


def test_the_revisions_make_what_the_models_say(server: str, database: str) -> None:
    other = create_database(server, "pulsewatch_models")
    engine = make_engine(other, pool_size=1, application_name="tests")
    with engine.begin() as connection:
        connection.execute(text("create schema pulsewatch"))
        metadata.create_all(connection)
    engine.dispose()
    try:
        assert rows(database, SHAPE) == rows(other, SHAPE)
    finally:
        drop_database(server, "pulsewatch_models")


def test_alembic_finds_nothing_to_do(own_engine: Engine) -> None:
    with own_engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": "pulsewatch",
                "include_object": lambda item, name, kind, _reflected, _other: (
                    not (
                        (kind == "table" and re.search(PARTITION, name))
                        or (kind == "index" and re.search(PARTITION, item.table.name))
                    )
                ),
            },
        )
        differences = compare_metadata(context, models.client.metadata)
    assert differences == []


def test_the_first_revision_can_be_reverted_and_applied_again(database: str, own_engine: Engine) -> None:
    assert is_migrated(own_engine)
    with own_engine.begin() as connection:
        command.downgrade(migration.alembic_config(connection), "base")
    left = "select count(*) from pg_class where relnamespace in ('pulsewatch'::regnamespace, 'analytics'::regnamespace)"
    functions = "select count(*) from pg_proc where pronamespace = 'pulsewatch'::regnamespace"
    assert rows(database, left) == [(2,)]  # Alembic's own table and its key
    assert rows(database, functions) == [(0,)]
    assert not is_migrated(own_engine)
    migrate(database, SETTINGS)
    assert is_migrated(own_engine)


def test_an_empty_database_is_not_migrated(empty_database: str) -> None:
    engine = make_engine(empty_database, pool_size=1, application_name="tests")
    assert not is_migrated(engine)
    engine.dispose()


def test_a_database_that_is_ahead_serves_and_one_that_is_behind_does_not(
    own_engine: Engine, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "update pulsewatch.alembic_version set version_num = 'from-the-future'")
    assert is_migrated(own_engine)
    run(database, f"update pulsewatch.alembic_version set version_num = '{migration.newest_revision()}'")
    add_revision(tmp_path, monkeypatch, "    pass\n")
    caches = (migration.newest_revision, migration._older_revisions)
    for cache in caches:
        cache.cache_clear()
    try:
        assert not is_migrated(own_engine)
        migrate(database, SETTINGS)
        assert is_migrated(own_engine)
    finally:
        for cache in caches:
            cache.cache_clear()


def test_migrating_twice_changes_nothing(database: str) -> None:
    before = rows(database, SHAPE)
    migrate(database, SETTINGS)
    assert rows(database, SHAPE) == before


def test_four_at_once_migrate_an_empty_database_once(empty_database: str) -> None:
    failures: list[BaseException] = []

    def go() -> None:
        try:
            migrate(empty_database, SETTINGS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rows(empty_database, "select count(*) from pulsewatch.alembic_version") == [(1,)]


def test_a_database_of_a_newer_release_is_refused(database: str) -> None:
    run(database, "update pulsewatch.alembic_version set version_num = 'from-the-future'")
    with pytest.raises(MigrateError, match="migrated by a newer PulseWatch"):
        migrate(database, SETTINGS)


@pytest.mark.parametrize("number", [150_012, 140_000, 90_624])
def test_a_server_before_16_is_refused(number: int) -> None:
    with pytest.raises(MigrateError, match=r"needs PostgreSQL 16 or later; this server is \d+\.\d+"):
        check_version(number)


def test_servers_from_16_on_are_taken() -> None:
    check_version(160_000)
    check_version(190_001)


def test_a_database_in_another_encoding_is_refused(server: str) -> None:
    with psycopg.connect(server, dbname="postgres", autocommit=True) as admin:
        admin.execute("create database pulsewatch_latin template template0 encoding 'LATIN1' locale 'C'")
    latin = server.rsplit("/", 1)[0] + "/pulsewatch_latin"
    try:
        with pytest.raises(MigrateError, match="needs a database in UTF8; this one is in LATIN1"):
            migrate(latin, SETTINGS)
    finally:
        drop_database(server, "pulsewatch_latin")


def test_a_server_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(MigrateError, match="connection") as failure:
        migrate("postgresql://nobody@127.0.0.1:1/none", SETTINGS)
    assert "\n" not in str(failure.value)


def test_the_owner_migrates_and_the_other_role_may_work(server: str, empty_database: str) -> None:
    name = empty_database.rsplit("/", 1)[1]
    run(
        server,
        "create role pulsewatch_test_app login password 'app'",
        "create role pulsewatch_test_owner login password 'owner'",
        f"alter database {name} owner to pulsewatch_test_owner",
    )
    place = empty_database.rsplit("@", 1)[1]
    owner, app = (f"postgresql://pulsewatch_test_{role}:{role}@{place}" for role in ("owner", "app"))
    try:
        migrate(app, Settings.model_validate({"database_url": app, "owner_database_url": owner}))
        owns = "select distinct tableowner from pg_tables where schemaname = 'pulsewatch'"
        assert rows(app, owns) == [("pulsewatch_test_owner",)]
        run(app, "insert into pulsewatch.client (slug) values ('acme')")
        assert rows(app, "select client from analytics.clients") == [("acme",)]
        assert rows(app, "select pulsewatch.ensure_partition('2031-05-01')") == [(True,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(app, "drop table pulsewatch.run")
    finally:
        drop_database(server, name)
        run(server, "drop role pulsewatch_test_app", "drop role pulsewatch_test_owner")


# -- partitions and append-only ------------------------------------------------------------------------------

PARTITIONS = "select inhrelid::regclass::text from pg_inherits where inhparent = 'pulsewatch.run_event'::regclass"
EVENT = """
    insert into pulsewatch.run_event (client_id, occurred_at, dedupe_key, content_digest, run_id, pipeline_id, status)
    values (1, '{}', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'running')
"""


def test_months_from_the_keep_time_to_two_ahead_are_kept() -> None:
    settings = Settings(keep_events_days=10, keep_runs_days=40)
    assert list(months_to_keep(settings, datetime(2026, 11, 21, tzinfo=UTC))) == [
        date(2026, 10, 1),
        date(2026, 11, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
    ]


def test_months_are_utc_months() -> None:
    behind = datetime.fromisoformat("2026-11-30T23:30:00-05:00")  # already December in UTC
    assert list(months_to_keep(Settings(), behind))[-1] == date(2027, 2, 1)


def test_migrate_makes_the_partitions(empty_database: str) -> None:
    migrate(empty_database, Settings(keep_events_days=30, keep_runs_days=30), as_of=NOVEMBER)
    assert sorted(name for (name,) in rows(empty_database, PARTITIONS)) == [
        "pulsewatch.run_event_2026_10",
        "pulsewatch.run_event_2026_11",
        "pulsewatch.run_event_2026_12",
        "pulsewatch.run_event_2027_01",
    ]
    for table in ("slot", "pipeline_hour"):
        others = rows(empty_database, PARTITIONS.replace("run_event", table))
        assert sorted(name[-7:] for (name,) in others) == ["2026_10", "2026_11", "2026_12", "2027_01"]
    bounds = "select pg_get_expr(relpartbound, oid) from pg_class where oid = 'pulsewatch.run_event_2026_11'::regclass"
    with psycopg.connect(empty_database, options="-c timezone=UTC") as connection:
        assert connection.execute(bounds.encode()).fetchall() == [
            ("FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00')",)
        ]


def test_a_partition_is_made_once_whatever_the_session_zone_and_day(database: str) -> None:
    with psycopg.connect(database, options="-c timezone=Pacific/Auckland") as connection:
        ensure = b"select pulsewatch.ensure_partition(%s)"
        assert connection.execute(ensure, ["2030-02-17"]).fetchall() == [(True,)]
        assert connection.execute(ensure, ["2030-02-01"]).fetchall() == [(False,)]
        connection.execute("set timezone = 'UTC'")
        bounds = b"select pg_get_expr(relpartbound, oid) from pg_class where relname = 'run_event_2030_02'"
        assert connection.execute(bounds).fetchall() == [
            ("FOR VALUES FROM ('2030-02-01 00:00:00+00') TO ('2030-03-01 00:00:00+00')",)
        ]


def test_a_partition_is_made_once_by_eight_at_once_while_others_insert(database: str) -> None:
    made: list[bool] = []
    gate = threading.Barrier(8)

    def go() -> None:
        with psycopg.connect(database) as connection:
            gate.wait(10)
            made.extend(connection.execute("select pulsewatch.ensure_partition('2030-03-01')").fetchone() or ())

    with psycopg.connect(database) as writer:
        writer.execute(EVENT.format(datetime.now(UTC)).encode())  # holds its lock on the table until it commits
        threads = [threading.Thread(target=go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.commit()
    assert sorted(made) == [False] * 7 + [True]


@pytest.mark.parametrize("month", ["1999-12-01", "2255-02-01"])
def test_a_partition_for_an_absurd_month_is_refused(database: str, month: str) -> None:
    with pytest.raises(psycopg.errors.DatetimeFieldOverflow):
        rows(database, "select pulsewatch.ensure_partition(%s)", month)


@pytest.mark.parametrize(
    "change", ["update pulsewatch.run_event set status = 'failed'", "delete from pulsewatch.run_event"]
)
def test_events_are_append_only(database: str, change: str) -> None:
    run(database, "select pulsewatch.ensure_partition('2026-11-01')", EVENT.format("2026-11-21T00:00:00Z"))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
        run(database, change)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
        run(database, change.replace("run_event", "run_event_2026_11"))
    with psycopg.connect(database) as connection:
        connection.execute("set local pulsewatch.erasing = 'on'")
        assert connection.execute(change.encode()).rowcount == 1


def test_events_cannot_be_truncated_or_a_month_dropped_by_the_function(database: str) -> None:
    run(database, "select pulsewatch.ensure_partition('2026-11-01')")
    for statement in (
        "truncate pulsewatch.run_event",
        "truncate pulsewatch.run_event_2026_11",
        "select pulsewatch.drop_partition('run_event', '2026-11-01')",
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
            run(database, statement)


# -- analytics objects ---------------------------------------------------------------------------------------


def test_a_new_column_at_the_end_leaves_the_users_own_view_in_place(database: str, sql_folder: Path) -> None:
    run(database, "create view public.my_clients as select client from analytics.clients")
    file = sql_folder / "10_clients.sql"
    file.write_text(file.read_text().replace("    archived_at\nfrom", "    archived_at,\n    1 as extra\nfrom"))
    migrate(database, SETTINGS)
    assert rows(database, "select count(extra) from analytics.clients") == [(0,)]
    assert rows(database, "select count(*) from public.my_clients") == [(0,)]


def test_a_retyped_column_is_replaced_together_with_our_views_that_read_it(database: str, sql_folder: Path) -> None:
    (sql_folder / "20_base.sql").write_text(view("base", "1 as number"))
    (sql_folder / "30_above.sql").write_text(view("above", "number from analytics.base"))
    migrate(database, SETTINGS)
    (sql_folder / "20_base.sql").write_text(view("base", "'one'::text as number"))
    migrate(database, SETTINGS)
    assert rows(database, "select number from analytics.above") == [("one",)]


def test_a_users_view_in_the_way_of_a_retyped_column_is_named_and_all_stays(database: str, sql_folder: Path) -> None:
    run(database, "create schema own", "create view own.report as select client_title from analytics.clients")
    before = rows(database, "select viewname, definition from pg_views where schemaname in ('analytics', 'own')")
    file = sql_folder / "10_clients.sql"
    file.write_text(file.read_text().replace("coalesce(title, slug)", "coalesce(title, slug)::varchar"))
    with pytest.raises(MigrateError, match=r"analytics\.clients .*own\.report reads it"):
        migrate(database, SETTINGS)
    after = rows(database, "select viewname, definition from pg_views where schemaname in ('analytics', 'own')")
    assert after == before


def test_a_users_view_of_a_view_of_his_own_is_named_too(database: str, sql_folder: Path) -> None:
    run(
        database,
        "create materialized view public.first as select client from analytics.clients",
        "create view public.second as select client from public.first",
    )
    (sql_folder / "10_clients.sql").unlink()
    with pytest.raises(MigrateError, match=r"public\.first, public\.second reads it"):
        migrate(database, SETTINGS)
    assert rows(database, "select count(*) from public.second") == [(0,)]


def test_a_vanished_object_is_dropped_and_one_of_the_users_own_stays(database: str, sql_folder: Path) -> None:
    (sql_folder / "20_extra.sql").write_text(view("extra", "1 as number"))
    run(database, "create view analytics.mine as select 1 as number")
    migrate(database, SETTINGS)
    (sql_folder / "20_extra.sql").unlink()
    migrate(database, SETTINGS)
    views = {name for (name,) in rows(database, "select viewname from pg_views where schemaname = 'analytics'")}
    assert {"clients", "mine", "runs"} <= views
    assert "extra" not in views


def test_a_vanished_object_that_another_of_ours_no_longer_reads_is_dropped(database: str, sql_folder: Path) -> None:
    (sql_folder / "20_base.sql").write_text(view("base", "1 as number"))
    (sql_folder / "30_above.sql").write_text(view("above", "number from analytics.base"))
    migrate(database, SETTINGS)
    (sql_folder / "20_base.sql").unlink()
    (sql_folder / "30_above.sql").write_text(view("above", "2 as number"))
    migrate(database, SETTINGS)
    assert rows(database, "select number from analytics.above") == [(2,)]
    assert rows(database, "select to_regclass('analytics.base')") == [(None,)]


def test_a_function_with_another_result_is_replaced(database: str, sql_folder: Path) -> None:
    body = "create or replace function analytics.answer() returns {} language plpgsql as 'begin return 42; end';"
    (sql_folder / "20_answer.sql").write_text(body.format("integer"))
    migrate(database, SETTINGS)
    (sql_folder / "20_answer.sql").write_text(body.format("bigint"))
    migrate(database, SETTINGS)
    assert rows(database, "select pg_typeof(analytics.answer())::text") == [("bigint",)]
    (sql_folder / "20_answer.sql").unlink()
    migrate(database, SETTINGS)
    assert rows(database, "select to_regproc('analytics.answer')") == [(None,)]


def test_a_function_whose_body_does_not_fit_its_result_is_told(database: str, sql_folder: Path) -> None:
    file, good = sql_folder / "20_answer.sql", "create or replace function analytics.answer() returns {} language sql"
    file.write_text(f"{good.format('integer')} as $$ select 'a'::text $$;")
    for _ in ("new", "there already"):
        with pytest.raises(MigrateError, match=r"20_answer\.sql: return type mismatch in function"):
            migrate(database, SETTINGS)
        file.write_text(f"{good.format('integer')} as 'select 42';")
        migrate(database, SETTINGS)
        file.write_text(f"{good.format('bigint')} as $$ select 'a'::text $$;")
    assert rows(database, "select analytics.answer()") == [(42,)]


def test_a_function_of_the_users_own_is_never_replaced(database: str, sql_folder: Path) -> None:
    body = "create or replace function analytics.answer() returns integer language sql as 'select {}';"
    run(database, body.format(1))
    (sql_folder / "20_answer.sql").write_text(body.format(42))
    with pytest.raises(MigrateError, match=r"analytics\.answer exists, but PulseWatch did not make it"):
        migrate(database, SETTINGS)
    assert rows(database, "select analytics.answer()") == [(1,)]


def test_an_object_of_the_users_own_is_never_replaced(database: str, sql_folder: Path) -> None:
    run(database, "create view analytics.extra as select 'mine' as whose")
    (sql_folder / "20_extra.sql").write_text(view("extra", "'ours' as whose"))
    with pytest.raises(MigrateError, match=r"analytics\.extra exists, but PulseWatch did not make it"):
        migrate(database, SETTINGS)
    assert rows(database, "select whose from analytics.extra") == [("mine",)]


def test_a_failing_view_leaves_everything_as_it_was(empty_database: str, sql_folder: Path) -> None:
    (sql_folder / "20_broken.sql").write_text(view("broken", "no_such_column from pulsewatch.run"))
    with pytest.raises(MigrateError, match=r'20_broken\.sql: column "no_such_column" does not exist'):
        migrate(empty_database, SETTINGS)
    schemas = "select nspname from pg_namespace where nspname in ('pulsewatch', 'analytics')"
    assert rows(empty_database, schemas) == []


def test_a_failing_revision_leaves_everything_as_it_was(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_revision(
        tmp_path,
        monkeypatch,
        "    op.execute('alter table pulsewatch.client add column extra text')\n"
        "    op.execute('alter table pulsewatch.no_such_table add column extra text')\n",
    )
    before = rows(database, SHAPE)
    with pytest.raises(MigrateError, match=r'relation "pulsewatch\.no_such_table" does not exist'):
        migrate(database, SETTINGS)
    assert rows(database, SHAPE) == before


def test_a_table_that_somebody_locks_makes_migrate_give_up_at_once(
    database: str, sql_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", "set local lock_timeout = '50ms'")
    with psycopg.connect(database) as reader:
        reader.execute("lock table analytics.clients in access share mode")
        with pytest.raises(MigrateError, match="lock timeout"):
            migrate(database, SETTINGS)
    assert sql_folder.is_dir()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("20_two.sql", view("two", "1") + view("three", "1")),
        ("20_other.sql", view("two", "1")),
        ("20_x.sql", "select 1"),
    ],
)
def test_a_file_that_is_not_one_object_of_its_name_is_refused(
    database: str, sql_folder: Path, name: str, content: str
) -> None:
    (sql_folder / name).write_text(content)
    with pytest.raises(MigrateError, match=f"{name} must hold one"):
        migrate(database, SETTINGS)


# -- the catalog ---------------------------------------------------------------------------------------------


def test_every_table_and_column_of_ours_has_a_comment(database: str) -> None:
    silent = rows(
        database,
        "select relname, attname from pg_attribute join pg_class as class on class.oid = attrelid"
        " where relnamespace = 'pulsewatch'::regnamespace and relkind in ('r', 'p') and not relispartition"
        " and attnum > 0 and relname <> 'alembic_version'"
        " and (col_description(class.oid, attnum) is null or obj_description(class.oid) is null)",
    )
    assert silent == []


def test_every_key_of_a_tenants_table_starts_with_client_id(database: str) -> None:
    keys = rows(
        database,
        "select class.relname, conname, (select attname from pg_attribute where attrelid = conrelid"
        " and attnum = conkey[1]) from pg_constraint join pg_class as class on class.oid = conrelid"
        " where connamespace = 'pulsewatch'::regnamespace and contype in ('p', 'u', 'f')",
    )
    with_client = {table for (table,) in rows(
        database,
        "select relname from pg_attribute join pg_class as class on class.oid = attrelid where attname = 'client_id'"
        " and relnamespace = 'pulsewatch'::regnamespace and relkind in ('r', 'p') and not relispartition",
    )}  # fmt: skip
    # Marks have no key; a key of the API may be bound to no client, and a reject may name none. What tells of alerts
    # may be about all clients.
    untold = {"dirty", "slot_mark", "alert_mark", "api_key", "ingest_reject", "alert_rule", "channel", "silence"}
    untold |= {"alert_rule_version"}
    tenants = with_client - untold
    assert {"pipeline", "run", "run_event", "slot", "pipeline_hour"} <= tenants
    assert tenants - {key[0] for key in keys if key[1].endswith("_pkey")} == set()
    assert [key for key in keys if key[0] in tenants and key[2] not in {"client_id", "rule_id", "channel_id"}] == []
