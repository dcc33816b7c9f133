"""What is deleted when, and the partitions that make room for what comes.

Deletion goes in small transactions, each guarded so that several workers may try at once: one works, the others
return. Nothing here waits for a lock of ingestion's for longer than the lock_timeout; what does not succeed is tried
again at the next tick.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import count

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import OperationalError

from pulsewatch.migrate import months_to_keep, next_month
from pulsewatch.settings import Settings

log = logging.getLogger(__name__)

BATCH_ROWS = 5_000
KEEP_HEARTBEATS = timedelta(days=1)
# Append-only tables refuse DELETE unless the transaction says this.
ERASING = "set local pulsewatch.erasing = 'on'"


@dataclass(slots=True)
class Removed:
    """What one pass of retention removed."""

    partitions: list[date] = field(default_factory=list)
    runs: int = 0
    rejects: int = 0
    stats: int = 0


def ensure_partitions(engine: Engine, settings: Settings, as_of: datetime) -> list[date]:
    """Make the months of run_event that are missing; returns their first days.

    Each month commits by itself, the newest first: those are written to soon. One that has to wait for a lock too long
    is left to the next time.
    """
    made = []
    for month in sorted(months_to_keep(settings, as_of), reverse=True):
        try:
            with engine.begin() as connection:
                ensure = text("select pulsewatch.ensure_partition(:month)")
                if connection.execute(ensure, {"month": month}).scalar_one():
                    made.append(month)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            log.warning("no room is made for %s: run_event is locked; it is tried again", f"{month:%Y-%m}")
    return sorted(made)


def remove_expired(engine: Engine, settings: Settings, as_of: datetime) -> Removed:
    """Remove everything past its keep time at `as_of`."""
    removed = Removed(partitions=drop_expired_partitions(engine, settings, as_of))
    removed.runs = delete_expired_runs(engine, _runs_cut(engine, settings, as_of))
    removed.rejects = _delete_in_batches(
        engine, "ingest_reject", "id", "received_at", as_of - timedelta(days=settings.keep_rejects_days)
    )
    removed.stats = _delete_in_batches(
        engine,
        "ingest_stat",
        "bucket_at, source, writer",
        "bucket_at",
        as_of - timedelta(days=settings.keep_events_days),
    )
    _delete_in_batches(engine, "worker_heartbeat", "worker_id", "beat_at", as_of - KEEP_HEARTBEATS)
    return removed


def _runs_cut(engine: Engine, settings: Settings, as_of: datetime) -> datetime:
    """Runs whose last event is before this time go. Events go by whole months: no run goes before its events."""
    cut = as_of - timedelta(days=settings.keep_runs_days)
    months = partitions(engine)
    return min(cut, datetime.combine(months[0], time(), UTC)) if months else cut


@contextmanager
def _turn(engine: Engine) -> Iterator[Connection | None]:
    """A transaction of retention's, or None while another worker has one."""
    with engine.begin() as connection:
        query = text("select pg_try_advisory_xact_lock(hashtext('pulsewatch.retention'))")
        yield connection if connection.execute(query).scalar_one() else None


def drop_expired_partitions(engine: Engine, settings: Settings, as_of: datetime) -> list[date]:
    """Drop the months of run_event that lie wholly before the keep time; returns their first days."""
    oldest = (as_of - timedelta(days=settings.keep_events_days)).astimezone(UTC).date()
    dropped = []
    for month in partitions(engine):
        if next_month(month) > oldest:
            break
        try:
            with _turn(engine) as connection:
                if connection is None:
                    break
                connection.execute(text(ERASING))
                if connection.execute(text("select pulsewatch.drop_partition(:month)"), {"month": month}).scalar_one():
                    dropped.append(month)
        except OperationalError as error:
            # A long query reads the table. The next tick tries again; waiting would make ingestion wait behind us.
            if not isinstance(error.orig, LockNotAvailable):
                raise
            break
    return dropped


