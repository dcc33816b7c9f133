"""How answers are written: JSON, pages with cursors, entity tags.

Rows are encoded straight from the query. The Pydantic classes in `schemas` describe the answers for the OpenAPI
document, and tests hold the two together; passing each row through them would double the cost of a list.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Query, Request, Response

from pulsewatch.events import EPOCH, canonical_json
from pulsewatch.problems import FieldError, Problem

Item = dict[str, Any]
Shape = TypeVar("Shape")
Row_ = TypeVar("Row_")

Limit = Annotated[int, Query(ge=1, le=500, description="How many items to answer, at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=1000, description="`next_cursor` of the page before. Leave it out for the first page."),
]
TimeText = Annotated[
    str | None,
    Query(
        max_length=40,
        json_schema_extra={"format": "date-time"},
        description="An RFC 3339 time with its offset.",
        examples=["2026-01-31T06:00:00Z"],
    ),
]

encode = msgspec.json.Encoder().encode


def answer(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The payload as JSON."""
    return Response(encode(payload), status, media_type="application/json", headers=dict(headers or {}))


def page(rows: Sequence[Row_], limit: int, show: Callable[[Row_], Item], cursor_of: Callable[[Row_], str]) -> Response:
    """The first `limit` of the rows, and a cursor behind the last of them where there are more.

    Queries ask for one row more than `limit`: it tells whether there is a next page.
    """
    next_cursor = cursor_of(rows[limit - 1]) if len(rows) > limit else None
    return answer({"items": [show(row) for row in rows[:limit]], "next_cursor": next_cursor})


def encode_cursor(*values: object) -> str:
    """An opaque text for the place behind the row with these values; the first names the list."""
    return base64.urlsafe_b64encode(encode(values)).rstrip(b"=").decode()


def decode_cursor(cursor: str, shape: type[Shape]) -> Shape:
    """The values, of exactly these types. Raises Problem 400 for anything that this list did not hand out."""
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = msgspec.json.decode(packed, type=shape)
    except (ValueError, RecursionError) as error:
        raise bad_cursor() from error
    return values


def bad_cursor() -> Problem:
    """400 for a cursor that cannot be followed."""
    detail = "The cursor is not one that this list gave; start again without it."
    return Problem(400, "bad_cursor", detail, errors=[FieldError("?cursor", "bad_cursor", detail)])


def cursor_time(microseconds: int) -> datetime:
    """The time in a cursor. Raises Problem 400 where it cannot be one."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError as error:
        raise bad_cursor() from error


def parse_time(given: str | None, name: str, errors: list[FieldError]) -> datetime | None:
    """The time in a query parameter, in UTC; adds to `errors`, and gives None, where it is none."""
    if given is None:
        return None
    # A '+' that was not percent-encoded arrives as a space.
    written = given.replace(" ", "+") if given.count(" ") == 1 and "T" in given.upper() else given
    try:
        at = msgspec.convert(written, datetime)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        errors.append(FieldError(f"?{name}", "wrong_type", "Write a time as in 2026-01-31T06:00:00Z."))
    else:
        errors.append(FieldError(f"?{name}", "naive_time", "The time needs an offset, such as Z or +02:00."))
    return None


def entity_tag(item: Item) -> str:
    """A strong ETag: equal for two answers that show the same."""
    return f'"{blake2b(canonical_json(item), digest_size=12).hexdigest()}"'


def check_preconditions(request: Request, tag: str | None) -> None:
    """Raises Problem 412 unless If-Match and If-None-Match allow a change. `tag` is None where nothing exists yet."""
    wanted = request.headers.get("if-match")
    if wanted is not None and not _matches(wanted, tag):
        raise _precondition_failed("If-Match", "What stands here now has another ETag; read it again.")
    unwanted = request.headers.get("if-none-match")
    if unwanted is not None and _matches(unwanted, tag):
        raise _precondition_failed("If-None-Match", "It exists already.")


def _matches(header: str, tag: str | None) -> bool:
    if tag is None:
        return False
    listed = {listed.strip() for listed in header.split(",")}
    return "*" in listed or tag in listed


def _precondition_failed(header: str, detail: str) -> Problem:
    return Problem(412, "precondition_failed", f"{header}: {detail}")
