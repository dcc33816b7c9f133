"""The dashboard of one client."""

from grafana_foundation_sdk.builders import dashboard as boards

from grafana.kit import AGO, Panel, chosen, listing, states
from grafana.shared import (
    CLIENT,
    CLIENTS,
    LATEST_OF_CLIENT,
    LINKS,
    OF_CLIENT,
    STATES,
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

WHOSE = "this client"
TO_PIPELINE = {"pipeline": LINKS["pipeline"]}


def client() -> boards.Dashboard:
    arguments = f", {CLIENT}"
    made = (
        board("pw-client", "Client", "One client: its pipelines, their runs, and what is late.")
        .with_variable(chosen("client", "Client", CLIENTS))
        .annotation(deploys(OF_CLIENT))
        .annotation(alerts(OF_CLIENT))
    )
    return filled(
        made,
        ("In this time", summary_numbers(WHOSE, arguments)),
        ("Pipelines", [_pipelines()]),
        (
            "Over time",
            [
                outcomes(WHOSE, arguments),
                success(WHOSE, arguments),
                durations(WHOSE, arguments),
                duration_heat(WHOSE, arguments),
            ],
        ),
        ("When it failed", [_timeline(), _spans(), errors(WHOSE, arguments)]),
        ("When it was late", [punctuality(WHOSE, arguments), _slots()]),
        ("Runs", [_runs()]),
    )


def _pipelines() -> Panel:
    return listing(
        "Pipelines now",
        "How each pipeline of the client is doing now, the worst first.",
        f"""select client, health, pipeline, last_outcome, last_finished_at, last_duration_s, last_success_at,
        consecutive_failures, running_count, last_slot_status, next_slot_at, owner from analytics.pipelines_now
        where {OF_CLIENT} order by health_code desc, pipeline limit 2000""",
        units={"last_duration_s": "s", "last_success_at": AGO},
        links=TO_PIPELINE,
        statuses=["health", "last_outcome", "last_slot_status"],
        hidden=["client"],
        height=10,
        no_value="no pipeline yet",
    )


def _timeline() -> Panel:
    return states(
        "How pipelines were doing",
        "The 15 pipelines with the least success rate in this time: failing from a first failure to the next success.",
        f"""select at as "time", pipeline as metric, state_code as value
        from analytics.pipeline_states({WINDOW}, {CLIENT}, variadic array(
            select pipeline from analytics.summaries({WINDOW}, 'pipeline', {CLIENT})
            where not is_archived order by success_rate nulls last, pipeline limit 15
        )) order by "time", metric""",
        STATES,
    )


def _spans() -> Panel:
    return listing(
        "Spans of failure",
        "From the first failure to the next success, where that touches this time; the latest first. No end: it goes"
        " on.",
        f"""select client, pipeline, began_at, ended_at, duration_s, failure_count from analytics.failing_spans
        where {LATEST_OF_CLIENT} and began_at <= $__timeTo()::timestamptz
        and (ended_at is null or ended_at >= $__timeFrom()::timestamptz) order by began_at desc limit 200""",
        units={"duration_s": "s"},
        links=TO_PIPELINE,
        hidden=["client"],
        span=16,
        no_value="nothing failed",
    )


def _slots() -> Panel:
    return listing(
        "Late and missed starts",
        "Expected starts that were met late or not at all; the latest first.",
        f"""select client, pipeline, slot_at, status, started_at, delay_s from analytics.slots
        where {LATEST_OF_CLIENT} and $__timeFilter(slot_at) and status in ('late', 'missed')
        order by slot_at desc limit 200""",
        units={"delay_s": "s"},
        links=TO_PIPELINE,
        statuses=["status"],
        hidden=["client"],
        span=12,
        no_value="everything came in time",
    )


def _runs() -> Panel:
    return listing(
        "Latest runs",
        "The latest runs of this time. The address is the one that the producer gave.",
        f"""select client, first_at, pipeline, status, duration_s, error_class, message, external_id, url
        from analytics.runs where {LATEST_OF_CLIENT} and $__timeFilter(first_at)
        order by first_at desc limit 100""",
        units={"duration_s": "s"},
        links=TO_PIPELINE | {"url": ("Open the run", "${__value.raw}")},
        statuses=["status"],
        hidden=["client"],
        height=10,
        no_value="no run in this time",
    )
