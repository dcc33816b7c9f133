"""Pipelines over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from pulsewatch import catalog
from pulsewatch.settings import Settings
from tests.api.conftest import Api, World, problem, slugs

FULL = {
    "title": "Nightly load",
    "schedule": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "start_grace_s": 300,
    "max_runtime_s": 3600.5,
    "tags": ["nightly", "dwh", "dwh"],
    "owner": "data-team",
    "environment": "prod",
}


@pytest.fixture
def client(admin: Api, slug: str) -> str:
    """A client that exists."""
    assert admin.put(f"/v1/clients/{slug}", {}).status_code == 201
    return slug


def test_a_put_makes_a_native_pipeline_named_by_its_slug(admin: Api, client: str) -> None:
    path = f"/v1/clients/{client}/pipelines/nightly"

    made = admin.put(path, FULL)

    assert made.status_code == 201
    assert made.json() | {"created_at": "", "updated_at": ""} == FULL | {
        "slug": "nightly",
        "namespace": "",
        "name": "nightly",
        "tags": ["dwh", "nightly"],
        "archived_at": None,
        "created_at": "",
        "updated_at": "",
    }
    again = admin.put(path, FULL)
    assert (again.status_code, again.json()) == (200, made.json())
    assert admin.get(path).json() == made.json()
    assert admin.get(path).headers["etag"] == made.headers["etag"]


def test_null_clears_and_absent_stays(admin: Api, client: str) -> None:
    path = f"/v1/clients/{client}/pipelines/nightly"
    admin.put(path, FULL)

    cleared = admin.put(path, {"schedule": None, "tags": None}).json()

    assert (cleared["schedule"], cleared["tags"], cleared["owner"]) == (None, [], "data-team")


def test_a_pipeline_of_another_namespace_is_changed_by_its_slug(world: World, admin: Api, client: str) -> None:
    with world.begin() as connection:
        client_id = catalog.lock_client(connection, client).id  # type: ignore[union-attr]  # it was just made
        at = datetime.now(UTC) - timedelta(hours=1)
        row = catalog.upsert_pipeline(connection, client_id, "spark", "load/daily", {"title": "old"}, at)

    changed = admin.put(f"/v1/clients/{client}/pipelines/{row.slug}", {"title": "new"})

    assert changed.status_code == 200
    shown = changed.json()
    assert (shown["namespace"], shown["name"], shown["title"]) == ("spark", "load/daily", "new")


def test_what_a_later_event_has_said_stands(world: World, admin: Api, client: str) -> None:
    with world.begin() as connection:
        client_id = catalog.lock_client(connection, client).id  # type: ignore[union-attr]  # it was just made
        at = datetime.now(UTC) + timedelta(minutes=5)
        catalog.upsert_pipeline(connection, client_id, "", "nightly", {"title": "of the event"}, at)

    shown = admin.put(f"/v1/clients/{client}/pipelines/nightly", {"title": "of the put", "owner": "me"}).json()

    assert (shown["title"], shown["owner"]) == ("of the event", "me")


def test_an_archived_pipeline_leaves_the_list_and_a_put_brings_it_back(admin: Api, client: str) -> None:
    path = f"/v1/clients/{client}/pipelines"
    admin.put(f"{path}/a", {})
    admin.put(f"{path}/b", {})

    assert admin.delete(f"{path}/a").status_code == 204
    assert slugs(admin.get(path)) == ["b"]
    assert slugs(admin.get(path, archived="true")) == ["a"]
    assert slugs(admin.get(path, archived="any")) == ["a", "b"]
    assert admin.put(f"{path}/a", {}).json()["archived_at"] is None
    assert slugs(admin.get(path)) == ["a", "b"]


def test_if_match_guards_a_pipeline(admin: Api, client: str) -> None:
    path = f"/v1/clients/{client}/pipelines/nightly"
    tag = admin.put(path, {}).headers["etag"]
    admin.put(path, {"title": "other"})

    assert problem(admin.put(path, {"title": "mine"}, If_Match=tag)) == (412, "precondition_failed", [])
    assert problem(admin.delete(path, If_Match=tag)) == (412, "precondition_failed", [])
    assert admin.get(path).json()["title"] == "other"


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"tag": "dwh"}, ["a", "b"]),
        ({"tag": ["dwh", "hot"]}, ["b"]),
        ({"owner": "ann"}, ["a", "c"]),
        ({"environment": "prod"}, ["a"]),
        ({"owner": "ann", "environment": "staging"}, ["c"]),
        ({"tag": "none"}, []),
        ({}, ["a", "b", "c"]),
    ],
)
def test_lists_are_filtered_by_tag_owner_and_environment(
    admin: Api, client: str, params: dict[str, Any], found: list[str]
) -> None:
    path = f"/v1/clients/{client}/pipelines"
    admin.put(f"{path}/a", {"tags": ["dwh"], "owner": "ann", "environment": "prod"})
    admin.put(f"{path}/b", {"tags": ["dwh", "hot"], "owner": "bob"})
    admin.put(f"{path}/c", {"owner": "ann", "environment": "staging"})

    assert slugs(admin.get(path, **params)) == found


def test_a_cursor_continues_the_list(admin: Api, client: str) -> None:
    path = f"/v1/clients/{client}/pipelines"
    for name in "cab":
        admin.put(f"{path}/{name}", {})

    first = admin.get(path, limit=2).json()
    rest = admin.get(path, limit=2, cursor=first["next_cursor"]).json()

    assert [item["slug"] for item in first["items"]] == ["a", "b"]
    assert [item["slug"] for item in rest["items"]] == ["c"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"schedule": "* * *"}, ("/schedule", "invalid_schedule")),
        ({"schedule": "every 5s"}, ("/schedule", "invalid_schedule")),
        ({"timezone": "europe/berlin"}, ("/timezone", "invalid_timezone")),
        ({"start_grace_s": -1}, ("/start_grace_s", "out_of_range")),
        ({"start_grace_s": True}, ("/start_grace_s", "wrong_type")),
        ({"max_runtime_s": 0}, ("/max_runtime_s", "out_of_range")),
        ({"max_runtime_s": 10**400}, ("/max_runtime_s", "out_of_range")),
        ({"tags": "dwh"}, ("/tags", "wrong_type")),
        ({"tags": [1]}, ("/tags", "wrong_type")),
        ({"tags": [""]}, ("/tags", "out_of_range")),
        ({"tags": [str(number) for number in range(51)]}, ("/tags", "too_long")),
        ({"owner": "x" * 201}, ("/owner", "too_long")),
        ({"environment": "x" * 101}, ("/environment", "too_long")),
        ({"schedul": "@daily"}, ("/schedul", "unknown_field")),
        ({"a/b~c": 1}, ("/a~1b~0c", "unknown_field")),
    ],
)
def test_a_field_that_is_not_valid_is_named(
    admin: Api, client: str, body: dict[str, Any], error: tuple[str, str]
) -> None:
    path = f"/v1/clients/{client}/pipelines/nightly"
    assert problem(admin.put(path, body)) == (422, "invalid", [error])
    assert admin.get(path).status_code == 404


def test_all_fields_at_fault_are_named_at_once(admin: Api, client: str) -> None:
    body = {"schedule": "x", "owner": 1, "nope": 2}
    status, _, errors = problem(admin.put(f"/v1/clients/{client}/pipelines/nightly", body))
    assert status == 422
    assert errors == [("/schedule", "invalid_schedule"), ("/owner", "wrong_type"), ("/nope", "unknown_field")]


def test_a_pipeline_needs_a_client_that_exists_and_is_in_use(admin: Api, client: str, world: World) -> None:
    assert problem(admin.put(f"/v1/clients/{world.slug()}/pipelines/a", {})) == (404, "not_found", [])
    admin.delete(f"/v1/clients/{client}")
    assert problem(admin.put(f"/v1/clients/{client}/pipelines/a", {})) == (409, "client_archived", [])


def test_no_more_pipelines_are_made_than_a_client_may_have(world: World, admin: Api, client: str) -> None:
    app: FastAPI = world.app
    before = app.state.settings
    app.state.settings = Settings.model_validate({"max_pipelines": 2})
    try:
        path = f"/v1/clients/{client}/pipelines"
        assert [admin.put(f"{path}/{name}", {}).status_code for name in "ab"] == [201, 201]
        assert problem(admin.put(f"{path}/c", {})) == (409, "pipeline_limit", [])
        assert admin.put(f"{path}/a", {"title": "still"}).status_code == 200
    finally:
        app.state.settings = before


@pytest.mark.parametrize("slug_", ["-x", "a%00b", "x" * 101])
def test_a_name_that_is_no_slug_is_refused_when_written_and_not_found_when_read(
    admin: Api, client: str, slug_: str
) -> None:
    path = f"/v1/clients/{client}/pipelines/{slug_}"
    assert problem(admin.put(path, {})) == (422, "invalid", [("{pipeline}", "not_a_slug")])
    assert problem(admin.get(path)) == (404, "not_found", [])
    assert problem(admin.delete(path)) == (404, "not_found", [])
    assert problem(admin.get(f"{path}/runs")) == (404, "not_found", [])