def partitions(engine: Engine) -> list[date]:
    """First days of the months that run_event has partitions for, oldest first."""
    query = text(
        "select to_date(substr(class.relname, 11), 'YYYY_MM') as month from pg_inherits as part"
        " join pg_class as class on class.oid = part.inhrelid"
        # A person may have attached tables of other names; those are that person's to look after.
        " where part.inhparent = 'pulsewatch.run_event'::regclass and class.relnamespace = 'pulsewatch'::regnamespace"
        " and class.relname ~ '^run_event_[0-9]{4}_(0[1-9]|1[0-2])$' order by month"
    )
    with engine.connect() as connection:
        return list(connection.execute(query).scalars())


# A run goes when its last event is past the keep time: one of which something was heard since stays. The condition
# on first_at follows from the other; it is there for the index. Rows that ingestion holds are skipped, so that the
# two never wait for each other.
DELETE_RUNS = text(
    """
    with expired as (
        select id
        from pulsewatch.run
        where client_id = :client_id
            and first_at < :before
            and last_at < :before
        order by first_at
        limit :batch
        for update skip locked
    )
    delete from pulsewatch.run
    using expired
    where run.client_id = :client_id and run.id = expired.id
    """
)


def delete_expired_runs(engine: Engine, before: datetime) -> int:
    """Delete the runs whose last event is before this time; returns how many."""
    with engine.connect() as connection:
        client_ids = connection.execute(text("select id from pulsewatch.client order by id")).scalars().all()
    deleted = 0
    for client_id in client_ids:
        values = {"client_id": client_id, "before": before, "batch": BATCH_ROWS}
        while True:
            with _turn(engine) as connection:
                count = 0 if connection is None else connection.execute(DELETE_RUNS, values).rowcount
            deleted += count
            if count < BATCH_ROWS:
                break
    return deleted


def _delete_in_batches(engine: Engine, table: str, key: str, time_column: str, before: datetime) -> int:
    """Delete the rows of a table (its key and time column given) that are older; returns how many."""
    # The names are constants of this module.
    statement = text(
        f"delete from pulsewatch.{table} where ({key}) in"  # noqa: S608
        f" (select {key} from pulsewatch.{table} where {time_column} < :before order by {time_column} limit :batch)"
    )
    deleted = 0
    while True:
        with _turn(engine) as connection:
            values = {"before": before, "batch": BATCH_ROWS}
            count = 0 if connection is None else connection.execute(statement, values).rowcount
        deleted += count
        if count < BATCH_ROWS:
            return deleted


# -- erasure -------------------------------------------------------------------------------------------------

# Ingestion holds this lock shared in each of its transactions, and reads whether a client is archived under it.
INGEST_BARRIER = "select pg_advisory_xact_lock(hashtext('pulsewatch.ingest'))"

# The next batch of a client ends where this says; null: the rest fits into one.
EVENTS_BOUND = text(
    "select occurred_at from pulsewatch.run_event where client_id = :client_id"
    " order by occurred_at offset :batch limit 1"
)
DELETE_EVENTS = text(
    "delete from pulsewatch.run_event where client_id = :client_id"
    " and occurred_at <= coalesce(cast(:bound as timestamptz), 'infinity')"
)
RUNS_BOUND = text("select id from pulsewatch.run where client_id = :client_id order by id offset :batch limit 1")
DELETE_RUNS_OF_CLIENT = text(
    "delete from pulsewatch.run where client_id = :client_id"
    " and id <= coalesce(cast(:bound as uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')"
)
# In this order: pipelines and keys refer to the client.
DELETE_THE_REST = (
    "delete from pulsewatch.ingest_reject where client_id = :client_id",
    "delete from pulsewatch.ingest_reject using pulsewatch.api_key k where k.client_id = :client_id and k.id = key_id",
    "delete from pulsewatch.dirty where client_id = :client_id",
    "delete from pulsewatch.pipeline where client_id = :client_id",
    "delete from pulsewatch.api_key where client_id = :client_id",
    "delete from pulsewatch.client where id = :client_id",
)


@dataclass(slots=True)
class Purged:
    """What an erasure removed."""

    events: int = 0
    runs: int = 0
    pipelines: int = 0
    keys: int = 0


