"""A key that is bound to a client finds nothing of another: walked over every route there is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import text

from pulsewatch.events import RunEvent, Status, run_id
from pulsewatch.submissions import Refusal, Rejected
from tests.api.alerting_rows import fire, notify
from tests.api.conftest import Api, World

# What belongs to the other client carries this in every text that is its own.
MARK = "foreignmark"
# What is named by a key: the other client's rule and channel.
KEY = "loads-fail"
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
    note = {"at": NOW.isoformat(), "kind": "note", "text": MARK, "pipeline": "nightly"}
    assert admin.post(f"/v1/clients/{slug}/annotations", note).status_code == 201
    rule = {"kind": "consecutive_failures", "levels": {"warning": 2}, "title": MARK, "selector": {"tags": [MARK]}}
    assert admin.put(f"/v1/alert-rules/{KEY}?client={slug}", rule).status_code == 201
    channel = {"kind": "webhook", "title": MARK, "config": {"url": f"https://{MARK}.example.com/"}}
    assert admin.put(f"/v1/channels/{KEY}?client={slug}", channel).status_code == 201
    silence = {"matchers": {"tags": [MARK]}, "for_s": 60, "comment": MARK}
    assert admin.post(f"/v1/silences?client={slug}", silence).status_code == 201
    alert = fire(world, slug, labels={MARK: MARK})
    with world.begin() as connection:
        of_client = text("select id from pulsewatch.channel where client_id = :id")
        channel_id = connection.execute(of_client, {"id": alert.client_id}).scalar_one()
        notify(connection, alert, channel_id, "dead", error=MARK)
    return slug


def ids(admin: Api, other: str) -> dict[str, str]:
    """What `{id}` stands for in a path, by what it follows there: something of the other client."""
    (annotation,) = admin.get(f"/v1/clients/{other}/annotations").json()["items"]
    run = str(run_id(other, "", "nightly", MARK))
    (key,) = (key["id"] for key in admin.get("/v1/keys", limit=500).json()["items"] if key["client"] == other)
    found = {"/v1/runs/{id}": run, "/annotations/{id}": annotation["id"], "/v1/keys/{id}": key}
    for path in ("/v1/alerts", "/v1/silences", "/v1/notifications"):
        (item,) = admin.get(path, client=other).json()["items"]
        found[f"{path}/{{id}}"] = item["id"]
    return found


def routes(world: World) -> list[tuple[str, str]]:
    """(method, path) of every route that takes a key."""
    document = world.app.openapi()["paths"]
    found = [
        (method, route.path_format)
        for route in world.app.state.api_routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in sorted(route.methods or ())
        if document[route.path_format][method.lower()].get("security") != []
    ]
    assert len(found) >= 20
    return found


BODIES: dict[str, Any] = {
    "/annotations": {"at": "2026-01-31T06:00:00Z", "kind": "note", "text": "x"},
    "/v1/silences": {"matchers": {"rules": ["*"]}, "for_s": 60, "comment": "x"},
    ":preview": {"matchers": {"rules": ["*"]}},
    "/v1/alert-rules:backtest": {
        "from": (NOW - timedelta(days=1)).isoformat(),
        "to": NOW.isoformat(),
        "spec": {"kind": "consecutive_failures", "levels": {"warning": 1}},
    },
    ":ack": {},
    ":unack": {},
    ":snooze": {"for_s": 60},
    ":comment": {"comment": "x"},
}


def body_for(method: str, path: str) -> Any:
    """A body that the route would take from somebody who may."""
    if method == "POST":
        return next((body for end, body in BODIES.items() if path.endswith(end)), {"role": "read"})
    return {} if method == "PUT" else None


OF_OTHER = (
    "/v1/clients/{other}",
    "/v1/clients/{other}/pipelines/nightly",
    "/v1/clients/{other}/annotations",
    "/v1/alert-rules/" + KEY + "?client={other}",
    "/v1/channels/" + KEY + "?client={other}",
    "/v1/alerts?client={other}",
    "/v1/silences?client={other}",
    "/v1/notifications?client={other}",
)


@pytest.mark.parametrize("role", ["read", "write", "admin", "ingest"])
def test_no_route_shows_or_touches_a_foreign_row(world: World, admin: Api, slug: str, other: str, role: str) -> None:
    bound = world.caller(role, slug)
    ids_of = ids(admin, other)
    foreign_key = world.key("read", other)
    before = [admin.request("GET", path.format(other=other)).json() for path in OF_OTHER]

    for method, path in routes(world):
        (id_,) = [id_ for place, id_ in ids_of.items() if place in path] or [""]
        address = path.format(client=other, pipeline="nightly", id=id_, key=KEY, version=1)
        if "{key}" in path:
            address += f"?client={other}"
        assert id_ or "{id}" not in path, path
        answer = bound.request(method, address, json=body_for(method, path))
        if "{" in path:
            assert answer.status_code in (403, 404), (method, path)
        assert MARK not in answer.text.replace(address, "").replace(other, ""), (method, path)
    id_ = ids_of["/v1/runs/{id}"]
    for path in ("/v1/runs", "/v1/rejects", "/v1/alerts", "/v1/silences", "/v1/channels", "/v1/notifications"):
        assert bound.get(path, client=other).status_code in (403, 404)
    for params in ({"tag": MARK}, {"owner": MARK}):
        found = bound.get("/v1/runs", **params)
        assert found.status_code == 403 or found.json()["items"] == []
    assert bound.get(f"/v1/runs/{id_}", client=other).status_code in (403, 404)

    assert [admin.request("GET", path.format(other=other)).json() for path in OF_OTHER] == before
    assert Api(world.client, foreign_key).get("/v1/clients").status_code == 200


def test_the_walk_would_notice_a_foreign_row(admin: Api, other: str) -> None:
    id_ = run_id(other, "", "nightly", MARK)
    for path in (
        f"/v1/clients/{other}",
        f"/v1/clients/{other}/pipelines",
        f"/v1/clients/{other}/pipelines/nightly/runs",
        f"/v1/runs/{id_}",
        f"/v1/rejects?client={other}",
        f"/v1/clients/{other}/annotations",
        "/v1/summary",
        f"/v1/alert-rules?client={other}",
        f"/v1/alert-rules/{KEY}?client={other}",
        f"/v1/alert-rules/{KEY}/versions?client={other}",
        f"/v1/alert-rules/{KEY}:targets?client={other}",
        f"/v1/alert-rules/{KEY}:explain?client={other}&pipeline=nightly",
        f"/v1/alerts/{ids(admin, other)['/v1/alerts/{id}']}/explain",
        f"/v1/channels?client={other}",
        f"/v1/channels/{KEY}?client={other}",
        *(path.format(id=of) for path, of in ids(admin, other).items() if "/v1/" in path and "/keys/" not in path),
    ):
        assert MARK in admin.request("GET", path).text.replace(path, "").replace(other, "")


def test_a_foreign_client_looks_exactly_like_one_that_does_not_exist(world: World, slug: str, other: str) -> None:
    bound = world.caller("admin", slug)
    nobody = world.slug()

    def told(name: str, method: str, path: str) -> tuple[int, str]:
        answer = bound.request(method, path.format(client=name), json=body_for(method, path))
        return answer.status_code, answer.json()["detail"].replace(name, "")

    for method in ("GET", "PUT", "DELETE"):
        for path in ("/v1/clients/{client}", "/v1/clients/{client}/pipelines/nightly"):
            assert told(other, method, path) == told(nobody, method, path) == (404, "There is no client ''.")
