"""Brings a database to the state this version needs: tables are migrated, analytics objects are replaced.

All of it happens in one transaction: whatever fails, the database stays as it was.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from pulsewatch.db import SCHEMA, make_engine
from pulsewatch.roles import Readers, read_query
from pulsewatch.settings import Settings

log = logging.getLogger(__name__)

OLDEST_SERVER = 16
MONTHS_AHEAD = 2
# Two migrations never overlap; the second waits here and then finds nothing to do.
MIGRATION_LOCK = "select pg_advisory_xact_lock(hashtext('pulsewatch.migrate'))"
# A long query of somebody else's makes the migration fail, not everybody queue up behind it.
LOCK_TIMEOUT = "set local lock_timeout = '5s'"

OBJECT = re.compile(r"^create or replace (view|function) analytics\.([a-z_][a-z0-9_]*)", re.MULTILINE)
# 42P16: columns of a view were renamed, retyped, dropped; 42P13: the same for a function's result.
RETYPED = frozenset({"42P16", "42P13"})


class MigrateError(Exception):
    """The database cannot be migrated; it is as it was before. The message says why."""


@dataclass(frozen=True, slots=True)
class AnalyticsObject:
    """One object of the schema analytics, as its file defines it."""

    file: str
    kind: str
    name: str
    definition: str


def data_folder(name: str) -> Path:
    """`sql`, `metabase` or `migrations`: inside the installed package, else in the checkout around it."""
    package = Path(__file__).parent
    installed = package / "_data" / name
    if installed.is_dir():
        return installed
    return package.parent / name if name == "migrations" else package.parents[1] / name


def migrate(dsn: str, settings: Settings, *, as_of: datetime | None = None) -> list[str]:
    """Migrate the database at this address, or at `owner_database_url` where that is set.

    Returns the statements that the readers' roles still need and that this role may not run; mostly none.
    Raises MigrateError. It may run at any time, as often as wished, beside a running PulseWatch.
    """
    owner = settings.owner_database_url
    engine = make_engine(owner.get_secret_value() if owner else dsn, pool_size=1, application_name="pulsewatch migrate")
    try:
        with engine.begin() as connection:
            _check_server(connection)
            connection.execute(text(MIGRATION_LOCK))
            connection.execute(text(LOCK_TIMEOUT))
            _migrate_tables(connection)
            replace_analytics(connection, read_objects(data_folder("sql") / "analytics"))
            for month in months_to_keep(settings, as_of or datetime.now(UTC)):
                connection.execute(text("select pulsewatch.ensure_partition(:month)"), {"month": month})
            _grant(connection, dsn)
            missing = readers(connection, dsn, settings).complete()
    except (DBAPIError, psycopg.Error) as error:
        raise MigrateError(_reason(error)) from error
    finally:
        engine.dispose()
    if missing:
        log.warning("the readers' roles lack %d statements; `pulsewatch migrate` prints them", len(missing))
    return missing


def _reason(error: DBAPIError | psycopg.Error) -> str:
    """What the server said, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return (said or str(cause)).strip().split("\n")[0]


def check_version(server_version_num: int) -> None:
    """Raises MigrateError for a server that is too old, given as `server_version_num`, 160004 for 16.4."""
    major, minor = divmod(server_version_num, 10_000)
    if major < OLDEST_SERVER:
        msg = f"PulseWatch needs PostgreSQL {OLDEST_SERVER} or later; this server is {major}.{minor}"
        raise MigrateError(msg)


def _check_server(connection: Connection) -> None:
    query = text("select current_setting('server_version_num')::int, current_setting('server_encoding')")
    version, encoding = connection.execute(query).one()
    check_version(version)
    if encoding != "UTF8":
        msg = f"PulseWatch needs a database in UTF8; this one is in {encoding}"
        raise MigrateError(msg)


