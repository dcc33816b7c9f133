"""Erases a client for ever, while others write and the worker computes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from sqlalchemy import Connection, Engine, text

from pulsewatch.db import ERASING
from pulsewatch.rollup_sql import DELETE_SQL, PLANNING, Level, sum_sql

BATCH_ROWS = 5_000
# Where the numbers of all clients are worked out anew for each row that goes.
SUMMED_BATCH_ROWS = 500
# Ingestion holds this lock shared in each of its transactions, and reads whether a client is archived under it.
INGEST_BARRIER = "select pg_advisory_xact_lock(hashtext('pulsewatch.ingest'))"
# The slots and the rollups are written under these. They are asked for before the barrier: what judges slots may hold
# the first while it waits for ingestion. Rules are evaluated under the one of alerting, which waits for none of them.
ROLLUP_LOCK = "select pg_advisory_xact_lock(hashtext('pulsewatch.rollup'))"
WORKER_LOCKS = (
    "select pg_advisory_xact_lock(hashtext('pulsewatch.alerting'))",
    "select pg_advisory_xact_lock(hashtext('pulsewatch.delivery'))",
    "select pg_advisory_xact_lock(hashtext('pulsewatch.slot'))",
    ROLLUP_LOCK,
)
# Messages are claimed and settled under this one; it is asked for last, and held for one batch.
DELIVERY_LOCK = "select pg_advisory_xact_lock(hashtext('pulsewatch.delivery'))"

# What there may be much of, with the column that orders a client's rows in an index: it goes in batches.
BATCHED = {
    "run_event": "occurred_at",
    "run": "id",
    "slot": "slot_at",
    "pipeline_hour": "hour_at",
    "pipeline_day": "day_utc",
    "client_hour": "hour_at",
    "client_day": "day_utc",
    "failing_span": "began_at",
    # Messages before their attempts: whoever is about to write one down finds that there is no such message.
    "notification": "id",
    "notification_attempt": "started_at",
    "alert": "id",
    "alert_event": "as_of",
}
# What the numbers of the fleet are summed up from. Its days come from days here: these are kept, hours go.
FLEET = {
    "client_hour": Level("fleet_hour", ("hour_at",), "client_hour"),
    "client_day": Level("fleet_day", ("day_utc",), "client_day"),
}
FLEET_SUM_SQL = {source: sum_sql(level) for source, level in FLEET.items()}
MARKS = (
    "delete from pulsewatch.dirty where client_id = :client_id",
    "delete from pulsewatch.slot_mark where client_id = :client_id",
    "delete from pulsewatch.alert_mark where client_id = :client_id",
)
# Without targets no rule looks at the client. Its open alerts go with them: should the client be brought back, the
# rules begin anew, and of one rule and target no two alerts are open.
WATCHED = (
    "delete from pulsewatch.alert_target where client_id = :client_id",
    "delete from pulsewatch.alert where client_id = :client_id and resolved_at is null",
)
# In this order: versions refer to rules, messages to channels, annotations to pipelines; all else to the client.
THE_REST = (
    *MARKS,
    *WATCHED,
    "delete from pulsewatch.alert_rule_version where client_id = :client_id",
    "delete from pulsewatch.alert_rule where client_id = :client_id",
    "delete from pulsewatch.channel where client_id = :client_id",
    "delete from pulsewatch.silence where client_id = :client_id",
    "delete from pulsewatch.slot_plan where client_id = :client_id",
    "delete from pulsewatch.pipeline_state where client_id = :client_id",
    "delete from pulsewatch.ingest_reject where client_id = :client_id",
    "delete from pulsewatch.ingest_reject using pulsewatch.api_key k where k.client_id = :client_id and k.id = key_id",
    "delete from pulsewatch.annotation where client_id = :client_id",
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

    def add(self, table: str, rows: int) -> None:
        """Count rows of a table; those that are only worked out from others do not count."""
        if table == "run_event":
            self.events += rows
        elif table == "run":
            self.runs += rows


# How often an erasure starts again for a client that was brought back. Then it deletes what came in while all
# ingestion waits, rather than never end.
REVIVALS = 3


def purge(engine: Engine, slug: str, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> Purged:
    """Erase a client and everything of it. `on_progress` is told rows done and rows in all, after each batch.

    1. The client is archived: from then on its events are refused.
    2. Writers that began before that are waited for, and what the worker was about to compute for it. Rules no
       longer look at it.
    3. Events, runs, alerts, and what was worked out from them or told of them, go in batches. With each batch of the
       client's hours and days those of the fleet are worked out anew, so that they are always the sum of the clients
       there are.
    4. All the rest goes with the client itself, while nobody writes. If somebody has brought the client back meanwhile,
       it all starts again.

    An erasure that was interrupted is completed by calling it again. Raises LookupError if there is no such client.
    """
    client_id = _archive(engine, slug)
    with engine.connect() as connection:
        total = sum(_count(connection, table, client_id) for table in BATCHED)
    purged = Purged()
    done = 0
    for turn in count(1):
        for table, column in BATCHED.items():
            for number in _batches(engine, table, column, client_id):
                purged.add(table, number)
                done += number
                on_progress(done, total)
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
    # Without marks the worker has nothing to compute for the client, so that its writes and the batches never meet.
    with engine.begin() as connection:
        for lock in WORKER_LOCKS:
            connection.execute(text(lock))
        for statement in (*MARKS, *WATCHED):
            connection.execute(text(statement), {"client_id": client_id})
    return client_id


def _erase_the_rest(engine: Engine, client_id: int, purged: Purged, *, is_revival_ignored: bool) -> bool:
    """Delete all that is left of the client; False if it was brought back meanwhile: then it is archived again."""
    revival = text("update pulsewatch.client set archived_at = now() where id = :id and archived_at is null")
    with engine.begin() as connection:
        connection.execute(text(ERASING))
        # Until the commit nobody writes: what is deleted here cannot come in anew, and none of it is left behind.
        for lock in (*WORKER_LOCKS, INGEST_BARRIER):
            connection.execute(text(lock))
        connection.execute(text("select from pulsewatch.client where id = :id for update"), {"id": client_id})
        if connection.execute(revival, {"id": client_id}).rowcount and not is_revival_ignored:
            return False
        purged.pipelines, purged.keys = (_count(connection, table, client_id) for table in ("pipeline", "api_key"))
        # There is some where the client was brought back and archived again, or where the worker was in the middle.
        for table in BATCHED:
            purged.add(table, _delete(connection, table, client_id))
        for statement in THE_REST:
            connection.execute(text(statement), {"client_id": client_id})
    return True


def _count(connection: Connection, table: str, client_id: int) -> int:
    query = text(f"select count(*) from pulsewatch.{table} where client_id = :client_id")  # noqa: S608 - a constant
    count: int = connection.execute(query, {"client_id": client_id}).scalar_one()
    return count


def _batches(engine: Engine, table: str, column: str, client_id: int) -> Iterator[int]:
    """Delete a client's rows batch by batch, each in a transaction of its own; yields how many went."""
    # The batch ends where this says, with all rows of that value; null: the rest fits into one.
    find_bound = text(
        f"select {column} from pulsewatch.{table} where client_id = :client_id"  # noqa: S608 - constants
        f" order by {column} offset :batch limit 1"
    )
    batch = min(BATCH_ROWS, SUMMED_BATCH_ROWS) if table in FLEET else BATCH_ROWS
    while True:
        with engine.begin() as connection:
            connection.execute(text(ERASING))
            bound = connection.execute(find_bound, {"client_id": client_id, "batch": batch}).scalar_one_or_none()
            rows = _delete(connection, table, client_id, bound)
        yield rows
        if bound is None:
            return


def _delete(connection: Connection, table: str, client_id: int, bound: object = None) -> int:
    """Delete a client's rows, up to this value or all, and what they add to the fleet's; returns how many."""
    delete = f"delete from pulsewatch.{table} where client_id = :client_id"  # noqa: S608 - a constant
    if bound is not None:
        delete += f" and {BATCHED[table]} <= :bound"
    values = {"client_id": client_id, "bound": bound}
    if table == "notification":
        connection.execute(text(DELIVERY_LOCK))
    if table not in FLEET:
        return connection.execute(text(delete), values).rowcount
    connection.execute(text(ROLLUP_LOCK))
    times = connection.execute(text(f"{delete} returning {BATCHED[table]}"), values).scalars().all()
    if times:
        fleet = FLEET[table]
        connection.exec_driver_sql(PLANNING)
        gone = connection.exec_driver_sql(FLEET_SUM_SQL[table], {fleet.time: sorted(times)}).scalars().all()
        connection.exec_driver_sql(DELETE_SQL[fleet.table], {fleet.time: list(gone)})
    return len(times)
