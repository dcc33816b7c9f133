"""API keys over HTTP, and what each role may do."""

from typing import Any

import pytest

from tests.api.conftest import Api, World, problem


def test_a_key_is_shown_once_and_works(world: World, admin: Api, slug: str) -> None:
    made = admin.post("/v1/keys", {"role": "read", "client": slug, "name": "grafana"})

    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json().pop("key")
    assert (made.json()["role"], made.json()["client"], made.json()["name"]) == ("read", slug, "grafana")
    assert Api(world.client, key).get("/v1/clients").json()["items"][0]["slug"] == slug
    listed = {item["id"]: item for item in admin.get("/v1/keys", limit=500).json()["items"]}
    assert key not in str(listed)
    assert listed[made.json()["id"]]["last_used_at"] is not None


def test_a_revoked_key_is_refused_at_once_in_this_process(world: World, admin: Api) -> None:
    made = admin.post("/v1/keys", {"role": "read"}).json()
    caller = Api(world.client, made["key"])
    assert caller.get("/v1/clients").status_code == 200

    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204

    assert problem(caller.get("/v1/clients")) == (401, "unauthorized", [])
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    (item,) = [item for item in admin.get("/v1/keys", limit=500).json()["items"] if item["id"] == made["id"]]
    assert item["revoked_at"] is not None


def test_a_key_cannot_revoke_itself(admin: Api) -> None:
    own = admin.post("/v1/keys", {"role": "admin"}).json()
    caller = Api(admin.client, own["key"])

    assert problem(caller.delete(f"/v1/keys/{own['id']}")) == (409, "own_key", [])
    assert caller.get("/v1/keys").status_code == 200


@pytest.mark.parametrize("id_", ["x", "00000000-0000-0000-0000-000000000000", "a%00b"])
def test_a_key_that_does_not_exist_cannot_be_revoked(admin: Api, id_: str) -> None:
    assert problem(admin.delete(f"/v1/keys/{id_}")) == (404, "not_found", [])


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("/role", "missing_field")]),
        ({"role": "owner"}, [("/role", "unknown_value")]),
        ({"role": 1}, [("/role", "wrong_type")]),
        ({"role": None}, [("/role", "unknown_value")]),
        ({"role": "read", "client": ""}, [("/client", "not_a_slug")]),
        ({"role": "read", "client": "a b"}, [("/client", "not_a_slug")]),
        ({"role": "read", "name": "a\0b"}, [("/name", "nul_character")]),
        ({"role": "read", "name": "x" * 201}, [("/name", "too_long")]),
        ({"role": "read", "expires_at": "tomorrow"}, [("/expires_at", "wrong_type")]),
        ({"role": "read", "expires_at": "2099-01-01T00:00:00"}, [("/expires_at", "naive_time")]),
        ({"role": "read", "expires_at": "2020-01-01T00:00:00Z"}, [("/expires_at", "out_of_range")]),
        ({"role": "read", "expires_at": "9999-12-31T23:59:59-14:00"}, [("/expires_at", "out_of_range")]),
        ({"role": "read", "clinet": "a"}, [("/clinet", "unknown_field")]),
    ],
)
def test_a_request_for_a_key_that_is_not_valid_names_the_fields(
    admin: Api, body: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    assert problem(admin.post("/v1/keys", body)) == (422, "invalid", errors)


def test_a_bound_admin_makes_sees_and_revokes_only_keys_of_its_client(world: World, admin: Api, slug: str) -> None:
    other = world.slug()
    foreign = admin.post("/v1/keys", {"role": "read", "client": other}).json()
    bound = world.caller("admin", slug)

    assert bound.post("/v1/keys", {"role": "admin"}).json()["client"] == slug
    assert bound.post("/v1/keys", {"role": "read", "client": None}).json()["client"] == slug
    assert problem(bound.post("/v1/keys", {"role": "read", "client": other})) == (404, "not_found", [])
    assert problem(bound.post("/v1/keys", {"role": "read", "client": ""})) == (404, "not_found", [])
    assert problem(bound.delete(f"/v1/keys/{foreign['id']}")) == (404, "not_found", [])
    assert {item["client"] for item in bound.get("/v1/keys").json()["items"]} == {slug}


def test_the_list_of_keys_is_paged_newest_first(world: World, slug: str) -> None:
    bound = world.caller("admin", slug)
    for number in range(4):
        bound.post("/v1/keys", {"role": "read", "name": str(number)})

    first = bound.get("/v1/keys", limit=3).json()
    rest = bound.get("/v1/keys", limit=3, cursor=first["next_cursor"]).json()

    assert [item["name"] for item in first["items"] + rest["items"]] == ["3", "2", "1", "0", None]
    assert rest["next_cursor"] is None


READS = ["/v1/clients", "/v1/clients/{client}", "/v1/clients/{client}/pipelines", "/v1/runs", "/v1/rejects"]


@pytest.mark.parametrize(
    ("role", "may_read", "may_write", "may_admin"),
    [
        ("ingest", False, False, False),
        ("read", True, False, False),
        ("write", True, True, False),
        ("admin", True, True, True),
    ],
)
def test_a_role_may_do_what_it_says_and_no_more(
    world: World, slug: str, role: str, may_read: bool, may_write: bool, may_admin: bool
) -> None:
    caller = world.caller(role, slug)

    reads = {caller.get(path.format(client=slug)).status_code for path in READS}
    writes = {
        caller.put(f"/v1/clients/{slug}", {}).status_code // 100,
        caller.put(f"/v1/clients/{slug}/pipelines/a", {}).status_code // 100,
        caller.delete(f"/v1/clients/{slug}/pipelines/a").status_code // 100,
    }
    admins = {caller.get("/v1/keys").status_code, caller.post("/v1/keys", {"role": "read"}).status_code}

    assert reads == ({200} if may_read else {403})
    assert writes == ({2} if may_write else {4})
    assert admins == ({200, 201} if may_admin else {403})


def test_a_refusal_says_which_role_would_do(world: World) -> None:
    answer = world.caller("ingest").get("/v1/runs")
    assert problem(answer) == (403, "forbidden", [])
    assert answer.json()["detail"] == "This needs a key of role read; the key sent has ingest."


HEADERS = [None, "", "Bearer", "Bearer pw_short", "Basic dXNlcjpwYXNz", "Bearer pw_" + "x" * 43]


@pytest.mark.parametrize("header", HEADERS)
def test_without_a_valid_key_nothing_is_answered(world: World, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = world.nobody().request("GET", "/v1/runs", headers=headers)

    assert problem(answer) == (401, "unauthorized", [])
    assert answer.headers["www-authenticate"].startswith('Bearer realm="pulsewatch"')
    assert "xxx" not in answer.text
