"""PulseWatch's own wire: POST /v1/events.

The body is a JSON array, `{"events": [...]}`, one bare event, or NDJSON. Most requests take the fast road: the whole
body is decoded by one typed decoder. Where that fails, or the text holds what PostgreSQL cannot, each item is read
on its own, so that every bad one gets its code and the good ones are stored.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from pulsewatch import catalog
from pulsewatch.events import (
    MAX_ATTEMPT,
    Flag,
    Parent,
    RunEvent,
    Status,
    canonical_json,
    canonical_time,
    is_slug,
)
from pulsewatch.intake import items as reading
from pulsewatch.intake.base import Reply, Request, is_schedulable, refuse_time
from pulsewatch.intake.native_openapi import PATHS
from pulsewatch.problems import FieldError, Problem
from pulsewatch.submissions import CatalogStatement, Receipt, Refusal, Submission

NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-lines")
MAX_ATTRIBUTES_BYTES = 64 * 1024
MAX_DURATION_S = 366 * 86_400

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Namespace = Annotated[str, msgspec.Meta(max_length=512)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_DURATION_S)]
Attempt = Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTEMPT)]
Message = Annotated[str, msgspec.Meta(max_length=10_000)]
Url = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^https?://[^\s]+\Z")]
MetricName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Metrics = Annotated[dict[MetricName, float], msgspec.Meta(max_length=100)]


class ParentItem(msgspec.Struct, forbid_unknown_fields=True):
    """`parent` of a run event."""

    pipeline: Name
    run: Short
    namespace: Namespace = ""


class RunItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run event as it is written on the wire; what no type can say is checked in `_run_event`."""

    type: Literal["run"]
    pipeline: Name
    status: Status
    occurred_at: datetime
    client: str | None = None
    namespace: Namespace = ""
    run: Short | None = None
    event_id: Short | None = None
    attempt: Attempt | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    duration_s: Seconds | None = None
    message: Message | None = None
    error_class: Short | None = None
    url: Url | None = None
    metrics: Metrics | None = None
    attributes: dict[str, Any] | None = None
    parent: ParentItem | None = None


