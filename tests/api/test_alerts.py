"""Alerts over HTTP: listed, shown with what happened, taken on, put off, talked about."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from pulsewatch.alert_writing import ALERTING_LOCK
from tests.api.alerting_rows import NOW, Fired, fire, notify
from tests.api.conftest import Api, World, problem
from tests.telling import add_channel, add_rule


@pytest.fixture
def fired(world: World, slug: str) -> Fired:
    """An alert that is firing."""
    return fire(world, slug)


def act(api: Api, fired: Fired, verb: str, body: object = None) -> Any:
    """What is answered to an act; without a body nothing is sent."""
    options = {} if body is None else {"json": body}
    return api.request("POST", f"{fired.path}:{verb}", **options)


def pipelines(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["pipeline"] for item in answer.json()["items"]]


def told(answer: Any) -> list[tuple[Any, ...]]:
    """The events of an alert, as (seq, kind, actor, comment)."""
    assert answer.status_code == 200, answer.text
    return [(event["seq"], event["kind"], event["actor"], event["comment"]) for event in answer.json()["events"]]


def standing(world: World, fired: Fired) -> int:
    """How many events its rule's standing counts."""
    with world.begin() as connection:
        query = "select seq from pulsewatch.alert_target where client_id = :client_id and rule_id = :rule_id"
        of = {"client_id": fired.client_id, "rule_id": fired.rule.id}
        return int(connection.execute(text(query), of).scalar_one())


# -- reading ----------------------------------------------------------------------------------------------------------


def test_an_alert_is_shown_with_its_events_and_notifications(world: World, admin: Api, fired: Fired, slug: str) -> None:
    with world.begin() as connection:
        notification = notify(connection, fired, add_channel(connection, key=f"ops-{slug}", client_id=fired.client_id))

    item = admin.get(fired.path).json()

    at = (NOW - timedelta(minutes=10)).isoformat().replace("+00:00", "Z")
    events, notifications = item.pop("events"), item.pop("notifications")
    assert item == {
        "id": str(fired.id),
        "client": slug,
        "pipeline": "load",
        "rule": fired.rule.key,
        "rule_client": None,
        "rule_version": 1,
        "kind": "consecutive_failures",
        "state": "firing",
        "level": "warning",
        "max_level": "warning",
        "value": 2.0,
        "threshold": 2.0,
        "summary": f"{slug}/load: 2 runs in a row failed",
        "labels": {"team": "data"},
        "annotations": {"description": "Call."},
        "pending_at": at,
        "fired_at": at,
        "acknowledged_at": None,
        "acknowledged_by": None,
        "snoozed_until": None,
        "resolved_at": None,
        "resolve_reason": None,
        "is_backfill": False,
        "is_dry_run": False,
        "has_all_events": True,
    }
    (event,) = events
    assert (event["seq"], event["kind"], event["as_of"], event["from_state"], event["state"]) == (
        1,
        "fired",
        at,
        "ok",
        "firing",
    )
    assert (event["prev_level"], event["level"], event["value"], len(event["evidence"]["runs"])) == (
        None,
        "warning",
        2.0,
        1,
    )
    assert [(each["id"], each["channel"], each["status"]) for each in notifications] == [
        (str(notification), f"ops-{slug}", "sent")
    ]
    listed = admin.get("/v1/alerts", client=slug).json()
    assert listed == {"items": [{name: item[name] for name in item if name != "has_all_events"}], "next_cursor": None}


def test_the_list_goes_newest_first_and_a_cursor_continues_it(world: World, admin: Api, slug: str) -> None:
    for number, minutes in enumerate((5, 4, 4, 4, 3)):
        fire(world, slug, f"p{number}", minutes_ago=minutes)

    seen: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = admin.get("/v1/alerts", client=slug, limit=2, **cursor).json()
        seen += answer["items"]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}

    assert [item["pipeline"] for item in (seen[0], seen[-1])] == ["p4", "p0"]
    assert sorted(item["pipeline"] for item in seen) == ["p0", "p1", "p2", "p3", "p4"]
    assert [item["id"] for item in seen[1:4]] == sorted(item["id"] for item in seen[1:4])
    assert problem(admin.get("/v1/alerts", cursor="x")) == (400, "bad_cursor", [("?cursor", "bad_cursor")])


