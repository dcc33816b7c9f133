"""What the rollups are to hold, worked out from the rows of run and slot as plainly as it can be said.

Nothing here is shared with the code under test: all rows, each rule once, no increments, no ranges, no SQL but
`select *`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

Row = dict[str, Any]
Table = dict[tuple[Any, ...], Row]

HOUR = timedelta(hours=1)
FAILURES = {"failed", "timed_out"}
OUTCOMES = FAILURES | {"succeeded"}
ENDS = ("succeeded", "failed", "timed_out", "cancelled", "skipped")

KEYS = {
    "pipeline_hour": ("client_id", "pipeline_id", "hour_at"),
    "client_hour": ("client_id", "hour_at"),
    "fleet_hour": ("hour_at",),
    "pipeline_day": ("client_id", "pipeline_id", "day_utc"),
    "client_day": ("client_id", "day_utc"),
    "fleet_day": ("day_utc",),
    "failing_span": ("client_id", "pipeline_id", "run_id"),
    "pipeline_state": ("client_id", "pipeline_id"),
}


def read(connection: Connection, table: str) -> list[Row]:
    return [dict(row._mapping) for row in connection.exec_driver_sql(f"select * from pulsewatch.{table}")]


def stored(connection: Connection) -> dict[str, Table]:
    """All that the rollups hold, by table and key."""
    tables: dict[str, Table] = {}
    for table, key in KEYS.items():
        rows = read(connection, table)
        tables[table] = {tuple(row.pop(name) for name in key): row for row in rows}
    return tables


def expected(connection: Connection) -> dict[str, Table]:
    """All that the rollups should hold, from the runs and slots that are there."""
    runs, slots = [_run(row) for row in read(connection, "run")], read(connection, "slot")
    tables: dict[str, Table] = {"pipeline_hour": _hours_of_pipelines(runs, slots)}
    for table, key in list(KEYS.items())[1:6]:
        tables[table] = _numbers(runs, slots, key)
    tables["failing_span"] = _spans(runs)
    tables["pipeline_state"] = _states(runs, slots)
    return tables


def _run(row: Row) -> Row:
    started_at, finished_at, duration_s = row["start_at"], row["finished_at"], row["said_duration_s"]
    if duration_s is None and started_at and finished_at and finished_at >= started_at:
        duration_s = (finished_at - started_at).total_seconds()
    metrics = (row["opening_metrics"] or {}) | (row["winner_metrics"] or {})
    return row | {
        "started_at": started_at or row["implied_start_at"],
        "duration_s": duration_s,
        "attempt": row["state_key"] >> 58,
        "rows": metrics.get("rows"),
        "bytes": metrics.get("bytes"),
    }


def _key_of(names: Iterable[str], row: Row, at: datetime) -> tuple[Any, ...]:
    hour_at = at.replace(minute=0, second=0, microsecond=0)
    return tuple({"hour_at": hour_at, "day_utc": hour_at.replace(hour=0)}.get(name, row.get(name)) for name in names)


def _grouped(rows: Iterable[Row], names: Iterable[str], time: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row[time] is not None:
            groups[_key_of(names, row, row[time])].append(row)
    return groups


def _numbers(runs: list[Row], slots: list[Row], key: tuple[str, ...]) -> Table:
    started = _grouped(runs, key, "started_at")
    finished = _grouped(runs, key, "finished_at")
    due = _grouped([slot for slot in slots if slot["status"] != "open"], key, "slot_at")
    return {one: _counted(started[one], finished[one], due[one]) for one in {*started, *finished, *due}}


def _counted(started: list[Row], finished: list[Row], due: list[Row]) -> Row:
    row: Row = {f"{status}_count": sum(run["status"] == status for run in finished) for status in ENDS}
    row |= {
        f"{status}_count": sum(slot["status"] == status for slot in due) for status in ("on_time", "late", "missed")
    }
    durations = sorted(run["duration_s"] for run in finished if run["duration_s"] is not None)
    buckets = [math.floor(math.log(max(duration, 0.001)) / math.log(2.0) * 8) for duration in durations]
    held = sorted(set(buckets))
    return row | {
        "started_count": len(started),
        "retried_count": sum(run["attempt"] > 0 for run in finished),
        "duration_count": len(durations),
        "duration_sum_s": _total(durations) or 0.0,
        "duration_min_s": durations[0] if durations else None,
        "duration_max_s": durations[-1] if durations else None,
        "duration_p50_s": _percentile(durations, 0.5),
        "duration_p95_s": _percentile(durations, 0.95),
        "duration_p99_s": _percentile(durations, 0.99),
        "duration_buckets": held,
        "duration_counts": [buckets.count(bucket) for bucket in held],
        "rows_sum": _total([run["rows"] for run in finished if run["rows"] is not None]),
        "bytes_sum": _total([run["bytes"] for run in finished if run["bytes"] is not None]),
    }


def _total(values: list[float]) -> float | None:
    """Exact, to the microsecond."""
    return float(sum(round(Decimal(str(value)), 6) for value in values)) if values else None


def _percentile(durations: list[float], share: float) -> float | None:
    """Nearest rank, told as the middle of its eighth of an octave, within the shortest and the longest."""
    if not durations:
        return None
    value = durations[max(math.ceil(share * len(durations)), 1) - 1]
    bucket = math.floor(math.log(max(value, 0.001)) / math.log(2.0) * 8)
    return float(min(max(2.0 ** ((bucket + 0.5) / 8), durations[0]), durations[-1]))


def _hours_of_pipelines(runs: list[Row], slots: list[Row]) -> Table:
    key = KEYS["pipeline_hour"]
    table = _numbers(runs, slots, key)
    started, finished = _grouped(runs, key, "started_at"), _grouped(runs, key, "finished_at")
    for one, row in table.items():
        counted = [run["first_at"] for run in (*started.get(one, ()), *finished.get(one, ()))]
        row |= {
            "open_count": sum(run["finished_at"] is None for run in started.get(one, ())),
            "last_success_at": _latest_success(finished.get(one, ())),
            "first_at_min": min(counted, default=None),
            "first_at_max": max(counted, default=None),
        }
    return table


def _latest_success(runs: Iterable[Row]) -> datetime | None:
    return max((run["finished_at"] for run in runs if run["status"] == "succeeded"), default=None)


def _latest_failure_hour(runs: Iterable[Row]) -> datetime | None:
    ends = (run["finished_at"] for run in runs if run["status"] in FAILURES)
    return max((end.replace(minute=0, second=0, microsecond=0) for end in ends), default=None)


def _by_pipeline(rows: list[Row], order: Callable[[Row], Any]) -> dict[tuple[int, int], list[Row]]:
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=order):
        groups[row["client_id"], row["pipeline_id"]].append(row)
    return groups


def _in_order(row: Row) -> Any:
    return row["first_at"], row["id"]


def _spans(runs: list[Row]) -> Table:
    table: Table = {}
    for pipeline, own in _by_pipeline(runs, _in_order).items():
        span: Row | None = None
        for run in own:
            if run["status"] in FAILURES:
                if span is None:
                    span = table[*pipeline, run["id"]] = {
                        "first_at": run["first_at"],
                        "began_at": run["finished_at"],
                        "ended_at": None,
                        "failure_count": 0,
                        "error_class": run["error_class"] or run["status"],
                    }
                span["last_first_at"] = run["first_at"]
                span["failure_count"] += 1
            elif run["status"] == "succeeded" and span is not None:
                span["ended_at"] = run["finished_at"]
                span = None
    return table


def _states(runs: list[Row], slots: list[Row]) -> Table:
    all_runs = _by_pipeline(runs, _in_order)
    all_slots = _by_pipeline(slots, lambda slot: slot["slot_at"])
    spans = _spans(runs)
    table: Table = {}
    for pipeline in {*all_runs, *all_slots}:
        own, due = all_runs.get(pipeline, []), all_slots.get(pipeline, [])
        recent = own[:-65:-1]
        outcomes = [run for run in recent if run["status"] in OUTCOMES]
        last, outcome = (recent or [{}])[0], (outcomes or [{}])[0]
        failures = next((place for place, run in enumerate(outcomes) if run["status"] == "succeeded"), len(outcomes))
        current = [span["began_at"] for key, span in spans.items() if key[:2] == pipeline and span["ended_at"] is None]
        unfinished = [run for run in recent if run["finished_at"] is None]
        judged = [slot for slot in due if slot["status"] != "open"]
        table[pipeline] = {
            "last_run_id": last.get("id"),
            "last_run_status": last.get("status"),
            "last_run_first_at": last.get("first_at"),
            "last_outcome_run_id": outcome.get("id"),
            "last_outcome": outcome.get("status"),
            "last_finished_at": outcome.get("finished_at"),
            "last_duration_s": outcome.get("duration_s"),
            "last_error_class": outcome.get("error_class"),
            "last_success_at": _latest_success(own),
            "last_failure_hour_at": _latest_failure_hour(own),
            "consecutive_failures": failures,
            "failing_since": current[0] if failures else None,
            "running_count": len(unfinished),
            "running_since": min((run["started_at"] for run in unfinished if run["started_at"]), default=None),
            "last_slot_at": judged[-1]["slot_at"] if judged else None,
            "last_slot_status": judged[-1]["status"] if judged else None,
            "next_slot_at": next((slot["slot_at"] for slot in due if slot["status"] == "open"), None),
        }
    return table
