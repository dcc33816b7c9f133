"""A key that is bound to a client finds nothing of another: walked over every route there is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute

from pulsewatch.events import RunEvent, Status, run_id
from pulsewatch.submissions import Refusal, Rejected
from tests.api.conftest import Api, World

# What belongs to the other client carries this in every text that is its own.
MARK = "foreignmark"
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def other(world: World, admin: Api) -> str:
    """Another client, with something of everything."""
    slug = f"{MARK}-{world.slug()}"
    admin.put(f"/v1/clients/{slug}", {"title": MARK})
    admin.put(f"/v1/clients/{slug}/pipelines/nightly", {"title": MARK, "tags": [MARK], "owner": MARK})
    world.store(
        RunEvent(
            client=slug,
            pipeline="nightly",
            run=MARK,
            status=Status.FAILED,
            occurred_at=NOW - timedelta(minutes=1),
            message=MARK,
        ),
        rejected=[Rejected(0, Refusal("naive_time", "/occurred_at", MARK), slug)],
    )
    world.key("read", slug)
    return slug


def routes(world: World) -> list[tuple[str, str]]:
    """(method, path) of every route that takes a key."""
    document = world.app.openapi()["paths"]
    found = [
        (method, route.path)
        for route in world.app.state.api_routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in sorted(route.methods or ())
        if document[route.path][method.lower()].get("security") != []
    ]
    assert len(found) >= 14
    return found


BODIES: dict[str, Any] = {"PUT": {}, "POST": {"role": "read"}}


@pytest.mark.parametrize("role", ["read", "write", "admin", "ingest"])
def test_no_route_shows_or_touches_a_foreign_row(world: World, admin: Api, slug: str, other: str, role: str) -> None:
    bound = world.caller(role, slug)
    id_ = run_id(other, "", "nightly", MARK)
    foreign_key = world.key("read", other)
    before = [admin.get(f"/v1/clients/{other}{path}").json() for path in ("", "/pipelines/nightly")]

    for method, path in routes(world):
        address = path.format(client=other, pipeline="nightly", id=id_)
        answer = bound.request(method, address, json=BODIES.get(method))
        if "{" in path:
            assert answer.status_code in (403, 404), (method, path)
        assert MARK not in answer.text.replace(address, "").replace(other, ""), (method, path)
    for path in ("/v1/runs", "/v1/rejects"):
        assert bound.get(path, client=other).status_code in (403, 404)
    for params in ({"tag": MARK}, {"owner": MARK}):
        found = bound.get("/v1/runs", **params)
        assert found.status_code == 403 or found.json()["items"] == []
    assert bound.get(f"/v1/runs/{id_}", client=other).status_code in (403, 404)

    assert [admin.get(f"/v1/clients/{other}{path}").json() for path in ("", "/pipelines/nightly")] == before
    assert Api(world.client, foreign_key).get("/v1/clients").status_code == 200


def test_the_walk_would_notice_a_foreign_row(admin: Api, other: str) -> None:
    id_ = run_id(other, "", "nightly", MARK)
    for path in (
        f"/v1/clients/{other}",
        f"/v1/clients/{other}/pipelines",
        f"/v1/clients/{other}/pipelines/nightly/runs",
        f"/v1/runs/{id_}",
        f"/v1/rejects?client={other}",
    ):
        assert MARK in admin.request("GET", path).text.replace(path, "").replace(other, "")


def test_a_foreign_client_looks_exactly_like_one_that_does_not_exist(world: World, slug: str, other: str) -> None:
    bound = world.caller("admin", slug)
    nobody = world.slug()

    def told(name: str, method: str, path: str) -> tuple[int, str]:
        answer = bound.request(method, path.format(client=name), json=BODIES.get(method))
        return answer.status_code, answer.json()["detail"].replace(name, "")

    for method in ("GET", "PUT", "DELETE"):
        for path in ("/v1/clients/{client}", "/v1/clients/{client}/pipelines/nightly"):
            assert told(other, method, path) == told(nobody, method, path) == (404, "There is no client ''.")
