"""What goes wrong in the demo: incidents of clients and pipelines, and the words in which runs fail. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from random import Random

from pulsewatch.demo_cast import Pipeline


class Trouble(StrEnum):
    """A kind of incident."""

    OUTAGE = "outage"  # the client's machines are down: few runs come, and those fail
    OFFLINE = "offline"  # the client cannot be heard: its events arrive when it is over
    SLOW = "slow"  # everything takes longer, and starts late
    BROKEN = "broken"  # one pipeline was broken by a change: each of its runs fails in the same way
    SILENT = "silent"  # one pipeline does not run at all


@dataclass(frozen=True, slots=True)
class Incident:
    """A trouble over a half-open range of time."""

    trouble: Trouble
    begins_at: datetime
    ends_at: datetime

    def covers(self, at: datetime) -> bool:
        return self.begins_at <= at < self.ends_at


# Hours from the moment at which the demo was first started; what a visitor should find whatever the chances say.
STAGED_OF_CLIENTS = {
    "fjord-fisheries": ((Trouble.OUTAGE, -9 * 24.0, 5.5),),
    "delta-freight": ((Trouble.OFFLINE, -4 * 24.0, 7.0),),
    "harbor-hotels": ((Trouble.SLOW, -50.0, 20.0),),
    "kite-airlines": ((Trouble.OUTAGE, -31 * 24.0, 9.0),),
}
# The same for what a client runs of one trade: going on when the demo starts, or beginning within its first minutes, so
# that somebody who watches sees an alert fire, get worse and end.
STAGED_OF_TRADES = {
    ("acme-retail", "ingest_{}"): ((Trouble.BROKEN, -30.0, 36.0),),
    ("bluewater-bank", "refresh_{}_dashboard"): ((Trouble.SILENT, -26.0, 38.0),),
    ("galaxy-games", "stream_{}"): ((Trouble.BROKEN, 1.5 / 60, 4 / 60),),
    ("nimbus-cloud", "stream_{}"): ((Trouble.SILENT, 5 / 60, 4.5 / 60),),
}
# Chance of an incident to begin on a day, and its length in hours, from and to.
CHANCES_OF_CLIENTS = (
    (Trouble.OUTAGE, 1 / 120, 0.7, 6.0),
    (Trouble.OFFLINE, 1 / 90, 0.3, 8.0),
    (Trouble.SLOW, 1 / 45, 2.0, 16.0),
)
CHANCES_OF_PIPELINES = ((Trouble.BROKEN, 1 / 70, 2.0, 28.0), (Trouble.SILENT, 1 / 160, 3.0, 40.0))
# An incident that began this many days ago may still last.
LONGEST_DAYS = 2


@lru_cache(maxsize=20_000)
def incidents_of_client(seed: int, anchor: datetime, slug: str, day: datetime) -> tuple[Incident, ...]:
    """The client's incidents that begin on the UTC day."""
    staged = STAGED_OF_CLIENTS.get(slug, ())
    key = f"{seed}/{slug}/{(day.date() - anchor.date()).days}"
    return (*_staged(staged, anchor, day), *_by_chance(CHANCES_OF_CLIENTS, key, day))


@lru_cache(maxsize=20_000)
def incidents_of_pipeline(
    seed: int, anchor: datetime, slug: str, trade: str, name: str, day: datetime
) -> tuple[Incident, ...]:
    """A pipeline's own incidents that begin on the UTC day."""
    staged = STAGED_OF_TRADES.get((slug, trade), ())
    key = f"{seed}/{slug}/{name}/{(day.date() - anchor.date()).days}/trouble"
    return (*_staged(staged, anchor, day), *_by_chance(CHANCES_OF_PIPELINES, key, day))


def _staged(staged: tuple[tuple[Trouble, float, float], ...], anchor: datetime, day: datetime) -> Iterator[Incident]:
    for trouble, from_h, length_h in staged:
        begins_at = anchor + timedelta(hours=from_h)
        if begins_at.date() == day.date():
            yield Incident(trouble, begins_at, begins_at + timedelta(hours=length_h))


