"""Two requests, or a request and an erasure, at the same moment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from httpx2 import Response
from sqlalchemy import Connection

from pulsewatch import catalog, resolve
from tests.api.conftest import Api, World, problem
from tests.serving import wait_until

WAITING = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and application_name = 'api under test' and wait_event_type = 'Lock'"
)


def is_waiting(world: World) -> bool:
    # In a transaction of its own each time: PostgreSQL shows one transaction the same list of sessions throughout.
    with world.begin() as connection:
        return bool(connection.exec_driver_sql(WAITING).scalar_one() == 1)


@contextmanager
def meeting(
    world: World,
    send: Callable[[], Response],
    answers: list[Response],
    then: Callable[[Connection], None] = lambda _: None,
) -> Iterator[Connection]:
    """The block's transaction stays open until the request, sent after the block, waits for it.

    Then come `then`, in the same transaction, the commit, and the answer.
    """
    thread = threading.Thread(target=lambda: answers.append(send()))
    with world.begin() as connection:
        yield connection
        thread.start()
        wait_until(lambda: is_waiting(world), "the request waits")
        then(connection)
    thread.join(30)
    assert len(answers) == 1


def erase(connection: Connection, slug: str) -> None:
    """What the last step of an erasure does to a client that has no more than keys."""
    lock(connection, slug)
    of_client = "(select id from pulsewatch.client where slug = %s)"
    connection.exec_driver_sql(f"delete from pulsewatch.api_key where client_id = {of_client}", (slug,))
    connection.exec_driver_sql("delete from pulsewatch.client where slug = %s", (slug,))


def lock(connection: Connection, slug: str) -> None:
    """How an erasure's last step begins."""
    connection.exec_driver_sql("select from pulsewatch.client where slug = %s for update", (slug,))


def during_erasure(world: World, slug: str, send: Callable[[], Response], *, is_deleted: bool) -> Response:
    """The answer to a request that comes after the client's row was locked or, as well, deleted."""
    answers: list[Response] = []
    with meeting(world, send, answers, lambda connection: erase(connection, slug)) as connection:
        (erase if is_deleted else lock)(connection, slug)
    return answers[0]


@pytest.mark.parametrize(("headers", "status", "title"), [({"If_None_Match": "*"}, 412, "first"), ({}, 200, "second")])
def test_of_two_puts_that_make_a_client_at_once_one_makes_it(
    world: World, admin: Api, slug: str, headers: dict[str, str], status: int, title: str
) -> None:
    path, answers = f"/v1/clients/{slug}", list[Response]()
    with meeting(world, lambda: admin.put(path, {"title": "second"}, **headers), answers) as connection:
        catalog.upsert_client(connection, slug, {"title": "first"}, catalog.clock(connection))

    assert answers[0].status_code == status
    assert admin.get(path).json()["title"] == title


@pytest.mark.parametrize(("headers", "status", "title"), [({"If_None_Match": "*"}, 412, "first"), ({}, 200, "second")])
def test_of_two_puts_that_make_a_pipeline_at_once_one_makes_it(
    world: World, admin: Api, slug: str, headers: dict[str, str], status: int, title: str
) -> None:
    client_id = client_of(world, admin, slug)
    path, answers = f"/v1/clients/{slug}/pipelines/nightly", list[Response]()
    with meeting(world, lambda: admin.put(path, {"title": "second"}, **headers), answers) as connection:
        resolve.pipelines(connection, [(client_id, "", "nightly")], max_pipelines=10)
        catalog.upsert_pipeline(connection, client_id, "", "nightly", {"title": "first"}, catalog.clock(connection))

    assert answers[0].status_code == status
    assert admin.get(path).json()["title"] == title


def client_of(world: World, admin: Api, slug: str) -> int:
    admin.put(f"/v1/clients/{slug}", {})
    with world.begin() as connection:
        row = catalog.lock_client(connection, slug)
    assert row is not None
    client_id: int = row.id
    return client_id


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_put_during_an_erasure_makes_the_client_anew(world: World, admin: Api, slug: str, is_deleted: bool) -> None:
    before, path = client_of(world, admin, slug), f"/v1/clients/{slug}"

    answer = during_erasure(world, slug, lambda: admin.put(path, {"title": "new"}), is_deleted=is_deleted)

    assert (answer.status_code, answer.json()["title"]) == (201, "new")
    assert client_of(world, admin, slug) != before


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_put_of_a_pipeline_during_an_erasure_finds_no_client(
    world: World, admin: Api, slug: str, is_deleted: bool
) -> None:
    client_of(world, admin, slug)
    path = f"/v1/clients/{slug}/pipelines/nightly"

    answer = during_erasure(world, slug, lambda: admin.put(path, {}), is_deleted=is_deleted)

    assert problem(answer) == (404, "not_found", [])


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_key_made_during_an_erasure_is_of_the_client_made_anew(
    world: World, admin: Api, slug: str, is_deleted: bool
) -> None:
    before, wanted = client_of(world, admin, slug), {"role": "read", "client": slug}

    answer = during_erasure(world, slug, lambda: admin.post("/v1/keys", wanted), is_deleted=is_deleted)

    assert answer.status_code == 201
    assert client_of(world, admin, slug) != before
    assert Api(world.client, answer.json()["key"]).get(f"/v1/clients/{slug}").status_code == 200


REQUESTS = [
    ("GET", "/v1/clients/{slug}", None),
    ("PUT", "/v1/clients/{slug}", {}),
    ("DELETE", "/v1/clients/{slug}", None),
    ("PUT", "/v1/clients/{slug}/pipelines/nightly", {}),
    ("POST", "/v1/keys", {"role": "admin"}),
]


@pytest.mark.parametrize("is_made_anew", [False, True])
@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_a_key_that_is_still_believed_after_its_client_was_erased_finds_nothing(
    world: World, admin: Api, slug: str, method: str, path: str, body: object, is_made_anew: bool
) -> None:
    bound = world.caller("admin", slug)
    assert bound.get(f"/v1/clients/{slug}").status_code == 200
    with world.begin() as connection:
        erase(connection, slug)
    if is_made_anew:
        admin.put(f"/v1/clients/{slug}", {"title": "another"})

    answer = bound.request(method, path.format(slug=slug), json=body)

    assert problem(answer) == (404, "not_found", [])
    again = admin.get(f"/v1/clients/{slug}")
    assert again.status_code == (200 if is_made_anew else 404)
    assert not is_made_anew or (again.json()["title"], again.json()["archived_at"]) == ("another", None)
