"""Channels: list, get, put, archive, try out."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection, Row, Select, func, insert, select, text, tuple_, update

from pulsewatch import catalog, models
from pulsewatch.api import notification_schemas
from pulsewatch.api.alert_queries import FLEET, shown_notification
from pulsewatch.api.alert_rules import whose
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    answer,
    check_preconditions,
    decode_cursor,
    encode_cursor,
    entity_tag,
    page,
)
from pulsewatch.api.channel_secrets import Vault, merged, refuse_kept
from pulsewatch.api.clients import SLUG_RULE, slug_of_cursor
from pulsewatch.api.deps import Body, Database, Reader, Writer, reading
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.model_bodies import read_body, read_model
from pulsewatch.api.notification_schemas import ChannelRequest
from pulsewatch.api.notifications import visible_notification
from pulsewatch.api.openapi import body_of, created, preconditions, problems
from pulsewatch.api.paths import WORD
from pulsewatch.auth import Caller
from pulsewatch.channels import CHANNELS
from pulsewatch.channels.base import ChannelKind
from pulsewatch.events import is_slug
from pulsewatch.notifications import try_out
from pulsewatch.problems import FieldError, Problem

router = APIRouter(tags=["channels"])

ONE = f"/v1/channels/{{key:{WORD}}}"
# Who makes channels goes one after the other: of two that make the same, the second finds it.
LOCK = text("select pg_advisory_xact_lock(hashtext('pulsewatch.channel'))")

channel = models.channel

ChannelKey = Annotated[str, Path(description="Key of the channel.", examples=["data-team"])]
ChannelClient = Annotated[
    str | None,
    Query(
        alias="client",
        description="Slug of the client whose channel it is; left out: a channel of all clients, or, with a key that "
        "is bound to a client, of that one.",
    ),
]


def shown(row: Row[Any], vault: Vault) -> Item:
    """A channel as the API shows it: of its secrets the names alone."""
    secrets = vault.read(row)
    return {
        "key": row.key,
        "client": row.client,
        "kind": row.kind,
        "title": row.title,
        "config": row.config,
        "secrets_set": None if secrets is None else sorted(secrets),
        "rate_per_min": row.rate_per_min,
        "is_enabled": row.is_enabled,
        "disabled_reason": row.disabled_reason,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _select() -> Select[Any]:
    client = models.client
    return select(channel, client.c.slug.label("client")).select_from(
        channel.outerjoin(client, client.c.id == channel.c.client_id)
    )


def _find(connection: Connection, client_id: int | None, key: str, *, is_locked: bool = False) -> Row[Any] | None:
    """The channel of this key of the client, or of all clients if that is None; also one that was archived."""
    query = _select().where(channel.c.client_id.is_not_distinct_from(client_id), channel.c.key == key)
    if is_locked:
        query = query.with_for_update(of=channel, key_share=True)
    return connection.execute(query).first()


def _visible(
    connection: Connection, caller: Caller, client: str | None, key: str, *, is_locked: bool = False
) -> Row[Any]:
    """The channel's row. Raises Problem 404 if there is none that this caller may see."""
    owner = whose(connection, caller, client)
    row = None
    if is_slug(key):
        row = _find(connection, None if owner is None else owner.id, key, is_locked=is_locked)
    if row is None or row.deleted_at is not None:
        raise not_found("channel", key)
    return row


# -- reading ----------------------------------------------------------------------------------------------------------


@router.get(
    "/v1/channel-kinds",
    response_model=notification_schemas.ChannelKindPage,
    responses=problems(401, 403, 422),
    summary="List the kinds of channels",
)
def list_kinds(_: Reader) -> Response:
    """The ways to tell people, and what each must be told. The list is short and comes whole."""
    items = [
        {
            "name": kind.name,
            "title": kind.title,
            "config": kind.Config.model_json_schema(),
            "secrets": kind.Secrets.model_json_schema(),
        }
        for _, kind in sorted(CHANNELS.items())
    ]
    return answer({"items": items, "next_cursor": None})


