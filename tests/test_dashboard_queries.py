"""Each query of the Grafana dashboards, run as Grafana would, by its role, on a database with something to show."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from pulsewatch.db import make_engine
from pulsewatch.migrate import readers
from pulsewatch.settings import Settings
from tests.dashboards import QUERIES, Query, names
from tests.grafana_sql import ALL, MACRO, VARIABLE, Choice, Range, expand
from tests.shown import NOW, shown_database

# Nothing of the demo's history is refused.
MAY_BE_EMPTY = {"Refused items"}
# Dashboards of all clients, of which one may be chosen.
OF_ALL = {"fleet", "alerts"}
# Tables that only grow with the number of clients and pipelines may be read whole.
BIG = {
    "run", "run_event", "pipeline_hour", "pipeline_day", "client_hour", "client_day", "slot", "failing_span", "alert",
    "alert_event", "notification", "notification_attempt",
}  # fmt: skip
# Of a day out of a week, an index that fits reads about a seventh; one read whole reads all.
MOST_READ = 0.4
RANGES = {"6 h": timedelta(hours=6), "24 h": timedelta(hours=24), "7 d": timedelta(days=7), "30 d": timedelta(days=30)}
SCANS = "select relname, seq_scan, idx_tup_fetch from pg_stat_xact_all_tables where schemaname = 'pulsewatch'"
SIZES = "select relname, n_live_tup from pg_stat_all_tables where schemaname = 'pulsewatch'"
# A client whose name is a trap, in what people write; slugs have no such letters.
TRAP = 'O\'Neill ${client} -- "Ltd"'
MOST_ROWS = 5000
MOST_SERIES = 20
LIVELY = ("acme-retail", "ingest_orders")


@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_a_query_reads_analytics_alone_and_means_the_same_in_every_grafana(query: Query) -> None:
    assert re.findall(r"\b(?:from|join)\s+(\w+)\.", query.sql)
    assert set(re.findall(r"\b(?:from|join)\s+(\w+)\.", query.sql)) == {"analytics"}
    assert ";" not in query.sql
    assert "--" not in query.sql
    assert "/*" not in query.sql
    assert {name for name, _ in MACRO.findall(query.sql) if name.startswith("__")} <= {
        "__timeFilter",
        "__timeFrom",
        "__timeTo",
    }
    assert {form for _, form in VARIABLE.findall(query.sql)} <= {"sqlstring"}
    if query.shape == "time_series":
        assert re.search(r'order by "time"(?:, metric)?$', query.sql)
    if '"time", metric' in query.sql:
        assert query.shape == "time_series"


@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_a_query_computes_nothing(query: Query) -> None:
    """Names, filters and functions of `analytics` only; `nullif` makes of the word for all the null for all.

    `array` hands one function what another one chose.
    """
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", query.sql)
    plain = VARIABLE.sub("", MACRO.sub("", plain))
    calls = set(re.findall(r"(?<![.\w])(\w+) ?\(", plain))
    assert calls <= {"nullif", "array", "where", "and", "from", "in"}
    assert set(re.findall(r"\b(\w+)\.\w+ ?\(", plain)) <= {"analytics"}
    assert not re.search(r"[*/+%]|\|\||-(?!>)|\b(?:group by|over|case|distinct|having|union|join)\b", plain), plain


@pytest.fixture(scope="module")
def shown(server: str) -> Iterator[psycopg.Connection]:
    """A session as Grafana's role on a database with a week of the demo, a deploy, and a client that is a trap."""
    with shown_database(server, "dashboards", days=7) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set timezone to 'UTC'")
        connection.execute("update pulsewatch.client set title = %s where slug = 'cedar-health'", (TRAP,))
        # Two of one name: Grafana drops a choice whose text it has seen.
        connection.execute("update pulsewatch.client set title = 'Twin' where slug in ('elm-insurance', 'lumen-labs')")
        connection.execute(
            "insert into pulsewatch.annotation (client_id, pipeline_id, at, until_at, kind, text)"
            " select client_id, case when whole.it then null else pipeline_id end, %s, %s, 'deploy', %s"
            " from analytics.pipelines cross join (values (true), (false)) as whole (it)"
            " where client = %s and pipeline = %s",
            (NOW - timedelta(days=20), NOW - timedelta(hours=1), TRAP, *LIVELY),
        )
        # Receivers were there at once.
        connection.execute(
            "update pulsewatch.notification set attempt_count = 2, last_error = %s from pulsewatch.client"
            " where client.id = client_id and client.slug = %s",
            (TRAP, LIVELY[0]),
        )
        connection.execute(b"set role pulsewatch_grafana")
        yield connection


