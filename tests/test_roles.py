"""The roles that read: what they may not do, how they are made, and what happens where making roles is not allowed."""

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from sqlalchemy.engine import make_url

from pulsewatch.cli import cli
from pulsewatch.migrate import data_folder, migrate
from pulsewatch.roles import script
from pulsewatch.settings import Settings
from tests.conftest import TEMPLATE, create_database, drop_database
from tests.test_readers import PASSWORD, dropped_roles, rows, sign_in

pytestmark = pytest.mark.database


@contextlib.contextmanager
def own_roles(server: str) -> Iterator[str]:
    name = f"pw{secrets.token_hex(4)}"
    with dropped_roles(server, name):
        yield name


@contextlib.contextmanager
def migrated(server: str, prefix: str) -> Iterator[str]:
    name = f"pulsewatch_{prefix}"
    dsn = create_database(server, name, TEMPLATE)
    try:
        assert migrate(dsn, Settings.model_validate({"role_prefix": prefix})) == []
        run(dsn, "insert into pulsewatch.client (slug) values ('acme')")
        yield dsn
    finally:
        drop_database(server, name)


@pytest.fixture
def prefix(server: str) -> Iterator[str]:
    """The beginning of role names that nobody else uses; they are dropped after the database."""
    with own_roles(server) as prefix:
        yield prefix


@pytest.fixture
def fresh(server: str, prefix: str) -> Iterator[str]:
    """A migrated database with roles of this prefix and the client acme."""
    with migrated(server, prefix) as dsn:
        yield dsn


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def invoke(dsn: str, prefix: str, *arguments: object, **environment: str) -> Result:
    given = {"PULSEWATCH_DATABASE_URL": dsn, "PULSEWATCH_ROLE_PREFIX": prefix} | environment
    return CliRunner().invoke(cli, ["role", *map(str, arguments)], env=given)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def let_grafana_in(dsn: str, prefix: str, file: Path) -> str:
    """The address under which Grafana reads."""
    file.write_text(f"{PASSWORD}\n")
    done(invoke(dsn, prefix, "password", "grafana", "--password-file", file))
    return sign_in(dsn, f"{prefix}_grafana")


@pytest.fixture
def reader(fresh: str, prefix: str, tmp_path: Path) -> str:
    return let_grafana_in(fresh, prefix, tmp_path / "password")


# -- what is refused -----------------------------------------------------------------------------------------

REFUSED = {
    "insert": "insert into pulsewatch.client (slug) values ('x')",
    "update": "update pulsewatch.run set status = 'failed'",
    "delete": "delete from pulsewatch.run_event",
    "truncate": "truncate pulsewatch.run_event",
    "write through a view": "delete from analytics.clients",
    "create in analytics": "create view analytics.x as select 1",
    "create in pulsewatch": "create table pulsewatch.x (a int)",
    "create in public": "create table public.x (a int)",
    "create a schema": "create schema x",
    "create a role": "create role x",
    "keys of the API": "select * from pulsewatch.api_key",
    "rejected items": "select * from pulsewatch.ingest_reject",
    "become the owner": "set role pulsewatch_owner",
    "become the group": "set role {prefix}_reader",
    "become the other reader": "set role {prefix}_metabase",
    "another's session": "set session authorization pulsewatch_owner",
    "make a partition": "select pulsewatch.ensure_partition('2200-01-01')",
    "drop a partition": "select pulsewatch.drop_partition('run_event', '2026-11-01')",
    "read a file": "select pg_read_file('/etc/hostname')",
    "list a folder": "select pg_ls_dir('/')",
    "copy from a file": "copy pulsewatch.client from '/etc/hostname'",
    "copy to a program": "copy (select 1) to program 'true'",
    "make a large object": "select lo_create(0)",
    "fill a large object": "select lo_from_bytea(0, 'x')",
    "open a large object": "select lo_open(1, 131072)",
    "write to the log of changes": "select pg_logical_emit_message(false, 'x', 'x')",
    "make a temporary table": "create temporary table x (a int)",
    "make a temporary function": "create function pg_temp.x() returns int language sql as 'select 1'",
    "hold up ingestion": "select pg_advisory_lock(hashtext('pulsewatch.ingest'))",
    "hold up ingestion for a transaction": "select pg_try_advisory_xact_lock(hashtext('pulsewatch.ingest'))",
    "lock a table": "begin; lock table pulsewatch.run in exclusive mode",
    "end another's session": "select pg_terminate_backend(pid) from pg_stat_activity where usename <> current_user",
}
MAY_NOT = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)