# -- tables --------------------------------------------------------------------------------------------------


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, with the revisions of this package, on this connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(data_folder("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@cache
def newest_revision() -> str:
    """The revision that this version of the code needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None, "there is always a first revision"  # noqa: S101 - a broken package, not bad input
    return head


@cache
def _older_revisions() -> frozenset[str]:
    """The revisions that this version of the code knows and that are not enough for it."""
    known = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return frozenset(script.revision for script in known) - {newest_revision()}


def is_migrated(engine: Engine) -> bool:
    """Whether the database has the tables that this version needs, or those of a later version.

    While a new version is rolled out, the old one goes on serving on tables that are ahead of it.
    """
    with engine.connect() as connection:
        exists = connection.execute(text(f"select to_regclass('{SCHEMA}.alembic_version')")).scalar_one()
        if exists is None:
            return False
        found = connection.execute(text(f"select version_num from {SCHEMA}.alembic_version")).scalars().all()  # noqa: S608 - a constant
    return len(found) == 1 and found[0] not in _older_revisions()


def _migrate_tables(connection: Connection) -> None:
    try:
        command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        if "Can't locate revision" in str(error):
            msg = "the database was migrated by a newer PulseWatch than this one; install that one"
            raise MigrateError(msg) from error
        raise MigrateError(str(error)) from error


def months_to_keep(settings: Settings, as_of: datetime) -> Iterator[date]:
    """First days of the months (UTC) that somebody may write to: those whose runs are kept, and those soon to come.

    Hours and slots may be kept for longer than runs, but nothing new is written so far back: their months are there
    since they were young.
    """
    month = (as_of - timedelta(days=settings.keep_runs_days)).astimezone(UTC).date().replace(day=1)
    last = as_of.astimezone(UTC).date().replace(day=1)
    for _ in range(MONTHS_AHEAD):
        last = next_month(last)
    while month <= last:
        yield month
        month = next_month(month)


def next_month(first_day: date) -> date:
    return (first_day + timedelta(days=31)).replace(day=1)


def readers(connection: Connection, dsn: str, settings: Settings) -> Readers:
    """The readers' roles of the database that this connection of the owner's leads to, and the api at this address."""
    return Readers(connection, read_query(data_folder("sql")), settings.role_prefix, _other_role(connection, dsn))


def _other_role(connection: Connection, dsn: str) -> str | None:
    """The role of api and worker, where it is another than that of the connection, the owner."""
    role = make_url(dsn).username
    owner = connection.execute(text("select current_user")).scalar_one()
    return None if role == owner else role


def _grant(connection: Connection, dsn: str) -> None:
    """Let the role of the api and worker use what another role, the owner, has made."""
    role = _other_role(connection, dsn)
    if role is None:
        return
    quoted = connection.dialect.identifier_preparer.quote_identifier(role)
    for grant in (
        f"grant usage on schema {SCHEMA}, analytics to {quoted}",
        f"grant select, insert, update, delete on all tables in schema {SCHEMA} to {quoted}",
        f"grant select on all tables in schema analytics to {quoted}",
        f"grant execute on all functions in schema {SCHEMA} to {quoted}",
    ):
        connection.exec_driver_sql(grant)


# -- analytics objects ---------------------------------------------------------------------------------------


def read_objects(folder: Path) -> list[AnalyticsObject]:
    """The analytics objects in load order. Raises MigrateError for a file that is not NN_name.sql with one object."""
    objects = []
    for path in sorted(folder.glob("*.sql")):
        definition = path.read_text(encoding="utf-8")
        found = OBJECT.findall(definition)
        if len(found) != 1 or not re.fullmatch(rf"\d\d_{found[0][1]}\.sql", path.name):
            msg = f"{path.name} must hold one `create or replace view|function analytics.NAME` and be named NN_NAME.sql"
            raise MigrateError(msg)
        kind, name = found[0]
        objects.append(AnalyticsObject(path.name, kind, name, definition))
    return objects


def replace_analytics(connection: Connection, objects: Sequence[AnalyticsObject]) -> None:
    """Make the schema analytics hold these objects, and leave alone what the user has put there or built on them.

    1. Each object is created or replaced. One whose columns changed otherwise than by new ones at the end cannot be
       replaced: then step 1 is undone, it is dropped together with those of ours that read it, and 1 starts again.
       Raises MigrateError where that does not help.
    2. Objects that are no longer defined are dropped. Nothing is ever dropped with cascade.
    """
    connection.execute(text("create schema if not exists analytics"))
    _refuse_foreign(connection, objects)
    dropped = set()
    while (failure := _try_replace(connection, objects)) is not None:
        name, reason = failure
        if name in dropped:
            # Not the old definition is in the way: the new one contradicts itself.
            raise MigrateError(reason)
        dropped.add(name)
        _drop(connection, [name, *_readers(connection, name)])
    defined = {(item.name, item.kind) for item in objects}
    _drop(connection, [name for name, kind in _registered(connection).items() if (name, kind) not in defined])
    _register(connection, objects)


def _registered(connection: Connection) -> dict[str, str]:
    """Name and kind of the objects that an earlier migration made, in load order."""
    query = text("select name, kind from pulsewatch.analytics_object order by file")
    return {row.name: row.kind for row in connection.execute(query)}


def _register(connection: Connection, objects: Sequence[AnalyticsObject]) -> None:
    connection.execute(text("delete from pulsewatch.analytics_object"))
    insert = text("insert into pulsewatch.analytics_object (name, kind, file) values (:name, :kind, :file)")
    for item in objects:
        connection.execute(insert, {"name": item.name, "kind": item.kind, "file": item.file})


def _refuse_foreign(connection: Connection, objects: Sequence[AnalyticsObject]) -> None:
    """Never replace an object of the user's own that happens to bear the name of one of ours."""
    query = text(
        "select taken.name from ("
        "select relname as name from pg_class where relnamespace = 'analytics'::regnamespace"
        " union select proname from pg_proc where pronamespace = 'analytics'::regnamespace"
        ") as taken where taken.name = any(:names)"
        " and not exists (select from pulsewatch.analytics_object as ours where ours.name = taken.name)"
        " order by taken.name"
    )
    taken = connection.execute(query, {"names": [item.name for item in objects]}).scalars().all()
    if taken:
        msg = f"analytics.{taken[0]} exists, but PulseWatch did not make it; rename it, then migrate again"
        raise MigrateError(msg)


def _try_replace(connection: Connection, objects: Sequence[AnalyticsObject]) -> tuple[str, str] | None:
    """Create or replace them all; if one cannot be replaced in place, undo that and return its name and the reason."""
    with connection.begin_nested() as savepoint:
        for item in objects:
            try:
                _driver(connection).execute(item.definition.encode(), prepare=False)
            except psycopg.Error as error:
                reason = f"{item.file}: {_reason(error)}"
                if error.sqlstate in RETYPED:
                    savepoint.rollback()
                    return item.name, reason
                raise MigrateError(reason) from error
    return None


def _driver(connection: Connection) -> psycopg.Connection:
    """psycopg's own connection: it takes several statements at once, and reads no `:` or `%` in them."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - narrows the type; make_engine knows no other driver
    return driver


# Who reads a view of ours: other relations by their rewrite rule, and functions written in SQL-standard form.
READERS = text(
    """
    with recursive reader as (
        select format('analytics.%I', cast(:name as text))::regclass::oid as id
        union
        select coalesce(rule.ev_class, nullif(dependency.objid, rule.oid))
        from reader
        join pg_depend as dependency on dependency.refobjid = reader.id and dependency.deptype = 'n'
        left join pg_rewrite as rule
            on dependency.classid = 'pg_rewrite'::regclass and rule.oid = dependency.objid
        where dependency.refclassid = 'pg_class'::regclass
            and dependency.classid in ('pg_rewrite'::regclass, 'pg_proc'::regclass)
            and rule.ev_class is distinct from reader.id
    )
    select space.nspname as schema, coalesce(class.relname, routine.proname) as name
    from reader
    left join pg_class as class on class.oid = reader.id
    left join pg_proc as routine on routine.oid = reader.id
    join pg_namespace as space on space.oid = coalesce(class.relnamespace, routine.pronamespace)
    where reader.id <> format('analytics.%I', cast(:name as text))::regclass::oid
    order by schema, name
    """
)


def _readers(connection: Connection, name: str) -> list[str]:
    """Names of our own objects that read this view of ours. Raises MigrateError if one of the user's own does."""
    ours = _registered(connection)
    exists = connection.execute(text("select to_regclass(format('analytics.%I', cast(:name as text)))"), {"name": name})
    if exists.scalar_one() is None:
        return []
    found = connection.execute(READERS, {"name": name}).all()
    foreign = [f"{row.schema}.{row.name}" for row in found if row.schema != "analytics" or row.name not in ours]
    if foreign:
        msg = (
            f"analytics.{name} loses or changes columns, but {', '.join(foreign)} reads it, which is not PulseWatch's. "
            "Save its definition, drop it, migrate again, and create it anew."
        )
        raise MigrateError(msg)
    return [row.name for row in found]


def _drop(connection: Connection, names: Sequence[str]) -> None:
    """Drop these objects of ours in reverse load order."""
    ours = _registered(connection)
    for name in reversed([name for name in ours if name in names]):
        if ours[name] == "view":
            _readers(connection, name)  # for the sake of its error, which names who is in the way
        try:
            _driver(connection).execute(f"drop {ours[name]} if exists analytics.{name}".encode())
        except psycopg.errors.DependentObjectsStillExist as error:
            msg = f"analytics.{name} has to go, but others need it: {error.diag.message_detail}"
            raise MigrateError(msg) from error
