"""API keys: how they are made, stored, shown, revoked, and who stands behind a request.

A key is `pw_` and 43 URL-safe characters: 256 random bits. Only its sha256 is stored. A slow hash would buy nothing,
because there is nothing to guess, and would cost a processor core on every request.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from pulsewatch import models
from pulsewatch.events import is_slug
from pulsewatch.problems import FieldError, Problem

KEY_PREFIX = "pw_"
_BEARER = re.compile(r"\s*(?i:bearer)\s+(pw_[A-Za-z0-9_-]{43})\s*", re.ASCII)

MAX_NAME_LENGTH = 200
MAX_LIFETIME = timedelta(days=36_525)
# How long a process believes what it read: a revoked key is refused everywhere after this time at the latest.
CACHE_S = 5.0
CACHED_KEYS = 10_000


class Role(StrEnum):
    """What a key may do. admin includes write, write includes read and ingest; ingest reads nothing."""

    INGEST = "ingest"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


MAY_INGEST = frozenset({Role.INGEST, Role.WRITE, Role.ADMIN})
MAY_READ = frozenset({Role.READ, Role.WRITE, Role.ADMIN})
MAY_WRITE = frozenset({Role.WRITE, Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `client_id` and `client` (its slug) are None for a key that sees every client.

    `name` is that of the key: who did something, as far as is known.
    """

    key_id: UUID
    role: Role
    client_id: int | None
    client: str | None
    name: str | None = None

    @property
    def may_ingest(self) -> bool:
        return self.role in MAY_INGEST

    @property
    def may_read(self) -> bool:
        return self.role in MAY_READ

    @property
    def may_write(self) -> bool:
        return self.role in MAY_WRITE

    @property
    def may_admin(self) -> bool:
        return self.role is Role.ADMIN


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def secret_digest(key: str) -> bytes:
    """What is stored of a key: its sha256 (32 bytes)."""
    return sha256(key.encode()).digest()


