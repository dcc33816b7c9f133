"""alerts_series, alerts_summary, rules_summary, channels_summary, level_series: rows given, rows expected."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests.analytics.alerting import Alerting, alerting, rule
from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, pipeline, read, record, uuid

MINUTE = timedelta(minutes=1)
DAY = "'2026-11-21 00:00+00', '2026-11-22 00:00+00'"


@pytest.fixture
def alerts(acme: Acme) -> Alerting:
    """Three alerts of acme's nightly and one of its load, one of another client, a dry run, one of the day before."""
    alerts = alerting(acme)
    load = pipeline(acme.connection, acme.client_id, "load")
    other = client(acme.connection, "zeta")
    slow = rule(acme, "slow", spec={"title": None, "kind": "overrun"})
    alerts.alert(1, fired_at=at(1), resolved_at=at(1) + 2 * MINUTE)
    alerts.alert(2, fired_at=at(1.5), acknowledged_at=at(1.5) + MINUTE, resolved_at=at(2.5), max_level=2)
    alerts.alert(3, fired_at=at(3), level=2)
    alerts.alert(4, fired_at=at(3.25), acknowledged_at=at(3.25) + 3 * MINUTE, pipeline_id=load, rule_id=slow)
    alerts.alert(5, fired_at=at(3.5), client_id=other, pipeline_id=0)
    alerts.alert(6, fired_at=at(3.5), pipeline_id=99, is_dry_run=True)
    alerts.alert(7, fired_at=at(0) - MINUTE, resolved_at=at(0))
    return alerts


# -- series and summary --------------------------------------------------------------------------------------


def test_a_series_counts_alerts_by_when_they_fired_and_fills_hours_without(alerts: Alerting) -> None:
    query = "select * from analytics.alerts_series('2026-11-21 00:30+00', '2026-11-21 04:00+00', 'acme')"
    assert read(alerts.connection, query) == [
        (at(0), 0, 0, 0, 0, 0, None, None),
        (at(1), 2, 1, 1, 1, 1, 60.0, 1860.0),
        (at(2), 0, 0, 0, 0, 0, None, None),
        (at(3), 2, 1, 1, 1, 0, 180.0, None),
    ]


@pytest.mark.parametrize(("whose", "count"), [("", 5), (", 'acme'", 4), (", 'acme', 'load'", 1), (", 'zeta'", 1)])
def test_a_series_and_a_summary_are_of_a_pipeline_a_client_or_all(alerts: Alerting, whose: str, count: int) -> None:
    query = f"select fired_count from analytics.alerts_series({DAY}{whose}, step => 'day')"
    assert read(alerts.connection, query) == [(count,)]
    query = f"select fired_count from analytics.alerts_summary({DAY}{whose})"
    assert read(alerts.connection, query) == [(count,)]


def test_a_summary_tells_what_came_of_the_alerts_and_how_long_it_took(alerts: Alerting) -> None:
    assert record(alerts.connection, f"select * from analytics.alerts_summary({DAY}, 'acme')") == {
        "fired_count": 4,
        "warning_count": 2,
        "critical_count": 2,
        "open_count": 2,
        "acknowledged_count": 2,
        "brief_count": 1,
        "acknowledged_rate": 0.5,
        "brief_rate": 0.25,
        "acknowledge_avg_s": 120.0,
        "acknowledge_p50_s": 120.0,
        "resolve_avg_s": 1860.0,
        "resolve_p50_s": 1860.0,
    }
    quiet = record(alerts.connection, "select * from analytics.alerts_summary('2027-01-01', '2027-01-02')")
    assert (quiet["fired_count"], quiet["brief_rate"], quiet["resolve_avg_s"]) == (0, None, None)


UNKNOWN = [
    "alerts_series({}, 'nobody')",
    "alerts_series({}, 'acme', 'nothing')",
    "alerts_summary({}, 'nobody')",
    "rules_summary({}, 'nobody')",
    "channels_summary({}, 'nobody')",
    "level_series({}, 'nobody')",
    "level_series({}, 'acme', 'nothing')",
]


@pytest.mark.parametrize("call", UNKNOWN)
def test_what_does_not_exist_has_no_row(alerts: Alerting, call: str) -> None:
    assert read(alerts.connection, f"select * from analytics.{call.format(DAY)}") == []


@pytest.mark.parametrize("function", ["alerts_series", "alerts_summary", "level_series"])
def test_a_pipeline_without_its_client_is_refused(alerts: Alerting, function: str) -> None:
    with pytest.raises(DBAPIError, match="named together with its client"), alerts.connection.begin_nested():
        read(alerts.connection, f"select * from analytics.{function}({DAY}, null, 'nightly')")


@pytest.mark.parametrize(
    ("window", "step", "why"),
    [
        (DAY, "'week'", "auto, hour or day"),
        ("'1000-01-01', '2026-01-01'", "'hour'", "at most 100000"),
    ],
)
def test_a_series_refuses_a_step_that_it_does_not_know_and_too_many_rows(
    alerts: Alerting, window: str, step: str, why: str
) -> None:
    with pytest.raises(DBAPIError, match=why), alerts.connection.begin_nested():
        read(alerts.connection, f"select * from analytics.alerts_series({window}, step => {step})")


