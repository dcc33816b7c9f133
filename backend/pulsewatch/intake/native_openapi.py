"""The OpenAPI part of POST /v1/events. A test holds it against the decoder."""

from typing import Any

from pulsewatch.events import MAX_ATTEMPT, SLUG_PATTERN
from pulsewatch.problems import MEDIA_TYPE

Schema = dict[str, Any]


def _text(max_length: int, description: str, *, min_length: int = 1) -> Schema:
    return {"type": "string", "minLength": min_length, "maxLength": max_length, "description": description}


def _time(description: str) -> Schema:
    return {"type": "string", "format": "date-time", "description": f"{description} RFC 3339, with an offset."}


def _nullable(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


CLIENT: Schema = {
    "type": "string",
    "pattern": SLUG_PATTERN,
    "description": "Whose it is. May be left out with a key that is bound to a client.",
}
PIPELINE = _text(512, "What the producer calls the pipeline; made on first sight.")
NAMESPACE = _text(512, "Tells pipelines of the same name apart.", min_length=0)
OCCURRED_AT = _time("When it happened; a retry repeats it. At most 10 minutes ahead, within the keep time back.")

PARENT: Schema = {
    "type": ["object", "null"],
    "description": "The run that started this one.",
    "additionalProperties": False,
    "required": ["pipeline", "run"],
    "properties": {
        "pipeline": _text(512, "Its pipeline."),
        "run": _text(255, "Its run."),
        "namespace": _text(512, "The namespace of its pipeline.", min_length=0),
    },
}
RUN_EVENT: Schema = {
    "title": "RunEvent",
    "type": "object",
    "description": "A fact about one run. `run` may be left out where scheduled_at is given.",
    "additionalProperties": False,
    "required": ["type", "pipeline", "status", "occurred_at"],
    "properties": {
        "type": {"const": "run"},
        "client": CLIENT,
        "pipeline": PIPELINE,
        "namespace": NAMESPACE,
        "run": _nullable(_text(255, "What the producer calls the run.")),
        "status": {
            "enum": ["queued", "running", "succeeded", "failed", "cancelled", "skipped", "info"],
            "description": "info changes no status.",
        },
        "occurred_at": OCCURRED_AT,
        "event_id": _nullable(_text(255, "Names the event; a retry repeats it.")),
        "attempt": {
            "type": ["integer", "null"],
            "minimum": 0,
            "maximum": MAX_ATTEMPT,
            "description": "The higher attempt wins.",
        },
        "scheduled_at": _nullable(_time("When the run was due.")),
        "started_at": _nullable(_time("When the run started, where this event knows it.")),
        "duration_s": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 31_622_400,
            "description": "How long the run took, in seconds.",
        },
        "message": _nullable(_text(10_000, "For people.", min_length=0)),
        "error_class": _nullable(_text(255, "Kind of failure.")),
        "url": _nullable(_text(2048, "Where to look further.", min_length=0) | {"pattern": r"^https?://[^\s]+$"}),
        "metrics": {
            "type": ["object", "null"],
            "description": "Numbers by name; `rows` and `bytes` are known to the dashboards.",
            "maxProperties": 100,
            "additionalProperties": {"type": "number"},
        },
        "attributes": {
            "type": ["object", "null"],
            "description": "Anything else by name, 64 KiB and 32 levels at most.",
        },
        "parent": PARENT,
    },
}
CLIENT_EVENT: Schema = {
    "title": "ClientEvent",
    "type": "object",
    "description": "Says something of a client. Absent fields stay as they are, null clears.",
    "additionalProperties": False,
    "required": ["type", "occurred_at"],
    "properties": {
        "type": {"const": "client"},
        "client": CLIENT,
        "occurred_at": OCCURRED_AT,
        "title": _nullable(_text(200, "Name for people.", min_length=0)),
    },
}
PIPELINE_EVENT: Schema = {
    "title": "PipelineEvent",
    "type": "object",
    "description": "Says something of a pipeline. Absent fields stay as they are, null clears.",
    "additionalProperties": False,
    "required": ["type", "pipeline", "occurred_at"],
    "properties": {
        "type": {"const": "pipeline"},
        "client": CLIENT,
        "pipeline": PIPELINE,
        "namespace": NAMESPACE,
        "occurred_at": OCCURRED_AT,
        "title": _nullable(_text(200, "Name for people.", min_length=0)),
        "schedule": _nullable(_text(200, "Five-field cron, an @ form, or `every 15m`.", min_length=0)),
        "timezone": _nullable(_text(100, "IANA zone of the schedule.", min_length=0)),
        "start_grace_s": {"type": ["number", "null"], "minimum": 0, "maximum": 31_622_400},
        "max_runtime_s": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 31_622_400},
        "tags": {"type": ["array", "null"], "items": _text(100, "A label."), "maxItems": 50},
        "owner": _nullable(_text(200, "Who looks after it.", min_length=0)),
        "environment": _nullable(_text(100, "prod, staging ...", min_length=0)),
    },
}
EVENT: Schema = {"oneOf": [RUN_EVENT, CLIENT_EVENT, PIPELINE_EVENT]}