@router.get(
    "/v1/channels",
    response_model=notification_schemas.ChannelPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List channels",
)
def list_channels(
    request: Request,
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: Annotated[str | None, Query(description="Only channels of this client, by its slug.")] = None,
    kind: Annotated[str | None, Query(max_length=100, description="Only channels of this kind.")] = None,
) -> Response:
    """The channels of all clients together and of each client, by key. A bound key sees those of its client."""
    slug = func.coalesce(models.client.c.slug, "")
    query = _select().where(channel.c.deleted_at.is_(None)).order_by(channel.c.key, slug).limit(limit + 1)
    if kind is not None:
        query = query.where(channel.c.kind == kind)
    if cursor is not None:
        _, key, of_client = decode_cursor(cursor, tuple[Literal["channels"], str, str])
        after = slug_of_cursor(key), of_client and slug_of_cursor(of_client)
        query = query.where(tuple_(channel.c.key, slug) > tuple_(*after))
    with reading(engine) as connection:
        owner = whose(connection, caller, client)
        if owner is not None:
            query = query.where(channel.c.client_id == owner.id)
        rows = connection.execute(query).all()
    vault = Vault(request)
    return page(
        rows, limit, lambda row: shown(row, vault), lambda row: encode_cursor("channels", row.key, row.client or "")
    )


@router.get(
    ONE,
    response_model=notification_schemas.Channel,
    responses=problems(401, 403, 404, 422),
    summary="Get a channel",
)
def get_channel(
    key: ChannelKey, request: Request, caller: Reader, engine: Database, client: ChannelClient = None
) -> Response:
    """One channel, without its secrets. The ETag header can go into If-Match of a PUT or DELETE."""
    with reading(engine) as connection:
        row = _visible(connection, caller, client, key)
    item = shown(row, Vault(request))
    return answer(item, headers={"ETag": entity_tag(item)})


# -- writing ----------------------------------------------------------------------------------------------------------


@router.put(
    ONE,
    response_model=notification_schemas.Channel,
    responses=created(notification_schemas.Channel) | problems(400, 401, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra=body_of("ChannelRequest") | preconditions(),
    summary="Create or change a channel",
)
def put_channel(
    key: ChannelKey,
    request: Request,
    caller: Writer,
    body: Body,
    engine: Database,
    client: ChannelClient = None,
) -> Response:
    """Make the channel if it is new, and set what the body says: absent is unchanged, null is cleared.

    The same request may be sent any number of times. Secrets stay as they are stored unless they are given anew;
    where the channel leads elsewhere than before they have to be. With another kind they are gone.
    """
    if not is_slug(key):
        raise invalid([FieldError("{key}", "not_a_slug", f"A key has {SLUG_RULE}.")])
    vault = Vault(request)
    with engine.begin() as connection:
        owner = whose(connection, caller, client, is_kept=True)
        if owner is not None and owner.archived_at is not None:
            raise Problem(409, "client_archived", f"Client {owner.slug!r} is archived; PUT it to bring it back.")
        owner_id = None if owner is None else owner.id
        connection.execute(LOCK)
        row = _find(connection, owner_id, key, is_locked=True)
        before = None if row is None or row.deleted_at is not None else row
        check_preconditions(request, None if before is None else entity_tag(shown(before, vault)))
        values = _read(body, before, vault)
        _save(connection, owner_id, key, row, values)
        item = shown(_visible(connection, caller, client, key), vault)
    return answer(item, 201 if before is None else 200, {"ETag": entity_tag(item)})


def _read(body: Mapping[str, Any], before: Row[Any] | None, vault: Vault) -> dict[str, Any]:
    """The columns that the body sets. Raises Problem 422, and 409 where secrets cannot be kept."""
    said = read_body(ChannelRequest, body)
    kind = _kind(said.kind if said.kind is not None or before is None else before.kind)
    same = before if before is not None and before.kind == kind.name else None
    config = said.config
    if config is None:
        if same is None:
            raise invalid([FieldError("/config", "missing_field", f"A channel of kind {kind.name} needs its config.")])
        config = same.config
    values = {"kind": kind.name, **_kind_columns(kind, config, said.secrets or {}, same, vault)}
    if "title" in body:
        values["title"] = said.title
    if said.rate_per_min is not None:
        values["rate_per_min"] = said.rate_per_min
    if said.is_enabled is not None:
        values["is_enabled"] = said.is_enabled
        if before is None or before.is_enabled != said.is_enabled:
            values |= {"disabled_reason": None, "permanent_failures": 0}
    return values


def _kind(name: str | None) -> ChannelKind[Any, Any]:
    kind = CHANNELS.get(name or "")
    if kind is None:
        code = "missing_field" if name is None else "unknown_value"
        raise invalid([FieldError("/kind", code, f"One of {', '.join(sorted(CHANNELS))} is expected.")])
    return kind


def _kind_columns(
    kind: ChannelKind[Any, Any], said: Any, given: Mapping[str, Any], same: Row[Any] | None, vault: Vault
) -> dict[str, Any]:
    """config, and secrets where they change. `same` is the channel before, if it was of this kind already."""
    stored = vault.read(same)
    named = merged(stored, given)
    config, errors = read_model(kind.Config, said, ("config",))
    secrets, wrong = read_model(kind.Secrets, named, ("secrets",))
    if config is None or secrets is None:
        raise invalid([*errors, *wrong])
    conflict = kind.conflict(config, secrets)
    if conflict is not None:
        raise invalid([conflict])
    columns = {"config": config.model_dump(mode="json")}
    changed = []
    if same is not None:
        changed = [name for name in kind.Config.DESTINATION if same.config.get(name) != columns["config"].get(name)]
        changed += [name for name in kind.Secrets.DESTINATION if (stored or {}).get(name) != named.get(name)]
    leads_elsewhere = bool(changed)
    if leads_elsewhere:
        refuse_kept(stored or {}, given, list(dict.fromkeys(changed)))
    # Encrypted, the same is never the same: what has not changed is left alone. What cannot be read must not come
    # back to life elsewhere.
    if same is None or (given and named != stored) or (leads_elsewhere and stored is None):
        columns["secrets"] = vault.seal(named)
    return columns


# What was learnt of the receiver; another address or login may be another receiver.
UNHEARD: dict[str, Any] = {"quiet_until": None, "unanswered_since": None}
# Of a channel that was archived nothing is left but its number, which its notifications refer to.
FRESH: dict[str, Any] = UNHEARD | {
    "title": None,
    "secrets": None,
    "rate_per_min": 60,
    "is_enabled": True,
    "disabled_reason": None,
    "permanent_failures": 0,
    "deleted_at": None,
}


def _save(connection: Connection, owner_id: int | None, key: str, row: Row[Any] | None, values: dict[str, Any]) -> None:
    if row is None:
        connection.execute(insert(channel).values(client_id=owner_id, key=key, **values))
        return
    if row.deleted_at is not None:
        values = FRESH | {"created_at": func.now()} | values
    elif all(row._mapping[name] == value for name, value in values.items()):
        return
    elif row.config != values["config"] or "secrets" in values:
        values = UNHEARD | values
    _set(connection, row, **values)


def _set(connection: Connection, row: Row[Any], **values: object) -> None:
    connection.execute(update(channel).where(channel.c.id == row.id).values(updated_at=func.now(), **values))


@router.delete(
    ONE,
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 412, 422),
    openapi_extra=preconditions(),
    summary="Delete a channel",
)
def delete_channel(
    key: ChannelKey, request: Request, caller: Writer, engine: Database, client: ChannelClient = None
) -> Response:
    """Send nothing there any more, and forget its secrets. What was sent stays in the lists; rules that name it tell
    their other channels. PUT makes it anew.
    """
    with engine.begin() as connection:
        row = _visible(connection, caller, client, key, is_locked=True)
        check_preconditions(request, entity_tag(shown(row, Vault(request))))
        _set(connection, row, deleted_at=func.now(), secrets=None)
    return Response(status_code=204)