# How often an erasure starts again for a client that was brought back. Then it deletes what came in while all
# ingestion waits, rather than never end.
REVIVALS = 3


def purge(engine: Engine, slug: str, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> Purged:
    """Erase a client and everything of it. `on_progress` is told rows done and rows in all, after each batch.

    1. The client is archived: from then on its events are refused.
    2. Writers that began before that are waited for.
    3. Events and runs go in batches.
    4. All the rest goes with the client itself, while nobody writes. If somebody has brought the client back meanwhile,
       it all starts again.

    An erasure that was interrupted is completed by calling it again. Raises LookupError if there is no such client.
    """
    client_id = _archive(engine, slug)
    with engine.connect() as connection:
        total = sum(_count(connection, table, client_id) for table in ("run_event", "run"))
    purged = Purged()
    for turn in count(1):
        for number in _batches(engine, EVENTS_BOUND, DELETE_EVENTS, client_id):
            purged.events += number
            on_progress(purged.events + purged.runs, total)
        for number in _batches(engine, RUNS_BOUND, DELETE_RUNS_OF_CLIENT, client_id):
            purged.runs += number
            on_progress(purged.events + purged.runs, total)
        if _erase_the_rest(engine, client_id, purged, is_revival_ignored=turn > REVIVALS):
            break
    return purged


def _archive(engine: Engine, slug: str) -> int:
    """Archive the client and wait for those that write without knowing it. Raises LookupError."""
    with engine.begin() as connection:
        archive = text(
            "update pulsewatch.client set archived_at = coalesce(archived_at, now()) where slug = :slug returning id"
        )
        client_id: int | None = connection.execute(archive, {"slug": slug}).scalar_one_or_none()
    if client_id is None:
        msg = f"there is no client '{slug}'"
        raise LookupError(msg)
    with engine.begin() as connection:
        connection.execute(text(INGEST_BARRIER))
    return client_id


def _erase_the_rest(engine: Engine, client_id: int, purged: Purged, *, is_revival_ignored: bool) -> bool:
    """Delete all that is left of the client; False if it was brought back meanwhile: then it is archived again."""
    revival = text("update pulsewatch.client set archived_at = now() where id = :id and archived_at is null")
    with engine.begin() as connection:
        connection.execute(text(ERASING))
        # Until the commit nobody writes: what is deleted here cannot come in anew, and none of it is left behind.
        connection.execute(text(INGEST_BARRIER))
        connection.execute(text("select from pulsewatch.client where id = :id for update"), {"id": client_id})
        if connection.execute(revival, {"id": client_id}).rowcount and not is_revival_ignored:
            return False
        purged.pipelines, purged.keys = (_count(connection, table, client_id) for table in ("pipeline", "api_key"))
        # There are some where the client was brought back and archived again.
        purged.events += connection.execute(DELETE_EVENTS, {"client_id": client_id, "bound": None}).rowcount
        purged.runs += connection.execute(DELETE_RUNS_OF_CLIENT, {"client_id": client_id, "bound": None}).rowcount
        for statement in DELETE_THE_REST:
            connection.execute(text(statement), {"client_id": client_id})
    return True


def _count(connection: Connection, table: str, client_id: int) -> int:
    query = text(f"select count(*) from pulsewatch.{table} where client_id = :client_id")  # noqa: S608 - a constant
    count: int = connection.execute(query, {"client_id": client_id}).scalar_one()
    return count


def _batches(engine: Engine, find_bound: TextClause, delete: TextClause, client_id: int) -> Iterator[int]:
    """Delete a client's rows batch by batch, each in a transaction of its own; yields how many went."""
    while True:
        with engine.begin() as connection:
            connection.execute(text(ERASING))
            bound = connection.execute(find_bound, {"client_id": client_id, "batch": BATCH_ROWS}).scalar_one_or_none()
            count = connection.execute(delete, {"client_id": client_id, "bound": bound}).rowcount
        yield count
        if bound is None:
            return
