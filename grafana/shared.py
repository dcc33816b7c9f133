"""What several dashboards show, and the words and filters that they share."""

from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.models import dashboard

from grafana.kit import (
    CLIENT_URL,
    GREEN,
    GREY,
    ORANGE,
    PIPELINE_URL,
    PURPLE,
    RED,
    YELLOW,
    Panel,
    annotations,
    bars,
    heat,
    number,
    series,
)

TAG = "pulsewatch"
WINDOW = "$__timeFrom()::timestamptz, $__timeTo()::timestamptz"
# The health of a pipeline, as analytics.health_code counts it.
STATES = {
    0: ("ok", GREEN),
    1: ("running", PURPLE),
    2: ("unknown", GREY),
    3: ("late", YELLOW),
    4: ("missed", ORANGE),
    5: ("failing", RED),
}
RATE_STEPS = ((None, RED), (0.9, ORANGE), (0.97, YELLOW), (0.99, GREEN))
BAD_STEPS = ((None, GREEN), (1, RED))
LATE_STEPS = ((None, GREEN), (1, YELLOW), (10, ORANGE))

CLIENTS = "select client as __value, client as __text from analytics.clients where not is_archived order by client"
CLIENT = "${client:sqlstring}"
PIPELINE = "${pipeline:sqlstring}"
# Of dashboards of all clients. Named otherwise than the one client of the others: their `client` cannot be all.
CLIENT_OR_ALL = "${clients:sqlstring}"
CHOSEN = f"('__all__' = {CLIENT_OR_ALL} or client = {CLIENT_OR_ALL})"
CHOSEN_CLIENT = f"nullif({CLIENT_OR_ALL}, '__all__')"
WHOSE = "all clients, or of the one chosen"
OF_CLIENT = f"client = {CLIENT}"
OF_PIPELINE = f"{OF_CLIENT} and pipeline = {PIPELINE}"
# Lists of the latest of many rows filter by the numbers, not by the slugs: then an index gives them in order.
LATEST_OF_CLIENT = f"client_id = analytics.client_id({CLIENT})"
LATEST_OF_PIPELINE = (
    f"{LATEST_OF_CLIENT} and pipeline_id = (select pipeline_id from analytics.pipelines where {OF_PIPELINE})"
)
# A line of every run would be a line of half a million for a pipeline that runs each minute of a year.
MOST_POINTS = 2000
LINKS = {"pipeline": ("Open the pipeline", PIPELINE_URL), "client": ("Open the client", CLIENT_URL)}


