"""The OpenAPI document says what is there, and the answers are what it says."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import APIRoute

from pulsewatch.api import describe
from pulsewatch.api.openapi import BODIES
from pulsewatch.events import Status, run_id
from pulsewatch.submissions import Refusal, Rejected
from tests.api.alerting_rows import fire, notify
from tests.api.conftest import Api, World
from tests.api.test_runs import event
from tests.telling import add_channel, add_silence


@pytest.fixture
def document(world: World) -> dict[str, Any]:
    document: dict[str, Any] = world.nobody().get("/openapi.json").json()
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Raises unless the value is what the schema of this document allows."""
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_every_route_is_described_with_examples_and_its_problems(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) >= 25
    for name, operation in found:
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            assert "x-request-id" in {header.lower() for header in response["headers"]}, (name, status)
            if int(status) >= 400 and (name, status) != ("GET /ready", "503"):
                assert list(response["content"]) == ["application/problem+json"], (name, status)
        if operation.get("security") != []:
            assert {"401", "403"} <= operation["responses"].keys(), name
        if operation["responses"].get("503"):
            assert "Retry-After" in operation["responses"]["503"]["headers"], name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), (name, parameter["name"])


def test_every_example_is_what_its_schema_allows(document: dict[str, Any]) -> None:
    examples = 0
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if "json" in media_type:
                    assert "example" in content, (name, status)
                    check(document, content["schema"], content["example"])
                    examples += 1
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["schema"].get("$ref"), name
    for title in (body.model_json_schema()["title"] for body in BODIES):
        schema = document["components"]["schemas"][title]
        check(document, schema, schema["examples"][0])
        examples += 1
    assert examples > 100


def test_the_document_is_openapi_3_1_and_all_its_references_lead_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for reference in set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))):
        assert reference in document["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(document)


def test_only_what_machines_ask_needs_no_key(document: dict[str, Any]) -> None:
    is_open = [name for name, operation in operations(document) if operation.get("security") == []]
    assert is_open == ["GET /healthz", "GET /ready", "GET /metrics"]


def rule_requests(client: str) -> list[tuple[str, str, str, Any]]:
    """What can be asked of alert rules."""
    one, rule = "/v1/alert-rules/{key}", {"kind": "consecutive_failures", "levels": {"warning": 1}}
    january = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}

    def at(end: str = "") -> str:
        return f"/v1/alert-rules/fails{end}?client={client}"

    return [
        ("GET", "/v1/alert-rule-kinds", "/v1/alert-rule-kinds", None),
        ("POST", "/v1/alert-rules:validate", f"/v1/alert-rules:validate?client={client}", rule),
        ("POST", "/v1/alert-rules:validate", f"/v1/alert-rules:validate?client={client}", {}),
        ("POST", "/v1/alert-rules:targets", f"/v1/alert-rules:targets?client={client}", rule),
        ("POST", "/v1/alert-rules:backtest", f"/v1/alert-rules:backtest?client={client}", {"spec": rule} | january),
        ("POST", "/v1/alert-rules:backtest", f"/v1/alert-rules:backtest?client={client}", {"spec": rule}),
        ("PUT", one, at(), rule),
        ("PUT", one, at(), rule | {"for_s": 1}),
        ("GET", "/v1/alert-rules", f"/v1/alert-rules?client={client}", None),
        ("GET", one, at(), None),
        ("GET", f"{one}/versions", at("/versions"), None),
        ("GET", f"{one}:targets", at(":targets"), None),
        ("POST", f"{one}:backtest", at(":backtest"), january | {"compare_with": {"version": 1}}),
        ("POST", f"{one}:backtest", at(":backtest"), {}),
        ("GET", f"{one}:explain", at(":explain") + "&pipeline=nightly", None),
        ("GET", f"{one}:explain", at(":explain") + "&pipeline=nightly&as_of=2026-01-31T06:06:00Z", None),
        ("POST", f"{one}:disable", at(":disable"), None),
        ("POST", f"{one}:enable", at(":enable"), None),
        ("POST", f"{one}:dry-run", at(":dry-run"), {"is_dry_run": True}),
        ("POST", f"{one}/versions/{{version}}:restore", at("/versions/1:restore"), None),
    ]


