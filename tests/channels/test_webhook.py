"""The webhook: a body that receivers of Alertmanager's webhooks take, and a signature that proves who sent it."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pulsewatch.channels import webhook
from pulsewatch.channels.base import MessageLevel, Permanent, Reason, Sent, Temporary
from pulsewatch.channels.webhook import Config, Secrets, fingerprint, payload, signed_headers
from pulsewatch.outbound import Outbound
from tests.channels.given import ALERT, FIRED_AT, FIRING, RESOLVED, RUN, message
from tests.channels.receivers import Receiver, closed_port

KEYS = (b"k" * 24, b"n" * 64)
OLD, NEW = (f"whsec_{base64.b64encode(key).decode()}" for key in KEYS)

# The body


def test_the_body_is_that_of_alertmanager_with_one_alert() -> None:
    body = payload(FIRING, "ops")
    ours = body.pop("pulsewatch")
    labels = {
        "alertname": "failing",
        "client": "acme",
        "pipeline": "orders_load",
        "rule": "failing",
        "severity": "warning",
        "team": "data",
    }
    group = {name: value for name, value in labels.items() if name != "severity"}
    annotations = {
        "description": "Call the night shift.",
        "runbook_url": "https://wiki.example/failing?page=1&part=2",
        "summary": "3 runs in a row have failed; the limit is 3.",
    }
    assert body == {
        "version": "4",
        "groupKey": '{}:{alertname="failing", client="acme", pipeline="orders_load", rule="failing", team="data"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "ops",
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "routeLabels": {},
        "externalURL": "https://pulse.example",
        "notification_reason": "first notification",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "2026-11-21T02:03:20Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": ALERT,
                "fingerprint": fingerprint(group),
            }
        ],
    }
    assert (ours["value"], ours["threshold"], ours["unit"], ours["is_test"]) == (3, 3, "runs", False)
    assert (ours["rule_version"], ours["kind"], ours["reason"]) == (3, "consecutive_failures", "fired")
    assert ours["runs"] == [{"id": str(RUN), "url": "https://pulse.example/v1/runs/0192f3a4"}]


def test_a_resolved_alert_says_when_it_ended() -> None:
    body = payload(RESOLVED, "ops")
    (alert,) = body["alerts"]
    assert (body["status"], alert["status"]) == ("resolved", "resolved")
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-11-21T02:03:20Z", "2026-11-21T02:15:25Z")
    assert body["notification_reason"] == "all alerts resolved"


def test_an_alert_keeps_its_fingerprint_and_group_while_its_level_changes() -> None:
    worse = message(level=MessageLevel.CRITICAL, reason=Reason.LEVEL_CHANGED)
    bodies = [payload(given, "ops") for given in (FIRING, worse, RESOLVED)]
    assert len({body["alerts"][0]["fingerprint"] for body in bodies}) == 1
    assert len({body["groupKey"] for body in bodies}) == 1
    assert [body["commonLabels"]["severity"] for body in bodies] == ["warning", "critical", "critical"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    # From the tests of github.com/prometheus/common/model.
    [({}, "cbf29ce484222325"), ({"name": "garland, briggs", "fear": "love is not enough"}, "507a62d79ee76c9a")],
)
def test_the_fingerprint_is_that_of_alertmanager(labels: dict[str, str], expected: str) -> None:
    assert fingerprint(labels) == expected


def test_every_reason_has_words_of_alertmanager() -> None:
    theirs = {"first notification", "new alerts added", "all alerts resolved", "repeat interval elapsed", "unknown"}
    assert {payload(message(reason=reason), "r")["notification_reason"] for reason in Reason} <= theirs


def test_a_rule_cannot_name_another_alert_by_its_labels() -> None:
    labels = payload(message(labels={"client": "other", "severity": "page", "empty": ""}), "r")["commonLabels"]
    assert (labels["client"], labels["severity"], labels.get("empty")) == ("acme", "warning", None)


def test_the_annotations_of_the_rule_go_before_our_own() -> None:
    annotations = {"summary": "Look here.", "runbook_url": "https://other.example"}
    assert payload(message(annotations=annotations), "r")["commonAnnotations"] == annotations


def test_an_alert_on_the_fleet_has_no_client_and_no_address() -> None:
    body = payload(message(client=None, pipeline=None, url=None, runs=()), "r")
    assert set(body["commonLabels"]) == {"alertname", "rule", "severity", "team"}
    assert (body["externalURL"], body["alerts"][0]["generatorURL"]) == ("", "")


def test_times_are_told_in_utc() -> None:
    at = datetime.fromisoformat("2026-11-21T04:03:20.250+02:00")
    assert payload(message(fired_at=at), "r")["alerts"][0]["startsAt"] == "2026-11-21T02:03:20.250000Z"


# The signature


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_secrets_are_rotated_each_signs() -> None:
    signatures = signed_headers("msg_1", 1, b"body", [OLD, NEW])["webhook-signature"].split(" ")
    expected = [base64.b64encode(hmac.digest(key, b"msg_1.1.body", hashlib.sha256)).decode() for key in KEYS]
    assert signatures == [f"v1,{digest}" for digest in expected]


def test_without_a_secret_nothing_is_signed() -> None:
    assert signed_headers("msg_1", 1, b"body", []) == {"webhook-id": "msg_1", "webhook-timestamp": "1"}


# Setting up


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@example.org/",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://example.org/a b",
        "https://example.org/\r\nX: y",
        "https://exämple.org/",
        "https://[::1/",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Config(url=url)


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_c2hvcnQ=", OLD.removeprefix("whsec_"), "whsec_???", f"whsec_{base64.b64encode(b'k' * 65)!r}"],
)
def test_a_secret_that_is_no_key_is_refused_without_being_told(secret: str) -> None:
    with pytest.raises(ValidationError, match="whsec_ and the base64 of 24 to 64 random bytes") as refused:
        Secrets(signing_secrets=(secret,))
    assert "input_value" not in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "other"},
        {"content-TYPE": "text/plain"},
        {"Webhook-Signature": "v1,forged"},
        {"Transfer-Encoding": "chunked"},
        {"X-A": "b\r\nX-C: d"},
        {"X-A\r\nX-C": "d"},
        {"": "x"},
        {"X A": "x"},
        {"X-A": "ü"},
        {"X-A": " x"},
    ],
)
def test_a_header_that_is_not_theirs_to_set_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Secrets(headers=headers)


def test_secrets_are_not_shown_where_they_are_printed() -> None:
    secrets = Secrets(signing_secrets=(OLD,), headers={"Authorization": "Bearer t0ken"})
    assert (repr(secrets), str(secrets), f"{secrets}") == ("Secrets(...)",) * 3


# Sending


def send(outbound: Outbound, receiver: Receiver, **secrets: Any) -> Sent:
    return webhook.CHANNEL.send(FIRING, Config(url=receiver.url), Secrets(**secrets), outbound, None)


def test_what_arrives_is_what_was_signed(outbound: Outbound, receiver: Receiver) -> None:
    sent = send(outbound, receiver, signing_secrets=[OLD], headers={"Authorization": "Bearer t0ken"})
    (got,) = receiver.got
    assert sent == Sent(http_status=200)
    assert (got.path, got.headers["content-type"]) == ("/hook", "application/json")
    assert got.headers["authorization"] == "Bearer t0ken"
    assert got.headers["webhook-id"] == "msg_11111111222243338444555555555555"
    sent_at = datetime.fromtimestamp(int(got.headers["webhook-timestamp"]), UTC)
    assert abs((datetime.now(UTC) - sent_at).total_seconds()) < 60
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    digest = base64.b64encode(hmac.digest(KEYS[0], signed, hashlib.sha256)).decode()
    assert got.headers["webhook-signature"] == f"v1,{digest}"
    assert json.loads(got.body) == json.loads(json.dumps(payload(FIRING, "pulsewatch")))


def test_an_address_among_the_secrets_is_posted_to(outbound: Outbound, receiver: Receiver) -> None:
    sent = webhook.CHANNEL.send(FIRING, Config(), Secrets(url=receiver.url), outbound, None)
    assert (sent, len(receiver.got)) == (Sent(http_status=200), 1)
    with pytest.raises(Permanent):
        webhook.CHANNEL.send(FIRING, Config(), Secrets(), outbound, None)


def test_a_second_try_has_the_same_id_and_body(outbound: Outbound, receiver: Receiver) -> None:
    for _ in range(2):
        send(outbound, receiver)
    first, second = receiver.got
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken_as_sent(outbound: Outbound, receiver: Receiver, status: int) -> None:
    receiver.answer = (status, {}, b"")
    assert send(outbound, receiver) == Sent(http_status=status)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_what_may_pass_is_worth_another_try(outbound: Outbound, receiver: Receiver, status: int) -> None:
    receiver.answer = (status, {"Retry-After": "17"}, b"private words")
    with pytest.raises(Temporary) as refused:
        send(outbound, receiver)
    assert (refused.value.http_status, refused.value.retry_after_s) == (status, 17)
    assert "private" not in refused.value.detail


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 411, 413, 415, 422, 451])
def test_what_will_not_pass_is_permanent_and_gone_disables(outbound: Outbound, receiver: Receiver, status: int) -> None:
    receiver.answer = (status, {}, b"private words")
    with pytest.raises(Permanent) as refused:
        send(outbound, receiver)
    assert (refused.value.http_status, refused.value.disables) == (status, status == 410)
    assert "private" not in refused.value.detail


def test_a_redirect_is_followed_only_where_it_carries_the_message(outbound: Outbound, receiver: Receiver) -> None:
    receiver.answer = (302, {"Location": "/elsewhere"}, b"")
    with pytest.raises(Permanent, match=r"302 Found\. This redirect is not followed"):
        send(outbound, receiver)
    assert [got.path for got in receiver.got] == ["/hook"]


def test_nobody_there_is_worth_another_try(outbound: Outbound) -> None:
    with pytest.raises(Temporary):
        webhook.CHANNEL.send(FIRING, Config(url=f"http://127.0.0.1:{closed_port()}/"), Secrets(), outbound, None)


def test_a_private_address_is_not_asked(receiver: Receiver) -> None:
    with pytest.raises(Permanent):
        send(Outbound(allow=[]), receiver)
    assert receiver.got == []


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_words_make_a_body_that_reads_the_same(summary: str, value: float) -> None:
    body = json.loads(webhook.encode(payload(message(summary=summary, value=value), "r")))
    assert (body["pulsewatch"]["summary"], body["pulsewatch"]["value"]) == (summary, value)


def test_the_message_survives_its_storage() -> None:
    assert type(FIRING).model_validate_json(RESOLVED.model_dump_json()) == RESOLVED
    assert FIRING.fired_at == FIRED_AT
