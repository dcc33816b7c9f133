"""What is deleted when, and the partitions that make room for what comes.

Whole months go where a table is partitioned, rows in batches elsewhere. Days are kept for ever.

Deletion goes in small transactions, each guarded so that several workers may try at once: one works, the others
return. Nothing here waits for a lock of ingestion's for longer than the lock_timeout; what does not succeed is tried
again at the next tick.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import OperationalError

from pulsewatch.db import ERASING
from pulsewatch.migrate import months_to_keep, next_month
from pulsewatch.settings import Settings

log = logging.getLogger(__name__)

BATCH_ROWS = 5_000
KEEP_HEARTBEATS = timedelta(days=1)
KEEP_ALERT_TICKS = timedelta(days=40)
# Runs go this much later than their keep time. Rollups do not look at hours before the keep time any more; one that
# began a little earlier, or by a clock that is behind, may still be computing such an hour from its runs.
ROLLUP_MARGIN = timedelta(hours=2)
# Marks wait for two seconds while all is well.
MARKS_ARE_OLD_AFTER = timedelta(minutes=1)


@dataclass(slots=True)
class Removed:
    """What one pass of retention removed. `partitions` are the names of the tables."""

    partitions: list[str] = field(default_factory=list)
    runs: int = 0
    spans: int = 0
    hours: int = 0
    rejects: int = 0
    stats: int = 0
    alerts: int = 0
    notifications: int = 0


def ensure_partitions(engine: Engine, settings: Settings, as_of: datetime) -> list[date]:
    """Make the months that are missing; returns their first days.

    Each month commits by itself, the newest first: those are written to soon. One that has to wait for a lock too long
    is left to the next time.
    """
    made = []
    for month in sorted(_missing_months(engine, settings, as_of), reverse=True):
        try:
            with engine.begin() as connection:
                ensure = text("select pulsewatch.ensure_partition(:month)")
                if connection.execute(ensure, {"month": month}).scalar_one():
                    made.append(month)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            log.warning("no room is made for %s: a table is locked; it is tried again", f"{month:%Y-%m}")
    return sorted(made)


def _missing_months(engine: Engine, settings: Settings, as_of: datetime) -> set[date]:
    """Months of which a table lacks its partition, although what it holds of that time is kept.

    A month is made for all tables at once. So one that is past for events but not for hours is asked for only while
    there is none of hours: otherwise that of events would be made and dropped for ever.
    """
    months = list(months_to_keep(settings, as_of))
    missing: set[date] = set()
    for table, keep in _keep_times(settings).items():
        oldest = (as_of - keep).astimezone(UTC).date()
        missing |= {month for month in months if next_month(month) > oldest} - set(partitions(engine, table))
    return missing


def _keep_times(settings: Settings) -> dict[str, timedelta]:
    """The partitioned tables, and how long each of their months is kept."""
    return {
        "run_event": timedelta(days=settings.keep_events_days),
        "slot": timedelta(days=settings.keep_slots_days),
        "pipeline_hour": timedelta(days=settings.keep_hours_days),
        "alert_event": timedelta(days=settings.keep_alerts_days),
        "notification_attempt": timedelta(days=settings.keep_alerts_days),
    }


def remove_expired(engine: Engine, settings: Settings, as_of: datetime) -> Removed:
    """Remove everything past its keep time at `as_of`.

    While marks have been waiting for long, the rollups have not seen everything, or do not run at all: then nothing
    goes that they read, whatever hour the marks are of. A look at the hours of the marks would not do: which runs and
    hours an unfinished computation needs, only that computation knows; and while late events come in, there is always
    some young mark of an old hour, so that nothing would ever go.
    """
    removed = Removed()
    keep = _keep_times(settings)
    drop_expired_partitions(engine, "run_event", as_of - keep["run_event"], removed)
    if _are_rollups_behind(engine, as_of):
        log.warning("runs and hours past their keep time stay for now: the rollups are behind")
    else:
        _remove_what_rollups_read(engine, settings, as_of, removed)
    removed.rejects = _delete_in_batches(
        engine, "ingest_reject", "id", "received_at", as_of - timedelta(days=settings.keep_rejects_days)
    )
    removed.stats = _delete_in_batches(
        engine, "ingest_stat", "bucket_at, source, writer", "bucket_at", as_of - keep["run_event"]
    )
    _delete_in_batches(engine, "worker_heartbeat", "worker_id", "beat_at", as_of - KEEP_HEARTBEATS)
    _remove_alerts(engine, as_of - keep["alert_event"], removed)
    _delete_in_batches(engine, "alert_tick", "as_of", "as_of", as_of - KEEP_ALERT_TICKS)
    return removed


def _remove_alerts(engine: Engine, before: datetime, removed: Removed) -> None:
    """Events and attempts go by whole months; alerts and messages not before theirs."""
    cuts = {}
    for table in ("alert_event", "notification_attempt"):
        drop_expired_partitions(engine, table, before, removed)
        months = partitions(engine, table)
        cuts[table] = min(before, datetime.combine(months[0], time(), UTC)) if months else before
    removed.notifications = _delete_by_client(engine, DELETE_NOTIFICATIONS, cuts["notification_attempt"])
    removed.alerts = _delete_by_client(engine, DELETE_ALERTS, cuts["alert_event"])
    _delete_in_batches(engine, "silence", "id", "ends_at", before)


def _remove_what_rollups_read(engine: Engine, settings: Settings, as_of: datetime, removed: Removed) -> None:
    keep = _keep_times(settings)
    for table in ("slot", "pipeline_hour"):
        drop_expired_partitions(engine, table, as_of - keep[table] - ROLLUP_MARGIN, removed)
    # All hours of a time go together, by whole months: a day is the sum of its hours, and must find all or none.
    oldest_hour = _month_of(as_of - keep["pipeline_hour"] - ROLLUP_MARGIN)
    for table, key in (("client_hour", "client_id, hour_at"), ("fleet_hour", "hour_at")):
        removed.hours += _delete_in_batches(engine, table, key, "hour_at", oldest_hour)
    runs_cut = as_of - timedelta(days=settings.keep_runs_days) - ROLLUP_MARGIN
    # Events go by whole months: no run goes before its events.
    months = partitions(engine, "run_event")
    if months:
        runs_cut = min(runs_cut, datetime.combine(months[0], time(), UTC))
    removed.runs = _delete_by_client(engine, DELETE_RUNS, runs_cut)
    removed.spans = _delete_by_client(engine, DELETE_SPANS, as_of - timedelta(days=settings.keep_runs_days))


def _are_rollups_behind(engine: Engine, as_of: datetime) -> bool:
    query = text("select exists (select from pulsewatch.dirty where marked_at < :before)")
    with engine.connect() as connection:
        is_behind: bool = connection.execute(query, {"before": as_of - MARKS_ARE_OLD_AFTER}).scalar_one()
    return is_behind


def _month_of(at: datetime) -> datetime:
    """The first instant of its month (UTC)."""
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@contextmanager
def _turn(engine: Engine) -> Iterator[Connection | None]:
    """A transaction of retention's, or None while another worker has one."""
    with engine.begin() as connection:
        query = text("select pg_try_advisory_xact_lock(hashtext('pulsewatch.retention'))")
        yield connection if connection.execute(query).scalar_one() else None


