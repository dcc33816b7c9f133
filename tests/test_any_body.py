"""Whatever is posted to /v1/events is answered with 2xx or 4xx and a body that parses, on real PostgreSQL."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pulsewatch.asgi import build
from pulsewatch.settings import Settings
from pulsewatch.telemetry import App
from tests.serving import make_key, running

NOW = datetime.now(UTC).replace(microsecond=0)


class Poster:
    """Posts to an application in this process."""

    def __init__(self, dsn: str, app: App, runner: asyncio.Runner) -> None:
        self._database = psycopg.connect(dsn, autocommit=True)
        self._headers = make_key(dsn)[1]
        self._runner = runner
        transport: Any = httpx.ASGITransport(app)  # the two name the types of ASGI differently
        self._client = httpx.AsyncClient(transport=transport, base_url="http://api")

    def post(self, body: bytes, *, to: str = "/v1/events", **headers: str) -> httpx.Response:
        said = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        bytes_said = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
        return self._runner.run(self._client.post(to, content=body, headers=bytes_said))

    def stored(self) -> int:
        row = self._database.execute("select count(*) from pulsewatch.run_event").fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        self._database.close()


@pytest.fixture
def poster(database: str) -> Iterator[Poster]:
    app = build(Settings.model_validate({"database_url": database, "max_events": 50, "log_level": "error"}))
    with asyncio.Runner() as runner:
        closing = AsyncExitStack()
        runner.run(closing.enter_async_context(running(app)))
        poster = Poster(database, app, runner)
        yield poster
        poster.close()
        runner.run(closing.aclose())


# What JSON can say and no Python value writes.
RAW: tuple[str, ...] = (
    "1e999999",
    "-1e999999",
    "1e-999999",
    "-0.0",
    "1" * 400,
    "1" * 5000,
    "NaN",
    "-Infinity",
    "0.1e1",
    '"\\u0000"',
)
RAW += ('"\\ud83d\\ude00"', '"\\ud83d"', '"\\udc00x"', "[" * 20 + "]" * 20, "[" * 40 + "]" * 40, "{}", '{"a":1,"a":2}')
MARK = "raw text follows: "

texts = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(["", "x" * 600, "a/b~c", "\ud800"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from([MARK + raw for raw in RAW])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
instants = st.sampled_from([NOW - timedelta(minutes=minutes) for minutes in (0, 1, 90)]).map(datetime.isoformat)
odd_instants = st.sampled_from(
    (
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T23:59:60Z",
        (NOW - timedelta(days=399)).isoformat(),
        "1999-12-31T23:59:59Z",
        "now",
        "",
    )
)
times = instants | odd_instants
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["run", "run", "run", "client", "pipeline", "check"]),
    "client": st.sampled_from(["acme", "globex", "Ä", "a b"]),
    "pipeline": st.sampled_from(["nightly", "Bücher laden", "p" * 513]),
    "namespace": st.sampled_from(["", "prod"]),
    "run": st.sampled_from(["r1", "r2", "0199011e-7a10-7c3e-9f57-3f6d1a0c9b11"]),
    "status": st.sampled_from(["running", "succeeded", "failed", "info", "timed_out", "done"]),
    "occurred_at": times,
    "event_id": st.sampled_from(["e1", "e2"]),
    "attempt": st.integers(-1, 40),
    "scheduled_at": times,
    "started_at": times,
    "duration_s": st.floats(),
    "message": texts,
    "error_class": texts,
    "url": st.sampled_from(["https://ci.example/1", "javascript:1", "http://a b"]),
    "metrics": st.dictionaries(texts, st.floats() | st.integers() | st.booleans(), max_size=2),
    "attributes": st.dictionaries(texts, values, max_size=2),
    "parent": st.fixed_dictionaries({"pipeline": texts, "run": texts}),
    "schedule": st.sampled_from(["0 2 * * *", "every 15m", "99 * * * *"]),
    "timezone": st.sampled_from(["Europe/Berlin", "Mars/Base"]),
    "tags": st.lists(texts, max_size=2),
    "title": texts,
    "owner": texts,
}
GOOD = {
    "type": st.just("run"),
    "client": st.just("acme"),
    "pipeline": st.just("nightly"),
    "run": st.sampled_from(["r1", "r2"]),
    "status": st.sampled_from(["running", "failed"]),
    "occurred_at": instants,
}


@st.composite
def events(draw: st.DrawFn) -> object:
    """A good event with up to three fields more, or other, or gone; sometimes a value that is no event at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    event: dict[str, Any] = {name: draw(value) for name, value in GOOD.items()}
    for name in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=3)):
        event[name] = draw(FIELDS[name] if draw(st.integers(0, 3)) else values)
    for name in draw(st.lists(st.sampled_from(list(GOOD)), max_size=1)) if draw(st.integers(0, 7)) == 0 else ():
        event.pop(name, None)
    if draw(st.integers(0, 9)) == 0:
        event[draw(texts)] = draw(values)
    return event


