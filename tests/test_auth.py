"""API keys: making, storing, recognising, revoking."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, event, text

from pulsewatch.auth import (
    CACHED_KEYS,
    Caller,
    Keyring,
    Role,
    create_key,
    list_keys,
    new_key,
    revoke_key,
    secret_digest,
)
from pulsewatch.db import make_engine
from pulsewatch.problems import Problem


class Clock:
    """Time that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def own(database: str) -> Iterator[Engine]:
    """A database of the test's own, where everything commits."""
    engine = make_engine(database, pool_size=2, application_name="t")
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyring(own: Engine, clock: Clock) -> Keyring:
    return Keyring(own, clock=clock)


def made(engine: Engine, role: Role = Role.READ, client: str | None = None, **said: Any) -> tuple[UUID, str]:
    with engine.begin() as connection:
        id_, key = create_key(connection, role, client, **said)
    return id_, f"Bearer {key}"


def refusal(keyring: Keyring, header: str | None) -> str:
    with pytest.raises(Problem) as refused:
        keyring.caller(header)
    assert refused.value.status == 401
    assert "WWW-Authenticate" in refused.value.headers
    return refused.value.detail


class Queries:
    """Counts the statements that reach a database."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        event.listen(engine, "before_cursor_execute", self.note)

    def note(self, *_: object) -> None:
        self.count += 1


def test_a_key_has_256_random_bits_and_no_two_are_equal() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"pw_[A-Za-z0-9_-]{43}", key) for key in keys)


def test_only_the_digest_of_a_key_is_stored(connection: Connection) -> None:
    _, key = create_key(connection, Role.ADMIN, "acme", name="ci")
    stored = connection.execute(text("select * from pulsewatch.api_key")).mappings().all()

    assert [bytes(row["secret_digest"]) for row in stored] == [secret_digest(key)]
    assert key not in str(stored)
    assert key not in str(list_keys(connection))


def test_a_key_for_a_new_client_makes_the_client_once(connection: Connection) -> None:
    create_key(connection, Role.INGEST, "acme")
    create_key(connection, Role.READ, "acme")

    assert connection.execute(text("select slug from pulsewatch.client")).scalars().all() == ["acme"]
    assert {row.client for row in list_keys(connection)} == {"acme"}


@pytest.mark.parametrize(
    ("client", "said", "pointer"),
    [
        ("a b", {}, "/client"),
        ("", {}, "/client"),
        (None, {"name": "x" * 201}, "/name"),
        (None, {"name": "\0"}, "/name"),
        (None, {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "/expires_at"),
        (None, {"expires_at": datetime(9000, 1, 1, tzinfo=UTC)}, "/expires_at"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    connection: Connection, client: str | None, said: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Problem) as refused:
        create_key(connection, Role.READ, client, **said)
    assert (refused.value.status, [error.pointer for error in refused.value.errors]) == (422, [pointer])
    assert list_keys(connection) == []


def test_revoking_twice_keeps_the_first_time_and_an_unknown_key_is_told(connection: Connection) -> None:
    id_, _ = create_key(connection, Role.READ, "acme")
    connection.execute(text("update pulsewatch.api_key set revoked_at = '2026-01-01T00:00:00Z'"))

    assert revoke_key(connection, id_) is True
    assert list_keys(connection)[0].revoked_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert revoke_key(connection, uuid4()) is False


def test_a_key_is_revoked_and_listed_only_for_its_own_client(connection: Connection) -> None:
    id_, _ = create_key(connection, Role.READ, "acme")
    create_key(connection, Role.READ, None)
    acme: int = connection.execute(text("select id from pulsewatch.client where slug = 'acme'")).scalar_one()

    assert revoke_key(connection, id_, client_id=acme + 1) is False
    assert revoke_key(connection, id_, client_id=acme) is True
    assert [row.id for row in list_keys(connection, client_id=acme)] == [id_]
    assert len(list_keys(connection)) == 2


@pytest.mark.parametrize(
    ("role", "ingest", "read", "write", "admin"),
    [
        (Role.INGEST, True, False, False, False),
        (Role.READ, False, True, False, False),
        (Role.WRITE, True, True, True, False),
        (Role.ADMIN, True, True, True, True),
    ],
)
def test_a_role_includes_what_it_says(role: Role, ingest: bool, read: bool, write: bool, admin: bool) -> None:
    caller = Caller(uuid4(), role, None, None)
    assert (caller.may_ingest, caller.may_read, caller.may_write, caller.may_admin) == (ingest, read, write, admin)


def test_a_valid_key_tells_who_calls(own: Engine, keyring: Keyring) -> None:
    bound, header = made(own, Role.WRITE, "acme")
    everywhere, wide = made(own, Role.ADMIN)

    caller = keyring.caller(header)
    assert (caller.key_id, caller.role, caller.client) == (bound, Role.WRITE, "acme")
    assert caller.client_id is not None
    assert keyring.caller(wide) == Caller(everywhere, Role.ADMIN, None, None)
    assert keyring.caller(header.replace("Bearer", "bearer")) == caller
    assert keyring.caller(f" {header} ") == caller


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Basic abc", "pw_" + "x" * 43, "Bearer pw_short", "Bearer pw_" + "é" * 43, "Bearer a b"],
)
def test_a_header_that_holds_no_key_is_refused_without_asking_the_database(
    own: Engine, keyring: Keyring, header: str | None
) -> None:
    queries = Queries(own)
    refusal(keyring, header)
    assert keyring.cached(header) is None
    assert queries.count == 0


def test_a_known_key_is_believed_for_five_seconds_without_asking(own: Engine, keyring: Keyring, clock: Clock) -> None:
    _, header = made(own)
    assert keyring.cached(header) is None
    caller = keyring.caller(header)
    queries = Queries(own)

    clock.now_s += 4.9
    assert keyring.cached(header) == keyring.caller(header) == caller
    assert queries.count == 0
    clock.now_s += 0.2
    assert keyring.cached(header) is None
    assert keyring.caller(header) == caller
    assert queries.count == 1


def test_an_unknown_key_is_remembered_too_and_found_once_it_exists(own: Engine, keyring: Keyring, clock: Clock) -> None:
    key = new_key()
    assert refusal(keyring, f"Bearer {key}") == "The API key is not known."
    queries = Queries(own)
    refusal(keyring, f"Bearer {key}")
    assert queries.count == 0

    with own.begin() as connection:
        connection.execute(
            text("insert into pulsewatch.api_key (secret_digest, role) values (:digest, 'read')"),
            {"digest": secret_digest(key)},
        )
    clock.now_s += 5.1
    assert keyring.caller(f"Bearer {key}").role is Role.READ


def test_a_revoked_key_is_refused_after_five_seconds_in_every_process(
    own: Engine, keyring: Keyring, clock: Clock
) -> None:
    id_, header = made(own)
    keyring.caller(header)
    with own.begin() as connection:
        revoke_key(connection, id_)

    clock.now_s += 5.1
    assert refusal(keyring, header) == "The API key was revoked."
    assert keyring.cached(header) is None


def test_the_process_that_revokes_a_key_forgets_it_at_once(own: Engine, keyring: Keyring) -> None:
    id_, header = made(own)
    _, other = made(own)
    keyring.caller(header)
    keyring.caller(other)
    with own.begin() as connection:
        revoke_key(connection, id_)
    keyring.forget(id_)

    assert keyring.cached(header) is None
    assert keyring.cached(other) is not None
    refusal(keyring, header)


def test_a_key_is_not_believed_beyond_its_expiry(own: Engine, keyring: Keyring, clock: Clock) -> None:
    _, header = made(own, expires_at=datetime.now(UTC) + timedelta(seconds=3))
    assert keyring.caller(header).may_read

    clock.now_s += 3.1
    assert keyring.cached(header) is None
    with own.begin() as connection:
        connection.execute(text("update pulsewatch.api_key set expires_at = now() - interval '1 second'"))
    assert refusal(keyring, header) == "The API key has expired."


def test_the_last_use_is_written_at_most_once_a_minute(own: Engine, keyring: Keyring, clock: Clock) -> None:
    _, header = made(own)

    def last_use() -> datetime | None:
        with own.begin() as connection:
            used: datetime | None = connection.execute(text("select last_used_at from pulsewatch.api_key")).scalar()
            return used

    assert last_use() is None
    keyring.caller(header)
    first = last_use()
    assert first is not None
    clock.now_s += 6
    keyring.caller(header)
    assert last_use() == first

    with own.begin() as connection:
        connection.execute(text("update pulsewatch.api_key set last_used_at = now() - interval '61 seconds'"))
    clock.now_s += 6
    keyring.caller(header)
    assert last_use() != first
    assert last_use() > first - timedelta(seconds=1)  # type: ignore[operator]  # it is a time by now


def test_a_flood_of_invented_keys_does_not_push_out_a_good_one(
    own: Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CACHED_KEYS == 10_000
    monkeypatch.setattr("pulsewatch.auth.CACHED_KEYS", 5)
    _, header = made(own)
    caller = keyring.caller(header)
    for _ in range(20):
        refusal(keyring, f"Bearer {new_key()}")

    assert keyring.cached(header) == caller
    assert len(keyring._refused) == 5


def test_more_good_keys_than_can_be_remembered_all_work(
    own: Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulsewatch.auth.CACHED_KEYS", 2)
    headers = [made(own)[1] for _ in range(4)]
    for _ in range(2):
        assert all(keyring.caller(header).may_read for header in headers)
    assert len(keyring._good) == 2
