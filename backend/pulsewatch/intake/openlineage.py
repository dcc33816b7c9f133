"""The OpenLineage wire: POST /api/v1/lineage and POST /api/v1/lineage/batch.

It is as lenient as the clients need it to be, because a client drops what is answered by 4xx: what PulseWatch does
not read (producer, schemaURL, facets it does not know) may be anything or missing.

How events become one another:

- A RunEvent is a run event of the pipeline (job.namespace, job.name) and the run runId, both as they are written.
- A JobEvent makes the pipeline known, with the owner and tags that its facets give.
- A START says owner and tags too. The other events of a run repeat them, and each would lock the pipeline's row for
  nothing: they are not asked.
- A DatasetEvent is about neither pipeline nor run: it is accepted, and nothing is stored or counted.

An OpenLineage event carries no id of its own, and its events are accumulative: a run may have several START or
COMPLETE, also at one instant and with different facets. So every event, whatever its type, gets for its id the digest
of what was read from it. A retry is the same event again, and any other event is another event: nothing is ever a
conflict, which a client could not cure. Where two events at one instant contend, the merge of the run settles it,
the same way in any order of arrival. Two events that differ only in what PulseWatch does not read (Spark's repeated
STARTs) are one.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from pulsewatch.events import Flag, RunEvent, Status, canonical_json, is_slug
from pulsewatch.intake import items as reading
from pulsewatch.intake import openlineage_facets as facets
from pulsewatch.intake.base import Reply, Request, is_schedulable, refuse_time
from pulsewatch.intake.openlineage_openapi import PATHS
from pulsewatch.packing import content_digest
from pulsewatch.problems import FieldError, Problem
from pulsewatch.submissions import CatalogStatement, Receipt, Refusal, Submission

STATUSES = {
    "START": Status.RUNNING,
    "RUNNING": Status.RUNNING,
    "COMPLETE": Status.SUCCEEDED,
    "FAIL": Status.FAILED,
    "ABORT": Status.CANCELLED,
    "OTHER": Status.INFO,
}
SINGLE = "/api/v1/lineage"
BATCH = "/api/v1/lineage/batch"

_raw_items = msgspec.json.Decoder(list[msgspec.Raw])


class Refused(Exception):
    """This event cannot be taken."""

    def __init__(self, code: str, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code, pointer, detail)


class OpenLineageWire:
    """See the module."""

    source = "openlineage"
    # Nothing is redirected, because clients follow no redirect of a POST.
    paths = (SINGLE, f"{SINGLE}/", BATCH, f"{BATCH}/")
    content_types = ("application/json",)

    def parse(self, request: Request) -> Submission:
        client = client_of(request)
        events, text_of = _read(request)
        submission = Submission(self.source, text_of=text_of, received=len(events))
        statements: dict[tuple[str, str, bytes], tuple[int, CatalogStatement]] = {}
        for index, event in enumerate(events):
            try:
                run_event, statement = read_event(event, client, request)
            except Refused as refused:
                submission.reject(index, refused.refusal, client)
                continue
            if run_event is not None:
                submission.add(index, run_event)
            if statement is not None:
                _keep_latest(statements, index, statement)
        for index, statement in statements.values():
            submission.add(index, statement)
        return submission

    def reply(self, request: Request, receipt: Receipt) -> Reply:
        """201 without a body, as Marquez answers, and 204 for a batch; where events failed, which and why.

        Raises Problem 400 where nothing of /lineage was taken: clients drop the event, and try again only on 5xx.
        """
        is_batch = _is_batch(request)
        if not receipt.rejected:
            return Reply(204 if is_batch else 201)
        failed = {rejected.index: rejected.refusal for rejected in receipt.rejected}
        received = receipt.received
        if not is_batch and len(failed) == received:
            raise _nothing_taken(request, failed)
        return Reply(200, msgspec.json.encode(_told(received, failed)))

    def openapi_paths(self) -> dict[str, Any]:
        return PATHS


def client_of(request: Request) -> str:
    """The client that the events are for: the key's, or the one the URL names. Raises Problem 400 or 403."""
    bound, named = request.caller.client, request.query.get("client")
    if named is None or named == bound:
        if bound is None:
            raise Problem(
                403,
                "client_unknown",
                "OpenLineage events do not say whose they are. Send a key that is bound to a client "
                "(pulsewatch key create --role ingest --client SLUG), or add ?client=SLUG to the URL.",
            )
        return bound
    if bound is not None:
        raise Problem(403, "forbidden_client", f"The key is bound to client {bound!r}; leave ?client= out of the URL.")
    if not is_slug(named):
        words = "A client is 1 to 100 of letters, digits, '.', '_', '-', the first no sign."
        raise Problem(400, "not_a_slug", words, errors=[FieldError("?client", "not_a_slug", words)])
    return named


