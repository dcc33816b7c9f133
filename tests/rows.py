"""Rows straight into tables, for tests of what reads or deletes them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import ARRAY, JSON, Boolean, Column, DateTime, Engine, Float, Text, Uuid, insert, text
from sqlalchemy.types import Integer

from pulsewatch import auth, models
from pulsewatch.db import metadata
from pulsewatch.events import epoch_us

NAMES = UUID("00000000-0000-0000-0000-000000000000")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
# What a check asks for beyond the type.
ALLOWED: dict[str, dict[str, object]] = {
    "annotation": {"kind": "note"},
    "slot": {"status": "open"},
    "alert": {"level": 1, "max_level": 1},
    "alert_event": {"kind": "fired", "state": "firing", "from_state": "ok"},
    "alert_rule": {"version": 1},
    "alert_rule_version": {"version": 1, "change": "created"},
    "notification": {"reason": "fired", "status": "pending"},
    "notification_attempt": {"outcome": "sent"},
}


def execute(engine: Engine, statement: str, **values: object) -> Any:
    with engine.begin() as connection:
        return connection.execute(text(statement), values)


def scalars(engine: Engine, query: str, **values: object) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values).scalars())


def add_client(engine: Engine, slug: str) -> int:
    with engine.begin() as connection:
        make = "insert into pulsewatch.client (slug) values (:slug) returning id"
        client_id: int = connection.execute(text(make), {"slug": slug}).scalar_one()
        connection.execute(
            text(
                "insert into pulsewatch.pipeline (client_id, slug, name, identity_digest)"
                " values (:client_id, 'load', 'load', gen_random_uuid())"
            ),
            {"client_id": client_id},
        )
        auth.create_key(connection, auth.Role.INGEST, slug)
    return client_id


def add_run(engine: Engine, client_id: int, name: str, first_at: datetime, last_at: datetime | None = None) -> UUID:
    """A run as ingestion leaves it: its row, and one event at its first and one at its last time."""
    run_id, last_at = uuid5(NAMES, name), last_at or first_at
    values = {"client_id": client_id, "id": run_id, "first_at": first_at, "last_at": last_at, "name": name}
    with engine.begin() as connection:
        for at in {first_at, last_at}:
            connection.execute(text("select pulsewatch.ensure_partition(:day)"), {"day": at.date()})
            connection.execute(
                text(
                    "insert into pulsewatch.run_event (client_id, occurred_at, dedupe_key, content_digest, run_id,"
                    " pipeline_id, status)"
                    " values (:client_id, :at, gen_random_uuid(), gen_random_uuid(), :id, 1, 'info')"
                ),
                values | {"at": at},
            )
        connection.execute(
            text(
                "insert into pulsewatch.run (client_id, id, pipeline_id, state_key, winner_key, opened_at, opening_key,"
                " first_at, last_at, status, external_id)"
                " values (:client_id, :id, 1, :state_key, gen_random_uuid(), :first_at,"
                " gen_random_uuid(), :first_at, :last_at, 'running', :name)"
            ),
            values | {"state_key": 1 << 56 | epoch_us(last_at) << 3},
        )
    return run_id


def add_row(engine: Engine, table: str, **values: object) -> None:
    """A row with these values, and with nothing in particular in the other columns that must hold something."""
    described = metadata.tables[f"{models.client.schema}.{table}"]
    needed = {
        column.name: _anything(column)
        for column in described.columns
        if not column.nullable and column.server_default is None and column.identity is None
    }
    with engine.begin() as connection:
        connection.execute(insert(described).values(needed | ALLOWED.get(table, {}) | values))


def _anything(column: Column[Any]) -> object:
    kinds: dict[type, object] = {
        ARRAY: [],
        Boolean: False,
        JSON: {},
        DateTime: NOON,
        Uuid: NAMES,
        Text: "x",
        Integer: 0,
        Float: 0,
    }
    return next(value for kind, value in kinds.items() if isinstance(column.type, kind))
