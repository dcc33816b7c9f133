"""The OpenAPI part of the OpenLineage wire; a test sends its examples."""

from typing import Any

from pulsewatch.events import SLUG_PATTERN
from pulsewatch.intake.native_openapi import EDGE_PROBLEMS, problem

Document = dict[str, Any]

_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs"
_PRODUCER = "https://example.org/etl/1.0"
_RUN = "0199011e-7a10-7c3e-9f57-3f6d1a0c9b11"
_JOB = {"namespace": "prod", "name": "nightly.load_orders"}


def examples(at: str = "2026-09-01T02:07:41Z") -> dict[str, Document]:
    """An event of every kind, that happened at that time."""
    head = {"eventTime": at, "producer": _PRODUCER}
    run = {**head, "schemaURL": f"{_SCHEMA}/RunEvent", "job": _JOB}
    start = {"runId": _RUN, "facets": {"nominalTime": {"nominalStartTime": at}}}
    error = {"message": "ValueError: 12 rows have no customer", "programmingLanguage": "python"}
    statistics = {"outputFacets": {"outputStatistics": {"rowCount": 1200, "size": 65536}}}
    return {
        "start": {**run, "eventType": "START", "run": start},
        "complete": {
            **run,
            "eventType": "COMPLETE",
            "run": {"runId": _RUN},
            "outputs": [{"namespace": "warehouse", "name": "public.orders", **statistics}],
        },
        "fail": {**run, "eventType": "FAIL", "run": {"runId": _RUN, "facets": {"errorMessage": error}}},
        "job": {
            **head,
            "schemaURL": f"{_SCHEMA}/JobEvent",
            "job": {**_JOB, "facets": {"ownership": {"owners": [{"name": "team:orders"}]}}},
        },
        "dataset": {
            **head,
            "schemaURL": f"{_SCHEMA}/DatasetEvent",
            "dataset": {"namespace": "warehouse", "name": "public.orders"},
        },
    }


_NAMED: Document = {"type": "string", "minLength": 1, "maxLength": 512}
_FACETS: Document = {"type": "object", "description": "Facets; unknown ones, and ill-formed ones, are passed over."}
_NAMESPACE: Document = {"type": "string", "maxLength": 512}
_EVENT: Document = {
    "type": "object",
    "title": "OpenLineage event",
    "description": "A RunEvent (with run), JobEvent (job and no run) or DatasetEvent (dataset alone). Other members "
    "are allowed, and not read.",
    "required": ["eventTime"],
    "properties": {
        "eventType": {"type": "string", "enum": ["START", "RUNNING", "COMPLETE", "FAIL", "ABORT", "OTHER"]},
        "eventTime": {
            "type": "string",
            "description": "ISO 8601. Without an offset it is taken as UTC, and the run is flagged `assumed_utc`.",
        },
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "minLength": 1, "maxLength": 255}, "facets": _FACETS},
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": _NAMESPACE, "name": _NAMED, "facets": _FACETS},
        },
        "dataset": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": _NAMESPACE, "name": _NAMED},
        },
        "inputs": {"type": "array", "items": {"type": "object"}},
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
}
_COUNT: Document = {"type": "integer", "minimum": 0}
_COUNTS = ("received", "successful", "failed", "retriable", "non_retriable")
_SUMMARY: Document = {
    "type": "object",
    "required": ["status", "summary", "failed_events"],
    "properties": {
        "status": {"type": "string", "enum": ["success", "partial_success"]},
        "summary": {"type": "object", "required": [*_COUNTS], "properties": dict.fromkeys(_COUNTS, _COUNT)},
        "failed_events": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "reason", "retriable"],
                "properties": {"index": _COUNT, "reason": {"type": "string"}, "retriable": {"type": "boolean"}},
            },
        },
    },
}
_SUMMARY_EXAMPLE: Document = {
    "status": "partial_success",
    "summary": {"received": 2, "successful": 1, "failed": 1, "retriable": 0, "non_retriable": 1},
    "failed_events": [{"index": 1, "reason": "missing_field at /run/runId: run.runId is missing.", "retriable": False}],
}
_CLIENT: Document = {
    "name": "client",
    "in": "query",
    "required": False,
    "description": "Whose events these are; needed where the key is not bound to a client.",
    "schema": {"type": "string", "pattern": SLUG_PATTERN},
    "example": "acme",
}
_ENCODING: Document = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "description": "How the body is packed.",
    "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
}


_PROBLEMS: Document = {status: answer for status, answer in EDGE_PROBLEMS.items() if status != "422"} | {
    "400": problem("The body cannot be read, or is no OpenLineage event: sending it again would not help."),
    "403": problem("The key may not send events, or not for this client, or nothing says whose they are."),
}
_TAGS = ["events"]

PATHS: dict[str, Any] = {
    "/api/v1/lineage": {
        "post": {
            "operationId": "post_openlineage",
            "tags": _TAGS,
            "summary": "Send an OpenLineage event",
            "description": "Takes what OpenLineage clients send (Airflow, dbt, Spark, Flink, Trino ...): a RunEvent, "
            "JobEvent or DatasetEvent, and also an array of them. The run is `run.runId` of the pipeline "
            "(`job.namespace`, `job.name`). START and RUNNING mean running, COMPLETE succeeded, FAIL failed, ABORT "
            "cancelled; OTHER, or none, changes no status. Facets become `scheduled_at` (nominalTime), `message` and "
            "`error_class` (errorMessage), `parent`, the metrics `rows`, `bytes`, `input_rows`, `input_bytes`, "
            "`assertions_passed` and `assertions_failed`, and owner and tags of the pipeline. The same event sent "
            "again is taken once. A trailing slash is allowed. Point a client here by `OPENLINEAGE_URL` and "
            "`OPENLINEAGE_API_KEY`.",
            "parameters": [_CLIENT, _ENCODING],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "maxItems": 10_000}]},
                        "examples": {name: {"value": event} for name, event in examples().items()},
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "Some events of an array were stored; the others are named.",
                    "content": {"application/json": {"schema": _SUMMARY, "example": _SUMMARY_EXAMPLE}},
                },
                "201": {"description": "It is stored. The answer has no body."},
                **_PROBLEMS,
            },
        }
    },
    "/api/v1/lineage/batch": {
        "post": {
            "operationId": "post_openlineage_batch",
            "tags": _TAGS,
            "summary": "Send many OpenLineage events",
            "description": "An array of the same events, as the OpenLineage specification has it. Good events are "
            "stored even if others are not; what failed here would fail again. A trailing slash is allowed.",
            "parameters": [_CLIENT, _ENCODING],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"type": "array", "items": _EVENT, "maxItems": 10_000},
                        "example": [examples()["start"], examples()["complete"]],
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "Some events could not be taken; they are named.",
                    "content": {"application/json": {"schema": _SUMMARY, "example": _SUMMARY_EXAMPLE}},
                },
                "204": {"description": "All are stored."},
                **_PROBLEMS,
            },
        }
    },
}