# -- rules and channels --------------------------------------------------------------------------------------


def test_rules_are_summed_up_the_noisiest_first(alerts: Alerting) -> None:
    rows = read(alerts.connection, f"select * from analytics.rules_summary({DAY})")
    assert rows[0][0] == alerts.rule_id
    assert [row[1:] for row in rows] == [
        ("failures", "Too many failures", "consecutive_failures", 4, 2, 2, 1, 1, 2, 0.25, 0.25, 60.0, 1860.0, at(3.5)),
        ("slow", "slow", "overrun", 1, 0, 1, 1, 0, 1, 1.0, 0.0, 180.0, None, at(3.25)),
    ]
    counts = f"select rule, fired_count from analytics.rules_summary({DAY}, 'zeta')"
    assert read(alerts.connection, counts) == [("failures", 1)]


def test_channels_are_summed_up_by_what_became_of_their_messages(alerts: Alerting) -> None:
    statuses = ["sent", "sent", "pending", "held", "superseded", "dropped", "dead"]
    for number, status in enumerate(statuses, 1):
        sent: dict[str, Any] = {"sent_at": at(1) + number * MINUTE} if status == "sent" else {}
        alerts.message(number, status=status, attempt_count=number - 1, alert_id=uuid(1), **sent)
    alerts.message(8, created_at=at(24))
    query = f"select * from analytics.channels_summary({DAY}, 'acme')"
    assert read(alerts.connection, query) == [
        (alerts.channel_id, "mail", "On call", "email", 7, 2, 1, 1, 1, 1, 1, 5, 21, 2 / 3, 90.0, 117.0,
         at(1) + 2 * MINUTE)
    ]  # fmt: skip
    assert read(alerts.connection, f"select * from analytics.channels_summary({DAY}, 'zeta')") == []


# -- levels over time ----------------------------------------------------------------------------------------


def turns(alerts: Alerting, window: str, whose: str = "") -> list[tuple[Any, ...]]:
    query = f"select at, label, level_code, level from analytics.level_series({window}{whose})"
    return read(alerts.connection, query)


def test_levels_turn_when_an_alert_fires_changes_and_ends_and_begin_as_they_were(acme: Acme) -> None:
    alerts = alerting(acme)
    alerts.alert(1, fired_at=at(1), level=2, resolved_at=at(4))
    alerts.event(1, 1, kind="pending", as_of=at(0.5), level=0, state="pending")
    alerts.event(1, 2, as_of=at(1))
    alerts.event(1, 3, kind="level_changed", as_of=at(2), prev_level=1, level=2)
    alerts.event(1, 4, kind="acknowledged", as_of=at(3), level=2)
    alerts.event(1, 5, kind="resolved", as_of=at(4), prev_level=2, level=0, state="ok")
    label = "acme/nightly: failures"
    assert turns(alerts, DAY) == [
        (at(0), label, 0, None),
        (at(1), label, 1, "warning"),
        (at(2), label, 2, "critical"),
        (at(4), label, 0, None),
    ]
    assert turns(alerts, "'2026-11-21 02:30+00', '2026-11-21 03:30+00'", ", 'acme', 'nightly'") == [
        (at(2.5), label, 2, "critical")
    ]
    assert turns(alerts, "'2026-11-21 05:00+00', '2026-11-21 06:00+00'") == []
    assert turns(alerts, DAY, ", 'acme', 'nightly', 0") == []


def test_an_alert_that_ends_as_the_next_one_fires_leaves_one_value_a_moment(acme: Acme) -> None:
    alerts = alerting(acme)
    alerts.alert(1, fired_at=at(1), resolved_at=at(2))
    alerts.event(1, 1)
    alerts.event(1, 2, kind="resolved", as_of=at(2), level=0)
    alerts.alert(2, fired_at=at(2))
    alerts.event(2, 9, as_of=at(2))
    assert [(row[0], row[2]) for row in turns(alerts, DAY)] == [(at(0), 0), (at(1), 1), (at(2), 1)]


def test_open_alerts_come_before_critical_ones_and_a_clients_rule_is_told_from_one_of_all(acme: Acme) -> None:
    alerts = alerting(acme)
    own = rule(acme, "failures", client_id=acme.client_id)
    alerts.alert(1, level=2, resolved_at=at(2))
    alerts.alert(2, rule_id=own)
    alerts.alert(3, client_id=0, pipeline_id=0, resolved_at=at(2))
    for number in (1, 2, 3):
        alerts.event(number, 1)
    labels = ["acme/nightly: acme/failures", "acme/nightly: failures", "all clients: failures"]
    for most in (1, 2, 3):
        found = {row[1] for row in turns(alerts, DAY, f", most => {most}")}
        assert sorted(found) == labels[:most]
