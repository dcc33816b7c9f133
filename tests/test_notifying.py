"""What becomes of an alert event: notifications, held back or not, and which of them stand for others."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from pulsewatch import notifications as rows_of
from pulsewatch.channels.base import Message
from pulsewatch.notifying import Told, notify
from pulsewatch.rules.base import Level
from tests.rows import NOON
from tests.telling import (
    add_alert,
    add_channel,
    add_rule,
    add_silence,
    add_target,
    after,
    notifications,
    over,
    worse,
)


@pytest.fixture
def fired(connection: Connection) -> Told:
    """An alert of a rule that names one channel, which is there."""
    add_channel(connection)
    return add_alert(connection, add_rule(connection), add_target(connection))


def set_status(connection: Connection, status: str, **values: Any) -> None:
    """As delivery leaves the notifications that are there."""
    said = {
        "sent_at": NOON if status == "sent" else None,
        "lease_token": UUID(int=1) if status == "leased" else None,
        "attempt_count": 0,
        **values,
    }
    connection.execute(
        text(
            "update pulsewatch.notification set status = :status, sent_at = :sent_at, lease_token = :lease_token,"
            " attempt_count = :attempt_count"
        ),
        {"status": status, **said},
    )


def test_an_alert_that_fires_is_told_to_each_channel_that_is_there(connection: Connection) -> None:
    ops, boss = add_channel(connection), add_channel(connection, key="boss")
    add_channel(connection, key="others")
    rule = add_rule(connection, channels=["boss", "ops", "gone", "ops"])
    notify(connection, [add_alert(connection, rule, add_target(connection))], NOON)
    assert notifications(connection, "channel_id, reason, status, next_attempt_at, created_at") == [
        (ops, "fired", "pending", NOON, NOON),
        (boss, "fired", "pending", NOON, NOON),
    ]


def test_the_message_says_what_is_known(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    ((id_, body, expires_at),) = notifications(connection, "id, body, expires_at")
    message = Message.model_validate(body)
    assert message.notification_id == id_
    assert message.model_dump(mode="json", exclude={"notification_id"}) == {
        "alert_id": str(fired.alert_id),
        "reason": "fired",
        "status": "firing",
        "level": "warning",
        "client": "acme",
        "pipeline": "load",
        "rule": "failing",
        "rule_title": "Failing",
        "rule_version": 1,
        "kind": "consecutive_failures",
        "title": "Failing: acme/load",
        "summary": "acme/load: 2 runs in a row failed",
        "value": 2.0,
        "threshold": 2.0,
        "unit": "runs",
        "fired_at": "2026-11-21T12:00:00Z",
        "resolved_at": None,
        "labels": {"team": "data"},
        "annotations": {"description": "Call."},
        "runbook_url": None,
        "url": None,
        "runs": [{"id": str(fired.run_ids[0]), "url": None}],
        "is_test": False,
    }
    assert expires_at == after(86_400)


def test_the_same_event_told_twice_is_told_once(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    notify(connection, [fired], after(5))
    assert notifications(connection, "reason, created_at") == [("fired", NOON)]


def test_a_channel_of_the_rules_client_comes_before_one_of_all_clients(connection: Connection) -> None:
    target = add_target(connection)
    add_channel(connection)
    own = add_channel(connection, client_id=target.client_id)
    notify(connection, [add_alert(connection, add_rule(connection, client_id=target.client_id), target)], NOON)
    assert notifications(connection, "channel_id") == [(own,)]


def test_a_rule_of_all_clients_never_uses_a_channel_of_one(connection: Connection) -> None:
    target = add_target(connection)
    add_channel(connection, client_id=target.client_id)
    notify(connection, [add_alert(connection, add_rule(connection), target)], NOON)
    assert notifications(connection) == []


def test_a_deleted_channel_is_not_there(connection: Connection, fired: Told) -> None:
    connection.execute(text("update pulsewatch.channel set deleted_at = now()"))
    notify(connection, [fired], NOON)
    assert notifications(connection) == []


@pytest.mark.parametrize(
    ("overlay", "held_by"),
    [
        ({"acknowledged_at": NOON}, "acknowledged"),
        ({"snoozed_until": after(1)}, "snoozed"),
        ({"snoozed_until": NOON}, None),
    ],
)
def test_what_somebody_took_on_or_put_off_is_held_back(
    connection: Connection, fired: Told, overlay: dict[str, Any], held_by: str | None
) -> None:
    notify(connection, [replace(fired, **overlay)], NOON)
    assert notifications(connection) == [("fired", "held" if held_by else "pending", held_by)]


def test_a_silence_holds_back_and_is_named(connection: Connection, fired: Told) -> None:
    add_silence(connection, -100, 0, rules=["*"])
    add_silence(connection, 1, 100, rules=["*"])
    silence_id = add_silence(connection, -50, 50, rules=["fail*"], levels=["warning"])
    notify(connection, [fired], NOON)
    assert notifications(connection, "status, held_by, silence_id") == [("held", "silence", silence_id)]


def test_a_silence_of_the_moment_holds_back_what_evaluation_is_late_with(connection: Connection, fired: Told) -> None:
    silence_id = add_silence(connection, 100, 200, rules=["*"])
    notify(connection, [fired], NOON, after(99))
    other = add_alert(connection, fired.rule, add_target(connection, pipeline="other"), "b")
    notify(connection, [other], NOON, after(100))
    assert sorted(notifications(connection, "body ->> 'pipeline', status, silence_id, created_at")) == [
        ("load", "pending", None, NOON),
        ("other", "held", silence_id, NOON),
    ]


def test_an_alert_that_outgrows_a_silence_is_told_and_what_was_held_back_is_not(
    connection: Connection, fired: Told
) -> None:
    add_silence(connection, -50, 50, levels=["warning"])
    notify(connection, [fired], NOON)
    notify(connection, [worse(connection, fired, 5)], after(5))
    assert notifications(connection) == [("fired", "dropped", "silence"), ("level_changed", "pending", None)]


def test_a_channel_that_is_off_holds_back(connection: Connection, fired: Told) -> None:
    connection.execute(text("update pulsewatch.channel set is_enabled = false"))
    notify(connection, [fired], NOON)
    assert notifications(connection) == [("fired", "held", "channel_disabled")]


@pytest.mark.parametrize("held_by", ["dry_run", "backfill"])
def test_a_trial_and_the_past_are_written_down_and_never_told(
    connection: Connection, fired: Told, held_by: str
) -> None:
    told = replace(fired, is_dry_run=held_by == "dry_run", is_backfill=held_by == "backfill")
    notify(connection, [told], after(600))
    notify(connection, [over(connection, told, 10)], after(600))
    assert notifications(connection) == [("fired", "dropped", held_by)]


def test_a_level_that_falls_is_told_too(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, "sent")
    critical = worse(connection, fired, 5)
    notify(connection, [critical], after(5))
    set_status(connection, "sent")
    notify(connection, [replace(critical, event_seq=3, level=Level.WARNING, prev_level=Level.CRITICAL)], after(10))
    assert notifications(connection, "reason, status, body ->> 'level'") == [
        ("fired", "sent", "warning"),
        ("level_changed", "sent", "critical"),
        ("level_changed", "pending", "warning"),
    ]


def test_a_newer_message_stands_for_an_older_one_that_was_not_sent(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    notify(connection, [worse(connection, fired, 5)], after(5))
    assert notifications(connection) == [("fired", "superseded", None), ("level_changed", "pending", None)]


def test_one_that_is_on_its_way_is_let_go(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, "leased")
    notify(connection, [worse(connection, fired, 5)], after(5))
    assert notifications(connection) == [("fired", "leased", None), ("level_changed", "pending", None)]


def test_a_newer_one_that_is_held_back_stands_for_nothing(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    add_silence(connection, 1, 100, rules=["*"])
    notify(connection, [worse(connection, fired, 5)], after(5))
    assert notifications(connection) == [("fired", "pending", None), ("level_changed", "held", "silence")]


@pytest.mark.parametrize("status", ["sent", "leased"])
def test_the_end_is_told_where_the_alert_was_told_or_may_be(connection: Connection, fired: Told, status: str) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, status)
    # A silence does not keep a receiver from learning that it is over.
    add_silence(connection, 1, 100, rules=["*"])
    notify(connection, [over(connection, fired, 60)], after(60))
    assert notifications(connection, "reason, status, expires_at, body ->> 'status', body ->> 'resolved_at'") == [
        ("fired", status, after(86_400), "firing", None),
        ("resolved", "pending", after(60 + 72 * 3600), "resolved", "2026-11-21T12:01:00Z"),
    ]


def test_what_is_over_before_anything_of_it_was_sent_is_not_told(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    notify(connection, [over(connection, fired, 60)], after(60))
    assert notifications(connection) == [("fired", "superseded", None), ("resolved", "dropped", "untold")]


def test_the_end_stands_for_what_still_waits_where_the_alert_is_known(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, "sent")
    critical = worse(connection, fired, 5)
    notify(connection, [critical], after(5))
    notify(connection, [over(connection, critical, 60)], after(60))
    assert notifications(connection) == [
        ("fired", "sent", None),
        ("level_changed", "superseded", None),
        ("resolved", "pending", None),
    ]


def test_the_end_goes_by_channel(connection: Connection) -> None:
    add_channel(connection)
    add_channel(connection, key="boss")
    fired = add_alert(connection, add_rule(connection, channels=["ops", "boss"]), add_target(connection))
    notify(connection, [fired], NOON)
    connection.execute(
        text(
            "update pulsewatch.notification set status = 'sent', sent_at = :at"
            " where channel_id = (select id from pulsewatch.channel where key = 'boss')"
        ),
        {"at": NOON},
    )
    notify(connection, [over(connection, fired, 60)], after(60))
    assert notifications(connection) == [
        ("fired", "superseded", None),
        ("fired", "sent", None),
        ("resolved", "dropped", "untold"),
        ("resolved", "pending", None),
    ]


@pytest.mark.parametrize("status", ["dead", "dropped"])
def test_the_end_is_not_told_where_nobody_was_told(connection: Connection, fired: Told, status: str) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, status)
    notify(connection, [over(connection, fired, 60)], after(60))
    assert notifications(connection) == [("fired", status, None)]


@pytest.mark.parametrize(
    ("http_status", "is_told"),
    [(408, False), (429, False), (500, True), (502, True), (503, True), (504, True), (None, True)],
)
def test_the_end_is_told_where_an_attempt_may_have_arrived(
    connection: Connection, fired: Told, http_status: int | None, is_told: bool
) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, "dead", attempt_count=1)
    connection.execute(
        text(
            "insert into pulsewatch.notification_attempt"
            " (client_id, started_at, notification_id, n, latency_s, outcome, http_status)"
            " select client_id, created_at, id, 1, 10, 'retry', :http_status from pulsewatch.notification"
        ),
        {"http_status": http_status},
    )
    notify(connection, [over(connection, fired, 60)], after(60))
    assert len(notifications(connection)) == 1 + is_told


def test_an_alert_that_ends_while_it_is_held_back_was_never_told(connection: Connection, fired: Told) -> None:
    add_silence(connection, -50, 500, rules=["*"])
    notify(connection, [fired], NOON)
    notify(connection, [over(connection, fired, 60)], after(60))
    assert notifications(connection) == [("fired", "dropped", "silence")]


def test_the_end_reaches_a_channel_that_the_rule_names_no_more(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, "sent")
    spec = fired.rule.spec.model_copy(update={"channels": (), "title": "Renamed"})
    ended = replace(over(connection, fired, 60), rule=replace(fired.rule, version=2, spec=spec))
    notify(connection, [ended], after(60))
    # The title is what mail programs tell threads by: it stays.
    assert notifications(connection, "reason, status, body ->> 'title', body ->> 'rule_title'") == [
        ("fired", "sent", "Failing: acme/load", "Failing"),
        ("resolved", "pending", "Failing: acme/load", "Renamed"),
    ]


def test_the_end_waits_for_a_channel_that_is_off(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    set_status(connection, "sent")
    connection.execute(text("update pulsewatch.channel set is_enabled = false"))
    notify(connection, [over(connection, fired, 60)], after(60))
    assert notifications(connection) == [("fired", "sent", None), ("resolved", "held", "channel_disabled")]


def test_several_events_of_an_alert_at_once_are_told_in_their_order(connection: Connection, fired: Told) -> None:
    critical = worse(connection, fired, 5)
    notify(connection, [over(connection, critical, 60), critical, fired], after(60))
    assert notifications(connection, "reason, status, event_seq") == [
        ("fired", "superseded", 1),
        ("level_changed", "superseded", 2),
        ("resolved", "dropped", 9),
    ]


def test_alerts_keep_to_themselves(connection: Connection, fired: Told) -> None:
    other = add_alert(connection, fired.rule, add_target(connection, pipeline="other"), "b")
    notify(connection, [fired, other], NOON)
    notify(connection, [worse(connection, other, 5)], after(5))
    assert sorted(notifications(connection, "body ->> 'pipeline', reason, status")) == [
        ("load", "fired", "pending"),
        ("other", "fired", "superseded"),
        ("other", "level_changed", "pending"),
    ]


def test_a_test_message_goes_out_like_any_other(connection: Connection) -> None:
    id_ = rows_of.try_out(connection, add_channel(connection), 0, None, NOON)
    assert notifications(connection, "id, alert_id, reason, status, expires_at") == [
        (id_, None, "test", "pending", after(3600))
    ]


def test_a_dead_one_can_be_sent_after_all_and_no_other(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    ((id_,),) = notifications(connection, "id")
    assert not rows_of.retry(connection, fired.client_id, id_, after(90_000))
    set_status(connection, "dead")
    assert rows_of.retry(connection, fired.client_id, id_, after(90_000))
    assert notifications(connection, "status, next_attempt_at, expires_at") == [
        ("pending", after(90_000), after(90_000 + 86_400))
    ]
