"""The contract of a channel: a way in which people are told.

A channel kind is one file: what it must be told (`Config`), what of that is secret (`Secrets`), and `send`, which turns
a message into one request and says what became of it. When to send, how often to try again, in which order and what is
held back is delivery's, and the same for all. To add one, write the file and list it in `pulsewatch.channels.CHANNELS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, FiniteFloat

from pulsewatch.outbound import AddressBlocked, Outbound, Reply, Unreachable
from pulsewatch.problems import FieldError

TIMEOUT_S = 10.0


class Reason(StrEnum):
    """Why a message is sent."""

    FIRED = "fired"
    LEVEL_CHANGED = "level_changed"
    REPEAT = "repeat"
    RESOLVED = "resolved"
    CATCH_UP = "catch_up"
    TEST = "test"


class MessageStatus(StrEnum):
    """Whether the alert goes on."""

    FIRING = "firing"
    RESOLVED = "resolved"


class MessageLevel(StrEnum):
    """How bad it is; of a resolved alert, how bad it was last."""

    WARNING = "warning"
    CRITICAL = "critical"


class RunLink(BaseModel):
    """A run that the verdict rests on."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    url: str | None = None


class Message(BaseModel):
    """What one notification says, as it was when the alert changed. It is stored, and sent as often as it takes.

    Fields that it does not know are let be: after an update, a worker may read what a newer one has written.
    """

    model_config = ConfigDict(frozen=True)

    notification_id: UUID
    alert_id: UUID | None
    """None for a test."""
    reason: Reason
    status: MessageStatus
    level: MessageLevel
    client: str | None
    """None for the fleet."""
    pipeline: str | None
    """None for the client as a whole."""
    rule: str
    rule_title: str
    rule_version: int
    kind: str
    title: str
    """Names the rule and the target. It is the same in all messages of an alert, or mails fall out of their thread."""
    summary: str
    """A sentence: what was seen."""
    value: FiniteFloat | None = None
    threshold: FiniteFloat | None = None
    unit: str = ""
    fired_at: datetime
    resolved_at: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    runbook_url: str | None = None
    url: str | None = None
    """Of the alert."""
    runs: tuple[RunLink, ...] = ()
    is_test: bool = False


class Config(BaseModel):
    """What is told of a channel and shown to whoever may read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    DESTINATION: ClassVar[tuple[str, ...]] = ()
    """The fields by which secrets find their way: where one of them changes, secrets have to be given again."""


class Secrets(BaseModel):
    """What is told of a channel and never shown: stored encrypted, left out of errors and of repr().

    Plain strings, because it is stored as the JSON that it dumps to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    DESTINATION: ClassVar[tuple[str, ...]] = ()
    """The secrets by which the others find their way, as in Config."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    __str__ = __repr__


def no_conflict(_config: Config, _secrets: Secrets) -> FieldError | None:
    """Whatever was given goes together."""
    return None


C = TypeVar("C", bound=Config)
S = TypeVar("S", bound=Secrets)


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side has taken it.

    provider_ref is what later messages of the alert may refer to, such as a Message-ID. note tells what went wrong
    nevertheless, such as one of several recipients that was refused.
    """

    provider_ref: str | None = None
    http_status: int | None = None
    note: str | None = None


class Undelivered(Exception):
    """It was not taken. detail may be shown to whoever may read the channel."""

    def __init__(self, detail: str, http_status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.http_status = http_status


class Permanent(Undelivered):
    """Trying again would change nothing. disables: the channel itself is gone for good."""

    def __init__(self, detail: str, http_status: int | None = None, disables: bool = False) -> None:
        super().__init__(detail, http_status)
        self.disables = disables


class Temporary(Undelivered):
    """Worth another try, after retry_after_s where the other side says so."""

    def __init__(self, detail: str, http_status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail, http_status)
        self.retry_after_s = retry_after_s


class Partly(Temporary):
    """Some have it. What is left is worth another try, by `rest` in place of these fields of the config.

    sent says how it went with the others, and with those that no other try would reach.
    """

    def __init__(self, detail: str, rest: Mapping[str, Any], sent: Sent) -> None:
        super().__init__(detail)
        self.rest = rest
        self.sent = sent


@dataclass(frozen=True, slots=True)
class ChannelKind(Generic[C, S]):
    """One kind of channel.

    send(message, config, secrets, outbound, thread_ref) raises Permanent or Temporary and nothing else; thread_ref is
    the provider_ref of the first message of the same alert that this channel took, None for the first.
    conflict(config, secrets) tells what is wrong with the two together, None for nothing.
    """

    name: str
    title: str
    Config: type[C]
    Secrets: type[S]
    send: Callable[[Message, C, S, Outbound, str | None], Sent]
    conflict: Callable[[C, S], FieldError | None] = no_conflict


def check_url(url: str) -> str:
    """The address, if a request can be sent there. Raises ValueError.

    Only its form is judged here: where it leads is judged by what goes out, each time anew.
    """
    if not url.isascii() or not url.isprintable() or {" ", "\\"} & set(url):
        raise ValueError("must be ASCII without spaces: write other characters as %XX, other hosts as xn--")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with https:// or http:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user or password: give them as a header in the secrets")
    if parts.port == 0:
        raise ValueError("must not name port 0")
    return url


def post(outbound: Outbound, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
    """POST, and the answer if it is 2xx. Raises Permanent or Temporary, by the answer or for the lack of one."""
    reply = exchange(outbound, url, headers, body)
    refuse_answer(reply)
    return reply


def exchange(outbound: Outbound, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
    """POST, and the answer, whatever it is. Raises Permanent or Temporary where there is none."""
    try:
        return outbound.request("POST", url, headers=dict(headers), body=body, timeout_s=TIMEOUT_S)
    except AddressBlocked as blocked:
        raise Permanent(str(blocked)) from blocked
    except Unreachable as unreachable:
        raise Temporary(str(unreachable)) from unreachable


def refuse_answer(reply: Reply, why: str = "") -> None:
    """Raises Permanent or Temporary for an answer that is not 2xx.

    The body stays out of what is told: it may come from a host that whoever reads the channel cannot reach. `why` is
    what a kind has made of it.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    detail = f"Answered {status}{phrase(status)}{f' ({why})' if why else ''}."
    if status in (408, 425, 429) or status >= 500:
        raise Temporary(detail, status, retry_after_s(header(reply, "retry-after"), datetime.now(UTC)))
    if 300 <= status < 400:
        raise Permanent(f"{detail} This redirect is not followed: give the address that it leads to.", status)
    raise Permanent(detail, status, disables=status == HTTPStatus.GONE)


def phrase(status: int) -> str:
    """The usual words of a status with a space before them, or nothing."""
    return f" {HTTPStatus(status).phrase}" if status in HTTPStatus.__members__.values() else ""


def header(reply: Reply, name: str) -> str | None:
    """A header of the answer, whatever its case."""
    return next((value for given, value in reply.headers.items() if given.lower() == name), None)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header, which says seconds or a date; None where it says neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