# -- acts -------------------------------------------------------------------------------------------------------------


@router.post(
    f"{ONE}:test",
    status_code=202,
    response_model=notification_schemas.Notification,
    responses=problems(401, 403, 404, 422),
    summary="Send a test message to a channel",
)
def try_channel(key: ChannelKey, caller: Writer, engine: Database, client: ChannelClient = None) -> Response:
    """Send a message that says that it is a test, the way that all messages go; also where the channel is disabled.

    The worker sends it within seconds. `GET /v1/notifications/{id}`, in `Location`, tells how it went.
    """
    with engine.begin() as connection:
        row = _visible(connection, caller, client, key)
        client_id = FLEET if row.client_id is None else row.client_id
        id_ = try_out(connection, row.id, client_id, row.client, catalog.clock(connection))
        item = shown_notification(visible_notification(connection, caller, str(id_)), caller)
    return answer(item, 202, {"Location": f"/v1/notifications/{id_}"})


@router.post(
    f"{ONE}:enable",
    response_model=notification_schemas.Channel,
    responses=problems(401, 403, 404, 422),
    summary="Put a channel back into use",
)
def enable_channel(
    key: ChannelKey, request: Request, caller: Writer, engine: Database, client: ChannelClient = None
) -> Response:
    """Send there again, after PulseWatch itself or somebody disabled it: what waited is told. Where it is in use
    already nothing changes.
    """
    vault = Vault(request)
    with engine.begin() as connection:
        row = _visible(connection, caller, client, key, is_locked=True)
        if not row.is_enabled:
            _set(connection, row, is_enabled=True, disabled_reason=None, permanent_failures=0)
            row = _visible(connection, caller, client, key)
    item = shown(row, vault)
    return answer(item, headers={"ETag": entity_tag(item)})