def _is_batch(request: Request) -> bool:
    return request.path.rstrip("/") == BATCH


def _read(request: Request) -> tuple[list[Any], Callable[[int], bytes]]:
    """The events in a body, and a function that gives the text of each. Raises Problem where there are none."""
    body = request.body
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # What msgspec does not read (NaN, half surrogates) the standard library does.
        document = reading.load(body)
    if isinstance(document, list):
        reading.refuse_too_many(len(document), request)
        return document, lambda index: _text(body, document, index)
    if _is_batch(request):
        raise Problem(400, "wrong_type", "A batch is a JSON array of events; one event goes to /api/v1/lineage.")
    if not isinstance(document, dict):
        raise Problem(400, "wrong_type", "An OpenLineage event is a JSON object.")
    return [document], lambda _: body


def _text(body: bytes, events: list[Any], index: int) -> bytes:
    try:
        return bytes(_raw_items.decode(body)[index])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.dumps(events[index]).encode()
    except RecursionError:
        return b""


def _keep_latest(
    statements: dict[tuple[str, str, bytes], tuple[int, CatalogStatement]], index: int, statement: CatalogStatement
) -> None:
    """Of statements that say the same of a pipeline only the latest can matter; each costs a locked row."""
    identity = (statement.namespace, statement.pipeline or "", canonical_json(statement.changes))
    known = statements.get(identity)
    if known is None or known[1].occurred_at < statement.occurred_at:
        statements[identity] = index, statement


def _told(received: int, failed: dict[int, Refusal]) -> dict[str, Any]:
    """The answer of the batch path, after its specification. What could be tried again is a 503 and never here."""
    return {
        "status": "partial_success",
        "summary": {
            "received": received,
            "successful": received - len(failed),
            "failed": len(failed),
            "retriable": 0,
            "non_retriable": len(failed),
        },
        "failed_events": [
            {"index": index, "reason": _reason(refusal), "retriable": False}
            for index, refusal in sorted(failed.items())
        ],
    }


def _reason(refusal: Refusal) -> str:
    where = f" at {refusal.pointer}" if refusal.pointer else ""
    return f"{refusal.code}{where}: {refusal.detail}"


def _nothing_taken(request: Request, failed: dict[int, Refusal]) -> Problem:
    is_array = request.body.lstrip().startswith(b"[")
    errors = [
        FieldError(f"/{index}{refusal.pointer}" if is_array else refusal.pointer, refusal.code, refusal.detail)
        for index, refusal in sorted(failed.items())[:100]
    ]
    if is_array:
        return Problem(400, "nothing_accepted", "No event of the array could be taken.", errors=errors)
    return Problem(400, errors[0].code, errors[0].detail, errors=errors)


def read_event(event: object, client: str, request: Request) -> tuple[RunEvent | None, CatalogStatement | None]:
    """What one event says: of a run, of a pipeline, or of neither. Raises Refused."""
    if not isinstance(event, dict):
        raise Refused("wrong_type", "", "An OpenLineage event is a JSON object.")
    is_run = event.get("run") is not None or event.get("eventType") is not None or _names_schema(event, "RunEvent")
    if not is_run and event.get("job") is None and event.get("dataset") is not None:
        _time(event)
        _name(event, "dataset", "namespace", min_length=0)
        _name(event, "dataset", "name")
        return None, None
    # The order in which a reader looks for what is missing.
    status = _status(event) if is_run else None
    occurred_at, flags = _time(event)
    run = _name(event, "run", "runId", max_length=facets.MAX_SHORT) if is_run else ""
    namespace = _name(event, "job", "namespace", min_length=0)
    pipeline = _name(event, "job", "name")
    refusal = refuse_time(occurred_at, "/eventTime", request)
    if refusal is not None:
        raise Refused(refusal.code, refusal.pointer, refusal.detail)
    statement = None
    if status is None or event.get("eventType") == "START":
        changes = facets.pipeline_changes(facets.dig(event, "job", "facets"))
        if changes or status is None:
            statement = CatalogStatement(client, changes, occurred_at, pipeline, namespace)
    if status is None:
        return None, statement
    said = RunEvent(
        client=client, namespace=namespace, pipeline=pipeline, run=run, status=status, occurred_at=occurred_at
    )
    said.flags = flags
    _add_facets(said, event, request)
    said.event_id = content_digest(said).hex()
    return said, statement


