"""Sends one notification and says what became of it; in any thread, outside of any transaction."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

from pulsewatch.channels import CHANNELS
from pulsewatch.channels.base import ChannelKind, Message, Partly, Permanent, Sent, Temporary
from pulsewatch.outbound import Outbound
from pulsewatch.secretbox import SecretBox, open_box
from pulsewatch.settings import Settings

log = logging.getLogger(__name__)

# After which attempt so long at most; each waits for a random part of it, so that they do not come all at once.
WAITS_S = (10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0)
LONGEST_WAIT_S = WAITS_S[-1]

Outcome = Literal["sent", "retry", "permanent", "returned"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A notification that is ours to send until its lease runs out."""

    token: UUID
    begin_by: datetime
    """From then on its lease might run out while it is sent."""
    client_id: int
    id: UUID
    channel_id: int
    alert_id: UUID | None
    reason: str
    attempt: int
    is_taken_over: bool
    body: Mapping[str, Any]
    kind: str
    config: Mapping[str, Any]
    secrets: bytes | None
    rest: Mapping[str, Any] | None = None
    """Where some have it: fields of the config for the others, what the receiver calls it, and who never gets it."""
    thread_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one. Returned: it was not tried."""

    claimed: Claimed
    outcome: Outcome
    started_at: datetime
    latency_s: float = 0.0
    http_status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None
    next_attempt_at: datetime | None = None
    provider_ref: str | None = None
    rest: str | None = None
    is_gone: bool = False

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.latency_s)

    @property
    def is_unanswered(self) -> bool:
        return self.outcome == "retry" and self.http_status is None and self.rest is None

    @property
    def is_silent(self) -> bool:
        """Whether the next ones to the same channel would fare no better: nobody answered, or it asked for quiet."""
        return self.is_unanswered or (self.outcome == "retry" and self.retry_after_s is not None)


@dataclass(frozen=True)
class Clock:
    """The time of a call: what it was told, and what has passed since."""

    as_of: datetime
    began_s: float

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self.began_s

    @property
    def now(self) -> datetime:
        return self.as_of + timedelta(seconds=self.passed_s)


@dataclass(frozen=True)
class Sending:
    """What senders share."""

    settings: Settings
    outbound: Outbound
    clock: Clock
    jitter: Callable[[], float]

    @cached_property
    def box(self) -> SecretBox:
        return open_box(self.settings)


def send(sending: Sending, claimed: Claimed) -> Result:
    """Send one; whatever happens is a result."""
    started_at, began_s = sending.clock.now, time.monotonic()

    def result(outcome: Outcome, error: str | None = None, http_status: int | None = None) -> Result:
        return Result(claimed, outcome, started_at, time.monotonic() - began_s, http_status, error)

    def taken(sent: Sent) -> Result:
        return replace(result("sent", sent.note, sent.http_status), provider_ref=sent.provider_ref)

    before = None if claimed.rest is None else Sent(claimed.rest["provider_ref"], note=claimed.rest["note"])
    try:
        kind = CHANNELS[claimed.kind]
        message = Message.model_validate(claimed.body)
        sent = kind.send(
            message,
            kind.Config.model_validate({**claimed.config, **(claimed.rest or {}).get("config", {})}),
            _secrets(sending, kind, claimed.secrets),
            sending.outbound,
            claimed.thread_ref,
        )
        return taken(_both(before, sent))
    except Partly as partly:
        sent = _both(before, partly.sent)
        rest = {"config": partly.rest, "provider_ref": sent.provider_ref, "note": sent.note}
        return _put_off(sending, replace(result("retry", partly.detail), rest=json.dumps(rest)), None)
    except Permanent as refused:
        if before is not None:
            return taken(_both(before, Sent(note=refused.detail)))
        return replace(result("permanent", refused.detail, refused.http_status), is_gone=refused.disables)
    except Temporary as failed:
        said = result("retry", failed.detail, failed.http_status)
        return _put_off(sending, said, failed.retry_after_s)
    except Exception as error:
        # Ours to mend, not theirs: a key that is missing, a kind that only a newer version knows. It can wait.
        log.warning("a notification cannot be sent and is tried again: %s", type(error).__name__, exc_info=True)
        return _put_off(sending, result("retry", f"PulseWatch could not send it: {type(error).__name__}."), None)


def _both(before: Sent | None, sent: Sent) -> Sent:
    """How it went with all, of whom some had it before."""
    if before is None:
        return sent
    note = " ".join(note for note in (before.note, sent.note) if note)
    return Sent(before.provider_ref, sent.http_status, note or None)


def _secrets(sending: Sending, kind: ChannelKind[Any, Any], secrets: bytes | None) -> Any:
    plain = b"{}" if secrets is None else sending.box.decrypt(secrets)
    return kind.Secrets.model_validate_json(plain)


def _put_off(sending: Sending, result: Result, retry_after_s: float | None) -> Result:
    """When it is to be tried again: after a random part of the wait, and not before it was asked to be."""
    wait_s = WAITS_S[min(result.claimed.attempt, len(WAITS_S)) - 1] * sending.jitter()
    if retry_after_s is not None:
        wait_s = max(wait_s, min(retry_after_s, LONGEST_WAIT_S))
    next_attempt_at = result.ended_at + timedelta(seconds=wait_s)
    return replace(result, retry_after_s=retry_after_s, next_attempt_at=next_attempt_at)
