"""Notifications over HTTP: what people were told, how it went, and what is sent again."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.api.alerting_rows import NOW, Fired, fire, notify
from tests.api.conftest import Api, World, problem
from tests.telling import add_channel


@pytest.fixture
def fired(world: World, slug: str) -> Fired:
    """An alert that is firing."""
    return fire(world, slug)


@pytest.fixture
def channel(world: World, fired: Fired, slug: str) -> int:
    """The client's channel."""
    with world.begin() as connection:
        return add_channel(connection, key=f"ops-{slug}", client_id=fired.client_id)


def add(world: World, fired: Fired, channel: int, status: str = "sent", **said: Any) -> str:
    with world.begin() as connection:
        return f"/v1/notifications/{notify(connection, fired, channel, status, **said)}"


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [f"/v1/notifications/{item['id']}" for item in answer.json()["items"]]


def retry(api: Api, path: str) -> Any:
    return api.request("POST", f"{path}:retry")


def test_a_notification_is_shown_with_its_attempts(
    world: World, admin: Api, fired: Fired, channel: int, slug: str
) -> None:
    path = add(world, fired, channel, attempts=2)

    item = admin.get(path).json()

    at = NOW - timedelta(minutes=5)
    written = at.isoformat().replace("+00:00", "Z")
    attempts, message = item.pop("attempts"), item.pop("message")
    assert item == {
        "id": path.rsplit("/", 1)[1],
        "client": slug,
        "alert_id": str(fired.id),
        "channel": f"ops-{slug}",
        "channel_client": slug,
        "reason": "fired",
        "status": "sent",
        "held_by": None,
        "silence_id": None,
        "attempt_count": 2,
        "next_attempt_at": None,
        "expires_at": (at + timedelta(hours=24)).isoformat().replace("+00:00", "Z"),
        "created_at": written,
        "sent_at": written,
        "last_error": "Answered 500 Internal Server Error.",
    }
    assert [(each["n"], each["outcome"], each["http_status"], each["latency_s"]) for each in attempts] == [
        (1, "retry", 500, 0.5),
        (2, "sent", 200, 0.5),
    ]
    assert message == {"title": "Failing", "status": "firing"}
    assert admin.get("/v1/notifications", client=slug).json() == {"items": [item], "next_cursor": None}


def test_the_list_is_filtered_and_goes_newest_first(
    world: World, admin: Api, fired: Fired, channel: int, slug: str
) -> None:
    with world.begin() as connection:
        other_channel = add_channel(connection, key=f"other-{slug}", client_id=fired.client_id)
    other_alert = fire(world, slug, "report")
    old = add(world, fired, channel, "dead", minutes_ago=30)
    held = add(world, fired, other_channel, "held", minutes_ago=20)
    new = add(world, other_alert, channel, "sent", minutes_ago=10)

    def found(**params: Any) -> list[str]:
        return ids(admin.get("/v1/notifications", client=slug, **params))

    assert found() == [new, held, old]
    assert found(status="dead") == [old]
    assert found(status=["held", "sent"]) == [new, held]
    assert found(channel=f"other-{slug}") == [held]
    assert found(channel="nobody's") == []
    assert found(alert=str(fired.id)) == [held, old]
    assert ids(admin.get("/v1/notifications", alert=str(fired.id))) == [held, old]
    from_, to = ((NOW - timedelta(minutes=minutes)).isoformat() for minutes in (20, 10))
    assert found(**{"from": from_, "to": to}) == [held]
    first = admin.get("/v1/notifications", client=slug, limit=2)
    rest = admin.get("/v1/notifications", client=slug, limit=2, cursor=first.json()["next_cursor"])
    assert ids(first) + ids(rest) == [new, held, old]
    assert problem(admin.get("/v1/notifications", cursor="x")) == (400, "bad_cursor", [("?cursor", "bad_cursor")])
    assert problem(admin.get("/v1/notifications", status="x")) == (422, "invalid", [("?status", "unknown_value")])
    assert problem(admin.get("/v1/notifications", alert="x")) == (422, "invalid", [("?alert", "wrong_type")])


def test_what_was_given_up_is_sent_again_with_its_id(world: World, admin: Api, fired: Fired, channel: int) -> None:
    path = add(world, fired, channel, "dead", minutes_ago=3000)
    before = datetime.now(UTC)

    item = retry(admin, path).json()

    assert (item["status"], item["attempt_count"], f"/v1/notifications/{item['id']}") == ("pending", 1, path)
    assert datetime.fromisoformat(item["next_attempt_at"]) >= before
    assert datetime.fromisoformat(item["expires_at"]) >= before + timedelta(hours=24)
    assert problem(retry(admin, path)) == (409, "not_dead", [])


@pytest.mark.parametrize("status", ["held", "pending", "sent", "superseded", "dropped"])
def test_only_what_was_given_up_is_sent_again(
    world: World, admin: Api, fired: Fired, channel: int, status: str
) -> None:
    path = add(world, fired, channel, status)
    assert problem(retry(admin, path)) == (409, "not_dead", [])
    assert admin.get(path).json()["status"] == status