def _add_facets(said: RunEvent, event: dict[str, Any], request: Request) -> None:
    run_facets = facets.dig(event, "run", "facets")
    _add_scheduled_at(said, facets.dig(run_facets, "nominalTime", "nominalStartTime"), request)
    message, trace = (facets.dig(run_facets, "errorMessage", field) for field in ("message", "stackTrace"))
    said.message = facets.text(message, facets.MAX_MESSAGE)
    said.error_class = facets.error_class(message, trace)
    said.parent = facets.parent(run_facets)
    said.metrics = facets.metrics(event)
    said.attributes = facets.attributes(event)


def _add_scheduled_at(said: RunEvent, nominal: object, request: Request) -> None:
    try:
        at, flags = read_time(nominal) if isinstance(nominal, str) else (None, 0)
    except ValueError:
        return
    if at is not None and not is_schedulable(at, request):
        said.ignored_scheduled_at = at
        at, flags = None, Flag.SCHEDULED_AT_IGNORED
    said.scheduled_at = at
    said.flags |= flags


def read_time(written: str) -> tuple[datetime, int]:
    """An ISO 8601 time in UTC, to the microsecond, and Flag.ASSUMED_UTC where it had no offset.

    Java's ZonedDateTime appends the zone in brackets, which adds nothing to the offset before it. Raises ValueError.
    """
    at = datetime.fromisoformat(written.strip().partition("[")[0])
    if at.tzinfo is None:
        return at.replace(tzinfo=UTC), Flag.ASSUMED_UTC
    try:
        return at.astimezone(UTC), 0
    except OverflowError as error:  # the first or last hours of the calendar
        raise ValueError(str(error)) from error


def _names_schema(event: dict[str, Any], name: str) -> bool:
    """Whether schemaURL says it is that: `#/$defs/RunEvent`, formerly `#/definitions/RunEvent`."""
    schema = event.get("schemaURL")
    return isinstance(schema, str) and schema.endswith(f"/{name}")


def _status(event: dict[str, Any]) -> Status:
    kind = event.get("eventType")
    if kind is None:
        return Status.INFO
    if not isinstance(kind, str):
        raise Refused("wrong_type", "/eventType", "A text is expected.")
    if kind not in STATUSES:
        raise Refused("unknown_status", "/eventType", f"eventType is one of {', '.join(STATUSES)}, or left out.")
    return STATUSES[kind]


def _time(event: dict[str, Any]) -> tuple[datetime, int]:
    written = event.get("eventTime")
    if written is None:
        raise Refused("missing_field", "/eventTime", "eventTime is missing.")
    if not isinstance(written, str):
        raise Refused("wrong_type", "/eventTime", "A text is expected, such as 2026-09-01T02:00:03.120Z.")
    try:
        return read_time(written)
    except ValueError as error:
        detail = "The time is not ISO 8601, such as 2026-09-01T02:00:03.120Z."
        raise Refused("invalid_time", "/eventTime", detail) from error


def _name(
    event: dict[str, Any], owner: str, field: str, *, min_length: int = 1, max_length: int = facets.MAX_NAME
) -> str:
    """A name that identifies something, as it is written. Too long is refused: cut, two names could become one."""
    holder = event.get(owner)
    if holder is None:
        raise Refused("missing_field", f"/{owner}", f"{owner} is missing.")
    if not isinstance(holder, dict):
        raise Refused("wrong_type", f"/{owner}", "An object is expected.")
    name = holder.get(field)
    pointer = f"/{owner}/{field}"
    if name is None:
        raise Refused("missing_field", pointer, f"{owner}.{field} is missing.")
    if not isinstance(name, str):
        raise Refused("wrong_type", pointer, "A text is expected.")
    if len(name) < min_length:
        raise Refused("too_short", pointer, f"{owner}.{field} is empty.")
    if len(name) > max_length:
        raise Refused("too_long", pointer, f"At most {max_length} characters; these are {len(name)}.")
    return facets.storable(name)
