"""What is said about clients and pipelines, by events and by PUT alike: which fields there are, what they may hold,
and which of two statements stands.

Absent means unchanged, null means cleared. Field by field the later statement wins and, of two of the same instant,
the one with the greater canonical JSON: so any order of arrival gives the same row.
"""

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pulsewatch import models, schedules
from pulsewatch.events import canonical_json, digest16, epoch_us, pipeline_slug
from pulsewatch.problems import FieldError, Problem

MAX_TAGS = 50
MAX_SECONDS = 366 * 86_400


class FieldFault(ValueError):
    """What is wrong with one value: a stable code and words for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def checked_text(value: object, max_length: int) -> str:
    """The value as text that PostgreSQL can hold. Raises FieldFault."""
    if not isinstance(value, str):
        raise FieldFault("wrong_type", f"A text is expected, not {json_type(value)}.")
    if len(value) > max_length:
        raise FieldFault("too_long", f"At most {max_length} characters are kept; these are {len(value)}.")
    if "\0" in value:
        raise FieldFault("nul_character", "The NUL character cannot be stored.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise FieldFault("lone_surrogate", "The text holds half a surrogate pair, which is no character.")
    return value


def _text(max_length: int) -> Callable[[object], str]:
    return lambda value: checked_text(value, max_length)


def _schedule(value: object) -> str:
    schedule = checked_text(value, schedules.MAX_SCHEDULE_LENGTH)
    try:
        schedules.validate_schedule(schedule)
    except ValueError as error:
        raise FieldFault("invalid_schedule", str(error)) from error
    return schedule


def _timezone(value: object) -> str:
    name = checked_text(value, 100)
    try:
        schedules.validate_timezone(name)
    except ValueError as error:
        raise FieldFault("invalid_timezone", str(error)) from error
    return name


def _seconds(value: object, *, may_be_zero: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldFault("wrong_type", f"A number of seconds is expected, not {json_type(value)}.")
    # An int may be too large for a float; comparing comes before converting.
    if not (0 <= value <= MAX_SECONDS) or (value == 0 and not may_be_zero) or math.isnan(value):
        least = "0" if may_be_zero else "more than 0"
        raise FieldFault("out_of_range", f"From {least} to {MAX_SECONDS} seconds (366 days).")
    return float(value)


def _start_grace(value: object) -> float:
    return _seconds(value, may_be_zero=True)


def _max_runtime(value: object) -> float:
    return _seconds(value, may_be_zero=False)


def _tags(value: object) -> list[str]:
    """Sorted, each once: two lists of the same tags say the same."""
    if not isinstance(value, (list, tuple)):
        raise FieldFault("wrong_type", f"A list of texts is expected, not {json_type(value)}.")
    tags = sorted({checked_text(tag, 100) for tag in value})
    if len(tags) > MAX_TAGS:
        raise FieldFault("too_long", f"At most {MAX_TAGS} tags are kept; these are {len(tags)}.")
    if "" in tags:
        raise FieldFault("out_of_range", "A tag cannot be empty.")
    return tags


Check = Callable[[object], Any]

CLIENT_FIELDS: dict[str, Check] = {"title": _text(200)}
PIPELINE_FIELDS: dict[str, Check] = {
    "title": _text(200),
    "schedule": _schedule,
    "timezone": _timezone,
    "start_grace_s": _start_grace,
    "max_runtime_s": _max_runtime,
    "tags": _tags,
    "owner": _text(200),
    "environment": _text(100),
}


def validate_client_changes(
    raw: Mapping[str, object], *, also_known: Collection[str] = ()
) -> tuple[dict[str, Any], list[FieldError]]:
    """What a client is to be set to, and what is wrong with it. Pointers are `/field`.

    `also_known` are names that the caller reads himself: they are left alone, and offered as the nearest name for
    one that is misspelt.
    """
    return _validated(raw, CLIENT_FIELDS, also_known)


def validate_pipeline_changes(
    raw: Mapping[str, object], *, also_known: Collection[str] = ()
) -> tuple[dict[str, Any], list[FieldError]]:
    """The same for a pipeline. `tags` come back sorted and unique, and empty where they were null."""
    return _validated(raw, PIPELINE_FIELDS, also_known)


def _validated(
    raw: Mapping[str, object], fields: Mapping[str, Check], also_known: Collection[str]
) -> tuple[dict[str, Any], list[FieldError]]:
    changes: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, value in raw.items():
        if name in also_known:
            continue
        check = fields.get(name)
        if check is None:
            errors.append(unknown_field(name, [*fields, *also_known]))
        elif value is None:
            changes[name] = [] if name == "tags" else None
        else:
            try:
                changes[name] = check(value)
            except FieldFault as fault:
                errors.append(FieldError(f"/{name}", fault.code, str(fault)))
    return changes, errors


def unknown_field(name: str, known: Collection[str], *, query: bool = False) -> FieldError:
    """The error for a field (or query parameter) that does not exist, naming the nearest that does."""
    shown = printable(name, 100)
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(sorted(known))}." if known else ""
    if query:
        return FieldError(f"?{shown}", "unknown_parameter", f"There is no query parameter {shown!r}.{hint}")
    pointer = "/" + shown.replace("~", "~0").replace("/", "~1")
    return FieldError(pointer, "unknown_field", f"There is no field {shown!r}.{hint}")


def printable(words: str, max_length: int) -> str:
    """A caller's own words, cut and made fit to be repeated in an answer."""
    return words[:max_length].encode("utf-8", "replace").decode()