def board(uid: str, title: str, description: str, *, time_from: str = "now-7d") -> boards.Dashboard:
    """An empty dashboard with the links that all of them have."""
    return (
        boards.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .editable()
        .refresh("1m")
        .time(time_from, "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            boards.DashboardLink("PulseWatch")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )


def filled(made: boards.Dashboard, *rows: tuple[str, list[Panel]]) -> boards.Dashboard:
    """The dashboard with these rows of panels; the spans of a line add up to 24."""
    for title, panels in rows:
        made = made.with_row(boards.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    return made


def outcomes(whose: str, arguments: str) -> Panel:
    """Runs by outcome. `arguments` are those behind the window, here and in all that follow."""
    return series(
        "Runs by outcome",
        f"Runs of {whose} that finished, by the hour (UTC) of their finish; by day over more than 14 days.",
        'select at as "time", succeeded_count as succeeded, failed_count as failed, timed_out_count as "timed out",'
        " cancelled_count as cancelled, skipped_count as skipped"
        f' from analytics.runs_series({WINDOW}{arguments}) order by "time"',
        bars=True,
    )


def durations(whose: str, arguments: str) -> Panel:
    return series(
        "How long runs take",
        f"Median, 95th and 99th percentile of the durations of finished runs of {whose}; at most 4.5 % off.",
        'select at as "time", duration_p50_s as p50, duration_p95_s as p95, duration_p99_s as p99'
        f' from analytics.runs_series({WINDOW}{arguments}) order by "time"',
        unit="s",
        colors={"p50": GREEN, "p95": ORANGE, "p99": RED},
    )


def success(whose: str, arguments: str) -> Panel:
    return series(
        "Success rate over time",
        f"Share of the finished runs of {whose} that succeeded; cancelled and skipped ones do not count.",
        'select at as "time", success_rate as "success rate"'
        f' from analytics.runs_series({WINDOW}{arguments}) order by "time"',
        unit="percentunit",
        most=1,
        colors={"success rate": GREEN},
    )


def punctuality(whose: str, arguments: str) -> Panel:
    return series(
        "Punctuality",
        f"Expected starts of {whose}: met in time, met late, not met; by the time they were expected at.",
        'select at as "time", on_time_count as "on time", late_count as late, missed_count as missed'
        f' from analytics.runs_series({WINDOW}{arguments}) order by "time"',
        bars=True,
    )


def duration_heat(whose: str, arguments: str) -> Panel:
    return heat(
        "Durations",
        f"Runs of {whose} by how long they took: the stronger the colour, the more runs. A line is named by its upper"
        " end.",
        'select at as "time", le_1 as "1", le_4 as "4", le_16 as "16", le_64 as "64", le_256 as "256",'
        ' le_1024 as "1024", le_4096 as "4096", le_16384 as "16384", le_inf as "+Inf"'
        f' from analytics.duration_heatmap({WINDOW}{arguments}) order by "time"',
    )


def errors(whose: str, arguments: str) -> Panel:
    return bars(
        "Kinds of failure",
        f"Spans in which pipelines of {whose} were failing, by the kind of the failure that began them.",
        f"select error_class as metric, span_count as value from analytics.error_classes({WINDOW}{arguments})"
        " order by span_count desc, error_class limit 10",
        steps=((None, RED),),
        no_value="nothing failed",
    )


def summary_numbers(whose: str, arguments: str) -> list[Panel]:
    """Six numbers of a window, in one line."""

    def of_window(columns: str) -> str:
        return f"select {columns} from analytics.runs_summary({WINDOW}{arguments})"

    return [
        number(
            "Success rate",
            f"Share of the finished runs of {whose} that succeeded; cancelled and skipped ones do not count.",
            of_window("success_rate"),
            unit="percentunit",
            steps=RATE_STEPS,
            decimals=1,
        ),
        number(
            "Change of success rate",
            f"Success rate of {whose} less that of the same length of time before, in points.",
            f"select success_rate_change from analytics.runs_change({WINDOW}{arguments})",
            unit="percentunit",
            steps=((None, RED), (-0.005, GREY), (0.005, GREEN)),
            decimals=1,
            no_value="no runs before",
        ),
        number("Finished runs", f"Runs of {whose} that finished.", of_window("finished_count")),
        number(
            "Failed or timed out",
            f"Runs of {whose} that failed, and that were still going when their time was up.",
            of_window('failed_count as failed, timed_out_count as "timed out"'),
            steps=BAD_STEPS,
        ),
        number(
            "Late or missed",
            f"Expected starts of {whose} that were met late, and that nothing met.",
            of_window("late_count as late, missed_count as missed"),
            steps=LATE_STEPS,
        ),
        number(
            "p95 duration",
            f"95 % of the finished runs of {whose} took no longer.",
            of_window("duration_p95_s"),
            unit="s",
        ),
    ]


def deploys(where: str) -> boards.AnnotationQuery:
    """Marks for what was deployed or noted, also for what began before the time shown and reaches into it."""
    return annotations(
        "Deploys and notes",
        "blue",
        "select at as time, until_at as timeend, text, kind as tags from analytics.annotations"
        f" where {where} and at <= $__timeTo()::timestamptz"
        " and (at >= $__timeFrom()::timestamptz or until_at >= $__timeFrom()::timestamptz) order by at",
    )


def alerts(where: str) -> boards.AnnotationQuery:
    """Spans from firing to resolved, also of what fired before the time shown and was open in it."""
    return annotations(
        "Alerts",
        "red",
        "select fired_at as time, resolved_at as timeend, summary as text, max_level as tags from analytics.alerts"
        f" where {where} and not is_dry_run and fired_at <= $__timeTo()::timestamptz"
        " and (resolved_at is null or resolved_at >= $__timeFrom()::timestamptz) order by fired_at",
    )