def written(value: object, *, is_ascii: bool) -> bytes:
    """The value as JSON text, with what no value can say put in place."""
    text = json.dumps(value, ensure_ascii=is_ascii)
    for raw in RAW:
        text = text.replace(json.dumps(MARK + raw, ensure_ascii=is_ascii), raw)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str, int | None]:
    """A body, its type, and how many items it holds where that is plain."""
    is_ascii = draw(st.booleans())
    items = draw(st.lists(events(), min_size=1, max_size=4))
    form = draw(st.sampled_from(["array", "array", "envelope", "bare", "lines", "value", "bytes"]))
    if form == "array":
        return written(items, is_ascii=is_ascii), "application/json", len(items)
    if form == "envelope":
        return written({"events": items}, is_ascii=is_ascii), "application/json", len(items)
    if form == "lines":
        lines = [written(item, is_ascii=is_ascii) for item in items]
        return draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"])).join(lines), "application/x-ndjson", len(items)
    kind = draw(st.sampled_from(["application/json", "application/jsonl", "text/plain", "application/json; charset=x"]))
    if form == "bare":
        return written(items[0], is_ascii=is_ascii), kind, None
    if form == "value":
        return written(draw(values), is_ascii=is_ascii), kind, None
    return draw(st.binary(max_size=40)), kind, None


def read(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer that is what it has to be."""
    assert 200 <= answer.status_code < 300 or 400 <= answer.status_code < 500, answer.text
    said = json.loads(answer.content.decode("utf-8"), parse_constant=lambda constant: pytest.fail(constant))
    if answer.status_code == 200:
        assert answer.headers["content-type"] == "application/json"
        assert set(said) == {"accepted", "duplicates", "rejected"}
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert said["status"] == answer.status_code
        assert said["type"].startswith("urn:pulsewatch:problem:")
    return answer.status_code, said


def outcome(said: dict[str, Any]) -> tuple[int, list[tuple[int, str, str]]]:
    """How many were taken, and what was refused and why."""
    refused = [(each["index"], each["code"], each["pointer"]) for each in said.get("rejected", ())]
    return said.get("accepted", 0) + said.get("duplicates", 0), refused


@pytest.mark.unmeasured
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies())
@example(body=(b"\xef\xbb\xbf[]", "application/json", None))
@example(body=(b"", "application/json", None))
@example(body=(b"\r\n \n", "application/x-ndjson", 0))
def test_any_body_is_answered_and_sending_it_again_gives_the_same_answer_and_stores_nothing(
    poster: Poster, body: tuple[bytes, str, int | None]
) -> None:
    content, content_type, items = body
    before = poster.stored()
    status, said = read(poster.post(content, content_type=content_type))
    taken, refused = outcome(said)
    if items is not None and status in (200, 403, 422):
        assert taken + len(refused) == items
        assert len({index for index, _, _ in refused}) == len(refused)
        assert all(index < items for index, _, _ in refused)
    after = poster.stored()
    assert after - before <= said.get("accepted", 0)

    assert read(poster.post(content, content_type=content_type))[0] == status
    again = read(poster.post(content, content_type=content_type))[1]
    assert outcome(again) == (taken, refused)
    assert poster.stored() == after


@pytest.mark.parametrize("near", ["good", "NaN"])
def test_deep_nesting_is_refused_at_any_depth(poster: Poster, near: str) -> None:
    """As attributes of an event, beside a good one and beside one that closes the fast road."""
    good = {"type": "run", "client": "acme", "pipeline": "p", "run": "r", "status": "info"}
    good["occurred_at"] = NOW.isoformat()
    head, tail = json.dumps(good | {"attributes": {"a": "@"}}).encode().split(b'"@"')
    neighbour = json.dumps(good | {"run": "other"}).encode() if near == "good" else b"NaN"
    for depth in (31, 32, 100, *range(940, 1000, 2), 1500, 5000, 100_000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            nested = opening * depth + b"1" + closing * depth
            _, said = read(poster.post(b"[" + head + nested + tail + b"," + neighbour + b"]"))
            codes = {each["code"] for each in said.get("rejected", ())} | {said.get("type", "").rpartition(":")[2]}
            assert "too_deep" in codes, (depth, said)
            _, said = read(poster.post(head + nested + tail))
            assert "too_deep" in {each["code"] for each in said.get("errors", ())} | {said["type"].rpartition(":")[2]}
    whole = head + b"[" * 30 + b"]" * 30 + tail
    assert outcome(read(poster.post(b"[" + whole + b"," + neighbour + b"]"))[1])[0] == (2 if near == "good" else 1)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    encoding=st.sampled_from(["gzip", "zstd", "identity", "GZIP", "br", "gzip, gzip", "", "é"]),
    garbage=st.binary(max_size=30),
    is_packed=st.booleans(),
    cut=st.integers(0, 12),
)
def test_any_encoding_is_answered(poster: Poster, encoding: str, garbage: bytes, is_packed: bool, cut: int) -> None:
    content = b"[]" + garbage
    if is_packed:
        pack = zstandard.ZstdCompressor().compress if encoding == "zstd" else gzip.compress
        content = pack(content)[: -cut or None]
    assert read(poster.post(content, content_encoding=encoding))[0] in (200, 400, 415, 422)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(content_type=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30))
def test_any_content_type_is_answered(poster: Poster, content_type: str) -> None:
    answer = poster.post(b"[]", content_type=content_type)
    assert read(answer)[0] in (200, 415)


def test_a_very_long_name_costs_no_more_than_its_length_and_is_not_repeated_whole(poster: Poster) -> None:
    good = {"type": "run", "client": "acme", "pipeline": "p", "run": "r", "status": "info"}
    good["occurred_at"] = NOW.isoformat()
    name = "k" * 2_000_000
    status, said = read(poster.post(json.dumps([good | {name: [0] * 500_000 + [None, "\0"]}]).encode()))
    assert (status, outcome(said)) == (422, (0, [(0, "nul_character", f"/{name[:100]}/500001")]))
    answer = poster.post(json.dumps([good | {name: 1}]).encode())
    assert outcome(read(answer)[1]) == (0, [(0, "unknown_field", f"/{name[:100]}")])
    assert len(answer.content) < 2000