def create_key(
    connection: Connection,
    role: Role,
    client_slug: str | None,
    *,
    name: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[UUID, str]:
    """Make a key and return its id and the key itself, which nobody can read again later.

    A client that does not exist yet is created, so that the first key can come before the first event.
    Raises Problem (422) for a client that is no slug, a name that is too long, or an expiry that is past.
    """
    errors = _key_errors(connection, client_slug, name, expires_at)
    if errors:
        raise Problem(422, "invalid", "The key cannot be made as asked.", errors=errors)
    key = new_key()
    statement = insert(models.api_key).values(
        secret_digest=secret_digest(key),
        role=role.value,
        client_id=None if client_slug is None else _client_id(connection, client_slug),
        name=name,
        expires_at=expires_at,
    )
    key_id: UUID = connection.execute(statement.returning(models.api_key.c.id)).scalar_one()
    return key_id, key


def _key_errors(
    connection: Connection, client_slug: str | None, name: str | None, expires_at: datetime | None
) -> list[FieldError]:
    errors = []
    if client_slug is not None and not is_slug(client_slug):
        errors.append(
            FieldError(
                "/client",
                "not_a_slug",
                "A client's slug has 1 to 100 letters, digits, dots, dashes and underscores, "
                "and starts with a letter or digit.",
            )
        )
    if name is not None and len(name) > MAX_NAME_LENGTH:
        errors.append(FieldError("/name", "too_long", f"A name has at most {MAX_NAME_LENGTH} characters."))
    if name is not None and "\0" in name:
        errors.append(FieldError("/name", "nul_character", "A name cannot contain the NUL character."))
    if expires_at is not None:
        now: datetime = connection.execute(text("select now()")).scalar_one()
        if not now < expires_at <= now + MAX_LIFETIME:
            detail = "expires_at lies in the past, or over 100 years ahead."
            errors.append(FieldError("/expires_at", "out_of_range", detail))
    return errors


def _client_id(connection: Connection, slug: str) -> int:
    """The client's id, making it if it is new; it is not erased before the transaction ends."""
    client = models.client
    kept = select(client.c.id).where(client.c.slug == slug).with_for_update(read=True, key_share=True)
    while True:
        connection.execute(pg_insert(client).values(slug=slug).on_conflict_do_nothing())
        client_id: int | None = connection.execute(kept).scalar_one_or_none()
        if client_id is not None:
            return client_id
        # It was there for the first statement, and erased before the second.


def select_keys() -> Any:  # SQLAlchemy's Select of many columns has no shorter honest type.
    """The select of all keys as they are shown, without their digests; newest first."""
    key, client = models.api_key, models.client
    return (
        select(
            key.c.id,
            key.c.role,
            client.c.slug.label("client"),
            key.c.name,
            key.c.created_at,
            key.c.expires_at,
            key.c.revoked_at,
            key.c.last_used_at,
        )
        .select_from(key.outerjoin(client, client.c.id == key.c.client_id))
        .order_by(key.c.created_at.desc(), key.c.id)
    )


def list_keys(connection: Connection, *, client_id: int | None = None) -> list[Row[Any]]:
    """All keys, or those bound to one client: id, role, client, name and its times. Never the key."""
    statement = select_keys()
    if client_id is not None:
        statement = statement.where(models.api_key.c.client_id == client_id)
    return list(connection.execute(statement))


def revoke_key(connection: Connection, key_id: UUID, *, client_id: int | None = None) -> bool:
    """Refuse the key from now on; every process knows within 5 s. False if there is no such key.

    `client_id` limits it to the keys of one client. Revoking twice keeps the first time.
    """
    key = models.api_key
    statement = update(key).where(key.c.id == key_id)
    if client_id is not None:
        statement = statement.where(key.c.client_id == client_id)
    statement = statement.values(revoked_at=text("coalesce(revoked_at, now())"))
    return connection.execute(statement.returning(key.c.id)).first() is not None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read about a key, and until when (by the keyring's clock) it may be believed."""

    caller: Caller | None
    refusal: str
    until: float


# One statement: who is it, how long may that be believed, and is it time to note its use?
_LOOK_UP = text(
    """
    select
        k.id, k.role, k.client_id, c.slug as client, k.name,
        k.revoked_at is not null as is_revoked,
        extract(epoch from k.expires_at - now())::float8 as expires_in_s,
        coalesce(k.last_used_at < now() - interval '1 minute', true) as is_use_due
    from pulsewatch.api_key as k
    left join pulsewatch.client as c on c.id = k.client_id
    where k.secret_digest = :digest
    """
)
# The condition stands here too: of several processes that found it due, one writes.
_NOTE_USE = text(
    """
    update pulsewatch.api_key set last_used_at = now()
    where id = :id and coalesce(last_used_at < now() - interval '1 minute', true)
    """
)


class Keyring:
    """Who stands behind an `Authorization` header. Safe to share between threads.

    Answers are believed for 5 s, counted from before they were read. Refused keys are remembered too, apart from
    the good ones, so that a flood of invented keys neither reaches the database twice nor pushes good keys out.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._good: dict[bytes, _Known] = {}
        self._refused: dict[bytes, _Known] = {}

    def cached(self, authorization: str | None) -> Caller | None:
        """The caller if he is known without asking the database, else None; never waits."""
        key = _bearer_key(authorization)
        if key is None:
            return None
        known = self._good.get(secret_digest(key))
        return known.caller if known is not None and known.until > self._clock() else None

    def caller(self, authorization: str | None) -> Caller:
        """The caller; asks the database where memory does not know.

        Raises Problem (401) for a header that is missing, malformed, or holds a key that is not valid, and lets
        SQLAlchemy's errors pass when the database is away.
        """
        key = _bearer_key(authorization)
        if key is None:
            raise unauthorized(authorization)
        digest = secret_digest(key)
        now = self._clock()
        known = self._good.get(digest) or self._refused.get(digest)
        if known is None or known.until <= now:
            known = self._look_up(digest, now)
            self._remember(digest, known)
        if known.caller is None:
            raise _refused(known.refusal)
        return known.caller

    def forget(self, key_id: UUID) -> None:
        """Drop a key that this process has just revoked, instead of believing in it for some seconds more."""
        with self._lock:
            for digest, known in list(self._good.items()):
                if known.caller is not None and known.caller.key_id == key_id:
                    del self._good[digest]

    def _look_up(self, digest: bytes, now: float) -> _Known:
        with self._engine.begin() as connection:
            row = connection.execute(_LOOK_UP, {"digest": digest}).first()
            if row is None:
                return _Known(None, "The API key is not known.", now + CACHE_S)
            if row.is_revoked:
                return _Known(None, "The API key was revoked.", now + CACHE_S)
            if row.expires_in_s is not None and row.expires_in_s <= 0:
                return _Known(None, "The API key has expired.", now + CACHE_S)
            if row.is_use_due:
                connection.execute(_NOTE_USE, {"id": row.id})
        caller = Caller(row.id, Role(row.role), row.client_id, row.client, row.name)
        believed_s = CACHE_S if row.expires_in_s is None else min(CACHE_S, row.expires_in_s)
        return _Known(caller, "", now + believed_s)

    def _remember(self, digest: bytes, known: _Known) -> None:
        with self._lock:
            self._good.pop(digest, None)
            self._refused.pop(digest, None)
            kept = self._refused if known.caller is None else self._good
            while len(kept) >= CACHED_KEYS:
                del kept[next(iter(kept))]  # the oldest: a dict keeps the order of insertion
            kept[digest] = known


def _bearer_key(authorization: str | None) -> str | None:
    """The key in `Bearer pw_...`, or None where the header holds nothing that could be one."""
    if authorization is None:
        return None
    match = _BEARER.fullmatch(authorization)
    return None if match is None else match[1]


def unauthorized(authorization: str | None) -> Problem:
    """The 401 for a header that is missing or holds no key at all. It never repeats what was sent."""
    if not authorization:
        return Problem(
            401,
            "unauthorized",
            "Send an API key: 'Authorization: Bearer pw_...'.",
            headers={"WWW-Authenticate": 'Bearer realm="pulsewatch"'},
        )
    return _refused("The Authorization header must be 'Bearer ' and an API key of 'pw_' and 43 characters.")


def _refused(detail: str) -> Problem:
    challenge = 'Bearer realm="pulsewatch", error="invalid_token"'
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
