"""Whom the demo tells: what it takes, what it refuses, and what it shows."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid5

import pytest

from pulsewatch.channels import webhook
from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason, Sent
from pulsewatch.demo import new_signing_secret
from pulsewatch.demo_receiver import LATEST, Receiver
from tests.alert_stage import at
from tests.rows import NAMES
from tests.telling import outbound

SECRET = new_signing_secret()


def message(name: str = "a", **said: Any) -> Message:
    values: dict[str, Any] = {
        "notification_id": uuid5(NAMES, name),
        "alert_id": uuid5(NAMES, "alert"),
        "reason": Reason.FIRED,
        "status": MessageStatus.FIRING,
        "level": MessageLevel.WARNING,
        "client": "acme",
        "pipeline": "load",
        "rule": "failing",
        "rule_title": "Loads fail",
        "rule_version": 1,
        "kind": "consecutive_failures",
        "title": "Loads fail: acme/load",
        "summary": "acme/load: 2 runs in a row have failed <b>",
        "fired_at": at(0),
    }
    return Message(**values | said)


class Listening:
    """A receiver and what it has said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.receiver = Receiver(SECRET, 0, self.said.append)

    def tell(self, one: Message, secret: str = SECRET) -> Sent:
        config = webhook.Config(url=f"{self.receiver.hook}/data-team")
        return webhook.send(one, config, webhook.Secrets(signing_secrets=(secret,)), outbound(), None)

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(urlsplit(self.receiver.url).netloc, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def post(self, path: str, headers: dict[str, str], body: bytes) -> int:
        connection = http.client.HTTPConnection(urlsplit(self.receiver.url).netloc, timeout=10)
        try:
            connection.request("POST", path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def listening() -> Iterator[Listening]:
    started = Listening()
    with started.receiver:
        yield started


def test_a_message_is_said_in_one_line_and_shown_as_a_page_and_as_json(listening: Listening) -> None:
    assert listening.tell(message()).http_status == 204
    over = message("b", reason=Reason.RESOLVED, status=MessageStatus.RESOLVED, resolved_at=at(5))
    assert listening.tell(over).http_status == 204
    first, second = listening.said
    about = "acme/load: 2 runs in a row have failed <b>"
    assert first[8:] == f"  FIRING    warning   {about}  [failing, fired, to data-team]"
    assert second[8:] == f"  RESOLVED  warning   {about}  [failing, resolved, to data-team]"
    items = json.loads(listening.get("/messages")[1])["items"]
    assert [(item["channel"], item["message"]["reason"]) for item in items] == [
        ("data-team", "resolved"),
        ("data-team", "fired"),
    ]
    status, shown = listening.get("/")
    assert status == 200
    assert shown.count("2 runs in a row have failed &lt;b&gt;") == 2
    assert "<b>" not in shown


def test_a_message_that_comes_again_is_taken_and_not_said_again(listening: Listening) -> None:
    assert [listening.tell(message()).http_status for _ in range(2)] == [204, 204]
    assert len(listening.said) == 1


def test_a_test_says_that_it_is_one(listening: Listening) -> None:
    listening.tell(message(alert_id=None, reason=Reason.TEST, is_test=True))
    assert listening.said[0][8:].startswith("  TEST  ")


def test_what_is_signed_with_another_secret_or_changed_or_old_is_refused(listening: Listening) -> None:
    body = webhook.encode(webhook.payload(message(), "pulsewatch"))
    now = int(time.time())
    right = webhook.signed_headers("msg_1", now, body, [SECRET])
    assert listening.post("/hook/data-team", right | {"webhook-id": "msg_2"}, body) == 401
    assert listening.post("/hook/data-team", right, body.replace(b"warning", b"nothing")) == 401
    other = webhook.signed_headers("msg_1", now, body, [new_signing_secret()])
    assert listening.post("/hook/data-team", other, body) == 401
    assert listening.post("/hook/data-team", webhook.signed_headers("msg_1", now, body, []), body) == 401
    assert listening.post("/hook/data-team", webhook.signed_headers("msg_1", now - 301, body, [SECRET]), body) == 401
    nonsense = webhook.signed_headers("msg_1", now, b"[]", [SECRET])
    assert listening.post("/hook/data-team", nonsense, b"[]") == 400
    assert listening.said == []
    # One of several signatures is enough, as while a secret is changed.
    both = webhook.signed_headers("msg_1", now, body, [new_signing_secret(), SECRET])
    assert listening.post("/hook/data-team", both, body) == 204


def test_what_is_not_there_is_said_to_be_so(listening: Listening) -> None:
    assert listening.get("/favicon.ico")[0] == 404
    assert listening.post("/", {}, b"{}") == 404


def test_the_newest_messages_are_kept(listening: Listening) -> None:
    for number in range(LATEST + 1):
        listening.receiver.take("/hook/ops", *signed(message(str(number))))
    assert len(listening.receiver.latest) == LATEST
    assert listening.receiver.latest[0].message.notification_id == uuid5(NAMES, str(LATEST))


def signed(one: Message) -> tuple[dict[str, str], bytes]:
    body = webhook.encode(webhook.payload(one, "pulsewatch"))
    return webhook.signed_headers(webhook.webhook_id(one), int(time.time()), body, [SECRET]), body


def test_a_port_that_is_taken_is_left_and_one_that_is_free_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Receiver(SECRET, port, print) as receiver:
            assert receiver.port != port
            free = receiver.port
    with Receiver(SECRET, free, print) as again:
        assert again.port == free