def test_the_list_is_filtered_by_state(world: World, admin: Api, slug: str) -> None:
    alerts = {name: fire(world, slug, name) for name in ("firing", "acknowledged", "snoozed", "both")}
    fire(world, slug, "resolved", is_resolved=True)
    act(admin, alerts["acknowledged"], "ack")
    act(admin, alerts["snoozed"], "snooze", {"for_s": 60})
    act(admin, alerts["both"], "ack")
    act(admin, alerts["both"], "snooze", {"for_s": 60})
    with world.begin() as connection:
        # A snooze that is over.
        past = "update pulsewatch.alert set snoozed_until = now() where client_id = :client_id and id = :id"
        connection.execute(text(past), {"client_id": alerts["firing"].client_id, "id": alerts["firing"].id})

    def found(state: str) -> list[str]:
        return sorted(pipelines(admin.get("/v1/alerts", client=slug, state=state)))

    assert found("firing") == ["firing"]
    assert found("acknowledged") == ["acknowledged", "both"]
    assert found("snoozed") == ["snoozed"]
    assert found("resolved") == ["resolved"]
    assert found("open") == ["acknowledged", "both", "firing", "snoozed"]
    states = {item["pipeline"]: item["state"] for item in admin.get("/v1/alerts", client=slug).json()["items"]}
    assert states == {name: name for name in states} | {"both": "acknowledged"}


def test_the_list_is_filtered_by_pipeline_rule_level_and_time(world: World, admin: Api, slug: str) -> None:
    with world.begin() as connection:
        rule = add_rule(connection, f"other-{slug}")
    fire(world, slug, "a", minutes_ago=30)
    fire(world, slug, "b", minutes_ago=20, level=2)
    fire(world, slug, "c", minutes_ago=10, rule=rule)

    def found(**params: Any) -> list[str]:
        return pipelines(admin.get("/v1/alerts", client=slug, **params))

    assert found(pipeline="a") == ["a"]
    assert found(rule=f"other-{slug}") == ["c"]
    assert found(rule="nobody's") == found(rule="nobody") == []
    assert found(level="critical") == ["b"]
    from_, to = ((NOW - timedelta(minutes=minutes)).isoformat() for minutes in (20, 10))
    assert found(**{"from": from_, "to": to}) == ["b"]
    assert found(**{"from": from_}) == ["c", "b"]
    assert problem(admin.get("/v1/alerts", pipeline="a")) == (422, "invalid", [("?pipeline", "client_required")])
    assert problem(admin.get("/v1/alerts", client=slug, pipeline="x")) == (404, "not_found", [])
    assert problem(admin.get("/v1/alerts", state="x")) == (422, "invalid", [("?state", "unknown_value")])
    assert problem(admin.get("/v1/alerts", to="x")) == (422, "invalid", [("?to", "wrong_type")])


def test_an_alert_about_all_clients_is_for_keys_of_all_clients(world: World, admin: Api, slug: str) -> None:
    fired = fire(world, slug)
    with world.begin() as connection:
        move = "update pulsewatch.alert set client_id = 0, pipeline_id = 0 where id = :id"
        connection.execute(text(move), {"id": fired.id})

    item = admin.get(fired.path).json()
    assert (item["client"], item["pipeline"]) == (None, None)
    assert str(fired.id) in [each["id"] for each in admin.get("/v1/alerts", state="open", limit=500).json()["items"]]
    bound = world.caller("read", slug)
    assert problem(bound.get(fired.path)) == (404, "not_found", [])
    assert pipelines(bound.get("/v1/alerts")) == []


# -- acts -------------------------------------------------------------------------------------------------------------


def named(world: World, name: str) -> Api:
    """An admin whose key has a name."""
    key = Api(world.client, world.key("admin"))
    made = key.post("/v1/keys", {"role": "admin", "name": name}).json()["key"]
    return Api(world.client, made)


def test_who_acknowledges_an_alert_has_it(world: World, fired: Fired) -> None:
    ann, bob = named(world, "ann"), named(world, "bob")

    item = act(ann, fired, "ack", {"comment": "on it"}).json()

    assert (item["state"], item["acknowledged_by"]) == ("acknowledged", "ann")
    again = act(bob, fired, "ack").json()
    assert (again["acknowledged_by"], again["acknowledged_at"]) == ("ann", item["acknowledged_at"])
    assert told(act(bob, fired, "ack", {"comment": "me too"})) == [
        (1, "fired", None, None),
        (2, "acknowledged", "ann", "on it"),
        (3, "commented", "bob", "me too"),
    ]
    (_, event, _) = ann.get(fired.path).json()["events"]
    assert (event["from_state"], event["state"], event["prev_level"], event["level"]) == (
        "firing",
        "firing",
        "warning",
        "warning",
    )
    assert event["as_of"] == item["acknowledged_at"]
    # What the rules write next goes on from there.
    assert standing(world, fired) == 3