def _by_chance(chances: tuple[tuple[Trouble, float, float, float], ...], key: str, day: datetime) -> Iterator[Incident]:
    rng = Random(key)  # noqa: S311 - a story, not a secret
    for trouble, chance, shortest_h, longest_h in chances:
        if rng.random() < chance:
            begins_at = day + timedelta(minutes=rng.randrange(24 * 60))
            yield Incident(trouble, begins_at, begins_at + timedelta(hours=rng.uniform(shortest_h, longest_h)))


# (class, message) by the family of a trade; {table}, {n} and {big} are filled in.
ERRORS: dict[str, tuple[tuple[str, str], ...]] = {
    "source": (
        ("OperationalError", 'connection to server at "replica-{n}.internal", port 5432 failed: Connection timed out'),
        ("SchemaMismatch", "column {table}.discount_pct is numeric(5,2) in the source and integer in the target"),
        (
            "QueryCanceled",
            "canceling statement due to conflict with recovery",
        ),
    ),
    "dbt": (
        ("DatabaseError", 'Database Error in model fct_{table}: relation "raw.{table}_delta" does not exist'),
        ("TestFailure", "Failure in test unique_fct_{table}_id: Got {n} results, configured to fail if != 0"),
        (
            "DeadlockDetected",
            "deadlock detected merging into marts.fct_{table}; process {big} waits for ShareLock",
        ),
    ),
    "api": (
        ("HTTPError", "429 Too Many Requests for url: https://api.crm.example/v3/objects/contacts/batch/upsert"),
        ("ReadTimeout", "HTTPSConnectionPool(host='api.crm.example', port=443): Read timed out. (read timeout=30)"),
        ("HTTPError", "401 Unauthorized: the refresh token has expired"),
    ),
    "files": (
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/inbox/{table}_{n}.csv.gz'"),
        (
            "ClientError",
            "An error occurred (SlowDown) when calling the PutObject operation: reduce your request rate",
        ),
        ("UnicodeDecodeError", "'utf-8' codec can't decode byte 0xe4 in position {big}: invalid continuation byte"),
    ),
    "warehouse": (
        ("DiskFull", 'could not extend file "base/16384/{big}": No space left on device'),
        ("LockNotAvailable", "canceling statement due to lock timeout on relation {table}_snapshot"),
        ("OperationalError", "server closed the connection unexpectedly while copying {table}"),
    ),
    "quality": (
        ("CheckFailed", "{table}: {n} rows with a null customer_id, 0 allowed"),
        ("CheckFailed", "{table}: newest row is {n} minutes old, at most 90 allowed"),
        ("CheckFailed", "{table}: row count fell by {n} % against the same weekday last week"),
    ),
    "memory": (
        ("OutOfMemory", "container killed with exit code 137 (limit 16Gi, peak 16.{n}Gi)"),
        ("ValueError", "Input X contains NaN in feature {table}_lag_7d"),
        ("CudaError", "CUDA out of memory. Tried to allocate {n}.00 GiB"),
    ),
}
OUTAGE_ERRORS = (
    ("ConnectionRefusedError", "[Errno 111] Connection refused"),
    ("NameResolutionError", "Failed to resolve 'warehouse.internal' ([Errno -3] Temporary failure in name resolution)"),
)


def failure(pipeline: Pipeline, rng: Random, incident: Incident | None) -> tuple[str, str]:
    """Class and message of a failure. A pipeline that a change has broken fails with the same words each time."""
    if incident is not None and incident.trouble is Trouble.OUTAGE:
        return rng.choice(OUTAGE_ERRORS)
    words = rng
    if incident is not None and incident.trouble is Trouble.BROKEN:
        words = Random(f"{pipeline.name}{incident.begins_at}")  # noqa: S311 - a story, not a secret
    error_class, message = words.choice(ERRORS[pipeline.trade.errors])
    table = words.choice(pipeline.client.things)
    return error_class, message.format(table=table, n=words.randrange(2, 60), big=words.randrange(10_000, 99_999))