def drop_expired_partitions(engine: Engine, table: str, before: datetime, removed: Removed) -> None:
    """Drop the months of this table that lie wholly before that time."""
    drop = text("select pulsewatch.drop_partition(:table, :month)")
    for month in partitions(engine, table):
        if next_month(month) > before.astimezone(UTC).date():
            break
        try:
            with _turn(engine) as connection:
                if connection is None:
                    break
                connection.execute(text(ERASING))
                if connection.execute(drop, {"table": table, "month": month}).scalar_one():
                    removed.partitions.append(f"{table}_{month:%Y_%m}")
        except OperationalError as error:
            # A long query reads the table. The next tick tries again; waiting would make ingestion wait behind us.
            if not isinstance(error.orig, LockNotAvailable):
                raise
            break


def partitions(engine: Engine, table: str) -> list[date]:
    """First days of the months that this table has partitions for, oldest first."""
    query = text(
        "select to_date(right(class.relname, 7), 'YYYY_MM') as month from pg_inherits as part"
        " join pg_class as class on class.oid = part.inhrelid"
        # A person may have attached tables of other names; those are that person's to look after.
        " where part.inhparent = cast('pulsewatch.' || :table as regclass)"
        " and class.relnamespace = 'pulsewatch'::regnamespace"
        " and class.relname ~ ('^' || :table || '_[0-9]{4}_(0[1-9]|1[0-2])$') order by month"
    )
    with engine.connect() as connection:
        return list(connection.execute(query, {"table": table}).scalars())