def test_when_an_alert_was_first_taken_on_is_kept(world: World, admin: Api, fired: Fired) -> None:
    first = act(admin, fired, "ack").json()
    act(admin, fired, "unack")
    again = act(admin, fired, "ack").json()
    assert again["acknowledged_at"] > first["acknowledged_at"]
    with world.begin() as connection:
        query = text("select acknowledged_at, first_acknowledged_at from pulsewatch.alert where id = :id")
        kept = connection.execute(query, {"id": first["id"]}).one()
    assert tuple(kept) == tuple(datetime.fromisoformat(item["acknowledged_at"]) for item in (again, first))


def test_what_was_taken_on_or_put_off_can_be_given_back(admin: Api, fired: Fired) -> None:
    act(admin, fired, "ack")
    act(admin, fired, "snooze", {"for_s": 3600})

    item = act(admin, fired, "unack", {"comment": "not mine"}).json()

    assert (item["state"], item["acknowledged_at"], item["acknowledged_by"], item["snoozed_until"]) == (
        "firing",
        None,
        None,
        None,
    )
    kinds = ["fired", "acknowledged", "snoozed", "unacknowledged"]
    assert [event["kind"] for event in item["events"]] == kinds
    # There is nothing more to give back.
    assert [event["kind"] for event in act(admin, fired, "unack", {}).json()["events"]] == kinds


def test_an_alert_is_snoozed_for_a_time_or_until_a_time(admin: Api, fired: Fired) -> None:
    item = act(admin, fired, "snooze", {"for_s": 90.5}).json()
    event = item["events"][-1]
    lasts = datetime.fromisoformat(item["snoozed_until"]) - datetime.fromisoformat(event["as_of"])
    assert (item["state"], lasts) == ("snoozed", timedelta(seconds=90.5))
    assert datetime.fromisoformat(event["evidence"]["until"]) == datetime.fromisoformat(item["snoozed_until"])

    until = NOW + timedelta(days=2)
    again = act(admin, fired, "snooze", {"until": until.isoformat(), "comment": "weekend"}).json()
    assert datetime.fromisoformat(again["snoozed_until"]) == until
    assert [event["comment"] for event in again["events"]] == [None, None, "weekend"]
    same = act(admin, fired, "snooze", {"until": until.isoformat()}).json()
    assert same == again


def test_a_comment_is_written_down_also_when_it_is_over(world: World, admin: Api, slug: str) -> None:
    over = fire(world, slug, is_resolved=True)
    events = act(admin, over, "comment", {"comment": "disk was full"}).json()["events"]
    event = events[-1]
    assert (event["seq"], event["kind"], event["state"], event["level"]) == (2, "commented", "ok", None)
    assert [event["seq"] for event in act(admin, over, "comment", {"comment": "x"}).json()["events"]] == [1, 2, 3]
    assert standing(world, over) == 0


def test_what_is_over_is_neither_taken_on_nor_put_off(world: World, admin: Api, slug: str) -> None:
    over = fire(world, slug, is_resolved=True)
    for verb, body in (("ack", None), ("unack", None), ("snooze", {"for_s": 60})):
        assert problem(act(admin, over, verb, body)) == (409, "alert_resolved", [])
    assert told(admin.get(over.path)) == [(1, "fired", None, None)]


