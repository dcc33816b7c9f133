"""Queries as dashboards send them, over the schema `analytics`, each timed warm and cold.

Times and names stand in the text, as Grafana and Metabase put them there. They run as the role of a dashboard, so
row-level security is in what is measured.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from pulsewatch.embedded import EmbeddedPostgres
from pulsewatch.metabase.provision import load_specs
from tests import dashboards
from tests.bench.history import client_slug, pipeline_name
from tests.grafana_sql import ALL, Choice, Range, expand
from tests.metabase.mbql import statement

WARM_RUNS = 5
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

# {since} and {until} span 30 days up to the end of the history; {middle} and {day} are where its last 15 days and its
# last day begin.
QUERIES = {
    "clients (variable)": "select client, client_title from analytics.clients where not is_archived order by client",
    "pipelines of a client (variable)": (
        "select pipeline, pipeline_title from analytics.pipelines where client = '{client}' and not is_archived"
        " order by pipeline"
    ),
    "fleet: outcomes per hour, 30 d": (
        "select hour_at as time, succeeded_count, failed_count, timed_out_count from analytics.fleet_hourly"
        " where hour_at >= '{since}' and hour_at < '{until}' order by hour_at"
    ),
    "fleet: p50 and p95 per hour, 30 d": (
        "select hour_at as time, duration_p50_s, duration_p95_s from analytics.fleet_hourly"
        " where hour_at >= '{since}' and hour_at < '{until}' order by hour_at"
    ),
    "fleet: success rate and p95, 30 d": "select * from analytics.runs_summary('{since}', '{until}')",
    "fleet: a row per client, 30 d": "select * from analytics.clients_summary('{since}', '{until}')",
    "fleet: series by day, 30 d": "select * from analytics.runs_series('{since}', '{until}')",
    "fleet: status grid of all pipelines": (
        "select client, pipeline, health, health_code, last_outcome, last_finished_at from analytics.pipelines_now"
        " order by health_code desc, client, pipeline"
    ),
    "fleet: what needs attention": (
        "select client, pipeline, health, failing_since, consecutive_failures, last_error_class"
        " from analytics.pipelines_now where health in ('failing', 'missed', 'late')"
        " order by failing_since limit 100"
    ),
    "fleet: success rate by client and day, 30 d": (
        "select day_utc as time, client, success_rate from analytics.client_daily"
        " where day_utc >= '{since}' and day_utc < '{until}' order by day_utc, client"
    ),
    "fleet: heatmap of durations, 30 d": "select * from analytics.duration_heatmap('{since}', '{until}')",
    "fleet: clients now": "select * from analytics.clients_now order by failing_count desc, client",
    "fleet: change against the 15 d before, 15 d": "select * from analytics.runs_change('{middle}', '{until}')",
    "fleet: kinds of failure, 24 h": "select * from analytics.error_classes('{day}', '{until}')",
    "client: a row per pipeline, 30 d": (
        "select * from analytics.summaries('{since}', '{until}', 'pipeline', '{client}')"
    ),
    "client: kinds of failure, 30 d": "select * from analytics.error_classes('{since}', '{until}', '{client}')",
    "client: histogram of durations, 30 d": (
        "select hour_at as time, upper_s, sum(run_count) as runs from analytics.duration_hist_hourly"
        " where client = '{client}' and hour_at >= '{since}' and hour_at < '{until}' group by 1, 2 order by 1, 2"
    ),
    "client: outcomes per hour, 30 d": (
        "select hour_at as time, succeeded_count, failed_count from analytics.client_hourly"
        " where client = '{client}' and hour_at >= '{since}' and hour_at < '{until}' order by hour_at"
    ),
    "client: summary, 30 d": "select * from analytics.runs_summary('{since}', '{until}', '{client}')",
    "client: top failing pipelines, 30 d": (
        "select pipeline, sum(failed_count + timed_out_count) as failures from analytics.runs_daily"
        " where client = '{client}' and day_utc >= '{since}' and day_utc < '{until}'"
        " group by pipeline order by failures desc, pipeline limit 20"
    ),
    "client: failing spans, 30 d": (
        "select began_at, ended_at, pipeline, failure_count from analytics.failing_spans"
        " where client = '{client}' and began_at >= '{since}' and began_at < '{until}' order by began_at"
    ),
    "client: state timeline, 24 h": "select * from analytics.state_series('{day}', '{until}', '{client}')",
    "client: late and missed slots, 30 d": (
        "select slot_at, pipeline, status, delay_s from analytics.slots"
        " where client = '{client}' and slot_at >= '{since}' and slot_at < '{until}' and status in ('late', 'missed')"
        " order by slot_at desc limit 500"
    ),
    "client: kinds of failure, 24 h": "select * from analytics.error_classes('{day}', '{until}', '{client}')",
    "client: state timeline, 30 d": "select * from analytics.state_series('{since}', '{until}', '{client}')",
    "client: latest runs": (
        "select first_at, pipeline, status, duration_s from analytics.runs"
        " where client_id = analytics.client_id('{client}')"
        " and first_at >= '{since}' and first_at < '{until}' order by first_at desc limit 100"
    ),
    "client: annotations, 30 d": (
        "select at as time, until_at as timeend, text, kind as tags from analytics.annotations"
        " where client = '{client}' and at >= '{since}' and at < '{until}' order by at"
    ),
    "pipeline: series, 30 d": ("select * from analytics.runs_series('{since}', '{until}', '{client}', '{pipeline}')"),
    "pipeline: outcomes per hour, 30 d": (
        "select hour_at as time, succeeded_count, failed_count, duration_p95_s from analytics.runs_hourly"
        " where client = '{client}' and pipeline = '{pipeline}' and hour_at >= '{since}' and hour_at < '{until}'"
        " order by hour_at"
    ),
    "pipeline: every run's duration, 30 d": (
        "select finished_at as time, duration_s from analytics.runs"
        " where client = '{client}' and pipeline = '{pipeline}' and first_at >= '{since}' and first_at < '{until}'"
        " order by finished_at"
    ),
    "pipeline: rows reported, 30 d": (
        "select first_at as time, value from analytics.run_metrics where client = '{client}'"
        " and pipeline = '{pipeline}' and metric = 'rows' and first_at >= '{since}' and first_at < '{until}'"
        " order by first_at"
    ),
    "pipeline: attempts, 30 d": (
        "select attempt, status, started_at, finished_at from analytics.run_attempts where client = '{client}'"
        " and pipeline = '{pipeline}' and first_at >= '{since}' and first_at < '{until}' order by first_at desc"
        " limit 100"
    ),
    "ingestion: by source, 30 d": (
        "select bucket_at as time, source, accepted, duplicates, rejected, lag_s_max from analytics.ingest_5m"
        " where bucket_at >= '{since}' and bucket_at < '{until}' order by bucket_at"
    ),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """One query: rows it gave, and milliseconds until all of them were there."""

    name: str
    rows: int
    warm_ms: float
    cold_ms: float


def measure(
    embedded: EmbeddedPostgres,
    dsn: str,
    queries: Mapping[str, str],
    advance: Callable[[str], None],
    *,
    forgets_files: bool,
) -> list[Timing]:
    """Time each query: warm (median of WARM_RUNS after one that does not count), then cold.

    Cold means after a restart of the server, and with `forgets_files` with the system's cache of files emptied.
    """
    timings = []
    for name, query in queries.items():
        advance(name)
        with _reader(dsn) as connection:
            _timed(connection, query)
            warm = [_timed(connection, query) for _ in range(WARM_RUNS)]
        embedded.stop()
        embedded.start(same_address=True)
        if forgets_files:
            os.sync()
            with contextlib.suppress(OSError):
                DROP_CACHES.write_text("3")
        with _reader(dsn) as connection:
            cold, _ = _timed(connection, query)
        timings.append(Timing(name, warm[0][1], statistics.median(ms for ms, _ in warm), cold))
    return timings


def statements(until: datetime) -> dict[str, str]:
    """By name, the queries above, those of every panel, variable and annotation of Grafana's dashboards, over 30 days,
    and those of Metabase's questions, over the time that each looks back.
    """
    since = until - timedelta(days=30)
    client, pipeline = client_slug(7), pipeline_name(7)
    own = {
        name: query.format(
            client=client,
            pipeline=pipeline,
            since=since.isoformat(),
            middle=(until - timedelta(days=15)).isoformat(),
            day=(until - timedelta(days=1)).isoformat(),
            until=until.isoformat(),
        )
        for name, query in QUERIES.items()
    }
    chosen = {"client": Choice((client,)), "clients": Choice((ALL,), "'__all__'"), "pipeline": Choice((pipeline,))}
    panels = {f"Grafana {query.name}": expand(query.sql, Range(since, until), chosen) for query in dashboards.QUERIES}
    specs = load_specs()
    questions = {f"Metabase {each.name}": statement(specs, each).as_string() for each in specs.questions}
    return own | panels | questions


def can_empty_caches() -> bool:
    """Whether this process may make the system forget the files it has read."""
    return os.access(DROP_CACHES, os.W_OK)


def _reader(dsn: str) -> psycopg.Connection:
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute("set timezone to 'UTC'")
    connection.execute("set role pulsewatch_grafana")
    return connection


def _timed(connection: psycopg.Connection, statement: str) -> tuple[float, int]:
    """Milliseconds until all rows are there, and how many they are."""
    started = time.perf_counter()
    rows: Sequence[object] = connection.execute(statement.encode()).fetchall()
    return (time.perf_counter() - started) * 1000, len(rows)
