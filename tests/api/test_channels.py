"""Channels over HTTP: what is told of them, what is never shown, and how they are tried out."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from pulsewatch.delivery import deliver
from pulsewatch.secretbox import open_box
from pulsewatch.settings import Settings
from tests.api.conftest import Api, World, problem
from tests.telling import outbound, receiver

SIGNING = "whsec_" + "QUJD" * 8
WEBHOOK: dict[str, Any] = {
    "kind": "webhook",
    "title": "Data team",
    "config": {"url": "https://hooks.example.com/pulsewatch"},
    "secrets": {"headers": {"Authorization": "Bearer hush"}, "signing_secrets": [SIGNING]},
    "rate_per_min": 30,
}
EMAIL: dict[str, Any] = {
    "kind": "email",
    "config": {"host": "mail.example.com", "sender": "pw@example.com", "recipients": ["ops@example.com"]},
    "secrets": {"user": "pw", "password": "hush"},
}


@pytest.fixture
def client(admin: Api, slug: str) -> str:
    """A client that exists."""
    assert admin.put(f"/v1/clients/{slug}", {}).status_code == 201
    return slug


@pytest.fixture
def path(client: str) -> str:
    """A channel of the client, that is not there yet."""
    return f"/v1/channels/ops?client={client}"


def act(path: str, verb: str) -> str:
    """The path of something that can be done with the channel."""
    return path.replace("?", f":{verb}?", 1)


def look(api: Api, path: str) -> Any:
    """GET of a path that has its query already."""
    return api.request("GET", path)


def stored(world: World, client: str) -> dict[str, Any] | None:
    """The secrets of the client's channel, as they lie in the table; None for none."""
    with world.begin() as connection:
        query = (
            "select channel.secrets from pulsewatch.channel join pulsewatch.client on client.id = channel.client_id"
            " where client.slug = :slug"
        )
        sealed = connection.execute(text(query), {"slug": client}).scalar_one()
    if sealed is None:
        return None
    assert b"hush" not in sealed
    return dict(json.loads(open_box(world.app.state.settings).decrypt(sealed)))


def test_a_put_makes_a_channel_and_shows_no_secret(world: World, admin: Api, client: str, path: str) -> None:
    made = admin.put(path, WEBHOOK)

    assert made.status_code == 201
    item = made.json()
    assert item | {"created_at": "", "updated_at": ""} == {
        "key": "ops",
        "client": client,
        "kind": "webhook",
        "title": "Data team",
        "config": {"url": "https://hooks.example.com/pulsewatch", "receiver": "pulsewatch"},
        "secrets_set": ["headers", "signing_secrets"],
        "rate_per_min": 30,
        "is_enabled": True,
        "disabled_reason": None,
        "created_at": "",
        "updated_at": "",
    }
    assert look(admin, path).json() == item
    assert look(admin, f"/v1/channels?client={client}").json() == {"items": [item], "next_cursor": None}
    assert "hush" not in made.text
    assert stored(world, client) == WEBHOOK["secrets"]


def test_the_same_put_again_changes_nothing(admin: Api, path: str) -> None:
    made = admin.put(path, WEBHOOK)
    again = admin.put(path, WEBHOOK)
    assert (again.status_code, again.json()) == (200, made.json())
    assert again.headers["etag"] == made.headers["etag"] == look(admin, path).headers["etag"]


def test_absent_stays_and_null_clears(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, WEBHOOK)

    changed = admin.put(path, {"title": None, "secrets": {"signing_secrets": None}}).json()

    assert (changed["title"], changed["rate_per_min"], changed["secrets_set"]) == (None, 30, ["headers"])
    assert changed["config"]["url"] == WEBHOOK["config"]["url"]
    assert stored(world, client) == {"headers": {"Authorization": "Bearer hush"}}
    assert admin.put(path, {"secrets": {"headers": None}}).json()["secrets_set"] == []
    assert stored(world, client) is None


def test_a_put_without_secrets_keeps_those_that_are_stored(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, EMAIL)
    more = EMAIL["config"] | {"recipients": ["ops@example.com", "ann@example.com"]}

    assert admin.put(path, {"config": more}).json()["secrets_set"] == ["password", "user"]

    assert stored(world, client) == EMAIL["secrets"]


def test_secrets_do_not_follow_a_channel_that_leads_elsewhere(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, WEBHOOK)
    elsewhere = {"config": {"url": "https://thief.example.net/"}}

    assert problem(admin.put(path, elsewhere)) == (
        422,
        "invalid",
        [("/secrets/headers", "missing_field"), ("/secrets/signing_secrets", "missing_field")],
    )
    assert look(admin, path).json()["config"]["url"] == WEBHOOK["config"]["url"]
    given = {"secrets": {"headers": {"Authorization": "Bearer other"}, "signing_secrets": None}}
    assert admin.put(path, elsewhere | given).status_code == 200
    assert stored(world, client) == {"headers": {"Authorization": "Bearer other"}}


