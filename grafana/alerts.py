"""The dashboard of alerts: what is wrong now, what was, which rules cry wolf, and whether people were told."""

from grafana_foundation_sdk.builders import dashboard as boards

from grafana.kit import AGO, BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, Panel, chosen, listing, number, series, states
from grafana.shared import (
    BAD_STEPS,
    CHOSEN,
    CHOSEN_CLIENT,
    CLIENTS,
    LINKS,
    WHOSE,
    WINDOW,
    board,
    filled,
)

ARGUMENTS = f"({WINDOW}, {CHOSEN_CLIENT})"
# The level of an alert, as analytics.alerts counts it.
LEVELS = {0: ("no alert", GREEN), 1: ("warning", YELLOW), 2: ("critical", RED)}
NO_ALERT = "no alert"


def alerts() -> boards.Dashboard:
    made = board(
        "pw-alerts",
        "Alerts",
        "What is wrong now, what was, which rules are noisy, and whether people were told.",
        time_from="now-30d",
    ).with_variable(chosen("clients", "Client", CLIENTS, all_too=True))
    return filled(
        made,
        ("Now", [_firing()]),
        ("In this time", _numbers()),
        ("Over time", [_timeline(), _by_level(), _reaction()]),
        ("Rules", [_noisiest()]),
        ("Delivery", [_channels(), _silences(), _untold()]),
        ("History", [_latest(), _events()]),
    )


def _firing() -> Panel:
    return listing(
        "Firing now",
        f"Alerts of {WHOSE} that are open, the worst and longest first. As of now.",
        f"""select level, client, pipeline, rule_title, summary, fired_at, acknowledged_by, snoozed_until_at, owner,
        runbook_url from analytics.alerts where {CHOSEN} and is_open and not is_dry_run
        order by level_code desc, fired_at, client, pipeline limit 200""",
        units={"fired_at": AGO},
        links=LINKS | {"runbook_url": ("Open the runbook", "${__value.raw}")},
        statuses=["level"],
        no_value="nothing: all is well",
        height=9,
    )


def _numbers() -> list[Panel]:
    def of_window(columns: str) -> str:
        return f"select {columns} from analytics.alerts_summary{ARGUMENTS}"

    return [
        number(
            "Alerts", f"Alerts of {WHOSE} that fired; dry runs do not count.", of_window("fired_count"),
            no_value=NO_ALERT,
        ),
        number(
            "Critical", "Of these, those that became critical.", of_window("critical_count"), steps=BAD_STEPS,
            no_value=NO_ALERT,
        ),
        number(
            "Time to acknowledge",
            "Mean time from firing until somebody took an alert on, of those that somebody took on.",
            of_window("acknowledge_avg_s"),
            unit="s",
            no_value="nobody took one on",
        ),
        number(
            "Time to resolve",
            "Mean time from firing until an alert was over, of those that are.",
            of_window("resolve_avg_s"),
            unit="s",
            no_value="none is over",
        ),
        number(
            "Acknowledged",
            "Share of these alerts that somebody took on.",
            of_window("acknowledged_rate"),
            unit="percentunit",
            decimals=0,
            no_value=NO_ALERT,
        ),
        number(
            "Over within 5 minutes",
            "Share of these alerts that recovered by themselves within five minutes: the more, the noisier the rules.",
            of_window("brief_rate"),
            unit="percentunit",
            steps=((None, GREEN), (0.2, YELLOW), (0.5, ORANGE)),
            decimals=0,
            no_value=NO_ALERT,
        ),
    ]  # fmt: skip


def _timeline() -> Panel:
    return states(
        "Alerts by rule and pipeline",
        "The level of alerts over time, of 20 pairs of a rule and a pipeline: open ones first, then critical ones.",
        f"""select at as "time", label as metric, level_code as value from analytics.level_series{ARGUMENTS}
        order by "time", metric""",
        LEVELS,
    )


def _by_level() -> Panel:
    return series(
        "Alerts by level",
        f"Alerts of {WHOSE} by when they fired, by the hour (UTC) or, over more than 14 days, by day; highest level.",
        f"""select at as "time", warning_count as warning, critical_count as critical
        from analytics.alerts_series{ARGUMENTS} order by "time" """,
        bars=True,
    )


