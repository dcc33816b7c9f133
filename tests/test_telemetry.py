"""Logs and the middleware around every request."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pulsewatch import telemetry
from pulsewatch.problems import Problem
from pulsewatch.settings import Settings
from pulsewatch.telemetry import Message, Observed, Receive, Scope, Send

KEY = "pw_" + "k" * 43


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The logging of the test run is put back."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = before, level
    logging.getLogger("uvicorn.access").disabled = False


def log_into(stderr: pytest.CaptureFixture[str], log_format: str, **fields: Any) -> str:
    """The line that reaches standard error."""
    telemetry.configure_logging(Settings.model_validate({"log_format": log_format}))
    token = telemetry.request_id.set("r-1")
    try:
        logging.getLogger("pulsewatch.test").warning("hello %s", "you", extra={"fields": fields})
    finally:
        telemetry.request_id.reset(token)
    return stderr.readouterr().err


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_away_from_a_terminal_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    line = json.loads(log_into(capsys, log_format, route="/v1/runs"))
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "pulsewatch.test",
        "message": "hello you",
        "request_id": "r-1",
        "route": "/v1/runs",
    }


def test_for_people_a_line_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    line = log_into(capsys, "text", status=200)
    assert line[8:] == " warning pulsewatch.test: hello you status=200 request_id=r-1\n"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_key_and_no_password_gets_into_a_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    telemetry.configure_logging(Settings.model_validate({"log_format": log_format}))
    log = logging.getLogger("pulsewatch.test")
    log.info("key %s, address postgresql://user:s3cret@host/db, password=s3cret", KEY)
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        log.exception("failed")

    written = capsys.readouterr().err
    assert KEY not in written
    assert "s3cret" not in written
    assert written.count("pw_***") == 2
    assert "ValueError" in written


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_gets_into_a_line_by_the_request_id_or_a_field(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    telemetry.configure_logging(Settings.model_validate({"log_format": log_format}))
    address = "postgresql://user:s3cret@host/db"
    fields = {
        "key": KEY,
        "at": [address, {"said": "password=s3cret"}],
        "error": ValueError(address),
        "n": 2,
        "no": None,
    }
    token = telemetry.request_id.set(KEY)
    try:
        logging.getLogger("pulsewatch.test").warning("hello", extra={"fields": fields})
    finally:
        telemetry.request_id.reset(token)

    written = capsys.readouterr().err
    assert KEY not in written
    assert "s3cret" not in written
    if log_format == "json":
        line = json.loads(written)
        assert (line["request_id"], line["key"], line["n"], line["no"]) == ("pw_***", "pw_***", 2, None)
        assert line["at"] == ["postgresql://user:***@host/db", {"said": "password=***"}]
        assert line["error"] == "postgresql://user:***@host/db"


def test_below_the_level_that_is_set_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging(Settings.model_validate({"log_level": "error", "log_format": "json"}))
    logging.getLogger("pulsewatch.test").warning("no")
    assert capsys.readouterr().err == ""


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def drive(app: telemetry.App, **scope: Any) -> list[Message]:
    """What the application sends in answer to a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/x", "headers": []} | scope

    async def run() -> None:
        await app(whole, _receive, send)

    asyncio.run(run())
    return sent


async def answering(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": telemetry.request_id.get("").encode()})  # type: ignore[union-attr]


def test_the_request_id_is_known_inside_and_sent_back_once() -> None:
    sent = drive(Observed(Observed(answering)), headers=[(b"x-request-id", b"mine")])
    assert sent[0]["headers"] == [(b"x-request-id", b"mine")]
    assert sent[1]["body"] == b"mine"
    assert telemetry.request_id.get() is None


async def failing(_: Scope, __: Receive, ___: Send) -> None:
    raise RuntimeError(f"private {KEY}")


async def failing_halfway(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("private")


def test_an_exception_becomes_a_500_that_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sent = drive(Observed(failing))
    assert sent[0]["status"] == 500
    body = json.loads(sent[1]["body"])
    assert body["type"] == "urn:pulsewatch:problem:internal"
    assert (b"x-request-id", body["request_id"].encode()) in sent[0]["headers"]
    assert "private" not in sent[1]["body"].decode()
    assert "POST /x failed" in caplog.text


def test_an_exception_after_the_answer_has_begun_breaks_the_connection() -> None:
    with pytest.raises(RuntimeError, match="private"):
        drive(Observed(failing_halfway))


def test_a_bare_application_is_counted_by_the_route_it_names(caplog: pytest.LogCaptureFixture) -> None:
    labels = ("POST", "/v1/events", "200")
    before = telemetry.HTTP_REQUESTS.labels(*labels)._value.get()
    with caplog.at_level(logging.INFO, "pulsewatch.http"):
        drive(Observed(answering), **{telemetry.ROUTE_KEY: "/v1/events"})
    assert telemetry.HTTP_REQUESTS.labels(*labels)._value.get() == before + 1
    assert caplog.text == "", "acknowledged events are numbers, not lines"


def test_what_is_no_http_request_passes_through() -> None:
    seen = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope["type"])

    drive(Observed(app), type="lifespan")
    assert seen == ["lifespan"]


def test_a_problem_is_sent_with_its_headers_and_the_request_id() -> None:
    token = telemetry.request_id.set("r-2")
    try:
        headers, body = telemetry.problem_answer(Problem(503, "unavailable", "later", headers={"Retry-After": "2"}))
    finally:
        telemetry.request_id.reset(token)
    assert dict(headers) == {
        b"retry-after": b"2",
        b"content-type": b"application/problem+json",
        b"content-length": str(len(body)).encode(),
    }
    assert json.loads(body)["request_id"] == "r-2"
