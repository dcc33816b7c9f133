"""Alert rules: list, get, put, delete, and their versions."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection, Row, func, tuple_

from pulsewatch import catalog, models, rulebook
from pulsewatch.api import alert_rule_schemas as schemas
from pulsewatch.api.alert_rule_bodies import read_spec, whose_errors
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    answer,
    bad_cursor,
    check_preconditions,
    decode_cursor,
    encode_cursor,
    page,
)
from pulsewatch.api.clients import SLUG_RULE, slug_of_cursor
from pulsewatch.api.deps import Body, Database, Reader, Words, Writer, reading, visible_client
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import body_of, created, preconditions, problems
from pulsewatch.api.paths import WORD
from pulsewatch.auth import Caller
from pulsewatch.events import is_slug
from pulsewatch.problems import FieldError, Problem
from pulsewatch.rules import KINDS
from pulsewatch.rules.spec import RuleSpec

router = APIRouter(tags=["alert rules"])

ONE = f"/v1/alert-rules/{{key:{WORD}}}"
MAX_INT = 2**31 - 1

RuleKey = Annotated[str, Path(description="Key of the rule.", examples=["loads-fail"])]
RuleClient = Annotated[
    str | None,
    Query(
        alias="client",
        description="Slug of the client whose rule it is; left out: a rule of all clients, or, with a key that is "
        "bound to a client, of that one.",
    ),
]
Comment = Annotated[str | None, Query(max_length=2000, description="Why, for the list of versions.")]


def shown(row: Row[Any]) -> Item:
    """An alert rule as the API shows it."""
    return {
        "key": row.key,
        "client": row.client,
        "version": row.version,
        "spec": row.spec,
        "change": row.change,
        "author": row.author,
        "comment": row.comment,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def shown_version(row: Row[Any]) -> Item:
    """A version of an alert rule as the API shows it."""
    return {
        "version": row.version,
        "change": row.change,
        "spec": row.spec,
        "author": row.author,
        "comment": row.comment,
        "created_at": row.created_at,
    }


def tag_of(row: Row[Any]) -> str:
    return f'"{row.version}"'


def whose(connection: Connection, caller: Caller, client: str | None, *, is_kept: bool = False) -> Row[Any] | None:
    """The client whose rules are meant, None for all clients together. Raises Problem 404 if it cannot be seen."""
    slug = caller.client if client is None else client
    return None if slug is None else visible_client(connection, caller, slug, is_kept=is_kept)


def visible_rule(
    connection: Connection, caller: Caller, client: str | None, key: str, *, is_deleted_too: bool = False
) -> Row[Any]:
    """The rule's row. Raises Problem 404 if there is none that this caller may see."""
    owner = whose(connection, caller, client)
    row = None
    if is_slug(key):
        row = rulebook.find(connection, None if owner is None else owner.id, key, is_deleted_too=is_deleted_too)
    if row is None:
        raise not_found("alert rule", key)
    return row


# -- reading ----------------------------------------------------------------------------------------------------------


@router.get(
    "/v1/alert-rule-kinds",
    response_model=schemas.AlertRuleKindPage,
    responses=problems(401, 403, 422),
    summary="List the kinds of alert rules",
)
def list_kinds(_: Reader) -> Response:
    """What rules can look at, and what each kind can be told. The list is short and comes whole."""
    items = [
        {
            "name": kind.name,
            "title": kind.title,
            "unit": kind.unit,
            "target": kind.target,
            "params": kind.params.model_json_schema(),
        }
        for _, kind in sorted(KINDS.items())
    ]
    return answer({"items": items, "next_cursor": None})


@router.get(
    "/v1/alert-rules",
    response_model=schemas.AlertRulePage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List alert rules",
)
def list_rules(
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: Annotated[str | None, Query(description="Only rules of this client, by its slug.")] = None,
    kind: Annotated[str | None, Query(max_length=100, description="Only rules of this kind.")] = None,
    enabled: Annotated[
        Literal["true", "false", "any"], Query(description="`true`: those that are evaluated. `any`: all.")
    ] = "any",
) -> Response:
    """The rules of all clients together and of each client, by key. A bound key sees those of its client."""
    rule, slug = models.alert_rule, func.coalesce(models.client.c.slug, "")
    query = rulebook.select_rules().where(rule.c.deleted_at.is_(None)).order_by(rule.c.key, slug).limit(limit + 1)
    if kind is not None:
        query = query.where(rule.c.kind == kind)
    if enabled != "any":
        query = query.where(rule.c.is_enabled if enabled == "true" else ~rule.c.is_enabled)
    if cursor is not None:
        _, key, of_client = decode_cursor(cursor, tuple[Literal["alert-rules"], str, str])
        after = slug_of_cursor(key), of_client and slug_of_cursor(of_client)
        query = query.where(tuple_(rule.c.key, slug) > tuple_(*after))
    with reading(engine) as connection:
        owner = whose(connection, caller, client)
        if owner is not None:
            query = query.where(rule.c.client_id == owner.id)
        rows = connection.execute(query).all()
    return page(rows, limit, shown, lambda row: encode_cursor("alert-rules", row.key, row.client or ""))