CHOICES = {
    "a lively client": Choice((LIVELY[0],)),
    "a client with a quote in its title": Choice(("cedar-health",)),
    "a client that is not there and has a quote in its name": Choice(("o'neill",)),
}


def choices(client: Choice, pipeline: str) -> dict[str, Choice]:
    return {"client": client, "clients": client, "pipeline": Choice((pipeline,))}


def selections(query: Query) -> dict[str, Choice]:
    return CHOICES | ({"all": Choice((ALL,), "'__all__'")} if query.board in OF_ALL else {})


def ranges() -> dict[str, Range]:
    """What came in just now is part of them."""
    now = max(NOW, datetime.now(UTC))
    lasting = {name: Range(now - length, now) for name, length in RANGES.items()}
    return lasting | {"nothing there": Range(now + timedelta(days=30), now + timedelta(days=31))}


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_a_query_answers_for_every_range_and_selection(shown: psycopg.Connection, query: Query) -> None:
    at_home: set[object] = set()
    for range_ in ranges().values():
        for name, choice in selections(query).items():
            for pipeline in (LIVELY[1], "it's not there"):
                statement = expand(query.sql, range_, choices(choice, pipeline))
                cursor = shown.execute(statement.encode())
                rows = cursor.fetchall()
                check_shape(query, [column.name for column in cursor.description or ()], rows)
                if (name, pipeline) == ("a lively client", LIVELY[1]):
                    at_home |= {value for row in rows for value in row} - {None, 0}
    assert any(not isinstance(value, datetime) for value in at_home) or query.title in MAY_BE_EMPTY, "nothing to see"


