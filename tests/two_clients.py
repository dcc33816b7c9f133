"""A database in which every table holds a row of each of two clients, told apart by every number and word in it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Engine,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB

from pulsewatch.db import metadata

AT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose row: it is found again by its slug in each text, and by its number."""

    client_id: int
    slug: str
    number: int
    bucket: int

    @property
    def uuid(self) -> UUID:
        return UUID(int=self.number)


MINE = Whose(1, "acme", 5, 18)
THEIRS = Whose(2, "globex", 777, 76)
# What stands in the tables of the fleet.
BOTH = Whose(0, "fleet", 782, 76)

# What the constraints of the tables and the meaning of the columns ask for.
GIVEN: dict[str, Any] = {
    "status": "failed",
    "flags": 0,
    "attempt": 0,
    "state_key": 0,
    "archived_at": None,
    "said_at": {},
    "kind": "note",
    "role": "read",
    "schedule": "every 15m",
    "timezone": "UTC",
    "environment": "prod",
    "source": "native",
    "last_run_status": "failed",
    "last_outcome": "failed",
    "last_slot_status": "late",
    "metrics": {"rows": 1.5},
    "day_utc": AT.replace(hour=0),
    "until_at": AT + timedelta(hours=1),
    "ended_at": AT + timedelta(hours=1),
    "finished_at": AT + timedelta(minutes=1),
    # Of alerts: one that fired as critical, was taken on, and is over; its message went out.
    "state": "firing",
    "from_state": "pending",
    "level": 2,
    "max_level": 2,
    "prev_level": 0,
    "acknowledged_at": lambda whose: AT + timedelta(seconds=whose.number),
    "first_acknowledged_at": lambda whose: AT + timedelta(seconds=whose.number),
    "resolved_at": AT + timedelta(minutes=20),
    "resolve_reason": "recovered",
    "change": "created",
    "rule_id": lambda whose: whose.client_id,
    "channel_id": lambda whose: whose.client_id,
    "spec": lambda whose: {"title": f"{whose.slug}-title", "kind": "freshness", "channels": [whose.slug]},
    "evidence": lambda whose: {"runs": [str(whose.uuid)]},
    "is_backfill": False,
    "is_dry_run": False,
    "is_enabled": True,
    "deleted_at": None,
    "starts_at": AT,
    "ends_at": AT + timedelta(hours=1),
    "outcome": "sent",
    "held_by": None,
    "lease_until": None,
    "lease_token": None,
    "sent_at": lambda whose: AT + timedelta(seconds=whose.number),
    "last_error": lambda whose: f"{whose.slug} refused",
}
GIVEN_IN: dict[tuple[str, str], Any] = {
    ("slot", "status"): "late",
    ("alert_rule", "kind"): "freshness",
    ("alert_rule", "key"): lambda whose: whose.slug,
    ("alert_event", "kind"): "fired",
    ("channel", "kind"): "webhook",
    ("channel", "key"): lambda whose: whose.slug,
    ("notification", "status"): "sent",
    ("notification", "reason"): "fired",
}


def value(table: Table, column: Column[Any], whose: Whose) -> object:
    """What stands in this column of this one's row."""
    name = column.name
    if name in {"client_id", "pipeline_id"}:
        return whose.client_id
    if name == "slug":
        return whose.slug
    if name.endswith("_metrics"):
        return {"rows": whose.number}
    known = GIVEN_IN.get((table.name, name), GIVEN[name] if name in GIVEN else by_type(column, whose))
    return known(whose) if callable(known) else known


def by_type(column: Column[Any], whose: Whose) -> object:
    match column.type:
        case ARRAY(item_type=SmallInteger()):
            return [whose.bucket]
        case ARRAY(item_type=Integer()):
            return [whose.number]
        case ARRAY():
            return [f"{whose.slug}-{column.name}"]
        case BigInteger() | Integer() | SmallInteger() | Double():
            return whose.number
        case DateTime():
            return AT
        case Uuid():
            return whose.uuid
        case Boolean():
            return False
        case JSONB():
            return {"pipeline": whose.slug}
        case BYTEA() | LargeBinary():
            return whose.slug.encode().ljust(32)
        case Text():
            return f"{whose.slug}-{column.name}"
    raise AssertionError(f"{column} is of a type that this filler does not know")


def row(table: Table, whose: Whose) -> dict[str, object]:
    return {column.name: value(table, column, whose) for column in table.columns if column.identity is None}


def fill(engine: Engine) -> None:
    """Put a row of each client into each table; where rows have no client, one for both."""
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name == "analytics_object":
                continue
            has_client = "client_id" in table.columns or table.name == "client"
            for whose in (MINE, THEIRS) if has_client else (BOTH,):
                connection.execute(table.insert().values(row(table, whose)))