# A run goes when its last event is past the keep time: one of which something was heard since stays, and so does one
# that says it started since, in an hour that may be computed again. The condition on first_at follows from the
# other; it is there for the index. Rows that ingestion holds are skipped, so that the two never wait for each other.
DELETE_RUNS = text(
    """
    with expired as (
        select id
        from pulsewatch.run
        where client_id = :client_id
            and first_at < :before
            and last_at < :before
            and coalesce(start_at < :before, true)
        order by first_at
        limit :batch
        for update skip locked
    )
    delete from pulsewatch.run
    using expired
    where run.client_id = :client_id and run.id = expired.id
    """
)
# The condition on began_at follows from the other; it is there for the index.
DELETE_SPANS = text(
    """
    with expired as (
        select pipeline_id, run_id
        from pulsewatch.failing_span
        where client_id = :client_id
            and began_at < :before
            and ended_at < :before
        order by began_at
        limit :batch
    )
    delete from pulsewatch.failing_span
    using expired
    where failing_span.client_id = :client_id
        and failing_span.pipeline_id = expired.pipeline_id
        and failing_span.run_id = expired.run_id
    """
)

# The condition on fired_at follows from the other; it is there for the index.
DELETE_ALERTS = text(
    """
    with expired as (
        select id
        from pulsewatch.alert
        where client_id = :client_id
            and fired_at < :before
            and resolved_at < :before
        order by fired_at
        limit :batch
    )
    delete from pulsewatch.alert
    using expired
    where alert.client_id = :client_id and alert.id = expired.id
    """
)
# Those of an alert that is still open tell whether somebody knows of it; those that may yet be sent expire first.
DELETE_NOTIFICATIONS = text(
    """
    with expired as (
        select id
        from pulsewatch.notification
        where client_id = :client_id
            and created_at < :before
            and status not in ('pending', 'leased')
            and not exists (
                select
                from pulsewatch.alert
                where alert.client_id = :client_id
                    and alert.id = notification.alert_id
                    and alert.resolved_at is null
            )
        order by created_at
        limit :batch
    )
    delete from pulsewatch.notification
    using expired
    where notification.client_id = :client_id and notification.id = expired.id
    """
)


def _delete_by_client(engine: Engine, statement: TextClause, before: datetime) -> int:
    """Delete what this statement finds before this time, client by client, in batches; returns how many rows."""
    with engine.connect() as connection:
        # What is about the fleet as a whole has the number 0.
        query = text("select id from pulsewatch.client union all select 0 order by 1")
        client_ids = connection.execute(query).scalars().all()
    deleted = 0
    for client_id in client_ids:
        values = {"client_id": client_id, "before": before, "batch": BATCH_ROWS}
        while True:
            with _turn(engine) as connection:
                count = 0 if connection is None else connection.execute(statement, values).rowcount
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