def test_what_the_receiver_knows_better_is_not_sent_again(
    world: World, admin: Api, fired: Fired, channel: int, slug: str
) -> None:
    path = add(world, fired, channel, "dead", minutes_ago=20)
    with world.begin() as connection:
        other_channel = add_channel(connection, key=f"other-{slug}", client_id=fired.client_id)
    add(world, fired, other_channel, "sent", minutes_ago=5, reason="resolved")
    add(world, fired, channel, "sent", minutes_ago=25)
    later = add(world, fired, channel, "dead", minutes_ago=5, reason="resolved")
    assert retry(admin, later).status_code == 200
    set_status(world, later, "sent")

    assert problem(retry(admin, path)) == (409, "superseded", [])
    with world.begin() as connection:
        lease = "status = 'leased', sent_at = null, lease_token = gen_random_uuid(), lease_until = now()"
        statement = f"update pulsewatch.notification set {lease} where id = :id"
        connection.execute(text(statement), {"id": UUID(later.rsplit("/", 1)[1])})
    assert problem(retry(admin, path)) == (409, "superseded", [])


@pytest.mark.parametrize(("status", "is_refused"), [("pending", True), ("held", False), ("dropped", False)])
def test_what_a_newer_message_is_to_tell_is_not_sent_again(
    world: World, admin: Api, fired: Fired, channel: int, status: str, is_refused: bool
) -> None:
    path = add(world, fired, channel, "dead", minutes_ago=20)
    add(world, fired, channel, "pending", minutes_ago=25)
    add(world, fired, channel, status, minutes_ago=5, reason="level_changed")
    answer = retry(admin, path)
    assert problem(answer) == (409, "superseded", []) if is_refused else answer.status_code == 200


def test_that_it_goes_on_is_not_told_once_it_is_over(world: World, admin: Api, slug: str) -> None:
    over = fire(world, slug, is_resolved=True)
    with world.begin() as connection:
        channel = add_channel(connection, key=f"ops-{slug}", client_id=over.client_id)
    path = add(world, over, channel, "dead")
    assert problem(retry(admin, path)) == (409, "alert_resolved", [])
    assert admin.get(path).json()["status"] == "dead"
    assert retry(admin, add(world, over, channel, "dead", reason="resolved")).status_code == 200


def set_status(world: World, path: str, status: str) -> None:
    with world.begin() as connection:
        statement = "update pulsewatch.notification set status = :status, sent_at = now() where id = :id"
        connection.execute(text(statement), {"status": status, "id": UUID(path.rsplit("/", 1)[1])})


def test_nothing_is_sent_to_a_channel_that_is_gone(
    world: World, admin: Api, fired: Fired, channel: int, slug: str
) -> None:
    path = add(world, fired, channel, "dead")
    assert admin.delete(f"/v1/channels/ops-{slug}?client={slug}").status_code == 204
    assert problem(retry(admin, path)) == (409, "channel_deleted", [])
    assert admin.get(path).json()["channel"] == f"ops-{slug}"


def test_a_bound_key_is_told_the_errors_of_its_own_channels_alone(
    world: World, fired: Fired, channel: int, slug: str
) -> None:
    with world.begin() as connection:
        fleet = add_channel(connection, key=f"fleet-{slug}")
    own, foreign = (add(world, fired, each, "dead") for each in (channel, fleet))
    bound = world.caller("read", slug)

    errors = {}
    for path in (own, foreign):
        item = bound.get(path).json()
        errors[path] = (item["channel_client"], item["last_error"], item["attempts"][0]["error"])

    told = "Answered 500 Internal Server Error."
    assert errors == {own: (slug, told, told), foreign: (None, None, None)}
    assert sorted(
        str(item["last_error"]) for item in bound.get("/v1/notifications").json()["items"]
    ) == [told, "None"]  # fmt: skip


def test_reading_needs_read_and_retrying_needs_write(world: World, fired: Fired, channel: int, slug: str) -> None:
    path = add(world, fired, channel, "dead")
    reader, sender, writer = (world.caller(role, slug) for role in ("read", "ingest", "write"))
    assert reader.get(path).status_code == 200
    for answer in (sender.get(path), retry(reader, path)):
        assert problem(answer)[:2] == (403, "forbidden")
    assert retry(writer, path).json()["status"] == "pending"


def test_a_bound_key_neither_sees_nor_touches_those_of_others(
    world: World, admin: Api, fired: Fired, channel: int, slug: str
) -> None:
    path = add(world, fired, channel, "dead")
    bound = world.caller("write", world.slug())
    for answer in (bound.get(path), retry(bound, path), bound.get("/v1/notifications", client=slug)):
        assert problem(answer) == (404, "not_found", [])
    assert ids(bound.get("/v1/notifications")) == []
    assert ids(bound.get("/v1/notifications", alert=str(fired.id))) == []
    assert admin.get(path).json()["status"] == "dead"


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000", "{0}", "a%00b"])
def test_what_is_no_id_is_not_found(admin: Api, id_: str) -> None:
    assert problem(admin.get(f"/v1/notifications/{id_}")) == (404, "not_found", [])
    assert problem(retry(admin, f"/v1/notifications/{id_}")) == (404, "not_found", [])
