"""The dashboard of one pipeline."""

from grafana_foundation_sdk.builders import dashboard as boards

from grafana.kit import AGO, BLUE, YELLOW, Panel, chosen, listing, series
from grafana.shared import (
    CLIENT,
    CLIENTS,
    LATEST_OF_PIPELINE,
    MOST_POINTS,
    OF_CLIENT,
    OF_PIPELINE,
    PIPELINE,
    WINDOW,
    alerts,
    board,
    deploys,
    duration_heat,
    durations,
    errors,
    filled,
    outcomes,
    punctuality,
    success,
    summary_numbers,
)

WHOSE = "this pipeline"
PIPELINES = (
    "select pipeline as __value, pipeline as __text from analytics.pipelines"
    f" where {OF_CLIENT} and not is_archived order by pipeline"
)
TO_RUN = {"url": ("Open the run", "${__value.raw}")}


def pipeline() -> boards.Dashboard:
    arguments = f", {CLIENT}, {PIPELINE}"
    made = (
        board("pw-pipeline", "Pipeline detail", "One pipeline: each run, how long it took, and when it was due.")
        .with_variable(chosen("client", "Client", CLIENTS))
        .with_variable(chosen("pipeline", "Pipeline", PIPELINES))
        .annotation(deploys(f"{OF_CLIENT} and (pipeline is null or pipeline = {PIPELINE})"))
        .annotation(alerts(OF_PIPELINE))
    )
    return filled(
        made,
        ("In this time", summary_numbers(WHOSE, arguments)),
        ("Now", [_now()]),
        (
            "Over time",
            [
                outcomes(WHOSE, arguments),
                success(WHOSE, arguments),
                durations(WHOSE, arguments),
                duration_heat(WHOSE, arguments),
                _every_run(),
                _rows(arguments),
                punctuality(WHOSE, arguments),
                _delays(),
            ],
        ),
        ("Runs", [_runs()]),
        ("Failures", [_failures(), errors(WHOSE, arguments)]),
    )


def _now() -> Panel:
    return listing(
        "Now",
        "How the pipeline is doing now, and what is known about it.",
        f"""select health, last_outcome, last_finished_at, last_duration_s, last_success_at, failing_since,
        consecutive_failures, running_since, last_slot_status, next_slot_at, schedule, timezone, owner, environment
        from analytics.pipelines_now where {OF_PIPELINE}""",
        units={"last_duration_s": "s", "last_success_at": AGO},
        statuses=["health", "last_outcome", "last_slot_status"],
        height=4,
        no_value="no run yet",
    )


def _every_run() -> Panel:
    return series(
        "Duration of each run",
        f"Finished runs of this time by their finish, the latest {MOST_POINTS} at most.",
        f"""select "time", duration from (
            select finished_at as "time", duration_s as duration from analytics.runs
            where {LATEST_OF_PIPELINE} and $__timeFilter(first_at) and finished_at is not null
            order by first_at desc limit {MOST_POINTS}
        ) as latest order by "time" """,
        unit="s",
        interval="1m",
        colors={"duration": BLUE},
    )


def _rows(arguments: str) -> Panel:
    return series(
        "Rows reported",
        "Sum of the metric rows over the runs that finished in the hour or day.",
        f"""select at as "time", rows_sum as rows from analytics.runs_series({WINDOW}{arguments}) order by "time" """,
        colors={"rows": BLUE},
        no_value="no run reports rows",
    )


def _delays() -> Panel:
    return series(
        "Delay of starts",
        f"How long after the expected time each start came, the latest {MOST_POINTS} at most.",
        f"""select "time", delay from (
            select slot_at as "time", delay_s as delay from analytics.slots
            where {LATEST_OF_PIPELINE} and $__timeFilter(slot_at) and delay_s is not null
            order by slot_at desc limit {MOST_POINTS}
        ) as latest order by "time" """,
        unit="s",
        interval="1m",
        colors={"delay": YELLOW},
        no_value="no start was expected",
    )


def _runs() -> Panel:
    return listing(
        "Runs",
        "The latest runs of this time. The address is the one that the producer gave.",
        f"""select first_at, status, duration_s, attempt, error_class, message, external_id, run_id, url
        from analytics.runs where {LATEST_OF_PIPELINE} and $__timeFilter(first_at)
        order by first_at desc limit 200""",
        units={"duration_s": "s"},
        links=TO_RUN,
        statuses=["status"],
        height=11,
        no_value="no run in this time",
    )


def _failures() -> Panel:
    return listing(
        "Failures",
        "Runs of this time that failed or timed out, and why; the latest first.",
        f"""select first_at, finished_at, status, attempt, error_class, message, duration_s, url from analytics.runs
        where {LATEST_OF_PIPELINE} and $__timeFilter(first_at) and status in ('failed', 'timed_out')
        order by first_at desc limit 100""",
        units={"duration_s": "s"},
        links=TO_RUN,
        statuses=["status"],
        span=16,
        no_value="nothing failed",
    )