def check_shape(query: Query, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    """What the panel needs of the result."""
    assert len(rows) <= MOST_ROWS
    assert len(set(columns)) == len(columns)
    for row in rows:
        for value in row:
            assert not isinstance(value, dict | list | timedelta | Decimal | memoryview), (query.name, value)
            assert not isinstance(value, datetime) or value.tzinfo is not None
    if query.shape == "time_series":
        assert columns[0] == "time"
        times = [row[0] for row in rows]
        assert times == sorted(times)
        assert None not in times
        if columns == ["time", "metric", "value"]:
            assert len({row[1] for row in rows}) <= MOST_SERIES
            assert len({row[:2] for row in rows}) == len(rows), "a series has two values at one time"
        else:
            assert all(isinstance(value, int | float | None) for row in rows for value in row[1:])
            # Two runs may end in one moment; the numbers of an hour come once.
            assert len(set(times)) == len(times) or "analytics.runs " in query.sql
    if query.kind == "stat" and columns[-1] == "value":
        assert columns == ["client", "pipeline", "value"]
        assert len({row[:2] for row in rows}) == len(rows)
    elif query.kind == "stat":
        assert 1 <= len(columns) <= 2
        assert len(rows) <= 1
    if query.kind == "bargauge":
        assert columns == ["metric", "value"]
        assert len(rows) <= 25
    if query.kind == "annotation":
        assert columns == ["time", "timeend", "text", "tags"]
    if query.kind == "variable":
        assert columns == ["__value", "__text"]
        assert len({text for _, text in rows}) == len(rows), "Grafana drops a choice whose text it has seen"


@pytest.mark.slow
def test_a_choice_of_one_client_narrows_every_panel_of_all_clients(shown: psycopg.Connection) -> None:
    for query in QUERIES:
        if query.board in OF_ALL and query.kind != "variable":
            assert "${clients:sqlstring}" in query.sql, query.name
    (finished,) = (query for query in QUERIES if query.name == "fleet: Finished runs")
    month = ranges()["30 d"]
    counts = {}
    for name, choice in selections(finished).items():
        row = shown.execute(expand(finished.sql, month, {"clients": choice}).encode()).fetchone()
        counts[name] = row[0] if row else 0
    everything = shown.execute(
        "select count(*) from analytics.runs where status not in ('queued', 'running')"
    ).fetchone()
    assert (counts["all"],) == everything
    assert 0 < counts["a lively client"] < counts["all"]
    assert counts["a client that is not there and has a quote in its name"] == 0


@pytest.mark.slow
def test_the_reader_of_one_client_sees_that_client_as_the_fleet(server: str, shown: psycopg.Connection) -> None:
    dsn = make_url(server).set(database=shown.info.dbname).render_as_string(hide_password=False)
    engine = make_engine(dsn, pool_size=1, application_name="tests")
    with engine.begin() as connection:
        role = readers(connection, dsn, Settings()).create(LIVELY[0])
    try:
        with psycopg.connect(dsn, autocommit=True) as alone:
            alone.execute("set timezone to 'UTC'")
            alone.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            for query in QUERIES:
                if query.board == "fleet":
                    told = [
                        session.execute(expand(query.sql, ranges()["7 d"], {"clients": choice}).encode()).fetchall()
                        for session, choice in (
                            (alone, Choice((ALL,), "'__all__'")),
                            (shown, CHOICES["a lively client"]),
                        )
                    ]
                    if query.kind != "variable":
                        assert told[0] == told[1], query.name
                    else:
                        assert told[0] == [(LIVELY[0], LIVELY[0])]
    finally:
        with engine.begin() as connection:
            readers(connection, dsn, Settings()).drop(role)
        engine.dispose()


@pytest.mark.slow
def test_a_deploy_that_reaches_into_the_range_is_marked(shown: psycopg.Connection) -> None:
    """It began before it."""
    day = ranges()["24 h"]
    for query in QUERIES:
        if query.kind == "annotation" and "analytics.annotations" in query.sql:
            rows = shown.execute(expand(query.sql, day, choices(Choice((LIVELY[0],)), LIVELY[1])).encode())
            assert [row[2:] for row in rows] == [(TRAP, "deploy")] * 2


@pytest.mark.slow
def test_an_alert_that_reaches_into_the_range_is_marked(shown: psycopg.Connection) -> None:
    day = ranges()["24 h"]
    for query in QUERIES:
        if query.kind == "annotation" and "analytics.alerts" in query.sql:
            rows = shown.execute(expand(query.sql, day, choices(Choice((LIVELY[0],)), LIVELY[1])).encode()).fetchall()
            assert any(fired_at < day.since for fired_at, *_ in rows)
            assert all(ended_at is None or ended_at >= day.since for _, ended_at, *_ in rows)
            assert rows != []
            assert {tag for *_, tag in rows} <= {"warning", "critical"}


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES, ids=names)
def test_a_query_reads_no_big_table_whole(shown: psycopg.Connection, query: Query) -> None:
    """With sequential scans made dear, what is scanned all the same, in functions too, has no index that fits.

    An index that does not fit is then read from its first entry to its last: so what is fetched is counted too.
    """
    day = Range(NOW - timedelta(days=1), NOW)
    sizes: dict[str, int] = dict(shown.execute(SIZES).fetchall())
    for choice in selections(query).values():
        statement = expand(query.sql, day, choices(choice, LIVELY[1]))
        with shown.transaction():
            shown.execute("set local enable_seqscan to off")
            before = {name: rest for name, *rest in shown.execute(SCANS).fetchall()}
            shown.execute(statement.encode())
            after = {name: rest for name, *rest in shown.execute(SCANS).fetchall()}
        for name, (scans, fetched) in after.items():
            scanned_before, fetched_before = before.get(name, (0, 0))
            if re.sub(r"_\d{4}_\d{2}$", "", name) in BIG:
                assert scans == scanned_before, name
                read = (fetched or 0) - (fetched_before or 0)
                assert read <= MOST_READ * sizes[name] + 200, (name, read, sizes[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["client: Latest runs", "pipeline: Runs", "client: Late and missed starts"])
def test_the_latest_rows_come_from_an_index_in_order(shown: psycopg.Connection, name: str) -> None:
    """Nothing is sorted but names: the list ends with its limit, however much there is in the range."""
    (query,) = (query for query in QUERIES if query.name == name)
    statement = expand(query.sql, ranges()["30 d"], choices(Choice((LIVELY[0],)), LIVELY[1]))
    with shown.transaction():
        # Else it is the cheaper way where there are hardly more rows than the limit.
        shown.execute("set local enable_sort = off")
        plan = "\n".join(line for (line,) in shown.execute(f"explain {statement}".encode()).fetchall())
    assert "Sort" not in plan, plan
    assert "Seq Scan on run " not in plan, plan
