"""The vocabulary of events, whatever wire they came over: statuses, identity, precedence. Pure.

Everything that makes ingestion idempotent and order-proof is decided here, from the producer's own words alone:
which event is the same event (`dedupe_key`), which run it belongs to (`run_id`) and which of a run's events wins
(`state_key`). Whether two say the same is told by `packing.content_digest`.
"""

import re
import struct
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

MAX_ATTEMPT = 31
MAX_CLOCK_AHEAD = timedelta(minutes=10)
SCHEDULED_FROM = datetime(2000, 1, 1, tzinfo=UTC)
SCHEDULED_AHEAD = timedelta(days=400)

# Clients and pipelines are addressed by slug in URLs; this is what a slug may look like.
SLUG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MAX_SLUG = 100
_SLUG = re.compile(SLUG_PATTERN)


class Status(StrEnum):
    """What an event says of its run. `timed_out` is written by PulseWatch alone."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"
    INFO = "info"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has come to an end."""
        return self in TERMINAL

    @property
    def precedence(self) -> int:
        """Its class in a state key: a producer's end, then timed_out, then running, then queued."""
        return PRECEDENCE[self]

    @property
    def rank(self) -> int:
        """Which of two ends at the same instant wins: the worse one."""
        return RANK.get(self, 0)


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED, Status.TIMED_OUT})
PRODUCER_TERMINAL = TERMINAL - {Status.TIMED_OUT}
PRECEDENCE = dict.fromkeys(PRODUCER_TERMINAL, 3) | {
    Status.TIMED_OUT: 2,
    Status.RUNNING: 1,
    Status.QUEUED: 0,
    Status.INFO: 0,
}
RANK = {Status.FAILED: 4, Status.CANCELLED: 3, Status.SKIPPED: 2, Status.SUCCEEDED: 1}
_CLASS_AND_RANK = {status: precedence << 56 | RANK.get(status, 0) for status, precedence in PRECEDENCE.items()}
# What a run's own status can be: info changes none, and a run known only by info is queued.
RUN_STATUSES = tuple(status for status in Status if status is not Status.INFO)


class Flag:
    """Odd things about an event that was accepted all the same; a run carries those of all its events."""

    ASSUMED_UTC = 1  # a wire that allows it gave a time without an offset
    SCHEDULED_AT_IGNORED = 2  # scheduled_at lay outside 2000-01-01 .. now + 400 days and was dropped


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The run that started this one, in the producer's words."""

    pipeline: str
    run: str
    namespace: str = ""


class RunEvent(msgspec.Struct):
    """One accepted fact about a run, the same for every wire.

    Times are aware and in UTC. `pipeline` is the producer's name for it, `run` its name for the run.
    `metrics` and `attributes` are None when absent or empty.
    """

    client: str
    pipeline: str
    run: str
    status: Status
    occurred_at: datetime
    namespace: str = ""
    event_id: str | None = None
    attempt: int | None = None
    scheduled_at: datetime | None = None
    ignored_scheduled_at: datetime | None = None  # out of bounds when it came; a retry may find it within them
    started_at: datetime | None = None
    duration_s: float | None = None
    message: str | None = None
    error_class: str | None = None
    url: str | None = None
    metrics: dict[str, float] | None = None
    attributes: dict[str, Any] | None = None
    parent: Parent | None = None
    flags: int = 0


# JSON with sorted keys and no spaces: equal values give equal bytes.
canonical_json = msgspec.json.Encoder(order="sorted").encode


def epoch_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    since = at - EPOCH  # not divided by a microsecond: every event pays for this
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds


