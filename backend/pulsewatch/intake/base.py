"""The contract of a wire: a format in which producers send events.

A wire is one file: the paths it listens on, a pure `parse` from a request to what it says, and a pure `reply` from
what became of it to the answer. Authentication, unpacking, limits, storing and errors are the edge's, and the same
for all. To add one, write the file and list it in `pulsewatch.intake.WIRES`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from pulsewatch.auth import Caller
from pulsewatch.events import EPOCH, MAX_CLOCK_AHEAD, SCHEDULED_AHEAD, SCHEDULED_FROM
from pulsewatch.submissions import Receipt, Refusal, Submission


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may hold, from the settings."""

    max_events: int
    keep_events: timedelta


class Request(msgspec.Struct, frozen=True):  # made three times as fast as a frozen dataclass
    """A request as a wire sees it: the body is unpacked, the caller is known and may ingest."""

    path: str
    query: Mapping[str, str]
    content_type: str
    body: bytes
    caller: Caller
    received_at: datetime
    limits: Limits
    # Which times its events may have; set by itself.
    earliest_at: datetime = EPOCH
    latest_at: datetime = EPOCH

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "earliest_at", self.received_at - self.limits.keep_events)
        msgspec.structs.force_setattr(self, "latest_at", self.received_at + MAX_CLOCK_AHEAD)


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request that was stored."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Wire(Protocol):
    """One format. Stateless; the same object serves all requests."""

    @property
    def source(self) -> str:
        """The name under which its outcomes are counted."""
        ...

    @property
    def paths(self) -> Collection[str]:
        """Exact paths; each takes POST only."""
        ...

    @property
    def content_types(self) -> Collection[str]:
        """Media types it reads; a request without one is taken as the first."""
        ...

    def parse(self, request: Request) -> Submission:
        """What the request says. Raises Problem where it cannot be read at all."""
        ...

    def reply(self, request: Request, receipt: Receipt) -> Reply:
        """The answer, once it is committed. Raises Problem where that is an error."""
        ...

    def openapi_paths(self) -> dict[str, Any]:
        """Its part of the OpenAPI document: path items by path."""
        ...


def refuse_time(at: datetime, pointer: str, request: Request) -> Refusal | None:
    """Why a time of an event or of a start cannot be stored, or None."""
    if at.tzinfo is None:
        return Refusal("naive_time", pointer, "The time has no offset: end it in Z, or in an offset such as +02:00.")
    if request.earliest_at <= at <= request.latest_at:
        return None
    if at > request.latest_at:
        return Refusal("in_future", pointer, "The time is more than 10 minutes ahead of the server's clock.")
    days = request.limits.keep_events.days
    return Refusal("too_old", pointer, f"The time is more than {days} days back, which is how long events are kept.")


def is_schedulable(at: datetime, request: Request) -> bool:
    """Whether an aware scheduled_at lies where it may: from 2000-01-01 to now + 400 days."""
    return SCHEDULED_FROM <= at <= request.received_at + SCHEDULED_AHEAD