@pytest.mark.parametrize(
    ("verb", "body", "errors"),
    [
        ("ack", {"coment": "x"}, [("/coment", "unknown_field")]),
        ("ack", {"comment": 1}, [("/comment", "wrong_type")]),
        ("ack", {"comment": "x" * 2001}, [("/comment", "too_long")]),
        ("unack", {"comment": "a\0b"}, [("/comment", "nul_character")]),
        ("comment", {}, [("/comment", "missing_field")]),
        ("comment", {"comment": " \n"}, [("/comment", "invalid_value")]),
        ("snooze", {}, [("", "invalid_value")]),
        ("snooze", {"for_s": 60, "until": "2099-01-01T00:00:00Z"}, [("", "invalid_value")]),
        ("snooze", {"for_s": 0}, [("/for_s", "out_of_range")]),
        ("snooze", {"for_s": 31 * 86_400 + 1}, [("/for_s", "out_of_range")]),
        ("snooze", {"for_s": True}, [("/for_s", "wrong_type")]),
        ("snooze", {"until": "2020-01-01T00:00:00Z"}, [("/until", "out_of_range")]),
        ("snooze", {"until": "2099-01-01T00:00:00Z"}, [("/until", "out_of_range")]),
        ("snooze", {"until": "0001-01-01T00:00:00+14:00"}, [("/until", "out_of_range")]),
        ("snooze", {"until": "9999-12-31T23:59:59-14:00"}, [("/until", "out_of_range")]),
        ("snooze", {"until": "2026-01-01T00:00:00"}, [("/until", "naive_time")]),
        ("snooze", {"until": 1_800_000_000}, [("/until", "wrong_type")]),
    ],
)
def test_what_is_not_valid_is_named_and_nothing_is_written(
    admin: Api, fired: Fired, verb: str, body: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    assert problem(act(admin, fired, verb, body)) == (422, "invalid", errors)
    assert told(admin.get(fired.path)) == [(1, "fired", None, None)]


def test_an_act_waits_until_rules_are_evaluated(world: World, admin: Api, fired: Fired) -> None:
    answers: list[Any] = []
    with world.begin() as connection:
        connection.exec_driver_sql(ALERTING_LOCK)
        thread = threading.Thread(target=lambda: answers.append(act(admin, fired, "ack")))
        thread.start()
        waiting = text("select count(*) from pg_locks where locktype = 'advisory' and not granted")
        while connection.execute(waiting).scalar_one() == 0:
            assert thread.is_alive()
        # The tick that comes first resolves it.
        over = "update pulsewatch.alert set resolved_at = now(), resolve_reason = 'recovered' where id = :id"
        connection.execute(text(over), {"id": fired.id})
    thread.join()
    assert problem(answers[0]) == (409, "alert_resolved", [])


def test_reading_needs_read_and_acting_needs_write(world: World, fired: Fired, slug: str) -> None:
    reader, sender, writer = (world.caller(role, slug) for role in ("read", "ingest", "write"))
    assert told(reader.get(fired.path)) == [(1, "fired", None, None)]
    assert problem(sender.get(fired.path))[:2] == (403, "forbidden")
    for verb, body in (("ack", {}), ("unack", {}), ("snooze", {"for_s": 60}), ("comment", {"comment": "x"})):
        assert problem(act(reader, fired, verb, body))[:2] == (403, "forbidden")
        assert act(writer, fired, verb, body).status_code == 200


def test_a_bound_key_neither_sees_nor_touches_alerts_of_others(world: World, fired: Fired, slug: str) -> None:
    mine = world.slug()
    own = fire(world, mine)
    bound = world.caller("write", mine)
    assert pipelines(bound.get("/v1/alerts")) == ["load"]
    assert bound.get(own.path).status_code == 200
    for answer in (
        bound.get(fired.path),
        bound.get("/v1/alerts", client=slug),
        act(bound, fired, "ack"),
        act(bound, fired, "comment", {"comment": "x"}),
    ):
        assert problem(answer) == (404, "not_found", [])
    assert act(bound, own, "ack").json()["state"] == "acknowledged"


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000", "{0}", "a%00b"])
def test_what_is_no_id_is_not_found(admin: Api, id_: str) -> None:
    assert problem(admin.get(f"/v1/alerts/{id_}")) == (404, "not_found", [])
    assert problem(admin.request("POST", f"/v1/alerts/{id_}:ack")) == (404, "not_found", [])


def test_who_acts_while_others_take_long_is_asked_to_come_again(world: World, admin: Api, fired: Fired) -> None:
    with world.begin() as connection:
        connection.exec_driver_sql(ALERTING_LOCK)
        for refused in (
            act(admin, fired, "ack"),
            admin.put("/v1/alert-rules/waits", {"kind": "freshness", "levels": {"warning": 60}}),
        ):
            assert problem(refused)[:2] == (503, "unavailable")
            assert refused.headers["Retry-After"] == "2"
    assert act(admin, fired, "ack").status_code == 200
