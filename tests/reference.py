"""How a run follows from the set of its events, written as plainly as it can be said.

Nothing here is shared with the code under test: no key arithmetic, no merging, just the whole set and the rules.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from pulsewatch.events import RunEvent, dedupe_key

WORSE = ["succeeded", "skipped", "cancelled", "failed"]
PRODUCER_ENDS = set(WORSE)
ENDS = PRODUCER_ENDS | {"timed_out"}


def expected_run(events: Iterable[RunEvent]) -> dict[str, Any]:
    """The run that these events make: what analytics.runs shows, with metrics and attributes beside it."""
    events = list(events)
    telling = [event for event in events if event.status != "info"]
    attempt = max((event.attempt or 0 for event in telling), default=0)
    current = [event for event in telling if (event.attempt or 0) == attempt]
    winner = max(current or events, key=_precedence)
    opening = min(events, key=lambda event: (event.occurred_at, dedupe_key(event)))
    ended = winner.status in ENDS
    finished_at = winner.occurred_at if ended else None
    starts = [at for event in current for at in _starts(event)]
    started_at = min(starts, default=None)
    if started_at is None and ended and winner.duration_s is not None:
        started_at = winner.occurred_at - timedelta(seconds=winner.duration_s)
    duration_s = winner.duration_s
    if duration_s is None and starts and finished_at is not None and finished_at >= min(starts):
        duration_s = (finished_at - min(starts)).total_seconds()
    ends = [event.occurred_at for event in current if event.status in PRODUCER_ENDS]
    return {
        "status": "queued" if winner.status == "info" else str(winner.status),
        "attempt": attempt,
        "first_at": min(at for event in events for at in (event.occurred_at, event.started_at) if at),
        "last_at": max(event.occurred_at for event in events),
        "scheduled_at": winner.scheduled_at or opening.scheduled_at,
        "started_at": started_at,
        "finished_at": finished_at,
        "duration_s": duration_s,
        "message": winner.message,
        "error_class": winner.error_class,
        "url": winner.url,
        "metrics": (opening.metrics or {}) | (winner.metrics or {}),
        "attributes": (opening.attributes or {}) | (winner.attributes or {}),
        "parent_external_id": parent.run if (parent := winner.parent or opening.parent) else None,
        "is_finish_before_start": bool(starts and finished_at and finished_at < min(starts)),
        "is_external_id_reused": bool(starts and ends and max(starts) - min(ends) > timedelta(hours=1)),
        "is_assumed_utc": any(event.flags & 1 for event in events),
        "is_scheduled_at_ignored": any(event.flags & 2 for event in events),
    }


def _precedence(event: RunEvent) -> tuple[int, datetime, int, bytes]:
    """Within one attempt: an end beats timed_out beats running beats queued; then later; then worse; then the key.

    Events that are info all weigh the same, so that the greatest key among them stands.
    """
    if event.status == "info":
        return (-1, datetime.min.replace(tzinfo=event.occurred_at.tzinfo), 0, dedupe_key(event))
    order = ["queued", "running", "timed_out"]
    weight = order.index(event.status) if event.status in order else len(order)
    badness = WORSE.index(event.status) if event.status in WORSE else 0
    return (weight, event.occurred_at, badness, dedupe_key(event))


def _starts(event: RunEvent) -> list[datetime]:
    given = [event.started_at] if event.started_at else []
    return [*given, event.occurred_at] if event.status == "running" else given
