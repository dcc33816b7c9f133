"""The OpenAPI document: what FastAPI derives from the routes, completed with what it cannot know.

The wires of `intake` are bare ASGI applications that FastAPI never sees; their part is written by hand and merged
in by `complete`.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from pulsewatch.api import alert_rule_schemas, alert_schemas, backtest_schemas, notification_schemas, schemas
from pulsewatch.problems import MEDIA_TYPE, title

Document = dict[str, Any]

PROBLEM = {"$ref": "#/components/schemas/Problem"}
SECURITY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "pw_ and 43 characters",
    "description": "An API key. Its role says what it may do: admin includes write, write includes read and ingest; "
    "ingest reads nothing. A key that is bound to a client sees nothing of the others.",
}
OPEN: Document = {"security": []}  # openapi_extra of a route that needs no key

BODIES: tuple[type[BaseModel], ...] = (
    schemas.ClientChanges,
    schemas.PipelineChanges,
    schemas.KeyRequest,
    schemas.AnnotationRequest,
    *alert_rule_schemas.BODIES,
    *backtest_schemas.BODIES,
    *alert_schemas.BODIES,
    *notification_schemas.BODIES,
)

# Per status: the code, what it means, and an example of its detail.
MEANINGS: dict[int, tuple[str, str, str]] = {
    400: (
        "invalid_json",
        "The cursor is not one that this list gave, or the body is not JSON.",
        "The body is not JSON.",
    ),
    401: ("unauthorized", "The API key is missing, unknown, revoked or expired.", "The API key was revoked."),
    403: ("forbidden", "The key's role does not allow it.", "This needs a key of role write; the key sent has read."),
    404: ("not_found", "It does not exist, or the key may not see it.", "There is no client 'acme'."),
    405: ("method_not_allowed", "The method is not possible at this path.", "PATCH is not possible here; GET is."),
    409: ("client_archived", "The state of things does not allow it.", "Client 'acme' is archived."),
    412: ("precondition_failed", "If-Match or If-None-Match does not hold.", "If-Match: read it again."),
    413: ("too_large", "The body is too large.", "The body may have 65536 bytes at most."),
    415: ("unsupported_media_type", "The body is not application/json.", "The body must be application/json."),
    422: ("invalid", "A parameter or a field is unknown or not valid.", "/schedule: cron has five fields."),
    500: ("internal", "Something failed on our side; nothing private is said.", "Something failed on our side."),
    503: ("unavailable", "Not just now; the same request may be sent again.", "The database does not answer just now."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these problems; 500 and 503 always belong to them."""
    return {status: problem_response(status) for status in sorted({*statuses, 500, 503})}


def created(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a PUT that may make something new."""
    return {201: {"model": model, "description": "It is new."}}


def problem_response(status: int) -> Document:
    """How the document describes one problem."""
    code, meaning, detail = MEANINGS[status]
    example: Document = {
        "type": f"urn:pulsewatch:problem:{code}",
        "title": title(status),
        "status": status,
        "detail": detail,
        "request_id": "a01cf2a09cb3f2a8",
    }
    if status == 422:
        example["errors"] = [{"pointer": "/schedule", "code": "invalid_schedule", "detail": "cron has five fields."}]
    response: Document = {"description": meaning, "content": {MEDIA_TYPE: {"schema": PROBLEM, "example": example}}}
    headers = {401: "WWW-Authenticate", 405: "Allow", 503: "Retry-After"}
    if status in headers:
        kind = "integer" if status == 503 else "string"
        response["headers"] = {headers[status]: {"schema": {"type": kind}}}
    return response


def body_of(schema: str, *, is_required: bool = True) -> Document:
    """The part of a route's `openapi_extra` that describes its JSON body, which our own decoder reads."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": is_required, "content": content}}


def preconditions() -> Document:
    """The part of a route's `openapi_extra` for the headers that make a change conditional."""
    said = {
        "If-Match": "Change it only if this is still its ETag.",
        "If-None-Match": "`*`: only if it does not exist yet.",
    }
    return {
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": words, "schema": {"type": "string"}}
            for name, words in said.items()
        ]
    }


def complete(app: FastAPI, extra_paths: Mapping[str, Document], extra_schemas: Mapping[str, Document]) -> Document:
    """The whole document. `extra_paths` and `extra_schemas` are the parts written by hand."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"apiKey": SECURITY_SCHEME}
    document["security"] = [{"apiKey": []}]
    named = components.setdefault("schemas", {})
    # FastAPI's own description of a validation error: we answer problems.
    for leftover in ("HTTPValidationError", "ValidationError"):
        named.pop(leftover, None)
    described: tuple[type[BaseModel], ...] = (schemas.ProblemAnswer, *BODIES)
    for model in described:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        named.update(schema.pop("$defs", {}))
        named[schema["title"]] = schema
    named.update(extra_schemas)
    document["paths"].update(extra_paths)
    for path in document["paths"].values():
        for operation in path.values():
            _finish(operation, named)
    return document


def _finish(operation: Document, named: Mapping[str, Document]) -> None:
    """Add what holds for every operation, and an example to every answer that has none."""
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    if "security" not in operation:
        operation["responses"].setdefault("401", problem_response(401))
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers.setdefault("X-Request-ID", {"schema": {"type": "string"}, "description": "Names this request."})
        if status in ("200", "201") and any(p["name"] == "If-Match" for p in operation.get("parameters", ())):
            headers.setdefault("ETag", {"schema": {"type": "string"}, "description": "Changes with what is shown."})
        for content in response.get("content", {}).values():
            if "example" not in content and "examples" not in content and "$ref" in content.get("schema", {}):
                content["example"] = example_of(content["schema"], named)


def _without_null(schema: Document) -> Document:
    """A parameter is left out or it is there; it is never null, as FastAPI has it."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **kinds[0]}


_BY_FORMAT = {"date-time": "2026-01-31T02:30:00Z", "uuid": "0193e8a4-7c1e-8a55-9f0e-1d2c3b4a5968"}
_BY_TYPE: Document = {"boolean": True, "integer": 0, "number": 0, "string": "text", "object": {}}


def example_of(schema: Document, named: Mapping[str, Document]) -> Any:
    """A value that the schema allows, made of the examples of its fields."""
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(named[schema["$ref"].rsplit("/", 1)[1]], named)
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], named)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if "properties" in schema:
        return {name: example_of(field, named) for name, field in schema["properties"].items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"], named)]
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE.get(schema.get("type", "")))
