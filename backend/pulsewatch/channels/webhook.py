"""The webhook channel: the body of Alertmanager's webhook (version 4) with one alert and a `pulsewatch` object.

Whatever takes Alertmanager's webhooks takes this one. Signed after https://www.standardwebhooks.com: `webhook-id` is
the same in every try of a notification, so a receiver that has seen it may drop it.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pulsewatch.channels import base
from pulsewatch.channels.base import ChannelKind, Message, Permanent, Reason, Sent, check_url, post
from pulsewatch.outbound import Outbound
from pulsewatch.problems import FieldError

# Alertmanager's own words, as far as it has them.
REASONS = {
    Reason.FIRED: "first notification",
    Reason.LEVEL_CHANGED: "new alerts added",
    Reason.REPEAT: "repeat interval elapsed",
    Reason.RESOLVED: "all alerts resolved",
    Reason.CATCH_UP: "unknown",
    Reason.TEST: "unknown",
}
NOT_ENDED = "0001-01-01T00:00:00Z"  # how Go writes no time
SECRET_PREFIX = "whsec_"  # noqa: S105 (how a secret begins)
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OURS = {"content-type", "content-length", "content-encoding", "transfer-encoding", "host", "connection", "user-agent"}


def check_given(url: str | None) -> str | None:
    """The address, if there is one. Raises ValueError."""
    return None if url is None else check_url(url)


class Config(base.Config):
    DESTINATION = ("url",)

    url: str | None = Field(
        None,
        max_length=2000,
        description="Where to POST, unless the secrets say so.",
        examples=["https://example.org/hooks/pulsewatch"],
    )
    receiver: str = Field("pulsewatch", min_length=1, max_length=100, description="The `receiver` of the body.")

    _url = field_validator("url")(check_given)


class Secrets(base.Secrets):
    DESTINATION = ("url",)

    url: str | None = Field(None, max_length=2000, description="Where to POST, if whoever knows the address may.")
    signing_secrets: tuple[str, ...] = Field(
        (), max_length=5, description="`whsec_` and the base64 of 24 to 64 bytes. Several while they are rotated."
    )
    headers: dict[str, str] = Field({}, description="Further headers, such as Authorization.", max_length=20)

    _url = field_validator("url")(check_given)

    @field_validator("signing_secrets")
    @classmethod
    def _read(cls, secrets: tuple[str, ...]) -> tuple[str, ...]:
        for secret in secrets:
            key_of(secret)
        return secrets

    @field_validator("headers")
    @classmethod
    def _harmless(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not HEADER_NAME.fullmatch(name):
                raise ValueError("a header's name is made of letters, digits and '-'")
            if name.lower() in OURS or name.lower().startswith("webhook-"):
                raise ValueError(f"{name} is set by PulseWatch")
            if not (value.isascii() and value.isprintable() and value == value.strip()):
                raise ValueError(f"the value of {name} must be printable ASCII without spaces around it")
        return headers


def key_of(secret: str) -> bytes:
    """The bytes to sign with. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError("a signing secret is whsec_ and the base64 of 24 to 64 random bytes")
    return key


def send(message: Message, config: Config, secrets: Secrets, outbound: Outbound, thread_ref: str | None) -> Sent:  # noqa: ARG001
    url = secrets.url or config.url
    if url is None:
        raise Permanent("It has no url.")
    body = encode(payload(message, config.receiver))
    headers = {"Content-Type": "application/json", **secrets.headers}
    headers |= signed_headers(webhook_id(message), int(time.time()), body, secrets.signing_secrets)
    reply = post(outbound, url, headers, body)
    return Sent(http_status=reply.status)


def conflict(config: Config, secrets: Secrets) -> FieldError | None:
    if config.url is None and secrets.url is None:
        detail = "A webhook needs its url, here or, where the address alone lets people post, in secrets."
        return FieldError("/config/url", "missing_field", detail)
    if config.url is not None and secrets.url is not None:
        return FieldError("/config/url", "invalid_value", "A webhook has one url: here or in secrets.")
    return None


def webhook_id(message: Message) -> str:
    """The same for every try, and another for every notification."""
    return f"msg_{message.notification_id.hex}"


def signed_headers(id_: str, timestamp: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The headers of Standard Webhooks; without a secret, without a signature."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(timestamp)}
    signed = b".".join((id_.encode(), str(timestamp).encode(), body))
    digests = (hmac.new(key_of(secret), signed, hashlib.sha256).digest() for secret in secrets)
    signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return headers | ({"webhook-signature": signatures} if signatures else {})


def payload(message: Message, receiver: str) -> dict[str, Any]:
    """The body: all fields of Alertmanager's, then ours."""
    labels = labels_of(message)
    group = identity(labels)
    annotations = annotations_of(message)
    return {
        "version": "4",
        "groupKey": f"{{}}:{label_set(group)}",
        "truncatedAlerts": 0,
        "status": message.status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "routeLabels": {},
        "externalURL": origin(message.url),
        "notification_reason": REASONS[message.reason],
        "alerts": [
            {
                "status": message.status,
                "labels": labels,
                "annotations": annotations,
                "startsAt": rfc3339(message.fired_at),
                "endsAt": rfc3339(message.resolved_at) if message.resolved_at else NOT_ENDED,
                "generatorURL": message.url or "",
                "fingerprint": fingerprint(group),
            }
        ],
        "pulsewatch": message.model_dump(mode="json"),
    }


def labels_of(message: Message) -> dict[str, str]:
    """The rule's labels, and over them those that name the alert. As in Alertmanager, an empty one is none."""
    ours = {
        "alertname": message.rule,
        "client": message.client,
        "pipeline": message.pipeline,
        "rule": message.rule,
        "severity": message.level.value,
    }
    labels = message.labels | {name: value for name, value in ours.items() if value is not None}
    return {name: labels[name] for name in sorted(labels) if labels[name]}


def identity(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that stay as they are while the level of an alert changes.

    Receivers tell alerts apart by the fingerprint: with the severity in it, an alert that turns critical would be a
    second one, and the first would never be resolved.
    """
    return {name: value for name, value in labels.items() if name != "severity"}


def annotations_of(message: Message) -> dict[str, str]:
    """The rule's annotations; what it does not say of these two is filled in."""
    ours = {"summary": message.summary, "runbook_url": message.runbook_url}
    annotations = {name: value for name, value in ours.items() if value} | message.annotations
    return {name: annotations[name] for name in sorted(annotations)}


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's: FNV-1a over the sorted names and values, each followed by a byte 255, as 16 hex digits."""
    digest = 0xCBF29CE484222325
    for byte in b"".join(word.encode() + b"\xff" for name in sorted(labels) for word in (name, labels[name])):
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return f"{digest:016x}"


def label_set(labels: Mapping[str, str]) -> str:
    """As Prometheus writes labels: {name="value", ...}."""
    pairs = (f"{name}={json.dumps(labels[name], ensure_ascii=False)}" for name in sorted(labels))
    return f"{{{', '.join(pairs)}}}"


def origin(url: str | None) -> str:
    """Scheme and host of an address, or nothing."""
    return f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" if url else ""


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def encode(body: Mapping[str, Any]) -> bytes:
    """Compact, and the same bytes each time: they are what is signed."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


CHANNEL = ChannelKind("webhook", "Webhook", Config, Secrets, send, conflict)
