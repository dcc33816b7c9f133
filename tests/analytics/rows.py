"""Rows put straight into PulseWatch's tables, and rows read back from the schema analytics."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pulsewatch import models

ATTEMPT_SHIFT = 58

COUNTS = (
    "started_count",
    "succeeded_count",
    "failed_count",
    "timed_out_count",
    "cancelled_count",
    "skipped_count",
    "retried_count",
    "on_time_count",
    "late_count",
    "missed_count",
    "duration_count",
)


def at(hour: float = 0, *, day: int = 21) -> datetime:
    """This hour of that day of November 2026, UTC."""
    return datetime(2026, 11, day, tzinfo=UTC) + timedelta(hours=hour)


def uuid(number: int) -> UUID:
    return UUID(int=number)


def insert(connection: Connection, table: str, **values: Any) -> Any:
    """Insert a row; returns its id where the table makes one."""
    known = models.run.metadata.tables[f"pulsewatch.{table}"]
    made = known.c.get("id")
    statement = known.insert().values(**values)
    if made is None:
        connection.execute(statement)
        return None
    return connection.execute(statement.returning(made)).scalar_one()


def months(connection: Connection) -> None:
    """Partitions for the months that these tests speak of."""
    connection.execute(text("select pulsewatch.ensure_partition('2026-11-01')"))


def client(connection: Connection, slug: str = "acme", **values: Any) -> int:
    number: int = insert(connection, "client", slug=slug, **values)
    return number


def pipeline(connection: Connection, client_id: int, slug: str = "nightly", **values: Any) -> int:
    name = values.pop("name", slug)
    digest = UUID(int=abs(hash((client_id, slug))))
    number: int = insert(
        connection, "pipeline", client_id=client_id, slug=slug, name=name, identity_digest=digest, **values
    )
    return number


def run(connection: Connection, client_id: int, pipeline_id: int, number: int, **values: Any) -> UUID:
    """A run that began at `first_at` and, unless said otherwise, succeeded ten minutes later in its first attempt."""
    first_at = values.pop("first_at", at(1))
    attempt = values.pop("attempt", 0)
    row = {
        "id": uuid(number),
        "state_key": attempt << ATTEMPT_SHIFT,
        "winner_key": uuid(number),
        "opening_key": uuid(number),
        "opened_at": first_at,
        "first_at": first_at,
        "start_at": first_at,
        "finished_at": first_at + timedelta(minutes=10),
        "status": "succeeded",
        "external_id": f"run-{number}",
    } | values
    row.setdefault("last_at", row["finished_at"] or first_at)
    insert(connection, "run", client_id=client_id, pipeline_id=pipeline_id, **row)
    return uuid(number)


def event(connection: Connection, client_id: int, pipeline_id: int, run_id: UUID, number: int, **values: Any) -> None:
    keys = {"dedupe_key": uuid(number), "content_digest": uuid(number), "run_id": run_id}
    insert(connection, "run_event", client_id=client_id, pipeline_id=pipeline_id, **keys, **values)


def counted(durations: dict[int, int] | None = None, **values: Any) -> dict[str, Any]:
    """The numbers of an hour or day; `durations` says how many runs each bucket of durations holds."""
    held = sorted((durations or {}).items())
    numbers = {
        **dict.fromkeys(COUNTS, 0),
        "duration_count": sum(runs for _, runs in held),
        "duration_sum_s": 0.0,
        "duration_buckets": [bucket for bucket, _ in held],
        "duration_counts": [runs for _, runs in held],
    }
    return numbers | values


def read(connection: Connection, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text(query), parameters)]


def record(connection: Connection, query: str, **parameters: Any) -> dict[str, Any]:
    """The one row that the query gives, by column."""
    return dict(connection.execute(text(query), parameters).mappings().one())