def alert_requests(world: World, client: str) -> list[tuple[str, str, str, Any]]:
    """What can be asked of alerts, silences, channels and notifications."""
    fired = fire(world, client, "load")
    with world.begin() as connection:
        dead = notify(connection, fired, add_channel(connection, key="ops", client_id=fired.client_id), "dead")
        silence = add_silence(connection, 0, 60, fired.client_id, rules=["*"])
    alert, notification, one = f"/v1/alerts/{fired.id}", f"/v1/notifications/{dead}", "/v1/channels/{key}"
    said = {"matchers": {"pipelines": ["load"]}, "for_s": 60, "comment": "x"}

    def at(end: str = "") -> str:
        return f"/v1/channels/ops{end}?client={client}"

    return [
        ("GET", "/v1/alerts", f"/v1/alerts?client={client}", None),
        ("GET", "/v1/alerts/{id}", alert, None),
        ("GET", "/v1/alerts/{id}/explain", f"{alert}/explain", None),
        ("POST", "/v1/alerts/{id}:ack", f"{alert}:ack", {"comment": "x"}),
        ("POST", "/v1/alerts/{id}:unack", f"{alert}:unack", {}),
        ("POST", "/v1/alerts/{id}:snooze", f"{alert}:snooze", {"for_s": 60}),
        ("POST", "/v1/alerts/{id}:snooze", f"{alert}:snooze", {}),
        ("POST", "/v1/alerts/{id}:comment", f"{alert}:comment", {"comment": "x"}),
        ("GET", "/v1/silences", f"/v1/silences?client={client}", None),
        ("POST", "/v1/silences", f"/v1/silences?client={client}", said),
        ("POST", "/v1/silences:preview", f"/v1/silences:preview?client={client}", {"matchers": said["matchers"]}),
        ("GET", "/v1/silences/{id}", f"/v1/silences/{silence}", None),
        ("PUT", "/v1/silences/{id}", f"/v1/silences/{silence}", said),
        ("GET", "/v1/channel-kinds", "/v1/channel-kinds", None),
        ("GET", "/v1/channels", f"/v1/channels?client={client}", None),
        ("GET", one, at(), None),
        ("PUT", one, at(), {"title": "x"}),
        ("PUT", one, at(), {"secrets": {"x": 1}}),
        ("POST", f"{one}:test", at(":test"), None),
        ("POST", f"{one}:enable", at(":enable"), None),
        ("GET", "/v1/notifications", f"/v1/notifications?client={client}", None),
        ("POST", "/v1/notifications/{id}:retry", f"{notification}:retry", None),
        ("POST", "/v1/notifications/{id}:retry", f"{notification}:retry", None),
        ("GET", "/v1/notifications/{id}", notification, None),
    ]