def _reaction() -> Panel:
    return series(
        "How long people and pipelines took",
        "Mean time until somebody took an alert on, and until it was over, by when it fired.",
        f"""select at as "time", acknowledge_avg_s as "time to acknowledge", resolve_avg_s as "time to resolve"
        from analytics.alerts_series{ARGUMENTS} order by "time" """,
        unit="s",
        colors={"time to acknowledge": BLUE, "time to resolve": PURPLE},
    )


def _noisiest() -> Panel:
    return listing(
        "Noisiest rules",
        "Rules by how often they fired in this time. Many alerts that are over in five minutes, and few that somebody"
        " takes on, tell of a rule that asks for a longer hold or another threshold.",
        f"""select rule_title, kind, fired_count, critical_count, open_count, pipeline_count, brief_rate,
        acknowledged_rate, acknowledge_avg_s, resolve_avg_s, last_fired_at from analytics.rules_summary{ARGUMENTS}
        order by fired_count desc, rule limit 50""",
        units={
            "brief_rate": "percentunit", "acknowledged_rate": "percentunit", "acknowledge_avg_s": "s",
            "resolve_avg_s": "s", "last_fired_at": AGO,
        },
        no_value="no rule fired",
    )  # fmt: skip


def _channels() -> Panel:
    return listing(
        "Delivery by channel",
        "What became of the messages of this time. Times are from the alert event to the receiver.",
        f"""select channel_title, channel_kind, notification_count, sent_count, waiting_count, held_count,
        superseded_count, dropped_count, dead_count, retried_count, sent_rate, send_p50_s, send_p95_s, last_sent_at
        from analytics.channels_summary{ARGUMENTS} order by notification_count desc, channel limit 100""",
        units={"sent_rate": "percentunit", "send_p50_s": "s", "send_p95_s": "s", "last_sent_at": AGO},
        height=6,
        no_value="nobody was told anything",
    )


def _silences() -> Panel:
    return listing(
        "Silences in force",
        "What is not told now, and why. An empty field stands for any.",
        f"""select client, starts_at, ends_at, comment, author, of_rules, of_clients, of_pipelines, of_tags, of_owners,
        of_environments, of_levels from analytics.silences_log where ({CHOSEN} or client is null) and is_in_force
        order by ends_at limit 100""",
        height=6,
        no_value="nothing is silenced",
    )


def _untold() -> Panel:
    return listing(
        "Messages that are late or never came",
        "Messages of this time that were given up, that are waiting, or that took more than one attempt; the latest"
        " first.",
        f"""select created_at, status, channel_title, reason, client, pipeline, rule, attempt_count, last_attempt_at,
        last_http_status, last_error from analytics.notifications
        where {CHOSEN} and $__timeFilter(created_at)
        and (status in ('dead', 'pending', 'leased') or attempt_count > 1) order by created_at desc limit 100""",
        links=LINKS,
        statuses=["status"],
        no_value="everything arrived at once",
    )


def _latest() -> Panel:
    return listing(
        "Latest alerts",
        "Alerts that fired in this time, the latest first; those of dry runs and those worked out from history, too.",
        f"""select fired_at, max_level, client, pipeline, rule_title, summary, acknowledge_s, resolve_s, resolve_reason,
        acknowledged_by, sent_count, is_dry_run, is_backfill from analytics.alerts
        where {CHOSEN} and $__timeFilter(fired_at) order by fired_at desc limit 100""",
        units={"acknowledge_s": "s", "resolve_s": "s"},
        links=LINKS,
        statuses=["max_level"],
        height=10,
        no_value="no alert in this time",
    )


def _events() -> Panel:
    return listing(
        "What happened",
        "Events of alerts in this time, the latest first, with the newest run that each rests on.",
        f"""select occurred_at, client, pipeline, rule_title, kind, state, level, value, threshold, reason, actor,
        comment, run_url, run_id from analytics.alert_events
        where {CHOSEN} and $__timeFilter(occurred_at) order by occurred_at desc limit 200""",
        links=LINKS | {"run_url": ("Open the run", "${__value.raw}")},
        statuses=["state", "level"],
        height=10,
        no_value="nothing happened in this time",
    )
