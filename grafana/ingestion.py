"""The dashboard of PulseWatch itself: whether events arrive."""

from grafana_foundation_sdk.builders import dashboard as boards

from grafana.kit import AGO, CLIENT_URL, Panel, listing, series
from grafana.shared import board, filled


def ingestion() -> boards.Dashboard:
    made = board(
        "pw-ingest",
        "Ingestion and self-monitoring",
        "Whether events arrive, how late, and what is refused.",
        time_from="now-24h",
    )
    arrivals = [
        _by_wire("New events", "Events that came in and were new", "accepted"),
        _by_wire("Events seen before", "Events that were there already, as after a retry", "duplicates"),
        _by_wire("Refused items", "Items that were refused; the API lists them with the reason", "rejected"),
        _lag(),
    ]
    return filled(made, ("Arrivals", arrivals), ("Silence", [_clients()]), ("Details", [_wires()]))


def _by_wire(title: str, what: str, column: str) -> Panel:
    return series(
        title,
        f"{what}; by wire, per five minutes.",
        f"""select bucket_at as "time", source as metric, {column} as value from analytics.ingest_5m
        where $__timeFilter(bucket_at) order by "time", metric""",
        bars=True,
        interval="5m",
        colors={},
        no_value="nothing arrived",
    )


def _lag() -> Panel:
    return series(
        "How late events arrive",
        "Longest time between what happened and its arrival, by wire, per five minutes.",
        """select bucket_at as "time", source as metric, lag_s_max as value from analytics.ingest_5m
        where $__timeFilter(bucket_at) order by "time", metric""",
        unit="s",
        interval="5m",
        colors={},
        no_value="nothing arrived",
    )


def _clients() -> Panel:
    return listing(
        "Clients by their latest run",
        "When the latest run of each client began; the most silent first.",
        """select client, client_title, last_run_at, last_success_at, pipeline_count from analytics.clients_now
        order by last_run_at nulls first, client limit 1000""",
        units={"last_run_at": AGO, "last_success_at": AGO},
        links={"client": ("Open the client", CLIENT_URL)},
        no_value="no client yet",
    )


def _wires() -> Panel:
    return listing(
        "Wires",
        "Per wire and five minutes, the latest first.",
        """select bucket_at, source, accepted, duplicates, rejected, lag_s_avg, lag_s_max from analytics.ingest_5m
        where $__timeFilter(bucket_at) order by bucket_at desc, source limit 500""",
        units={"lag_s_avg": "s", "lag_s_max": "s"},
        no_value="nothing arrived",
    )