EXAMPLES: dict[str, Any] = {
    "a run starts": {
        "type": "run",
        "client": "acme",
        "pipeline": "nightly-load",
        "run": "2026-11-20",
        "status": "running",
        "occurred_at": "2026-11-20T02:00:03.120Z",
    },
    "a run fails, and a pipeline gets a schedule": [
        {
            "type": "run",
            "client": "acme",
            "pipeline": "nightly-load",
            "run": "2026-11-20",
            "status": "failed",
            "occurred_at": "2026-11-20T02:07:41Z",
            "error_class": "TimeoutError",
            "message": "the warehouse did not answer within 60 s",
            "metrics": {"rows": 18250},
        },
        {
            "type": "pipeline",
            "client": "acme",
            "pipeline": "nightly-load",
            "occurred_at": "2026-11-20T09:00:00Z",
            "schedule": "0 2 * * *",
            "timezone": "Europe/Berlin",
            "start_grace_s": 900,
        },
    ],
}

COUNTS: Schema = {
    "accepted": {"type": "integer", "minimum": 0, "description": "New items, now stored."},
    "duplicates": {"type": "integer", "minimum": 0, "description": "Items that were stored before."},
    "rejected": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["index", "code", "pointer", "detail"],
            "properties": {
                "index": {"type": "integer", "minimum": 0, "description": "Its place in the request."},
                "code": {"type": "string", "description": "Why, for machines."},
                "pointer": {"type": "string", "description": "JSON pointer into the item."},
                "detail": {"type": "string", "description": "Why, for people."},
            },
        },
    },
}
RECEIPT: Schema = {"type": "object", "required": list(COUNTS), "properties": COUNTS}
RECEIPT_EXAMPLE = {"accepted": 2, "duplicates": 0, "rejected": []}


def problem(description: str, **headers: str) -> dict[str, Any]:
    """An error answer of an operation; `headers` are the types of its own headers by name."""
    answer: dict[str, Any] = {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if headers:
        answer["headers"] = {name.replace("_", "-"): {"schema": {"type": kind}} for name, kind in headers.items()}
    return answer


# What the edge may answer on any wire.
EDGE_PROBLEMS: dict[str, Any] = {
    "400": problem("The body cannot be read: not JSON, not UTF-8, nested too deep, or packed wrongly."),
    "401": problem("The API key is missing, unknown, revoked or expired.", WWW_Authenticate="string"),
    "403": problem("The key may not send events, or not for this client."),
    "413": problem("Too many events, or too large a body."),
    "415": problem("This Content-Type or Content-Encoding is not read here."),
    "422": problem("No item could be taken; accepted, duplicates and rejected are told all the same."),
    "500": problem("Something failed on our side."),
    "503": problem("Nothing was stored, or nobody knows: send it again as it is.", Retry_After="integer"),
}

PATHS: dict[str, Any] = {
    "/v1/events": {
        "post": {
            "operationId": "post_events",
            "tags": ["events"],
            "summary": "Send events",
            "description": 'Takes run, client and pipeline events: an array, `{"events": [...]}`, one bare event, or '
            "NDJSON; plain, gzip or zstd. Bad items never sink good ones. The answer comes after the commit; sending "
            "the same events again is answered like the first time and counted as duplicates. Any order gives the "
            "same runs.",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [
                                {"type": "array", "items": EVENT},
                                {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["events"],
                                    "properties": {"events": {"type": "array", "items": EVENT}},
                                },
                                *EVENT["oneOf"],
                            ]
                        },
                        "examples": {name: {"value": value} for name, value in EXAMPLES.items()},
                    },
                    "application/x-ndjson": {"schema": {"type": "string", "description": "One event a line."}},
                },
            },
            "responses": {
                "200": {
                    "description": "Committed.",
                    "content": {"application/json": {"schema": RECEIPT, "example": RECEIPT_EXAMPLE}},
                },
                **EDGE_PROBLEMS,
            },
        }
    }
}
