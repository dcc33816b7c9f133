"""What was held back is told once nothing holds it; what goes on is told again."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text

from pulsewatch.notifying import Told, notify
from pulsewatch.reminders import remind
from pulsewatch.rules.base import Described
from tests.rows import NOON
from tests.telling import (
    add_alert,
    add_channel,
    add_rule,
    add_silence,
    add_target,
    after,
    change_rule,
    notifications,
    over,
    set_alert,
    worse,
)

HOURS_4 = 14_400


@pytest.fixture
def target(connection: Connection) -> Described:
    add_channel(connection)
    return add_target(connection, tags=("nightly",))


@pytest.fixture
def fired(connection: Connection, target: Described) -> Told:
    return add_alert(connection, add_rule(connection), target)


def told(connection: Connection, event: Told, seconds: float = 0) -> None:
    """The event is told, and what is pending is sent at once."""
    notify(connection, [event], after(seconds))
    sent(connection, seconds)


def sent(connection: Connection, seconds: float) -> None:
    connection.execute(
        text("update pulsewatch.notification set status = 'sent', sent_at = :at where status = 'pending'"),
        {"at": after(seconds)},
    )


def switch(connection: Connection, *, is_enabled: bool) -> None:
    connection.execute(text("update pulsewatch.channel set is_enabled = :on"), {"on": is_enabled})


# -- catch-ups -----------------------------------------------------------------------------------------------------


def test_what_a_silence_held_back_is_told_when_it_ends(connection: Connection, fired: Told) -> None:
    add_silence(connection, -50, 100, tags=["nightly"])
    notify(connection, [fired], NOON)
    assert remind(connection, after(95)) == 0
    assert remind(connection, after(100)) == 1
    assert remind(connection, after(105)) == 0
    assert notifications(connection, "reason, status, held_by, created_at, event_seq") == [
        ("fired", "dropped", "silence", NOON, 1),
        ("catch_up", "pending", None, after(100), 1),
    ]


def test_it_is_told_as_it_is_then_in_one_message(connection: Connection, fired: Told) -> None:
    add_silence(connection, -50, 100, rules=["*"])
    notify(connection, [fired], NOON)
    notify(connection, [worse(connection, fired, 5)], after(5))
    set_alert(connection, fired, summary="acme/load: 7 runs in a row failed", value=7)
    assert remind(connection, after(100)) == 1
    assert notifications(connection, "reason, status, body ->> 'level', body ->> 'value', body ->> 'summary'") == [
        ("fired", "dropped", "warning", "2.0", "acme/load: 2 runs in a row failed"),
        ("level_changed", "dropped", "critical", "5.0", "acme/load: 2 runs in a row failed"),
        ("catch_up", "pending", "critical", "7.0", "acme/load: 7 runs in a row failed"),
    ]


@pytest.mark.parametrize(
    ("held", "free"),
    [
        ({"acknowledged_at": NOON}, {"acknowledged_at": None}),
        ({"snoozed_until": after(100)}, {}),
    ],
)
def test_what_somebody_held_back_is_told_when_they_let_it_go(
    connection: Connection, fired: Told, held: dict[str, Any], free: dict[str, Any]
) -> None:
    set_alert(connection, fired, **held)
    notify(connection, [replace(fired, **held)], NOON)
    assert remind(connection, after(95)) == 0
    if free:
        set_alert(connection, fired, **free)
    assert remind(connection, after(100)) == 1
    assert notifications(connection, "reason, status") == [("fired", "dropped"), ("catch_up", "pending")]


def test_another_hold_takes_over_from_one_that_ends(connection: Connection, fired: Told) -> None:
    add_silence(connection, -50, 100, rules=["*"])
    notify(connection, [fired], NOON)
    set_alert(connection, fired, acknowledged_at=after(50))
    assert remind(connection, after(100)) == 0
    assert notifications(connection) == [("fired", "held", "silence")]


def test_a_channel_that_is_switched_on_again_catches_up(connection: Connection, fired: Told) -> None:
    switch(connection, is_enabled=False)
    notify(connection, [fired], NOON)
    assert remind(connection, after(5)) == 0
    switch(connection, is_enabled=True)
    assert remind(connection, after(10)) == 1
    assert notifications(connection) == [
        ("fired", "dropped", "channel_disabled"),
        ("catch_up", "pending", None),
    ]


def test_the_end_that_waited_for_a_channel_is_told_where_it_was_told_that_it_went_on(
    connection: Connection, fired: Told
) -> None:
    told(connection, fired)
    switch(connection, is_enabled=False)
    notify(connection, [over(connection, fired, 60)], after(60))
    remind(connection, after(65))
    assert notifications(connection) == [("fired", "sent", None), ("resolved", "held", "channel_disabled")]
    switch(connection, is_enabled=True)
    remind(connection, after(70))
    assert notifications(connection, "reason, status, next_attempt_at") == [
        ("fired", "sent", NOON),
        ("resolved", "pending", after(70)),
    ]


def test_what_began_and_ended_while_a_channel_was_off_is_not_told(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    notify(connection, [over(connection, fired, 60)], after(60))
    switch(connection, is_enabled=False)
    connection.execute(text("update pulsewatch.notification set status = 'held', held_by = 'channel_disabled'"))
    switch(connection, is_enabled=True)
    assert remind(connection, after(70)) == 0
    assert notifications(connection, "reason, status") == [("fired", "dropped"), ("resolved", "dropped")]


def test_what_is_held_for_a_channel_that_the_rule_names_no_more_is_dropped(connection: Connection, fired: Told) -> None:
    add_silence(connection, -50, 100, rules=["*"])
    notify(connection, [fired], NOON)
    change_rule(connection, fired.rule, channels=[])
    assert remind(connection, after(50)) == 0
    assert notifications(connection) == [("fired", "dropped", "silence")]


def test_what_is_dropped_for_good_is_never_told(connection: Connection, fired: Told) -> None:
    set_alert(connection, fired, is_dry_run=True)
    notify(connection, [replace(fired, is_dry_run=True)], NOON)
    assert remind(connection, after(2 * HOURS_4)) == 0


# -- channels that come late ---------------------------------------------------------------------------------------


def set_channel(connection: Connection, key: str, **values: Any) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    connection.execute(text(f"update pulsewatch.channel set {assignments} where key = :key"), {**values, "key": key})


def write_event(connection: Connection, fired: Told, *, is_backfill: bool = False) -> None:
    """The event that the alert fired, which names a run."""
    connection.execute(
        text(
            "insert into pulsewatch.alert_event (client_id, as_of, alert_id, seq, rule_id, rule_version, pipeline_id,"
            " kind, from_state, state, prev_level, level, evidence, is_backfill)"
            " values (:client_id, :as_of, :alert_id, 1, :rule_id, 1, :pipeline_id, 'fired', 'ok', 'firing', 0, 1,"
            " jsonb_build_object('runs', jsonb_build_array(cast(:run_id as text))), :is_backfill)"
        ),
        {
            "client_id": fired.client_id,
            "as_of": NOON,
            "alert_id": fired.alert_id,
            "rule_id": fired.rule.id,
            "pipeline_id": fired.target.pipeline_id,
            "run_id": str(fired.run_ids[0]),
            "is_backfill": is_backfill,
        },
    )


@pytest.fixture
def late(connection: Connection, fired: Told) -> Told:
    """An alert that one channel was told of before its rule named another one."""
    set_channel(connection, "ops", created_at=after(-60))
    write_event(connection, fired)
    told(connection, fired)
    add_channel(connection, key="boss")
    set_channel(connection, "boss", created_at=after(-60))
    assert remind(connection, after(5)) == 0
    return fired


def name_boss(connection: Connection, fired: Told) -> None:
    change_rule(connection, fired.rule, made_s=10, channels=["ops", "boss", "boss"])


def test_a_channel_that_a_rule_names_while_an_alert_goes_on_is_told_once(connection: Connection, late: Told) -> None:
    name_boss(connection, late)
    set_alert(connection, late, summary="acme/load: 7 runs in a row failed", value=7, labels='{"team": "data"}')
    assert remind(connection, after(15)) == 1
    assert remind(connection, after(20)) == 0
    sent(connection, 20)
    assert remind(connection, after(25)) == 0
    assert notifications(connection, "reason, status, event_seq, created_at") == [
        ("fired", "sent", 1, NOON),
        ("catch_up", "sent", 1, after(15)),
    ]
    ((body,),) = connection.execute(text("select body from pulsewatch.notification where reason = 'catch_up'")).all()
    assert (body["status"], body["level"], body["value"], body["summary"], body["title"], body["labels"]) == (
        "firing",
        "warning",
        7.0,
        "acme/load: 7 runs in a row failed",
        "Failing: acme/load",
        {"team": "data"},
    )
    assert [run["id"] for run in body["runs"]] == [str(late.run_ids[0])]
    # From then on it is told as any other.
    assert remind(connection, after(HOURS_4 + 20)) == 2


@pytest.mark.parametrize(
    "hold", [{"acknowledged_at": NOON}, {"snoozed_until": after(100)}, {"is_dry_run": True}, {"resolved_at": after(12)}]
)
def test_a_channel_that_comes_late_hears_nothing_that_is_held_back_or_over(
    connection: Connection, late: Told, hold: dict[str, Any]
) -> None:
    name_boss(connection, late)
    set_alert(connection, late, **hold, **({"resolve_reason": "recovered"} if "resolved_at" in hold else {}))
    assert remind(connection, after(15)) == 0


def test_a_channel_that_is_made_while_an_alert_goes_on_is_told(connection: Connection, target: Described) -> None:
    fired = add_alert(connection, add_rule(connection, channels=["later"]), target)
    write_event(connection, fired)
    notify(connection, [fired], NOON)
    assert remind(connection, after(5)) == 0
    add_channel(connection, key="later", is_enabled=False)
    set_channel(connection, "later", created_at=after(7))
    assert remind(connection, after(10)) == 0
    set_channel(connection, "later", is_enabled=True)
    assert remind(connection, after(15)) == 1
    assert notifications(connection) == [("catch_up", "pending", None)]


def test_a_channel_that_is_deleted_and_made_anew_is_told_each_time(connection: Connection, fired: Told) -> None:
    write_event(connection, fired)
    notify(connection, [fired], NOON)
    for seconds in (10, 20):
        # As delivery leaves what was for a channel that is gone.
        set_channel(connection, "ops", deleted_at=after(seconds))
        connection.execute(text("update pulsewatch.notification set status = 'dropped'"))
        assert remind(connection, after(seconds + 1)) == 0
        set_channel(connection, "ops", deleted_at=None, created_at=after(seconds + 2))
        assert remind(connection, after(seconds + 3)) == 1
    assert notifications(connection, "reason, status, created_at") == [
        ("fired", "dropped", NOON),
        ("catch_up", "dropped", after(13)),
        ("catch_up", "pending", after(23)),
    ]


def test_a_channel_that_is_made_anew_is_told_nothing_of_the_past(connection: Connection, fired: Told) -> None:
    write_event(connection, fired, is_backfill=True)
    set_channel(connection, "ops", created_at=after(5))
    assert remind(connection, after(10)) == 0


def test_a_rule_that_only_tries_from_now_on_tells_of_an_end_alone(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    trial = change_rule(connection, fired.rule, is_dry_run=True)
    notify(connection, [replace(worse(connection, fired, 5), rule=trial)], after(5))
    assert remind(connection, after(2 * HOURS_4)) == 0
    notify(connection, [replace(over(connection, fired, 3 * HOURS_4), rule=trial)], after(3 * HOURS_4))
    assert notifications(connection, "reason, status, held_by") == [
        ("fired", "sent", None),
        ("level_changed", "dropped", "dry_run"),
        ("resolved", "pending", None),
    ]


def test_what_waits_is_held_back_once_the_rule_only_tries(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    change_rule(connection, fired.rule, is_dry_run=True)
    assert remind(connection, after(5)) == 0
    assert notifications(connection, "reason, status, held_by") == [("fired", "held", "dry_run")]


# -- what waits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "held_by"),
    [({"acknowledged_at": NOON}, "acknowledged"), ({"snoozed_until": after(100)}, "snoozed"), ({}, "silence")],
)
def test_what_waits_is_held_back_too_once_somebody_wants_no_more(
    connection: Connection, fired: Told, held: dict[str, Any], held_by: str
) -> None:
    notify(connection, [fired], NOON)
    if held:
        set_alert(connection, fired, **held)
    else:
        add_silence(connection, 1, 100, tags=["nightly"])
    assert remind(connection, after(5)) == 0
    assert notifications(connection) == [("fired", "held", held_by)]
    set_alert(connection, fired, acknowledged_at=None)
    assert remind(connection, after(100)) == 1
    assert notifications(connection, "reason, status") == [("fired", "dropped"), ("catch_up", "pending")]


def test_while_evaluation_lags_a_silence_of_the_moment_holds_too(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    add_silence(connection, 100, 200, tags=["nightly"])
    assert remind(connection, after(5), after(105)) == 0
    assert notifications(connection) == [("fired", "held", "silence")]
    # It is over, but not yet at the time that is evaluated; and the other way round.
    assert remind(connection, after(150), after(250)) == 0
    assert remind(connection, after(90), after(190)) == 0
    assert remind(connection, after(200), after(300)) == 1


def test_what_waits_and_is_not_meant_goes_on_waiting(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    add_silence(connection, 1, 100, tags=["weekly"])
    add_silence(connection, 50, 100, tags=["nightly"])
    assert remind(connection, after(5)) == 0
    assert notifications(connection) == [("fired", "pending", None)]


@pytest.mark.parametrize("status", ["leased", "sent", "dead"])
def test_what_is_on_its_way_or_done_is_let_go(connection: Connection, fired: Told, status: str) -> None:
    notify(connection, [fired], NOON)
    lease = ", lease_token = gen_random_uuid(), lease_until = now()" if status == "leased" else ""
    change = f"update pulsewatch.notification set status = :status, sent_at = :sent_at{lease}"
    connection.execute(text(change), {"status": status, "sent_at": NOON if status == "sent" else None})
    add_silence(connection, 1, 100, tags=["nightly"])
    assert remind(connection, after(5)) == 0
    assert notifications(connection) == [("fired", status, None)]


def test_the_end_that_waits_is_told_whatever_somebody_wants(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    notify(connection, [over(connection, fired, 60)], after(60))
    add_silence(connection, 61, 100, tags=["nightly"])
    remind(connection, after(65))
    assert notifications(connection) == [("fired", "sent", None), ("resolved", "pending", None)]


# -- repeats -------------------------------------------------------------------------------------------------------


def test_what_goes_on_is_told_again_at_the_rules_interval(connection: Connection, fired: Told) -> None:
    told(connection, fired, 1)
    assert remind(connection, after(HOURS_4)) == 0
    assert remind(connection, after(HOURS_4 + 5)) == 1
    assert remind(connection, after(HOURS_4 + 5)) == 0
    sent(connection, HOURS_4 + 6)
    assert remind(connection, after(2 * HOURS_4 + 5)) == 0
    assert remind(connection, after(2 * HOURS_4 + 10)) == 1
    assert notifications(connection, "reason, status, created_at") == [
        ("fired", "sent", after(1)),
        ("repeat", "sent", after(HOURS_4 + 5)),
        ("repeat", "pending", after(2 * HOURS_4 + 10)),
    ]


@pytest.mark.parametrize("status", ["pending", "leased"])
def test_repeats_never_pile_up(connection: Connection, fired: Told, status: str) -> None:
    told(connection, fired)
    assert remind(connection, after(HOURS_4)) == 1
    connection.execute(
        text("update pulsewatch.notification set status = :status, lease_token = :token where status = 'pending'"),
        {"status": status, "token": uuid4() if status == "leased" else None},
    )
    assert remind(connection, after(9 * HOURS_4)) == 0


def test_a_repeat_that_went_with_its_channel_is_made_anew_once_it_is_back(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    assert remind(connection, after(HOURS_4)) == 1
    connection.execute(text("update pulsewatch.notification set status = 'dropped' where status = 'pending'"))
    assert remind(connection, after(HOURS_4 + 5)) == 1
    assert notifications(connection, "reason, status, created_at") == [
        ("fired", "sent", NOON),
        ("repeat", "dropped", after(HOURS_4)),
        ("repeat", "pending", after(HOURS_4 + 5)),
    ]


def test_one_that_was_given_up_is_told_again_all_the_same(connection: Connection, fired: Told) -> None:
    notify(connection, [fired], NOON)
    connection.execute(text("update pulsewatch.notification set status = 'dead'"))
    assert remind(connection, after(HOURS_4)) == 1
    assert notifications(connection, "reason, status") == [("fired", "dead"), ("repeat", "pending")]


@pytest.mark.parametrize(
    "hold",
    [{"acknowledged_at": NOON}, {"snoozed_until": after(2 * HOURS_4)}, {"is_dry_run": True}],
)
def test_what_somebody_has_taken_on_is_not_repeated(connection: Connection, fired: Told, hold: dict[str, Any]) -> None:
    told(connection, fired)
    set_alert(connection, fired, **hold)
    assert remind(connection, after(HOURS_4)) == 0


def test_a_silence_holds_repeats_until_it_ends(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    add_silence(connection, 60, HOURS_4 + 60, pipelines=["load"])
    assert remind(connection, after(HOURS_4)) == 0
    assert remind(connection, after(HOURS_4 + 60)) == 1


def test_while_evaluation_lags_a_silence_of_the_moment_holds_repeats(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    add_silence(connection, HOURS_4 + 60, HOURS_4 + 90, pipelines=["load"])
    assert remind(connection, after(HOURS_4), after(HOURS_4 + 60)) == 0
    assert remind(connection, after(HOURS_4), after(HOURS_4 + 59)) == 1


def test_a_channel_that_is_off_or_named_no_more_gets_no_repeats(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    switch(connection, is_enabled=False)
    assert remind(connection, after(HOURS_4)) == 0
    switch(connection, is_enabled=True)
    change_rule(connection, fired.rule, channels=["others"])
    assert remind(connection, after(HOURS_4)) == 0


def test_the_interval_is_that_of_the_rule_as_it_is_now(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    changed = change_rule(connection, fired.rule, repeat_s=60)
    assert remind(connection, after(60)) == 1
    sent(connection, 60)
    change_rule(connection, changed, repeat_s=None)
    assert remind(connection, after(99 * HOURS_4)) == 0


def test_what_is_over_is_not_repeated(connection: Connection, fired: Told) -> None:
    told(connection, fired)
    told(connection, over(connection, fired, 60), 60)
    assert remind(connection, after(HOURS_4)) == 0


def test_each_alert_and_channel_has_its_own_time(connection: Connection, target: Described) -> None:
    boss = add_channel(connection, key="boss")
    rule = add_rule(connection, channels=["ops", "boss"])
    first = add_alert(connection, rule, target)
    second = add_alert(connection, rule, add_target(connection, pipeline="other"), "b")
    told(connection, first)
    told(connection, second, 100)
    connection.execute(
        text("update pulsewatch.notification set sent_at = :at where channel_id = :boss"),
        {"at": after(200), "boss": boss},
    )
    assert [remind(connection, after(HOURS_4 + seconds)) for seconds in (0, 100, 195, 200)] == [1, 1, 0, 2]
