"""The dashboard over all clients."""

from grafana_foundation_sdk.builders import dashboard as boards

from grafana.kit import AGO, CLIENT_URL, Panel, chosen, listing, tiles
from grafana.shared import (
    CHOSEN,
    CHOSEN_CLIENT,
    CLIENTS,
    LINKS,
    STATES,
    WHOSE,
    WINDOW,
    board,
    durations,
    filled,
    outcomes,
    punctuality,
    success,
    summary_numbers,
)

MOST_TILES = 300


def fleet() -> boards.Dashboard:
    arguments = f", {CHOSEN_CLIENT}"
    attention = listing(
        "Needs attention",
        "Pipelines that fail, or whose last expected start was late or missed; the worst first. As of now.",
        f"""select health, client, pipeline, failing_since, consecutive_failures, last_error_class, last_success_at,
        last_slot_at, owner from analytics.pipelines_now
        where {CHOSEN} and health in ('failing', 'missed', 'late')
        order by health_code desc, failing_since, client, pipeline limit 200""",
        units={"last_success_at": AGO},
        links=LINKS,
        statuses=["health"],
        no_value="nothing: all is well",
        height=9,
    )
    return filled(
        board("pw-fleet", "Fleet overview", "All clients: what runs, what fails, what is late.").with_variable(
            chosen("clients", "Client", CLIENTS, all_too=True)
        ),
        ("In this time", summary_numbers(WHOSE, arguments)),
        ("What is wrong now", [attention, _grid()]),
        (
            "Over time",
            [
                outcomes(WHOSE, arguments),
                success(WHOSE, arguments),
                durations(WHOSE, arguments),
                punctuality(WHOSE, arguments),
            ],
        ),
        ("By client", [_clients()]),
        ("By pipeline", [_pipelines()]),
    )


def _grid() -> Panel:
    return tiles(
        "Status of pipelines",
        f"A tile per pipeline, the worst first, {MOST_TILES} at most. As of now; a click opens the pipeline.",
        f"""select client, pipeline, health_code as value from analytics.pipelines_now where {CHOSEN}
        order by health_code desc, client, pipeline limit {MOST_TILES}""",
        STATES,
        most=MOST_TILES,
        height=10,
        no_value="no pipeline yet",
    )


def _clients() -> Panel:
    return listing(
        "Clients",
        "Each client in this time, the least successful first. Follow a client to its own dashboard.",
        f"""select client, client_title, success_rate, finished_count, failed_count, timed_out_count, late_count,
        missed_count, duration_p50_s, duration_p95_s from analytics.clients_summary({WINDOW})
        where {CHOSEN} and not is_archived order by success_rate nulls last, client limit 1000""",
        units={"success_rate": "percentunit", "duration_p50_s": "s", "duration_p95_s": "s"},
        links={"client": ("Open the client", CLIENT_URL)},
        no_value="no client yet",
    )


def _pipelines() -> Panel:
    return listing(
        "Every pipeline now",
        "How each pipeline is doing now: its last outcome, when it last succeeded, and when it is expected next.",
        f"""select health, client, pipeline, last_outcome, last_finished_at, last_duration_s, last_success_at,
        consecutive_failures, running_count, next_slot_at, owner, environment from analytics.pipelines_now
        where {CHOSEN} order by health_code desc, client, pipeline limit 2000""",
        units={"last_duration_s": "s", "last_success_at": AGO},
        links=LINKS,
        statuses=["health", "last_outcome"],
        height=12,
        no_value="no pipeline yet",
    )
