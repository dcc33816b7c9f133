"""The edge of ingestion through the whole application, on real PostgreSQL: keys, packing, limits, answers."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import zstandard
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from pulsewatch.asgi import build
from pulsewatch.auth import Role, create_key
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings
from tests.conftest import TEMPLATE, create_database, drop_database

MAX_BODY_BYTES = 64 * 1024
DAY = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


@dataclass
class Site:
    """The application with its database."""

    client: TestClient
    engine: Engine

    def key(self, role: str = "ingest", client: str | None = None) -> str:
        with self.engine.begin() as connection:
            return create_key(connection, Role(role), client)[1]

    def post(self, content: object, key: str | None = None, **headers: str) -> Any:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        return self.client.post("/v1/events", content=body, headers=sent)


@pytest.fixture(scope="module")
def site(server: str) -> Iterator[Site]:
    name = "pulsewatch_edge"
    address = create_database(server, name, TEMPLATE)
    engine = make_engine(address, pool_size=2, application_name="tests")
    settings = Settings.model_validate(
        {"database_url": address, "max_body_bytes": MAX_BODY_BYTES, "max_events": 200, "max_pipelines": 3}
    )
    with TestClient(build(settings)) as client:
        yield Site(client, engine)
    engine.dispose()
    drop_database(server, name)


def event(**fields: Any) -> dict[str, Any]:
    return {
        "type": "run",
        "client": "acme",
        "pipeline": "nightly",
        "run": "r1",
        "status": "running",
        "occurred_at": DAY.isoformat(),
    } | fields


def code_of(response: Any) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["type"].removeprefix("urn:pulsewatch:problem:"))


def test_an_event_is_committed_before_it_is_acknowledged_and_a_retry_is_a_duplicate(site: Site) -> None:
    key = site.key(client="first")
    said = event(client="first", message="hello")
    assert site.post(said, key).json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    with site.engine.connect() as connection:
        found = connection.execute(text("select status, started_at from analytics.runs where client = 'first'")).one()
    assert tuple(found) == ("running", DAY)
    retry = site.post(said, key)
    assert (retry.status_code, retry.json()) == (200, {"accepted": 0, "duplicates": 1, "rejected": []})


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
def test_packed_bodies_are_read(site: Site, pack: Any) -> None:
    encoding = "gzip" if pack is gzip.compress else "zstd"
    body = pack(json.dumps([event(client=f"packed-{encoding}")]).encode())
    response = site.post(body, site.key(), Content_Encoding=encoding)
    assert response.json() == {"accepted": 1, "duplicates": 0, "rejected": []}


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (b"[" + b" " * MAX_BODY_BYTES + b"]", "identity", 413, "too_large"),
        (gzip.compress(b" " * 50_000_000, mtime=0), "gzip", 413, "too_large"),
        (zstandard.ZstdCompressor().compress(b" " * 50_000_000), "zstd", 413, "too_large"),
        (b"not gzip", "gzip", 400, "invalid_encoding"),
        (gzip.compress(b"[]", mtime=0)[:-4], "gzip", 400, "invalid_encoding"),
        (b"not zstd", "zstd", 400, "invalid_encoding"),
        (zlib.compress(b"[]"), "deflate", 415, "unsupported_encoding"),
        (b"{", "identity", 400, "invalid_json"),
        (json.dumps([event()] * 201).encode(), "identity", 413, "too_many"),
    ],
)
def test_what_cannot_be_unpacked_or_is_too_large_is_a_problem(
    site: Site, body: bytes, encoding: str, status: int, code: str
) -> None:
    response = site.post(body, site.key(), Content_Encoding=encoding)
    assert (response.status_code, code_of(response)) == (status, code)


def test_a_body_without_a_length_is_cut_off_when_it_is_too_large(site: Site) -> None:
    chunks = iter([b" " * 10_000] * 20)
    response = site.client.post("/v1/events", content=chunks, headers={"Authorization": f"Bearer {site.key()}"})
    assert (response.status_code, code_of(response)) == (413, "too_large")


def test_other_media_types_are_named(site: Site) -> None:
    response = site.post(b"a=1", site.key(), Content_Type="application/x-www-form-urlencoded")
    assert (response.status_code, code_of(response)) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]


@pytest.mark.parametrize("key", [None, "pw_" + "x" * 43, "nonsense"])
def test_without_a_known_key_nothing_is_taken(site: Site, key: str | None) -> None:
    response = site.post(event(), key)
    assert (response.status_code, code_of(response)) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_a_key_that_only_reads_may_not_send(site: Site) -> None:
    response = site.post(event(), site.key("read"))
    assert (response.status_code, code_of(response)) == (403, "forbidden")


@pytest.mark.parametrize("role", ["ingest", "write", "admin"])
def test_the_other_roles_may_send(site: Site, role: str) -> None:
    assert site.post(event(client=f"by-{role}"), site.key(role)).status_code == 200


def test_a_bound_key_sends_for_its_own_client_only(site: Site) -> None:
    key = site.key(client="bound")
    response = site.post([event(client="bound"), event(client="other")], key)
    assert response.status_code == 200
    assert response.json()["accepted"] == 1
    assert [rejected["code"] for rejected in response.json()["rejected"]] == ["forbidden_client"]
    response = site.post([event(client="other")], key)
    assert (response.status_code, code_of(response)) == (403, "forbidden_client")
    with site.engine.connect() as connection:
        assert connection.scalar(text("select count(*) from pulsewatch.client where slug = 'other'")) == 0


def test_only_post_is_taken(site: Site) -> None:
    response = site.client.get("/v1/events")
    assert (response.status_code, code_of(response)) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_an_empty_batch_is_fine_and_writes_nothing(site: Site) -> None:
    assert site.post([], site.key()).json() == {"accepted": 0, "duplicates": 0, "rejected": []}


def test_nothing_good_at_all_is_422_and_is_kept_as_a_reject(site: Site) -> None:
    response = site.post([event(client="rejected", status="done")], site.key(client="rejected"))
    assert (response.status_code, code_of(response)) == (422, "nothing_accepted")
    assert response.json()["rejected"][0]["pointer"] == "/status"
    with site.engine.connect() as connection:
        row = connection.execute(
            text(
                "select reject.code, reject.pointer, reject.item::json ->> 'status'"
                " from pulsewatch.ingest_reject as reject"
                " inner join pulsewatch.client on reject.client_id = client.id where client.slug = 'rejected'"
            )
        ).one()
    assert tuple(row) == ("unknown_status", "/status", "done")


def test_what_the_catalog_refuses_is_told_per_item(site: Site) -> None:
    named = [event(client="full", pipeline=f"p{number}") for number in range(4)]
    response = site.post(named, site.key())
    assert response.json()["accepted"] == 3
    assert [(bad["index"], bad["code"]) for bad in response.json()["rejected"]] == [(3, "pipeline_limit")]


def test_a_sane_request_id_is_sent_back_and_an_insane_one_is_not(site: Site) -> None:
    assert site.post([], site.key(), X_Request_ID="job-17").headers["x-request-id"] == "job-17"
    assert site.post([], site.key(), X_Request_ID="a b\tc").headers["x-request-id"] != "a b\tc"


def test_rejects_and_accepted_events_are_counted_in_the_numbers(site: Site) -> None:
    site.post([event(client="counted"), event(client="counted", status="done")], site.key())
    numbers = site.client.get("/metrics").text
    assert 'pulsewatch_ingest_events_total{outcome="accepted",source="native"}' in numbers
    assert 'pulsewatch_http_requests_total{method="POST",route="/v1/events",status="200"}' in numbers


def test_the_database_may_go_away_and_come_back(server: str) -> None:
    """The answer is 503 with Retry-After, and what was not acknowledged can be sent again."""
    name = "pulsewatch_gone"
    address = create_database(server, name, TEMPLATE)
    try:
        with TestClient(build(Settings.model_validate({"database_url": address}))) as client:
            engine = make_engine(address, pool_size=1, application_name="tests")
            site = Site(client, engine)
            key = site.key()
            assert site.post(event(), key).status_code == 200
            engine.dispose()
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute(f"alter database {name} allow_connections false")
                admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
                response = site.post(event(status="succeeded"), key)
                assert (response.status_code, code_of(response)) == (503, "unavailable")
                assert int(response.headers["retry-after"]) >= 1
                admin.execute(f"alter database {name} allow_connections true")
            assert site.post(event(status="succeeded"), key).json()["accepted"] == 1
    finally:
        drop_database(server, name)