class ClientHead(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which client a client event is about, and when it was said."""

    occurred_at: datetime
    client: str | None = None


class PipelineHead(ClientHead, kw_only=True, forbid_unknown_fields=True):
    """Which pipeline a pipeline event is about, and when it was said."""

    pipeline: Name
    namespace: Namespace = ""


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """A body of `{"events": [...]}`."""

    events: list[RunItem]


_run_items = msgspec.json.Decoder(list[RunItem])
_run_item = msgspec.json.Decoder(RunItem)
_envelope = msgspec.json.Decoder(Envelope)
# What makes an item need a closer look even if it decodes: PostgreSQL stores no NUL, and JSON can hide one.
_SUSPECT = b"\\u0000"


class NativeWire:
    """See the module."""

    source = "native"
    paths = ("/v1/events",)
    content_types = ("application/json", *NDJSON_TYPES)

    def parse(self, request: Request) -> Submission:
        body = request.body
        is_ndjson = request.content_type in NDJSON_TYPES
        submission = Submission(self.source, text_of=reading.texts_of(body, is_ndjson=is_ndjson))
        if _SUSPECT not in body:
            try:
                run_items = _decode_fast(body, is_ndjson=is_ndjson)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                reading.refuse_too_many(len(run_items), request)
                for index, item in enumerate(run_items):
                    _take(submission, index, item, request)
                return submission
        texts = reading.split(body, is_ndjson=is_ndjson)
        reading.refuse_too_many(len(texts), request)
        for index, text in enumerate(texts):
            _take_closely(submission, index, text, request)
        return submission

    def reply(self, request: Request, receipt: Receipt) -> Reply:  # noqa: ARG002 - the contract of a wire
        told: dict[str, Any] = {
            "accepted": receipt.accepted,
            "duplicates": receipt.duplicates,
            "rejected": [
                {
                    "index": rejected.index,
                    "code": rejected.refusal.code,
                    "pointer": rejected.refusal.pointer,
                    "detail": rejected.refusal.detail,
                }
                for rejected in receipt.rejected
            ],
        }
        if receipt.rejected and not receipt.accepted and not receipt.duplicates:
            raise _nothing_taken(receipt, told)
        return Reply(200, msgspec.json.encode(told))

    def openapi_paths(self) -> dict[str, Any]:
        return PATHS


def _decode_fast(body: bytes, *, is_ndjson: bool) -> list[RunItem]:
    """The whole body by a typed decoder, if it holds nothing but well-formed run events."""
    if is_ndjson:
        return _run_item.decode_lines(body)
    if not body.lstrip().startswith(b"{"):
        return _run_items.decode(body)
    try:
        return [_run_item.decode(body)]
    except msgspec.ValidationError:
        return _envelope.decode(body).events


def _nothing_taken(receipt: Receipt, told: dict[str, Any]) -> Problem:
    errors = [
        FieldError(f"/{rejected.index}{rejected.refusal.pointer}", rejected.refusal.code, rejected.refusal.detail)
        for rejected in receipt.rejected[:100]
    ]
    if all(rejected.refusal.code == "forbidden_client" for rejected in receipt.rejected):
        return Problem(403, "forbidden_client", "The key may not write for this client.", errors=errors, extra=told)
    return Problem(422, "nothing_accepted", "No item could be taken.", errors=errors, extra=told)


def _take(submission: Submission, index: int, item: RunItem, request: Request) -> None:
    event = _run_event(item, request)
    if isinstance(event, Refusal):
        submission.reject(index, event, item.client)
    else:
        submission.add(index, event)


def _take_closely(submission: Submission, index: int, text: bytes, request: Request) -> None:
    """Read one item on its own, naming what is wrong with it."""
    value = reading.read_object(text)
    if isinstance(value, Refusal):
        submission.reject(index, value)
        return
    client = value.get("client")
    client = client if isinstance(client, str) else None
    kind = value.get("type")
    if kind in ("client", "pipeline"):
        statement = _catalog_statement(value, request)
        if isinstance(statement, Refusal):
            submission.reject(index, statement, client)
        else:
            submission.add(index, statement)
    elif kind == "run":
        item = reading.convert(value, RunItem)
        if isinstance(item, Refusal):
            submission.reject(index, item, client)
        else:
            _take(submission, index, item, request)
    elif "type" not in value:
        submission.reject(index, Refusal("missing_field", "/type", "type is missing: client, pipeline or run."), client)
    else:
        submission.reject(index, Refusal("unknown_type", "/type", "type is one of client, pipeline, run."), client)


def client_of(named: str | None, request: Request) -> str | Refusal:
    """The client an item is for: the one it names, or the one the key is bound to."""
    bound = request.caller.client
    if named is None:
        if bound is None:
            return Refusal("missing_field", "/client", "client is missing, and the key is not bound to one.")
        return bound
    if bound is not None and named != bound:
        return Refusal("forbidden_client", "/client", f"The key is bound to client {bound!r}.")
    if not is_slug(named):
        return Refusal(
            "not_a_slug", "/client", "A client is 1 to 100 of letters, digits, '.', '_', '-', the first no sign."
        )
    return named


def _run_event(item: RunItem, request: Request) -> RunEvent | Refusal:
    """The event that an item says, checked for all that its types cannot say."""
    client = client_of(item.client, request)
    if isinstance(client, Refusal):
        return client
    if item.status is Status.TIMED_OUT:
        return Refusal("reserved_status", "/status", "timed_out is written by PulseWatch alone; send failed.")
    occurred_at, started_at, scheduled_at = item.occurred_at, item.started_at, item.scheduled_at
    refused = refuse_time(occurred_at, "/occurred_at", request)
    if refused is None and started_at is not None:
        refused = refuse_time(started_at, "/started_at", request)
    if refused is None and scheduled_at is not None and scheduled_at.tzinfo is None:
        refused = Refusal("naive_time", "/scheduled_at", "The time has no offset: end it in Z or in +02:00.")
    if refused is None and item.attributes:
        refused = _refuse_attributes(item.attributes)
    if refused is not None:
        return refused
    flags, ignored = 0, None
    if scheduled_at is not None and not is_schedulable(scheduled_at, request):
        flags, scheduled_at, ignored = Flag.SCHEDULED_AT_IGNORED, None, scheduled_at
    run = item.run
    if run is None:
        if scheduled_at is None:
            return Refusal("missing_field", "/run", "run is missing; it may be left out only beside a scheduled_at.")
        run = canonical_time(scheduled_at)
    # By position: by name it takes five times as long.
    return RunEvent(
        client,
        item.pipeline,
        run,
        item.status,
        _utc(occurred_at),
        item.namespace,
        item.event_id,
        item.attempt,
        None if scheduled_at is None else _utc(scheduled_at),
        ignored,
        None if started_at is None else _utc(started_at),
        item.duration_s,
        item.message,
        item.error_class,
        item.url,
        item.metrics or None,
        item.attributes or None,
        None if item.parent is None else Parent(item.parent.pipeline, item.parent.run, item.parent.namespace),
        flags,
    )


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def _refuse_attributes(attributes: dict[str, Any]) -> Refusal | None:
    canonical = canonical_json(attributes)
    if len(canonical) > MAX_ATTRIBUTES_BYTES:
        return Refusal("too_long", "/attributes", f"At most {MAX_ATTRIBUTES_BYTES} bytes; these are {len(canonical)}.")
    # Counting is cheap, and an upper bound of the depth within the item; each level takes two bytes at least.
    if len(canonical) >= 2 * reading.MAX_DEPTH and canonical.count(b"{") + canonical.count(b"[") >= reading.MAX_DEPTH:
        return reading.refuse_text(attributes, "/attributes", depth=2)
    return None


def _catalog_statement(value: dict[str, Any], request: Request) -> CatalogStatement | Refusal:
    """What a client or pipeline event says. Fields that are there and null are to be cleared."""
    is_pipeline = value["type"] == "pipeline"
    said: dict[str, Any] = {
        name: value[name] for name in ("client", "occurred_at", "namespace", "pipeline") if name in value
    }
    head = reading.convert(said, PipelineHead if is_pipeline else ClientHead)
    if isinstance(head, Refusal):
        return head
    client = client_of(head.client, request)
    if isinstance(client, Refusal):
        return client
    refused = refuse_time(head.occurred_at, "/occurred_at", request)
    if refused is not None:
        return refused
    validate = catalog.validate_pipeline_changes if is_pipeline else catalog.validate_client_changes
    changes, errors = validate(value, also_known={"type", *head.__struct_fields__})
    if errors:
        return Refusal(errors[0].code, errors[0].pointer, errors[0].detail)
    occurred_at = _utc(head.occurred_at)
    if isinstance(head, PipelineHead):
        return CatalogStatement(client, changes, occurred_at, head.pipeline, head.namespace)
    return CatalogStatement(client, changes, occurred_at)
