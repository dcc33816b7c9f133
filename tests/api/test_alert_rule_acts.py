"""What can be done with an alert rule over HTTP: check it, see its targets, switch it, restore it."""

import pytest
from sqlalchemy import text

from tests.api.conftest import Api, World, problem
from tests.api.test_alert_rules import FAILING, act, add_channel, look, targets
from tests.api.test_alert_rules import client as client
from tests.api.test_alert_rules import path as path


def test_a_rule_is_switched_off_and_on_and_only_a_change_makes_a_version(admin: Api, path: str) -> None:
    admin.put(path, FAILING)
    off = admin.post(act(path, ":disable") + "&comment=night", None)
    assert (off.status_code, off.json()["version"], off.json()["spec"]["is_enabled"]) == (200, 2, False)
    assert (off.json()["change"], off.json()["comment"], off.headers["etag"]) == ("disabled", "night", '"2"')
    assert admin.post(act(path, ":disable"), None).json() == off.json()
    on = admin.post(act(path, ":enable"), None).json()
    assert (on["version"], on["change"], on["spec"]["is_enabled"]) == (3, "enabled", True)


def test_a_rule_can_only_try(admin: Api, path: str) -> None:
    admin.put(path, FAILING)
    tries = admin.post(act(path, ":dry-run"), {"is_dry_run": True}).json()
    assert (tries["version"], tries["change"], tries["spec"]["is_dry_run"]) == (2, "dry_run", True)
    for body, error in (
        ({}, ("/is_dry_run", "missing_field")),
        ({"is_dry_run": 1}, ("/is_dry_run", "wrong_type")),
        ({"is_dry_run": True, "dry": 1}, ("/dry", "unknown_field")),
    ):
        assert problem(admin.post(act(path, ":dry-run"), body)) == (422, "invalid", [error])


def test_an_earlier_version_is_restored_even_of_a_deleted_rule(admin: Api, path: str) -> None:
    admin.put(path, FAILING | {"for_s": 60})
    admin.put(path, FAILING | {"for_s": 120})
    restored = admin.post(act(path, "/versions/1:restore") + "&comment=back", None).json()
    assert (restored["version"], restored["change"], restored["spec"]["for_s"]) == (3, "restored", 60)
    admin.delete(path)
    assert admin.post(act(path, "/versions/2:restore"), None).json()["spec"]["for_s"] == 120
    assert problem(admin.post(act(path, "/versions/99:restore"), None))[:2] == (404, "not_found")
    assert problem(admin.post(act(path, "/versions/x:restore"), None))[2] == [("{version}", "wrong_type")]


def test_a_version_whose_channel_is_gone_is_not_restored(world: World, admin: Api, client: str, path: str) -> None:
    add_channel(world, f"gone-{client}", client)
    admin.put(path, FAILING | {"channels": [f"gone-{client}"]})
    admin.put(path, FAILING)
    with world.begin() as connection:
        gone = text("update pulsewatch.channel set deleted_at = now() where key = :key")
        connection.execute(gone, {"key": f"gone-{client}"})
    refused = admin.post(act(path, "/versions/1:restore"), None)
    assert problem(refused) == (422, "invalid", [("/channels/0", "unknown_value")])
    assert look(admin, path).json()["version"] == 2


@pytest.mark.parametrize(
    ("method", "end", "allowed"),
    [
        ("GET", ":enable", "POST"),
        ("PUT", ":dry-run", "POST"),
        ("DELETE", ":targets", "GET"),
        ("PATCH", "", "DELETE, GET, PUT"),
        ("GET", "/versions/1:restore", "POST"),
    ],
)
def test_the_wrong_method_is_told_the_right_ones(admin: Api, method: str, end: str, allowed: str) -> None:
    answer = admin.request(method, f"/v1/alert-rules/x{end}", json={})
    assert problem(answer)[:2] == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


# -- what a rule would watch ------------------------------------------------------------------------------------------


def test_a_rule_is_checked_without_being_stored(admin: Api, client: str, path: str) -> None:
    checked = admin.post(f"/v1/alert-rules:validate?client={client}", FAILING | {"selector": {"tags": ["dwh"]}})
    assert checked.status_code == 200
    assert (checked.json()["target_count"], checked.json()["spec"]["for_s"]) == (1, 0)
    assert look(admin, path).status_code == 404


def test_the_targets_of_a_rule_are_shown_before_and_after_it_is_stored(admin: Api, client: str, path: str) -> None:
    of_client = FAILING | {"selector": {"clients": [client]}}
    preview = admin.post("/v1/alert-rules:targets", of_client)
    assert targets(preview) == ["load", "report"]
    assert preview.json()["items"][0] == {
        "client": client,
        "pipeline": "load",
        "tags": ["dwh"],
        "owner": "ann",
        "environment": None,
    }
    first = admin.post("/v1/alert-rules:targets?limit=1", of_client).json()
    assert first["items"] == preview.json()["items"][:1]
    rest = admin.post(f"/v1/alert-rules:targets?limit=1&cursor={first['next_cursor']}", of_client).json()
    assert (rest["items"], rest["next_cursor"]) == (preview.json()["items"][1:], None)

    admin.put(path, FAILING | {"selector": {"pipelines": ["rep*"]}, "is_enabled": False})
    assert targets(look(admin, act(path, ":targets"))) == ["report"]
    whole = {"kind": "client_no_data", "levels": {"warning": 3600}}
    assert targets(admin.post(f"/v1/alert-rules:targets?client={client}", whole)) == [None]


def test_a_stored_rule_watches_its_targets_at_once(world: World, admin: Api, client: str, path: str) -> None:
    admin.put(path, FAILING)
    watching = text(
        "select count(*) from pulsewatch.alert_target join pulsewatch.client on client.id = client_id"
        " where slug = :slug and rule_id in (select id from pulsewatch.alert_rule where key = 'fails')"
    )

    def count() -> int:
        with world.begin() as connection:
            number: int = connection.execute(watching, {"slug": client}).scalar_one()
            return number

    assert count() == 2
    admin.post(act(path, ":disable"), None)
    assert count() == 0