def canonical_time(at: datetime) -> str:
    """The one spelling of an instant: UTC, `Z`, microseconds only where there are any."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Copied for each digest: that takes less time than to make one with its parameters.
_blake2b_16 = blake2b(digest_size=16)


def digest_of(words: bytes) -> bytes:
    """16 bytes of blake2b over the words."""
    hashed = _blake2b_16.copy()
    hashed.update(words)
    return hashed.digest()


def _digest(*parts: str) -> bytes:
    """16 bytes over the parts. NUL separates them; no accepted text contains one."""
    return digest_of("\0".join(parts).encode())


def digest16(*parts: str) -> str:
    """The same as 32 hex digits."""
    return _digest(*parts).hex()


def dedupe_key(event: RunEvent, at_us: int | None = None) -> bytes:
    """What makes two events the same event (16 bytes): event_id and time, else run, attempt, status and time.

    The time is in the digest although it stands beside it in the primary key: two info events of one run that share
    an event_id would otherwise tie, and the order of arrival would decide which of them is shown.

    Whoever knows epoch_us(occurred_at) already gives it as `at_us`.
    """
    at = epoch_us(event.occurred_at) if at_us is None else at_us
    if event.event_id is not None:
        return _digest("id", event.event_id, str(at))
    attempt = str(event.attempt) if event.attempt else "0"
    return _digest("of", event.namespace, event.pipeline, event.run, attempt, event.status, str(at))


def state_key(event: RunEvent, at_us: int | None = None) -> int:
    """Precedence of an event within its run; the greatest wins. 0 for info, which never changes a status.

    attempt << 58 | class << 56 | epoch_us << 3 | rank: the higher attempt, then the class of the status, then the
    later time, then the worse end. 53 bits of microseconds last until the year 2255.
    """
    status = event.status
    if status is Status.INFO:
        return 0
    at = epoch_us(event.occurred_at) if at_us is None else at_us
    return (event.attempt or 0) << 58 | at << 3 | _CLASS_AND_RANK[status]


_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}


def time_prefix(external_id: str) -> bytes | None:
    """The 48 bits of time in a UUIDv7 or ULID, else None."""
    if len(external_id) == 36 and external_id[14] == "7" and external_id[8:24:5] == "----":
        # Every event may pay for this: no pattern, no UUID.
        try:
            octets = bytes.fromhex(external_id.replace("-", ""))
        except ValueError:
            return None
        # Spaces between digits are no error there, but then there are too few of these.
        return octets[:6] if len(octets) == 16 and octets[8] & 0xC0 == 0x80 else None
    if len(external_id) == 26 and _ULID.fullmatch(external_id):
        milliseconds = 0
        for digit in external_id[:10]:
            milliseconds = milliseconds << 5 | _CROCKFORD[digit]
        return milliseconds.to_bytes(6, "big")
    return None


# The first field takes the first 6 bytes of what it is given.
_pack_uuid8 = struct.Struct("6sBBB7s").pack


def run_id_bytes(client: str, namespace: str, pipeline: str, external_id: str) -> bytes:
    """A run's UUIDv8, from the producer's own words: any order of arrival gives the same id.

    48 bits of time where external_id carries them, so that rows of runs that start together lie together; the rest,
    and all of it otherwise, is a digest of the four words (docs/decisions/0001-run-ids.md).
    """
    digest = _digest(client, namespace, pipeline, external_id)
    head = time_prefix(external_id) or digest
    return _pack_uuid8(head, 0x80 | digest[6] & 0x0F, digest[7], 0x80 | digest[8] & 0x3F, digest[9:])


def run_id(client: str, namespace: str, pipeline: str, external_id: str) -> str:
    """The same as text."""
    return str(UUID(bytes=run_id_bytes(client, namespace, pipeline, external_id)))


def is_slug(text: str) -> bool:
    """Whether the text can stand in a URL as the name of a client or pipeline."""
    return len(text) <= MAX_SLUG and _matches_slug(text)


# Every event names its client, and all name the same few.
@lru_cache(4096)
def _matches_slug(text: str) -> bool:
    return _SLUG.fullmatch(text) is not None


def pipeline_slug(namespace: str, name: str, digits: int = 8) -> str:
    """A pipeline's slug: its name where that is one, else a readable part of it and 8 digits of the digest.

    With more digits it always has them: for the rare case that another pipeline has the short one for its name.

    A pipeline in a namespace always gets the digest: the bare slug belongs to the name in the empty namespace,
    whichever of the two is seen first.
    """
    if not namespace and digits == 8 and is_slug(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[: 99 - digits].rstrip("-._")
    suffix = digest16(namespace, name)[:digits]
    return f"{readable}-{suffix}" if readable else f"p-{suffix}"
