"""What tests of the rollups do again and again: send events, work them out, look."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from pulsewatch import ingest, resolve, rollups
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from pulsewatch.submissions import Item, Submission
from tests.rollup_reference import KEYS, Table, expected, stored

NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
DAY = NOW - timedelta(days=3)
SETTINGS = Settings()


def put(engine: Engine, *items: Item) -> None:
    submission = Submission("native", list(items), list(range(len(items))))
    known = resolve.Names()
    (receipt,) = ingest.store(engine.begin, [submission], known, max_pipelines=100, received_at=NOW)
    assert not receipt.rejected


def ended(
    run: str, minutes: float = 0, status: Status = Status.SUCCEEDED, *, pipeline: str = "nightly", **fields: Any
) -> RunEvent:
    at = DAY + timedelta(minutes=minutes)
    return RunEvent(client="acme", pipeline=pipeline, run=run, status=status, occurred_at=at, **fields)


def catch_up(engine: Engine, as_of: datetime = NOW, settings: Settings = SETTINGS) -> None:
    while rollups.refresh(engine, settings, as_of):
        pass


def execute(engine: Engine, statement: str) -> int:
    with engine.begin() as connection:
        return connection.exec_driver_sql(statement).rowcount


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def assert_equal(actual: dict[str, Table], wanted: dict[str, Table]) -> None:
    for table, rows in wanted.items():
        assert actual[table].keys() == rows.keys(), table
        for key, row in rows.items():
            assert dict(sorted(actual[table][key].items())) == dict(sorted(row.items())), (table, key)


def assert_right(engine: Engine) -> None:
    with engine.connect() as connection:
        assert_equal(stored(connection), expected(connection))


def written(connection: Connection) -> list[Any]:
    """Where every row of the rollups lies, and who touched it last: writing moves it, locking shows in xmax."""
    return [
        connection.exec_driver_sql(
            f"select tableoid::regclass::text, ctid::text, xmax::text, cmin::text from pulsewatch.{table} order by 1, 2"
        ).all()
        for table in KEYS
    ]