def test_another_kind_begins_without_secrets(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, WEBHOOK)
    assert problem(admin.put(path, {"kind": "email"})) == (422, "invalid", [("/config", "missing_field")])
    assert admin.put(path, {key: EMAIL[key] for key in ("kind", "config")}).json()["secrets_set"] == []
    assert stored(world, client) is None


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("/kind", "missing_field")]),
        ({"kind": "pigeon"}, [("/kind", "unknown_value")]),
        ({"kind": "webhook"}, [("/config", "missing_field")]),
        ({"kind": "webhook", "config": {}}, [("/config/url", "missing_field")]),
        ({"kind": "webhook", "config": {"url": "ftp://x"}}, [("/config/url", "invalid_value")]),
        (
            {"kind": "webhook", "config": {"uri": "https://x"}},
            [("/config/uri", "unknown_field")],
        ),
        (WEBHOOK | {"secrets": {"header": {}}}, [("/secrets/header", "unknown_field")]),
        (WEBHOOK | {"secrets": {"headers": {"Host": "x"}}}, [("/secrets/headers", "invalid_value")]),
        (WEBHOOK | {"secrets": {"signing_secrets": ["x"]}}, [("/secrets/signing_secrets", "invalid_value")]),
        (EMAIL | {"secrets": {"user": "pw"}}, [("/secrets", "invalid_value")]),
        ({"kind": "slack", "config": {}}, [("/secrets/url", "missing_field")]),
        (WEBHOOK | {"rate_per_min": 0}, [("/rate_per_min", "out_of_range")]),
        (WEBHOOK | {"rate_per_min": "60"}, [("/rate_per_min", "wrong_type")]),
        (WEBHOOK | {"titel": "x"}, [("/titel", "unknown_field")]),
        (WEBHOOK | {"title": "a\0b"}, [("/title", "nul_character")]),
    ],
)
def test_what_is_not_valid_is_named_and_nothing_is_written(
    admin: Api, path: str, body: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    assert problem(admin.put(path, body)) == (422, "invalid", errors)
    assert look(admin, path).status_code == 404


def test_no_error_repeats_a_secret(admin: Api, path: str) -> None:
    wrong = WEBHOOK | {"secrets": {"headers": {"X": "hush\n"}, "signing_secrets": "hush", "hushed": "hush"}}
    answer = admin.put(path, wrong)
    assert answer.status_code == 422
    assert "hush" not in answer.text.replace("hushed", "")


def test_a_misspelt_field_is_told_the_nearest(admin: Api, path: str) -> None:
    (error,) = admin.put(path, WEBHOOK | {"secrets": {"header": {}}}).json()["errors"]
    assert error["detail"] == "There is no field 'header'. Did you mean 'headers'?"


def test_if_match_guards_a_channel(admin: Api, path: str) -> None:
    tag = admin.put(path, WEBHOOK).headers["etag"]
    admin.put(path, {"title": "other"})
    assert problem(admin.put(path, {"title": "mine"}, If_Match=tag)) == (412, "precondition_failed", [])
    assert problem(admin.delete(path, If_Match=tag)) == (412, "precondition_failed", [])
    assert problem(admin.put(path, {}, If_None_Match="*")) == (412, "precondition_failed", [])
    assert admin.put(path, {"title": "mine"}, If_Match=look(admin, path).headers["etag"]).status_code == 200


def test_a_deleted_channel_is_gone_with_its_secrets_and_a_put_makes_it_anew(
    world: World, admin: Api, client: str, path: str
) -> None:
    admin.put(path, WEBHOOK)
    assert admin.delete(path).status_code == 204
    assert stored(world, client) is None
    for answer in (look(admin, path), admin.delete(path), admin.request("POST", act(path, "test"))):
        assert problem(answer) == (404, "not_found", [])
    assert problem(admin.put(path, {})) == (422, "invalid", [("/kind", "missing_field")])
    again = admin.put(path, {"kind": "webhook", "config": {"url": "https://b.example.com/"}})
    item = again.json()
    assert (again.status_code, item["title"], item["rate_per_min"], item["secrets_set"]) == (201, None, 60, [])


def test_channels_of_all_clients_and_of_one_may_have_the_same_key(world: World, admin: Api, client: str) -> None:
    key = f"k-{client}"
    admin.put(f"/v1/channels/{key}", WEBHOOK | {"title": "all"})
    admin.put(f"/v1/channels/{key}?client={client}", WEBHOOK | {"title": "one"})
    bound = world.caller("write", client)

    assert look(admin, f"/v1/channels/{key}").json()["title"] == "all"
    assert look(admin, f"/v1/channels/{key}?client={client}").json()["title"] == "one"
    assert look(bound, f"/v1/channels/{key}").json()["title"] == "one"
    assert [item["title"] for item in look(bound, "/v1/channels").json()["items"]] == ["one"]
    listed = look(admin, "/v1/channels?limit=500").json()["items"]
    assert [item["title"] for item in listed if item["key"] == key] == ["all", "one"]


def test_a_cursor_continues_the_list(admin: Api, client: str) -> None:
    for key in "cab":
        admin.put(f"/v1/channels/{key}?client={client}", WEBHOOK)
    first = admin.get("/v1/channels", client=client, limit=2).json()
    rest = admin.get("/v1/channels", client=client, limit=2, cursor=first["next_cursor"]).json()
    assert [item["key"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None
    assert problem(admin.get("/v1/channels", cursor="x")) == (400, "bad_cursor", [("?cursor", "bad_cursor")])
    assert [item["key"] for item in admin.get("/v1/channels", client=client, kind="email").json()["items"]] == []


def test_each_kind_says_what_it_must_be_told(admin: Api) -> None:
    kinds = {item["name"]: item for item in admin.get("/v1/channel-kinds").json()["items"]}
    assert list(kinds) == ["email", "slack", "webhook"]
    assert kinds["slack"]["secrets"]["required"] == ["url"]
    assert "password" in kinds["email"]["secrets"]["properties"]


def test_a_channel_that_pulsewatch_disabled_is_put_back_into_use(
    world: World, admin: Api, client: str, path: str
) -> None:
    admin.put(path, WEBHOOK)
    disable(world, client)
    shown = look(admin, path).json()
    assert (shown["is_enabled"], shown["disabled_reason"]) == (False, "5 refusals in a row")
    # Who describes it once more has not looked into why it failed.
    assert admin.put(path, WEBHOOK).json()["is_enabled"] is False

    for answer in (admin.request("POST", act(path, "enable")), admin.request("POST", act(path, "enable"))):
        assert (answer.json()["is_enabled"], answer.json()["disabled_reason"]) == (True, None)

    disable(world, client)
    assert admin.put(path, {"is_enabled": True}).json()["disabled_reason"] is None


def disable(world: World, client: str) -> None:
    """As delivery does."""
    with world.begin() as connection:
        statement = (
            "update pulsewatch.channel set is_enabled = false, disabled_reason = '5 refusals in a row'"
            " where client_id = (select id from pulsewatch.client where slug = :slug)"
        )
        connection.execute(text(statement), {"slug": client})


SECRET_URL: dict[str, Any] = {
    "kind": "webhook",
    "config": {},
    "secrets": {"url": "https://hooks.example.com/hush", "headers": {"Authorization": "Bearer hush"}},
}


def test_the_address_of_a_webhook_may_be_a_secret(world: World, admin: Api, client: str, path: str) -> None:
    item = admin.put(path, SECRET_URL).json()
    assert (item["config"], item["secrets_set"]) == ({"url": None, "receiver": "pulsewatch"}, ["headers", "url"])
    assert stored(world, client) == SECRET_URL["secrets"]
    assert admin.put(path, {"title": "Still"}).json()["secrets_set"] == ["headers", "url"]


def test_secrets_do_not_follow_a_secret_address_either(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, SECRET_URL)
    elsewhere = "https://thief.example.net/"
    for change in ({"secrets": {"url": elsewhere}}, {"config": {"url": elsewhere}, "secrets": {"url": None}}):
        assert problem(admin.put(path, change)) == (422, "invalid", [("/secrets/headers", "missing_field")])
    assert stored(world, client) == SECRET_URL["secrets"]
    assert admin.put(path, {"secrets": {"url": elsewhere, "headers": None}}).status_code == 200
    assert stored(world, client) == {"url": elsewhere}


@pytest.mark.parametrize(
    ("config", "secrets", "code"),
    [
        ({}, {}, "missing_field"),
        ({"url": None}, {"url": None}, "missing_field"),
        (WEBHOOK["config"], SECRET_URL["secrets"], "invalid_value"),
    ],
)
def test_a_webhook_has_one_address(
    admin: Api, path: str, config: dict[str, Any], secrets: dict[str, Any], code: str
) -> None:
    put = admin.put(path, {"kind": "webhook", "config": config, "secrets": secrets})
    assert problem(put) == (422, "invalid", [("/config/url", code)])


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ({"title": "Other"}, True),
        ({"config": {**WEBHOOK["config"], "receiver": "other"}}, False),
        ({"secrets": {"headers": {"Authorization": "Bearer hush hush"}}}, False),
    ],
)
def test_what_was_learnt_of_a_receiver_is_forgotten_once_the_channel_may_lead_elsewhere(
    world: World, admin: Api, client: str, path: str, change: dict[str, Any], is_kept: bool
) -> None:
    admin.put(path, WEBHOOK)
    of_client = "where client_id = (select id from pulsewatch.client where slug = :slug)"
    with world.begin() as connection:
        statement = f"update pulsewatch.channel set quiet_until = now(), unanswered_since = now() {of_client}"
        connection.execute(text(statement), {"slug": client})
    assert admin.put(path, change).status_code == 200
    with world.begin() as connection:
        query = f"select quiet_until is not null, unanswered_since is not null from pulsewatch.channel {of_client}"
        assert connection.execute(text(query), {"slug": client}).one() == (is_kept, is_kept)


def test_a_test_message_is_delivered_and_its_notification_tells_how_it_went(
    world: World, admin: Api, client: str, path: str
) -> None:
    with receiver() as far:
        admin.put(path, WEBHOOK | {"config": {"url": far.url}})
        asked = admin.request("POST", act(path, "test"))
        assert asked.status_code == 202
        item = asked.json()
        assert (item["status"], item["reason"], item["client"], item["alert_id"]) == ("pending", "test", client, None)
        assert asked.headers["location"] == f"/v1/notifications/{item['id']}"

        deliver(world.engine, world.app.state.settings, outbound(), datetime.now(UTC))

        assert far.ids == [f"msg_{UUID(item['id']).hex}"]
    told = look(admin, asked.headers["location"]).json()
    assert (told["status"], told["attempt_count"], told["next_attempt_at"]) == ("sent", 1, None)
    assert [(each["n"], each["outcome"], each["http_status"]) for each in told["attempts"]] == [(1, "sent", 200)]
    assert told["message"]["is_test"] is True


def test_without_a_key_secrets_are_not_taken_and_channels_without_are(
    world: World, admin: Api, client: str, path: str
) -> None:
    admin.put(path, WEBHOOK)
    before = world.app.state.settings
    world.app.state.settings = Settings.model_validate({"database_url": before.database_url.get_secret_value()})
    try:
        assert look(admin, path).json()["secrets_set"] is None
        other = f"/v1/channels/other?client={client}"
        assert problem(admin.put(other, WEBHOOK)) == (409, "secret_key_missing", [])
        assert admin.put(other, WEBHOOK | {"secrets": {}}).json()["secrets_set"] == []
        assert admin.put(path, {"title": "still"}).status_code == 200
    finally:
        world.app.state.settings = before
    assert stored_of(world, client, "ops") is not None


def stored_of(world: World, client: str, key: str) -> object:
    with world.begin() as connection:
        query = (
            "select channel.secrets from pulsewatch.channel join pulsewatch.client on client.id = channel.client_id"
            " where client.slug = :slug and channel.key = :key"
        )
        return connection.execute(text(query), {"slug": client, "key": key}).scalar_one()


def test_reading_needs_read_and_writing_needs_write(world: World, client: str, path: str) -> None:
    reader, sender, writer = (world.caller(role, client) for role in ("read", "ingest", "write"))
    for answer in (look(sender, path), reader.put(path, WEBHOOK), reader.request("POST", act(path, "test"))):
        assert problem(answer)[:2] == (403, "forbidden")
    assert writer.put(path, WEBHOOK).status_code == 201
    assert look(reader, path).status_code == 200


def test_a_bound_key_neither_sees_nor_touches_channels_of_others(
    world: World, admin: Api, client: str, path: str
) -> None:
    admin.put(path, WEBHOOK)
    bound = world.caller("write", world.slug())
    fleet = f"/v1/channels/f-{client}"
    admin.put(fleet, WEBHOOK)
    for each in (path, fleet):
        assert problem(look(bound, each))[:2] == (404, "not_found")
        assert problem(bound.delete(each))[:2] == (404, "not_found")
    assert problem(bound.put(path, WEBHOOK))[:2] == (404, "not_found")
    assert look(bound, "/v1/channels").json()["items"] == []
    assert look(admin, path).status_code == look(admin, fleet).status_code == 200


def test_no_channel_is_made_for_an_archived_client(admin: Api, client: str, path: str) -> None:
    admin.delete(f"/v1/clients/{client}")
    assert problem(admin.put(path, WEBHOOK)) == (409, "client_archived", [])


@pytest.mark.parametrize("key", ["-x", "a%00b", "x" * 101])
def test_a_key_that_is_no_slug_is_refused_when_written_and_not_found_when_read(admin: Api, key: str) -> None:
    assert problem(admin.put(f"/v1/channels/{key}", WEBHOOK)) == (422, "invalid", [("{key}", "not_a_slug")])
    assert problem(look(admin, f"/v1/channels/{key}")) == (404, "not_found", [])