def json_type(value: object) -> str:
    """What JSON calls the type of a decoded value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, Mapping) else "a list"


def identity_digest(namespace: str, name: str) -> UUID:
    """What a pipeline is found by within its client."""
    return UUID(hex=digest16(namespace, name))


def lock_client(connection: Connection, slug: str) -> Row[Any] | None:
    """The client's row, held against other statements until the transaction ends; None if there is none."""
    return _locked(connection, models.client, models.client.c.slug == slug)


def lock_pipeline(connection: Connection, client_id: int, slug: str) -> Row[Any] | None:
    """The same for a pipeline, by its slug."""
    pipeline = models.pipeline
    return _locked(connection, pipeline, and_(pipeline.c.client_id == client_id, pipeline.c.slug == slug))


def clock(connection: Connection) -> datetime:
    """The database's time at this moment; ask after locking, so that a later statement has a later time."""
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now


def upsert_client(connection: Connection, slug: str, changes: Mapping[str, Any], said_at: datetime) -> Row[Any]:
    """Set what was said about a client at that time, making the client if it is new; its row as it stands then.

    `changes` have been validated. Neither archives nor revives.
    """
    client = models.client
    key = client.c.slug == slug
    row = _locked(connection, client, key)
    if row is None:
        connection.execute(insert(client).values(slug=slug).on_conflict_do_nothing())
        row = _locked(connection, client, key)
        assert row is not None, "a client is never deleted while it is written to"  # noqa: S101 - narrows the type
    return _merge(connection, client, row, client.c.id == row.id, [(changes, said_at)])


def upsert_pipeline(
    connection: Connection,
    client_id: int,
    namespace: str,
    name: str,
    changes: Mapping[str, Any],
    said_at: datetime,
) -> Row[Any]:
    """The same for a pipeline, by what its producer calls it.

    Raises Problem (409, `slug_taken`) if it is new and another pipeline of the client has its slug. How many
    pipelines a client may have is for the caller to hold.
    """
    pipeline = models.pipeline
    digest = identity_digest(namespace, name)
    key = and_(pipeline.c.client_id == client_id, pipeline.c.identity_digest == digest)
    row = _locked(connection, pipeline, key)
    if row is None:
        slug = pipeline_slug(namespace, name)
        new = {"client_id": client_id, "slug": slug, "namespace": namespace, "name": name}
        connection.execute(insert(pipeline).values(**new, identity_digest=digest).on_conflict_do_nothing())
        row = _locked(connection, pipeline, key)
        if row is None:
            raise Problem(409, "slug_taken", f"Another pipeline of this client has the slug {slug!r}.")
    own = and_(pipeline.c.client_id == client_id, pipeline.c.id == row.id)
    return _merge(connection, pipeline, row, own, [(changes, said_at)])


def _locked(connection: Connection, table: Table, key: ColumnElement[bool]) -> Row[Any] | None:
    # Not the full FOR UPDATE: that would also stop everybody who inserts rows that refer to this one.
    return connection.execute(select(table).where(key).with_for_update(key_share=True)).first()


Statement = tuple[Mapping[str, Any], datetime]  # changes, said_at


def hear_client(connection: Connection, client_id: int, statements: Sequence[Statement]) -> list[bool]:
    """Set what several statements say of a client, in one update; for each, whether it said anything new."""
    client = models.client
    return _hear(connection, client, client.c.id == client_id, statements)


def hear_pipeline(
    connection: Connection, client_id: int, pipeline_id: int, statements: Sequence[Statement]
) -> list[bool]:
    """The same for a pipeline."""
    pipeline = models.pipeline
    return _hear(
        connection, pipeline, and_(pipeline.c.client_id == client_id, pipeline.c.id == pipeline_id), statements
    )


def _hear(
    connection: Connection, table: Table, key: ColumnElement[bool], statements: Sequence[Statement]
) -> list[bool]:
    row = _locked(connection, table, key)
    assert row is not None, "made on first sight, in this transaction or before"  # noqa: S101 - narrows the type
    told = [
        any(
            _wins(epoch_us(said_at), value, row.said_at.get(field), row._mapping[field])
            for field, value in changes.items()
        )
        for changes, said_at in statements
    ]
    _merge(
        connection, table, row, key, [statement for statement, is_new in zip(statements, told, strict=True) if is_new]
    )
    return told


def _merge(
    connection: Connection,
    table: Table,
    row: Row[Any],
    key: ColumnElement[bool],
    statements: Sequence[Statement],
) -> Row[Any]:
    """Write what wins over what the locked row holds; nothing at all if nothing does."""
    said: dict[str, int] = dict(row.said_at)
    values: dict[str, Any] = {}
    for changes, said_at in statements:
        at = epoch_us(said_at)
        for field, value in changes.items():
            if _wins(at, value, said.get(field), values.get(field, row._mapping[field])):
                said[field], values[field] = at, value
    if not values:
        return row
    is_changed = any(row._mapping[field] != value for field, value in values.items())
    updated = {"updated_at": func.now()} if is_changed else {}
    return connection.execute(
        update(table).where(key).values(values | updated | {"said_at": said}).returning(table)
    ).one()


def _wins(at: int, value: object, said_at: int | None, current: object) -> bool:
    if said_at is None or at > said_at:
        return True
    return at == said_at and canonical_json(value) > canonical_json(current)