def test_real_answers_are_what_the_document_says(world: World, admin: Api, slug: str, document: dict[str, Any]) -> None:
    base = f"/v1/clients/{slug}"
    admin.put(base, {"title": "Acme"})
    admin.put(f"{base}/pipelines/nightly", {"tags": ["dwh"], "schedule": "@daily", "start_grace_s": 5})
    world.store(
        event(slug, metrics={"rows": 1.5}, attributes={"host": {"a": [1]}}),
        event(slug, minutes=5, status=Status.FAILED, message="no"),
        rejected=[Rejected(0, Refusal("naive_time", "/occurred_at", "no offset"), slug)],
    )
    note = {"at": "2026-01-31T06:00:00Z", "kind": "deploy", "text": "2.4.1", "pipeline": "nightly"}
    annotation = admin.post(f"{base}/annotations", note).json()["id"]
    hours = "from=2026-01-31T06:00:00Z&to=2026-01-31T08:00:00Z"
    asked = [
        ("GET", "/v1/clients", "/v1/clients", None),
        ("GET", "/v1/clients/{client}", base, None),
        ("PUT", "/v1/clients/{client}", base, {}),
        ("GET", "/v1/clients/{client}/pipelines", f"{base}/pipelines", None),
        ("GET", "/v1/clients/{client}/pipelines/{pipeline}", f"{base}/pipelines/nightly", None),
        ("PUT", "/v1/clients/{client}/pipelines/{pipeline}", f"{base}/pipelines/new", {}),
        ("GET", "/v1/clients/{client}/pipelines/{pipeline}/runs", f"{base}/pipelines/nightly/runs", None),
        ("GET", "/v1/runs", f"/v1/runs?client={slug}", None),
        ("GET", "/v1/runs/{id}", f"/v1/runs/{run_id(slug, '', 'nightly', 'r1')}", None),
        ("GET", "/v1/summary", f"/v1/summary?{hours}", None),
        ("GET", "/v1/clients/{client}/summary", f"{base}/summary?{hours}", None),
        (
            "GET",
            "/v1/clients/{client}/pipelines/{pipeline}/summary",
            f"{base}/pipelines/nightly/summary?{hours}&step=day",
            None,
        ),
        ("POST", "/v1/clients/{client}/annotations", f"{base}/annotations", note),
        ("GET", "/v1/clients/{client}/annotations", f"{base}/annotations", None),
        ("GET", "/v1/clients/{client}/annotations/{id}", f"{base}/annotations/{annotation}", None),
        *rule_requests(slug),
        *alert_requests(world, slug),
        ("GET", "/v1/rejects", f"/v1/rejects?client={slug}", None),
        ("GET", "/v1/keys", "/v1/keys", None),
        ("POST", "/v1/keys", "/v1/keys", {"role": "read", "client": slug}),
        ("GET", "/healthz", "/healthz", None),
        ("GET", "/ready", "/ready", None),
        ("GET", "/v1/clients/{client}", "/v1/clients/nobody", None),
        ("GET", "/v1/runs", "/v1/runs?limit=0", None),
    ]
    for method, template, address, body in asked:
        answer = admin.request(method, address, json=body)
        response = document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
        media_type = answer.headers["content-type"]
        check(document, response["content"][media_type]["schema"], answer.json())


def test_hand_written_paths_are_merged_into_the_document(world: World) -> None:
    path = {"post": {"summary": "x", "responses": {"200": {"description": "ok"}}}}
    describe(world.app, {"/v1/extra": path}, {"Extra": {"type": "object"}})
    try:
        document = world.nobody().get("/openapi.json").json()
    finally:
        describe(world.app, {}, {})
    assert set(document["paths"]["/v1/extra"]["post"]["responses"]) == {"200", "401"}
    assert document["components"]["schemas"]["Extra"] == {"type": "object"}
    assert "/v1/extra" not in world.nobody().get("/openapi.json").json()["paths"]


def test_the_docs_page_and_its_files_come_from_here(world: World) -> None:
    nobody = world.nobody()
    page = nobody.get("/docs")

    assert page.status_code == 200
    assert "https://" not in page.text
    assert "'self'" in page.headers["content-security-policy"]
    assets = re.findall(r'(?:href|src)="(docs/assets/[^"]+)"', page.text)
    assert len(assets) == 4
    for asset in assets:
        assert nobody.get(f"/{asset}").status_code == 200
    assert nobody.get("/docs/assets/swagger-ui-bundle.js").headers["content-type"].startswith("text/javascript")
    assert nobody.get("/docs/assets/index.html").status_code == 404
    assert nobody.get("/docs/assets/..%2f..%2f__init__.py").status_code == 404


def test_every_route_has_its_own_operation(world: World, document: dict[str, Any]) -> None:
    declared = {
        f"{method} {route.path_format}"
        for route in world.app.state.api_routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    assert declared == {name for name, _ in operations(document)}