@pytest.fixture(scope="module")
def closed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """A database in which nothing changes: its address, that of a reader, and the prefix of its roles."""
    file = tmp_path_factory.mktemp("closed") / "password"
    with own_roles(server) as prefix, migrated(server, prefix) as dsn:
        yield dsn, let_grafana_in(dsn, prefix, file), prefix


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_a_reader_is_refused(closed: tuple[str, str, str], what: str) -> None:
    dsn, reader, prefix = closed
    statement = REFUSED[what].format(prefix=prefix).encode()
    with psycopg.connect(dsn), psycopg.connect(reader, autocommit=True) as connection:
        with pytest.raises(MAY_NOT):
            connection.execute(statement)
        connection.rollback()
        # It may switch this off; then the missing right is what refuses.
        connection.execute("set default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_a_clients_reader_that_switches_row_security_off_gets_an_error_instead_of_rows(fresh: str, prefix: str) -> None:
    name, password = done(invoke(fresh, prefix, "create", "--client", "acme")).strip().split("\t")
    address = make_url(fresh).set(username=name, password=password).render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("set row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("select from pulsewatch.run")


# Another client's rows: a hundred with the same words, in a month that was made after the tables.
FOREIGN = """
    insert into pulsewatch.client (slug) values ('globex');
    select pulsewatch.ensure_partition('2031-05-01');
    insert into pulsewatch.run_event (
        client_id, occurred_at, dedupe_key, content_digest, run_id, pipeline_id, status, message
    )
    select
        2, '2031-05-02T00:00:00Z', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 2, 'info', 'secret words'
    from generate_series(1, 100);
    insert into pulsewatch.run (
        client_id, id, pipeline_id, external_id, state_key, winner_key, status, message, opened_at, opening_key,
        first_at, last_at
    )
    select
        2, gen_random_uuid(), 2, 'secret words', 0, gen_random_uuid(), 'queued', 'secret words', now(),
        gen_random_uuid(), now(), now()
    from generate_series(1, 100);
    analyze;
"""


@pytest.mark.parametrize("column", ["run.message", "run.external_id", "run_event.message"])
def test_the_plans_of_a_clients_reader_tell_nothing_of_the_words_of_another(
    fresh: str, prefix: str, column: str
) -> None:
    name, password = done(invoke(fresh, prefix, "create", "--client", "acme")).strip().split("\t")
    address = make_url(fresh).set(username=name, password=password).render_as_string(hide_password=False)
    run(fresh, FOREIGN)
    table = column.split(".")[0]
    told = []
    for words in ("secret words", "other words.", "secret word", "zzzzzzzzzzzz"):
        for sign in ("=", "<", ">="):
            query = f"explain select from pulsewatch.{table} where {column} {sign} '{words}'"
            told.append(str(rows(address, query)).replace(words, ""))
    assert told[:3] == told[3:6] == told[6:9] == told[9:]


def test_how_much_of_the_disk_a_reader_may_fill_is_bounded_by_what_it_cannot_change(reader: str) -> None:
    assert rows(reader, "show temp_file_limit") == [("2GB",)]
    with psycopg.connect(reader, autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = off")
        for statement in (b"set temp_file_limit = -1", b"alter role current_user set temp_file_limit = -1"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_a_session_of_a_reader_is_bounded_reads_only_and_counts_in_utc(reader: str) -> None:
    wanted = {
        "statement_timeout": "1min",
        "idle_in_transaction_session_timeout": "1min",
        "default_transaction_read_only": "on",
        "timezone": "UTC",
        "search_path": "analytics",
    }
    found = {name: rows(reader, f"show {name}")[0][0].strip('"') for name in wanted}
    assert found == wanted
    (limit,) = rows(reader, "select rolconnlimit from pg_roles where rolname = current_user")
    assert limit == (20,)
    assert rows(reader, "select count(*) from clients") == [(1,)]


# -- migrate -------------------------------------------------------------------------------------------------


def test_migrating_again_changes_nothing_and_leaves_what_somebody_has_set(fresh: str, prefix: str) -> None:
    run(fresh, f"alter role {prefix}_grafana connection limit 3", f"alter role {prefix}_grafana set timezone = 'UTC'")
    run(fresh, f"alter role {prefix}_grafana set statement_timeout = '5min'")
    state = (
        "select rolname, rolcanlogin, rolconnlimit, rolconfig from pg_roles"
        f" where starts_with(rolname, '{prefix}') order by 1"
    )
    before = rows(fresh, state)
    assert migrate(fresh, Settings.model_validate({"role_prefix": prefix})) == []
    assert rows(fresh, state) == before
    assert "statement_timeout=5min" in str(before)


def test_a_role_of_that_name_that_could_do_more_is_bounded(server: str, prefix: str, empty_database: str) -> None:
    run(server, f"create role {prefix}_metabase superuser login createdb bypassrls")
    assert migrate(empty_database, Settings.model_validate({"role_prefix": prefix})) == []
    mighty = f"select rolsuper, rolbypassrls, rolcreatedb from pg_roles where rolname = '{prefix}_metabase'"
    assert rows(server, mighty) == [(False, False, False)]
    drop_database(server, make_url(empty_database).database or "")


def test_a_table_of_a_later_version_is_closed_to_readers_and_open_to_the_api(
    server: str, prefix: str, empty_database: str
) -> None:
    settings = Settings.model_validate({"role_prefix": prefix})
    run(server, f"create role {prefix}_app login password '{PASSWORD}'")
    app = sign_in(empty_database, f"{prefix}_app")
    owned = settings.model_copy(update={"owner_database_url": Settings(database_url=empty_database).database_url})
    assert migrate(app, owned) == []
    run(empty_database, "create table pulsewatch.later (client_id bigint not null, message text)")
    assert migrate(app, owned) == []
    run(app, "insert into pulsewatch.later values (1, 'x')")
    assert rows(app, "select message from pulsewatch.later") == [("x",)]
    secured = "select relrowsecurity from pg_class where oid = 'pulsewatch.later'::regclass"
    assert rows(empty_database, secured) == [(True,)]
    granted = f"select has_table_privilege('{prefix}_reader', 'pulsewatch.later', 'select')"
    assert rows(empty_database, granted) == [(False,)]
    drop_database(server, make_url(empty_database).database or "")


def test_what_the_role_of_the_api_needs_is_there_when_another_one_owns_the_tables(
    server: str, prefix: str, empty_database: str
) -> None:
    run(server, f"create role {prefix}_app login password '{PASSWORD}'")
    app = sign_in(empty_database, f"{prefix}_app")
    migrate(app, Settings.model_validate({"role_prefix": prefix, "owner_database_url": empty_database}))
    run(
        app,
        "insert into pulsewatch.client (slug) values ('acme') on conflict (slug) do update set title = 'Acme'",
        "update pulsewatch.client set title = 'Acme'",
        "select pg_advisory_xact_lock_shared(hashtext('pulsewatch.ingest'))",
        "select pulsewatch.ensure_partition('2031-05-01')",
    )
    assert rows(app, "select client from analytics.clients") == [("acme",)]
    assert rows(app, "delete from pulsewatch.client returning slug") == [("acme",)]
    drop_database(server, make_url(empty_database).database or "")


# -- without the right to make roles -------------------------------------------------------------------------


@pytest.fixture
def lesser(server: str, prefix: str, empty_database: str) -> Iterator[str]:
    """The address of a database whose owner may make no roles."""
    name = make_url(empty_database).database or ""
    run(
        server,
        f"create role {prefix}_owner login password '{PASSWORD}'",
        f"alter database {name} owner to {prefix}_owner",
    )
    yield sign_in(empty_database, f"{prefix}_owner")
    drop_database(server, name)


def admin_of(server: str, dsn: str) -> str:
    return make_url(server).set(database=make_url(dsn).database).render_as_string(hide_password=False)


def test_without_the_right_to_make_roles_migrate_goes_on_and_prints_what_is_missing_and_running_that_is_enough(
    server: str, prefix: str, lesser: str
) -> None:
    given = {"PULSEWATCH_DATABASE_URL": lesser, "PULSEWATCH_ROLE_PREFIX": prefix}
    printed = CliRunner().invoke(cli, ["migrate"], env=given)
    assert printed.exit_code == 0
    assert rows(lesser, "select count(*) from analytics.clients") == [(0,)]
    assert f"create role {prefix}_reader nologin;\n" in printed.stdout
    run(admin_of(server, lesser), printed.stdout)
    again = CliRunner().invoke(cli, ["migrate"], env=given)
    assert (again.exit_code, again.stdout) == (0, "")
    done_by_admin = rows(admin_of(server, lesser), f"select count(*) from pg_roles where rolname ~ '^{prefix}_'")
    assert done_by_admin == [(5,)]


def test_an_owner_that_may_make_roles_lacks_only_what_the_server_keeps_for_its_superuser(
    server: str, prefix: str, lesser: str
) -> None:
    run(server, f"alter role {prefix}_owner createrole")
    missing = migrate(lesser, Settings.model_validate({"role_prefix": prefix}))
    assert [statement.split(" pg_catalog")[0] for statement in missing] == [
        "grant execute on function",
        "revoke execute on function",
    ]
    run(admin_of(server, lesser), *script(missing))
    assert migrate(lesser, Settings.model_validate({"role_prefix": prefix})) == []
    run(lesser, "insert into pulsewatch.client (slug) values ('acme')")
    assert done(invoke(lesser, prefix, "create", "--client", "acme")).startswith(f"{prefix}_client_1\t")


def test_a_clients_reader_that_may_not_be_made_is_told_as_sql_that_is_enough(
    server: str, prefix: str, lesser: str
) -> None:
    run(admin_of(server, lesser), *script(migrate(lesser, Settings.model_validate({"role_prefix": prefix}))))
    run(lesser, "insert into pulsewatch.client (slug) values ('acme')")
    refused = invoke(lesser, prefix, "create", "--client", "acme")
    assert refused.exit_code == 1
    head, _, statements = refused.stderr.partition("\n")
    assert head == "Error: this role may not; run it as one that may:"
    run(admin_of(server, lesser), statements)
    listed = done(invoke(lesser, prefix, "list"))
    assert f"{prefix}_client_1\tacme\texists\n" in listed
    password = invoke(lesser, prefix, "password", f"{prefix}_client_1")
    assert password.exit_code == 1
    run(admin_of(server, lesser), password.stderr.partition("\n")[2])
    verifier = rows(server, f"select rolpassword from pg_authid where rolname = '{prefix}_client_1'")
    assert verifier[0][0].startswith("SCRAM-SHA-256$")


# -- passwords -----------------------------------------------------------------------------------------------


def test_passwords_come_from_the_environment_or_a_file_named_there(fresh: str, prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    assert done(invoke(fresh, prefix, "password", "grafana", PULSEWATCH_GRAFANA_PASSWORD=PASSWORD)) == ""
    assert done(invoke(fresh, prefix, "password", "metabase", PULSEWATCH_METABASE_PASSWORD_FILE=str(file))) == ""
    for name in ("grafana", "metabase"):
        assert rows(sign_in(fresh, f"{prefix}_{name}"), "select current_user") == [(f"{prefix}_{name}",)]


def test_without_a_given_password_a_new_one_is_made_and_printed(fresh: str, prefix: str) -> None:
    printed = done(invoke(fresh, prefix, "password", f"{prefix}_grafana"))
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", printed)
    address = make_url(fresh).set(username=f"{prefix}_grafana", password=printed.strip())
    assert rows(address.render_as_string(hide_password=False), "select 1") == [(1,)]


def test_the_password_itself_never_reaches_the_server(fresh: str, server: str, prefix: str) -> None:
    """The log of the server shows the statement; the password is not in it."""
    run(server, "alter system set log_statement = 'all'", "select pg_reload_conf()")
    try:
        done(invoke(fresh, prefix, "password", "grafana", PULSEWATCH_GRAFANA_PASSWORD="quite-secret-words"))
        log = rows(server, "select pg_read_file(pg_current_logfile())")[0][0]
    finally:
        run(server, "alter system reset log_statement", "select pg_reload_conf()")
    assert f'alter role "{prefix}_grafana" password' in log
    assert "quite-secret-words" not in log


@pytest.mark.parametrize("name", ["nobody", "pulsewatch_owner"])
def test_only_readers_get_a_password(fresh: str, prefix: str, name: str) -> None:
    refused = invoke(fresh, prefix, "password", name)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: there is no reader {name}; `pulsewatch role list` names them\n",
    )


@pytest.mark.parametrize(
    ("content", "reason"), [(b"a\0b", "the password holds a NUL character"), (b"\xff", "{} is not to be read as text")]
)
def test_a_file_that_holds_no_password_is_refused(
    fresh: str, prefix: str, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    refused = invoke(fresh, prefix, "password", "grafana", "--password-file", file)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {reason.format(file)}")


def test_an_empty_password_is_refused(fresh: str, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    refused = invoke(fresh, prefix, "password", "grafana", "--password-file", tmp_path / "empty")
    assert (refused.exit_code, refused.stderr) == (1, "Error: the password is empty\n")


# -- readers of clients --------------------------------------------------------------------------------------


def test_readers_of_clients_are_made_listed_and_dropped(fresh: str, prefix: str) -> None:
    fleet = f"{prefix}_grafana\tall clients\texists\n{prefix}_metabase\tall clients\texists\n"
    name, password = done(invoke(fresh, prefix, "create", "--client", "acme")).strip().split("\t")
    assert (name, len(password)) == (f"{prefix}_client_1", 43)
    assert done(invoke(fresh, prefix, "list")) == f"{fleet}{name}\tacme\texists\n"
    again = invoke(fresh, prefix, "create", "--client", "acme")
    assert again.stderr == f"Error: client 'acme' has its reader already: {name}\n"
    assert done(invoke(fresh, prefix, "drop", name)) == ""
    assert done(invoke(fresh, prefix, "list")) == fleet
    assert rows(fresh, f"select from pg_policies where policyname = '{name}'") == []
    assert invoke(fresh, prefix, "drop", name).stderr == f"Error: {name} is not the reader of a client\n"
    assert invoke(fresh, prefix, "drop", f"{prefix}_grafana").exit_code == 1
    assert invoke(fresh, prefix, "create", "--client", "nix").stderr == "Error: there is no client 'nix'\n"


def test_the_reader_of_an_erased_client_sees_nothing_not_even_a_new_client_of_that_name(
    fresh: str, prefix: str
) -> None:
    name, password = done(invoke(fresh, prefix, "create", "--client", "acme")).strip().split("\t")
    address = make_url(fresh).set(username=name, password=password).render_as_string(hide_password=False)
    assert rows(address, "select client from analytics.clients") == [("acme",)]
    purged = CliRunner().invoke(
        cli, ["purge", "--client", "acme", "--confirm", "acme"], env={"PULSEWATCH_DATABASE_URL": fresh}
    )
    assert purged.exit_code == 0, purged.output
    run(fresh, "insert into pulsewatch.client (slug) values ('acme')")
    assert rows(address, "select client from analytics.clients") == []
    assert f"{name}\tnothing\texists\n" in done(invoke(fresh, prefix, "list"))
    assert done(invoke(fresh, prefix, "create", "--client", "acme")).startswith(f"{prefix}_client_2\t")
    done(invoke(fresh, prefix, "drop", name))


def test_a_reader_that_gives_its_rights_away_sees_nothing_and_is_made_anew_once_its_role_is_dropped(
    fresh: str, prefix: str
) -> None:
    name, password = done(invoke(fresh, prefix, "create", "--client", "acme")).strip().split("\t")
    address = make_url(fresh).set(username=name, password=password).render_as_string(hide_password=False)
    run(address, "set default_transaction_read_only = off", "drop owned by current_user")
    assert rows(address, "select client from analytics.clients") == []
    refused = invoke(fresh, prefix, "create", "--client", "acme").stderr
    assert f'if no other one uses it, run "drop role {name}"' in refused
    run(fresh, f"drop role {name}")
    assert done(invoke(fresh, prefix, "create", "--client", "acme")).startswith(f"{name}\t")


def test_the_reader_of_another_databases_client_is_never_let_in(fresh: str, prefix: str, database: str) -> None:
    done(invoke(fresh, prefix, "create", "--client", "acme"))
    assert migrate(database, Settings.model_validate({"role_prefix": prefix})) == []
    run(database, "insert into pulsewatch.client (slug) values ('globex')")
    refused = invoke(database, prefix, "create", "--client", "globex")
    assert refused.exit_code == 1
    assert f"the server has a role {prefix}_client_1 that is not of this database" in refused.stderr
    drop_database(fresh, make_url(database).database or "")


def test_a_new_table_of_clients_gets_the_policies_of_their_readers_at_the_next_migration(
    fresh: str, prefix: str
) -> None:
    done(invoke(fresh, prefix, "create", "--client", "acme"))
    run(fresh, f"drop policy {prefix}_client_1 on pulsewatch.slot", f"drop policy {prefix}_reader on pulsewatch.slot")
    assert migrate(fresh, Settings.model_validate({"role_prefix": prefix})) == []
    policies = f"select policyname from pg_policies where tablename = 'slot' and policyname ~ '{prefix}' order by 1"
    assert rows(fresh, policies) == [(f"{prefix}_client_1",), (f"{prefix}_reader",)]


# -- the list of what readers may read -----------------------------------------------------------------------


def test_readers_may_read_exactly_the_tables_that_views_and_functions_of_analytics_read() -> None:
    folder = data_folder("sql")
    named: set[Any] = set()
    for path in (folder / "analytics").glob("*.sql"):
        named |= set(re.findall(r"\b(?:from|join)\s+pulsewatch\.([a-z_]+)\b(?!\()", path.read_text()))
        named |= set(re.findall(r"\bpulsewatch\.((?:pipeline|client|fleet)_(?:hour|day))\b", path.read_text()))
    query = (folder / "roles.sql").read_text()
    readable = set(re.findall(r"^    \('([a-z_]+)', (?:'client_id'|'id'|null)\)", query, re.MULTILINE))
    assert named == readable
