"""Events as the database takes them: what is packed is what the server reads, and digests stay as they are for ever."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from pulsewatch.db import fetch
from pulsewatch.events import Parent, RunEvent, Status, run_id
from pulsewatch.packing import COLUMNS, content_digest, pack, row_of

AT = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
SAID: dict[str, Any] = {
    "namespace": "prod",
    "event_id": "e1",
    "attempt": 3,
    "scheduled_at": datetime(2026, 11, 21, 11, 59, tzinfo=UTC),
    "started_at": datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "duration_s": 1.5,
    "message": "säuberlich 🌍",
    "error_class": "Timeout",
    "url": "https://example.com/1",
    "metrics": {"rows": 12.0, "bytes": 2.5},
    "attributes": {"b": [1, None], "a": {"x": "y"}},
    "parent": Parent("up", "1"),
    "flags": 3,
}


def event(**changes: Any) -> RunEvent:
    words: dict[str, Any] = {
        "client": "acme",
        "pipeline": "nightly",
        "run": "1",
        "status": Status.FAILED,
        "occurred_at": AT,
    }
    return RunEvent(**words | changes)


def test_the_type_in_the_database_has_these_columns(connection: Connection) -> None:
    found = fetch(
        connection,
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'pulsewatch.merge_row'::regclass and attnum > 0 order by attnum",
    )
    spelt = {"timestamptz": "timestamp with time zone"}
    assert [tuple(row) for row in found] == [(name, spelt.get(kind, kind)) for name, kind in COLUMNS.items()]


def read(connection: Connection, *events: RunEvent) -> list[dict[str, Any]]:
    """What the server makes of them, columns that are null left out."""
    names = ", ".join(COLUMNS)
    rows = fetch(
        connection,
        f"select {names} from unnest(%s::pulsewatch.merge_row[])",
        (pack([row_of(one, 7, 2**40) for one in events]),),
    )
    return [{name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None} for row in rows]


def test_the_server_reads_what_was_said(connection: Connection) -> None:
    full, plain = read(connection, event(**SAID), event())
    told = {name: full[name] for name in SAID if name not in {"namespace", "parent"}}
    assert told == {name: value for name, value in SAID.items() if name not in {"namespace", "parent"}}
    assert full["parent"] == {"pipeline": "up", "run": "1"}
    assert (full["client_id"], full["pipeline_id"]) == (7, 2**40)
    assert (full["occurred_at"], full["status"]) == (AT, "failed")
    assert str(full["run_id"]) == run_id("acme", "prod", "nightly", "1")
    assert set(plain) == {
        "client_id", "pipeline_id", "run_id", "occurred_at", "dedupe_key", "content_digest", "flags", "status",
    }  # fmt: skip


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
facts = st.dictionaries(words, st.none() | st.booleans() | words | st.integers(-(2**53), 2**53), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it reads, and changes nothing
@given(message=words, error_class=words, metrics=facts, attempt=st.integers(0, 31) | st.none())
def test_the_server_reads_any_words(
    connection: Connection, message: str, error_class: str, metrics: dict[str, Any], attempt: int | None
) -> None:
    (row,) = read(connection, event(message=message, error_class=error_class, attributes=metrics, attempt=attempt))
    assert (row["message"], row["error_class"]) == (message, error_class)
    assert (row["attributes"], row.get("attempt")) == (metrics, attempt)


@pytest.mark.parametrize(
    ("one", "digest"),
    [
        (event(), "e5a9f64514d8cf7c17eb73df37c92265"),
        (event(**SAID), "7383cadc123e8f8d85e6642f6cb22bfd"),
    ],
)
def test_content_digests_are_the_same_for_ever(one: RunEvent, digest: str) -> None:
    # Changing these would make every retry of a stored event a conflict.
    assert content_digest(one).hex() == digest
