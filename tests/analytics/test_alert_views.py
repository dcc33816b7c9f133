"""alerts, alert_events, alert_rules_now, alert_rule_changes, rule_quality: rows given, rows expected."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.analytics.alerting import SPEC, Alerting, alerting, rule, version
from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, insert, read, record, run, uuid

MINUTE = timedelta(minutes=1)


@pytest.fixture
def alerts(acme: Acme) -> Alerting:
    return alerting(acme)


# -- alerts --------------------------------------------------------------------------------------------------


def test_an_alert_tells_whose_it_is_what_is_wrong_and_how_long_everything_took(alerts: Alerting) -> None:
    alerts.alert(
        1, level=1, max_level=2, pending_at=at(0.5), acknowledged_at=at(1.25), acknowledged_by="ada", resolved_at=at(2),
        snoozed_until=at(1.5), value=3.0, threshold=2.0,
    )  # fmt: skip
    for seq, kind in enumerate(("fired", "acknowledged", "resolved"), 1):
        alerts.event(1, seq, kind=kind)
    alerts.message(1, status="sent", sent_at=at(1))
    alerts.message(2, alert_id=uuid(1))
    assert record(alerts.connection, "select * from analytics.alerts") == {
        "client_id": alerts.acme.client_id,
        "pipeline_id": alerts.acme.pipeline_id,
        "client": "acme",
        "client_title": "Acme & Co",
        "pipeline": "nightly",
        "pipeline_title": "Nightly load",
        "environment": "prod",
        "owner": "data@acme.test",
        "alert_id": uuid(1),
        "rule_id": alerts.rule_id,
        "rule": "failures",
        "rule_title": "Too many failures",
        "rule_kind": "consecutive_failures",
        "rule_version": 1,
        "level": "warning",
        "level_code": 1,
        "max_level": "critical",
        "max_level_code": 2,
        "is_open": False,
        "is_acknowledged": True,
        "is_brief": False,
        "pending_at": at(0.5),
        "fired_at": at(1),
        "acknowledged_at": at(1.25),
        "acknowledged_by": "ada",
        "snoozed_until_at": at(1.5),
        "resolved_at": at(2),
        "resolve_reason": "recovered",
        "pending_s": 1800.0,
        "acknowledge_s": 900.0,
        "resolve_s": 3600.0,
        "value": 3.0,
        "threshold": 2.0,
        "summary": "alert 1",
        "runbook_url": "https://runbook.test",
        "event_count": 3,
        "notification_count": 2,
        "sent_count": 1,
        "is_backfill": False,
        "is_dry_run": False,
        "first_acknowledged_at": at(1.25),
        "is_ever_acknowledged": True,
    }


def test_the_time_to_acknowledge_outlasts_what_it_was_taken_on_as(alerts: Alerting) -> None:
    alerts.alert(1, first_acknowledged_at=at(1) + 2 * MINUTE)
    alerts.alert(
        2, fired_at=at(3), first_acknowledged_at=at(3) + 4 * MINUTE, acknowledged_at=at(4), pipeline_id=0,
        resolved_at=at(5),
    )  # fmt: skip
    query = "select is_acknowledged, is_ever_acknowledged, acknowledge_s from analytics.alerts order by alert_id"
    assert read(alerts.connection, query) == [(False, True, 120.0), (True, True, 240.0)]
    given = {"from": at(0), "to": at(6)}
    query = "select acknowledged_count, acknowledged_rate, acknowledge_avg_s from analytics.{}(:from, :to)"
    for function in ("alerts_summary", "rules_summary"):
        assert read(alerts.connection, query.format(function), **given) == [(2, 1.0, 180.0)]
    query = "select sum(acknowledged_count), avg(acknowledge_avg_s) from analytics.alerts_series(:from, :to)"
    assert read(alerts.connection, query, **given) == [(2, 180.0)]


def test_an_open_alert_that_nobody_took_on_leaves_the_times_empty(alerts: Alerting) -> None:
    alerts.alert(1)
    row = record(alerts.connection, "select * from analytics.alerts")
    empty = {"acknowledged_at", "resolved_at", "resolve_reason", "pending_s", "acknowledge_s", "resolve_s"}
    assert {name: row[name] for name in empty} == dict.fromkeys(empty)
    assert (row["is_open"], row["is_acknowledged"], row["is_brief"]) == (True, False, False)


@pytest.mark.parametrize(
    ("minutes", "values", "is_brief"),
    [
        (4, {}, True),
        (5, {}, False),
        (4, {"acknowledged_at": at(1)}, False),
        (4, {"resolve_reason": "rule_deleted"}, False),
    ],
)
def test_an_alert_is_brief_that_recovered_by_itself_within_five_minutes(
    alerts: Alerting, minutes: int, values: dict[str, Any], is_brief: bool
) -> None:
    alerts.alert(1, **{"resolved_at": at(1) + minutes * MINUTE, "resolve_reason": "recovered", **values})
    assert read(alerts.connection, "select is_brief from analytics.alerts") == [(is_brief,)]


def test_an_alert_names_its_rule_as_it_was_when_it_fired(alerts: Alerting) -> None:
    alerts.alert(1)
    version(alerts.acme, alerts.rule_id, 2, SPEC | {"title": "Renamed"}, change="changed")
    insert_two = alerts.alert(2, rule_version=2, pipeline_id=0)
    assert insert_two == uuid(2)
    query = "select rule_title, pipeline_id, pipeline from analytics.alerts order by alert_id"
    assert read(alerts.connection, query) == [
        ("Too many failures", alerts.acme.pipeline_id, "nightly"),
        ("Renamed", 0, None),
    ]


def test_an_alert_of_the_fleet_has_neither_client_nor_pipeline(alerts: Alerting) -> None:
    alerts.alert(1, client_id=0, pipeline_id=0)
    query = "select client_id, pipeline_id, client, pipeline, rule from analytics.alerts"
    assert read(alerts.connection, query) == [(0, 0, None, None, "failures")]


# -- events --------------------------------------------------------------------------------------------------


def test_alert_events_tell_what_happened_and_on_which_runs_it_rests(alerts: Alerting) -> None:
    evidence = {"runs": [str(uuid(9)), str(uuid(8))]}
    run(alerts.connection, *alerts.acme.ids, 9, url="https://run.test/9")
    alerts.event(1, 1, value=2.0, threshold=2.0, evidence=evidence, known_at=at(0.9), recorded_at=at(1.1))
    alerts.event(
        1, 2, kind="commented", from_state="firing", prev_level=1, level=2, as_of=at(2), actor="ada", comment="on it",
        is_backfill=True,
    )  # fmt: skip
    query = (
        "select pipeline, rule, rule_title, rule_version, alert_id, occurred_at, seq, kind, from_state, state,"
        " prev_level, prev_level_code, level, level_code, value, threshold, reason, actor, comment, run_id, run_count,"
        " run_url, known_at, is_backfill from analytics.alert_events order by seq"
    )
    first, second = read(alerts.connection, query)
    rule_ = ("nightly", "failures", "Too many failures", 1, uuid(1))
    assert first == (
        *rule_, at(1), 1, "fired", "ok", "firing", None, 0, "warning", 1, 2.0, 2.0, None, None, None, uuid(9), 2,
        "https://run.test/9", at(0.9), False,
    )  # fmt: skip
    assert second == (
        *rule_, at(2), 2, "commented", "firing", "firing", "warning", 1, "critical", 2, None, None, None, "ada",
        "on it", None, None, None, None, True,
    )  # fmt: skip


# -- rules ---------------------------------------------------------------------------------------------------


def test_a_rule_is_flattened_with_what_it_watches_and_finds(alerts: Alerting) -> None:
    states = (("ok", 0), ("firing", 1), ("recovering", 2), ("firing", 2), ("pending", 0), ("no_data", 0), ("error", 0))
    for number, (state, level) in enumerate(states):
        insert(
            alerts.connection, "alert_target", client_id=alerts.acme.client_id, pipeline_id=number,
            rule_id=alerts.rule_id, target_since=at(0), state=state, level=level, state_since=at(0), alert_id=uuid(1),
        )  # fmt: skip
    for number, hour in ((1, 1), (2, 3)):
        alerts.alert(number, fired_at=at(hour), resolved_at=at(hour))
    row = record(alerts.connection, "select * from analytics.alert_rules_now")
    assert row | {"created_at": None, "updated_at": None} == {
        "client_id": None,
        "rule_id": alerts.rule_id,
        "client": None,
        "rule": "failures",
        "rule_title": "Too many failures",
        "kind": "consecutive_failures",
        "version": 1,
        "is_enabled": True,
        "is_dry_run": False,
        "warning_threshold": 2.0,
        "critical_threshold": 5.0,
        "for_s": 60.0,
        "keep_firing_s": 0.0,
        "recover_consecutive": 2,
        "on_no_data": "keep",
        "on_error": "alert",
        "evaluation_delay_s": 30.0,
        "new_target_grace_s": 0.0,
        "repeat_s": None,
        "channels": "mail, chat",
        "of_clients": None,
        "of_pipelines": "night*, load",
        "of_tags": None,
        "of_owners": None,
        "of_environments": "prod",
        "runbook_url": "https://runbook.test",
        "target_count": 7,
        "warning_count": 1,
        "critical_count": 2,
        "pending_count": 1,
        "no_data_count": 1,
        "error_count": 1,
        "last_fired_at": at(3),
        "created_at": None,
        "updated_at": None,
        "author": "ops",
    }


def test_rules_say_what_holds_now_and_deleted_ones_are_left_out(alerts: Alerting) -> None:
    own = rule(alerts.acme, "own", client_id=alerts.acme.client_id, spec={"title": None, "is_dry_run": True})
    version(alerts.acme, own, 2, SPEC | {"title": "Second"}, client_id=alerts.acme.client_id, change="changed")
    rule(alerts.acme, "gone", deleted_at=at(3))
    query = "select client, rule, rule_title, version, is_dry_run from analytics.alert_rules_now order by rule"
    assert read(alerts.connection, query) == [
        (None, "failures", "Too many failures", 1, False),
        ("acme", "own", "own", 1, True),
    ]
    alerts.connection.execute(text("update pulsewatch.alert_rule set version = 2 where key = 'own'"))
    assert read(alerts.connection, query)[1] == ("acme", "own", "Second", 2, False)


def test_changes_of_rules_name_who_changed_what(alerts: Alerting) -> None:
    changed = SPEC | {"levels": {"critical": 7}, "channels": []}
    version(
        alerts.acme, alerts.rule_id, 2, changed, change="changed", author="ada", comment="too noisy", created_at=at(2)
    )
    version(alerts.acme, alerts.rule_id, 3, changed, change="deleted", created_at=at(3))
    alerts.connection.execute(text("update pulsewatch.alert_rule set version = 2"))
    query = (
        "select rule, version, changed_at, change, changed_fields, author, comment, kind, warning_threshold,"
        " critical_threshold, channels, is_in_force from analytics.alert_rule_changes order by version"
    )
    kind = "consecutive_failures"
    assert read(alerts.connection, query) == [
        ("failures", 1, at(0), "created", None, "ops", None, kind, 2.0, 5.0, "mail, chat", False),
        ("failures", 2, at(2), "changed", "channels, levels", "ada", "too noisy", kind, None, 7.0, None, True),
        ("failures", 3, at(3), "deleted", None, None, None, kind, None, 7.0, None, False),
    ]


def test_the_quality_of_a_rule_is_that_of_the_last_28_days(alerts: Alerting) -> None:
    now = alerts.connection.execute(text("select now()")).scalar_one()
    for number, days in enumerate((1, 2, 3, 27, 29)):
        fired_at = now - timedelta(days=days)
        alerts.alert(number, fired_at=fired_at, resolved_at=fired_at + MINUTE, pipeline_id=number)
    fired_at = now - timedelta(hours=1)
    alerts.alert(9, fired_at=fired_at, acknowledged_at=fired_at + 2 * MINUTE, level=2)
    for number, flag in enumerate(("is_dry_run", "is_backfill", "is_backfill"), 10):
        alerts.alert(number, fired_at=now, pipeline_id=number, **{flag: True})
    alerts.connection.execute(
        text("update pulsewatch.alert_rule set created_at = :at"), {"at": now - timedelta(days=40)}
    )
    never = rule(alerts.acme, "never")
    rule(alerts.acme, "gone", deleted_at=at(3))
    rows = read(alerts.connection, "select * from analytics.rule_quality order by rule")
    kind = "consecutive_failures"
    assert rows == [
        (None, alerts.rule_id, None, "failures", "Too many failures", kind, True, False, 5, 1.25, 1, 1, 4, 1, 0.8, 0.2,
         120.0, 60.0, fired_at, 1, 2),
        (None, never, None, "never", "Too many failures", kind, True, False, 0, 0.0, 0, 0, 0, 0, None, None, None, None,
         None, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("age", "a_week"), [(0.5, 14.0), (2, 7.0), (14, 1.0), (28, 0.5), (300, 0.5)])
def test_how_often_a_young_rule_fires_is_told_by_its_age(alerts: Alerting, age: float, a_week: float) -> None:
    now = alerts.connection.execute(text("select now()")).scalar_one()
    for number in (1, 2):
        alerts.alert(number, fired_at=now, pipeline_id=number)
    made_at = now - timedelta(days=age)
    alerts.connection.execute(text("update pulsewatch.alert_rule set created_at = :at"), {"at": made_at})
    assert read(alerts.connection, "select fired_per_week from analytics.rule_quality") == [(a_week,)]


# -- silences ------------------------------------------------------------------------------------------------


def test_silences_are_flattened_and_told_apart_by_whether_they_hold(acme: Acme) -> None:
    now = acme.connection.execute(text("select now()")).scalar_one()
    other = client(acme.connection, "zeta")
    for number, (client_id, starts, ends, matchers) in enumerate(
        (
            (None, -2, 1, {"rules": ["fail*"], "clients": ["acme", "zeta"], "levels": ["warning"]}),
            (other, -2, 0, {"pipelines": ["a"], "tags": ["b"], "owners": ["c"], "environments": ["d"]}),
            (other, 1, 2, {}),
        )
    ):
        insert(
            acme.connection, "silence", id=uuid(number), client_id=client_id, matchers=matchers, comment="deploy",
            author="ada", starts_at=now + starts * MINUTE, ends_at=now + ends * MINUTE,
        )  # fmt: skip
    query = (
        "select client, silence_id, duration_s, is_in_force, of_rules, of_clients, of_pipelines, of_tags, of_owners,"
        " of_environments, of_levels, comment, author from analytics.silences_log order by silence_id"
    )
    assert read(acme.connection, query) == [
        (None, uuid(0), 180.0, True, "fail*", "acme, zeta", None, None, None, None, "warning", "deploy", "ada"),
        ("zeta", uuid(1), 120.0, False, None, None, "a", "b", "c", "d", None, "deploy", "ada"),
        ("zeta", uuid(2), 60.0, False, None, None, None, None, None, None, None, "deploy", "ada"),
    ]


# -- notifications -------------------------------------------------------------------------------------------


def test_a_message_tells_its_way_and_not_what_it_says(alerts: Alerting) -> None:
    alerts.alert(1)
    alerts.message(1, status="sent", sent_at=at(1) + MINUTE, attempt_count=2, last_error="Answered 503.")
    alerts.attempt(1, 1, started_at=at(1), outcome="retry", http_status=503, error="Answered 503.")
    alerts.attempt(1, 2, started_at=at(1) + MINUTE, http_status=200)
    row = record(alerts.connection, "select * from analytics.notifications")
    wanted = {
        "client": "acme", "pipeline": "nightly", "owner": "data@acme.test", "notification_id": uuid(1),
        "alert_id": uuid(1), "rule_id": alerts.rule_id, "rule": "failures", "channel_id": alerts.channel_id,
        "channel": "mail", "channel_title": "On call", "channel_kind": "email", "reason": "fired", "status": "sent",
        "status_code": 0, "held_by": None, "event_at": at(1), "created_at": at(1), "expires_at": at(25),
        "sent_at": at(1) + MINUTE, "send_s": 60.0, "attempt_count": 2, "first_attempt_at": at(1),
        "last_attempt_at": at(1) + MINUTE, "last_outcome": "sent", "last_http_status": 200,
        "last_error": "Answered 503.",
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    assert [name for name, cell in row.items() if "words" in str(cell)] == []


def test_a_message_that_repeats_counts_from_when_it_was_written_and_a_test_is_about_no_alert(alerts: Alerting) -> None:
    alerts.alert(1)
    alerts.message(1, reason="repeat", created_at=at(5), status="sent", sent_at=at(5) + MINUTE)
    alerts.message(2, reason="test", alert_id=None, event_as_of=None, status="sent", sent_at=at(1) + MINUTE)
    alerts.message(3, alert_id=uuid(1), status="held", held_by="silence", silence_id=uuid(7))
    query = (
        "select reason, rule, client, pipeline, status, held_by, silence_id, send_s, first_attempt_at"
        " from analytics.notifications order by notification_id"
    )
    assert read(alerts.connection, query) == [
        ("repeat", "failures", "acme", "nightly", "sent", None, None, 60.0, None),
        ("test", None, "acme", None, "sent", None, None, 60.0, None),
        ("fired", "failures", "acme", "nightly", "held", "silence", uuid(7), None, None),
    ]