@router.get(
    ONE,
    response_model=schemas.AlertRule,
    responses=problems(401, 403, 404, 422),
    summary="Get an alert rule",
)
def get_rule(key: RuleKey, caller: Reader, engine: Database, client: RuleClient = None) -> Response:
    """One rule as it holds now. The ETag header can go into If-Match of a PUT or DELETE."""
    with reading(engine) as connection:
        row = visible_rule(connection, caller, client, key)
    return answer(shown(row), headers={"ETag": tag_of(row)})


@router.get(
    f"{ONE}/versions",
    response_model=schemas.AlertRuleVersionPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List the versions of an alert rule",
)
def list_versions(
    key: RuleKey,
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: RuleClient = None,
) -> Response:
    """What the rule said, who changed it and why; newest first. A rule that was deleted keeps its versions."""
    version = models.alert_rule_version
    before = MAX_INT
    if cursor is not None:
        _, before = decode_cursor(cursor, tuple[Literal["alert-rule-versions"], int])
        if not 1 <= before <= MAX_INT:
            raise bad_cursor()
    with reading(engine) as connection:
        row = visible_rule(connection, caller, client, key, is_deleted_too=True)
        query = rulebook.select_versions(row.id).where(version.c.version < before).limit(limit + 1)
        rows = connection.execute(query).all()
    return page(rows, limit, shown_version, lambda last: encode_cursor("alert-rule-versions", last.version))


# -- writing ----------------------------------------------------------------------------------------------------------


def checked(
    connection: Connection, caller: Caller, client: str | None, body: Words, *, is_kept: bool = False
) -> tuple[RuleSpec, Row[Any] | None]:
    """The rule in the body, and the client whose it is, None for all. Raises Problem 404 or 422."""
    spec, errors = read_spec(body)
    owner = whose(connection, caller, client, is_kept=is_kept)
    if spec is not None:
        errors = whose_errors(connection, None if owner is None else owner.id, spec)
    if spec is None or errors:
        raise invalid(errors)
    return spec, owner


def said_by(connection: Connection, caller: Caller, comment: str | None) -> rulebook.Said:
    """Who says it and when; asked for under the lock, so that a later version has a later time."""
    return rulebook.Said(caller.name, comment, catalog.clock(connection))


@router.put(
    ONE,
    response_model=schemas.AlertRule,
    responses=created(schemas.AlertRule) | problems(400, 401, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra=body_of("AlertRuleSpec") | preconditions(),
    summary="Create or change an alert rule",
)
def put_rule(
    key: RuleKey,
    request: Request,
    caller: Writer,
    body: Body,
    engine: Database,
    client: RuleClient = None,
    comment: Comment = None,
) -> Response:
    """Make the rule if it is new, else give it a new version. The body is the whole rule: what is left out has its
    default, also `is_enabled`.

    The same rule may be sent any number of times: where it says what holds already there is no new version. What the
    rule watches no longer has its alerts closed (`rule_changed`). A rule that was deleted comes back.
    """
    if not is_slug(key):
        raise invalid([FieldError("{key}", "not_a_slug", f"A key has {SLUG_RULE}.")])
    with engine.begin() as connection:
        rulebook.lock(connection, is_patient=False)
        spec, owner = checked(connection, caller, client, body, is_kept=True)
        if owner is not None and owner.archived_at is not None:
            raise Problem(409, "client_archived", f"Client {owner.slug!r} is archived; PUT it to bring it back.")
        owner_id = None if owner is None else owner.id
        before = rulebook.find(connection, owner_id, key)
        check_preconditions(request, None if before is None else tag_of(before))
        rulebook.save(connection, owner_id, key, spec, said_by(connection, caller, comment))
        row = visible_rule(connection, caller, client, key)
    return answer(shown(row), 201 if before is None else 200, {"ETag": tag_of(row)})


@router.delete(
    ONE,
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 412, 422),
    openapi_extra=preconditions(),
    summary="Delete an alert rule",
)
def delete_rule(
    key: RuleKey,
    request: Request,
    caller: Writer,
    engine: Database,
    client: RuleClient = None,
    comment: Comment = None,
) -> Response:
    """Evaluate the rule no more, and close its alerts (`rule_deleted`). Its versions and its alerts stay."""
    with engine.begin() as connection:
        rulebook.lock(connection, is_patient=False)
        row = visible_rule(connection, caller, client, key)
        check_preconditions(request, tag_of(row))
        rulebook.delete(connection, row, said_by(connection, caller, comment))
    return Response(status_code=204)
