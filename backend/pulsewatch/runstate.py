"""How a run's state follows from the set of its events, whatever their order. Pure.

`RunDelta` is what some events say together of one run. `RunDelta.of` takes one event, `absorb` joins two deltas; the
join does not care for order or repetition. `ingest.MERGE_SQL` joins a delta with the stored row by the same rules.
"""

from datetime import datetime, timedelta
from typing import Any, Self

from pulsewatch.events import (
    PRODUCER_TERMINAL,
    TERMINAL,
    RunEvent,
    Status,
    content_digest,
    dedupe_key,
    run_id,
    state_key,
)

ATTEMPT_SHIFT = 58


def event_row(event: RunEvent, client_id: int, pipeline_id: int) -> dict[str, Any]:
    """An event as the object that ingest.MERGE_SQL reads.

    Names are short and what is absent stays out, because the server's work grows with the length of the batch.
    """
    row: dict[str, Any] = {
        "c": client_id,
        "p": pipeline_id,
        "r": run_id(event.client, event.namespace, event.pipeline, event.run),
        "o": event.occurred_at,
        "k": dedupe_key(event),
        "h": content_digest(event),
        "s": event.status,
    }
    for short, value in (
        ("n", event.attempt),
        ("g", event.flags or None),
        ("b", event.started_at),
        ("q", event.scheduled_at),
        ("d", event.duration_s),
        ("i", event.event_id),
        ("t", event.message),
        ("z", event.error_class),
        ("u", event.url),
        ("m", event.metrics),
        ("a", event.attributes),
        ("v", event.parent),
    ):
        if value is not None:
            row[short] = value  # noqa: PERF403 - measured: a comprehension to update from is slower
    return row


class RunDelta:
    """What some events say together of one run."""

    __slots__ = (
        "earliest_end",
        "external_id",
        "first_at",
        "flags",
        "implied_start",
        "last_at",
        "latest_start",
        "opening",
        "start",
        "state_key",
        "winner",
    )

    # Set by `of`; `opening` and `winner` are rows as `event_row` makes them.
    state_key: int
    winner: dict[str, Any]
    opening: dict[str, Any]
    first_at: datetime
    last_at: datetime
    start: datetime | None
    latest_start: datetime | None
    earliest_end: datetime | None
    implied_start: datetime | None
    external_id: str
    flags: int

    @classmethod
    def of(cls, event: RunEvent, row: dict[str, Any]) -> Self:
        """What one event says. An info event counts for no attempt, no start and no end."""
        delta = cls()
        status, occurred_at, started_at = event.status, event.occurred_at, event.started_at
        delta.state_key = state_key(event)
        delta.winner = delta.opening = row
        delta.external_id = event.run
        delta.flags = event.flags
        delta.last_at = occurred_at
        delta.first_at = occurred_at if started_at is None or occurred_at < started_at else started_at
        delta.start = delta.latest_start = delta.earliest_end = delta.implied_start = None
        if status is Status.RUNNING:
            delta.start = delta.first_at
            delta.latest_start = occurred_at if started_at is None or occurred_at > started_at else started_at
        elif status is not Status.INFO:
            delta.start = delta.latest_start = started_at
            if status in PRODUCER_TERMINAL:
                delta.earliest_end = occurred_at
            if status in TERMINAL and event.duration_s is not None:
                delta.implied_start = occurred_at - timedelta(seconds=event.duration_s)
        return delta

    def absorb(self, other: "RunDelta") -> None:
        """Join another delta of the same run into this one."""
        mine, theirs = self.state_key >> ATTEMPT_SHIFT, other.state_key >> ATTEMPT_SHIFT
        if theirs > mine:
            self.start, self.latest_start = other.start, other.latest_start
            self.earliest_end = other.earliest_end
        elif theirs == mine:
            self.start = _least(self.start, other.start)
            self.latest_start = _greatest(self.latest_start, other.latest_start)
            self.earliest_end = _least(self.earliest_end, other.earliest_end)
        if (other.state_key, other.winner["k"]) > (self.state_key, self.winner["k"]):
            self.state_key, self.winner, self.implied_start = (
                other.state_key,
                other.winner,
                other.implied_start,
            )
        if (other.opening["o"], other.opening["k"]) < (self.opening["o"], self.opening["k"]):
            self.opening = other.opening
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)
        self.flags |= other.flags

    def finish(self) -> None:
        """Write the delta into the row of its winning event, which stands for the run in ingest_sql.MERGE_SQL.

        What the statement can tell from the event itself stays out: reading times costs the server more than the rest.
        """
        row = self.winner
        occurred_at, status = row["o"], row["s"]
        row["w"] = self.state_key
        row["x"] = self.external_id
        for short, value, told in (
            ("f", self.first_at, occurred_at),
            ("l", self.last_at, occurred_at),
            ("b1", self.start, occurred_at if status is Status.RUNNING else None),
            ("b2", self.latest_start, self.start),
            ("e1", self.earliest_end, occurred_at if status in PRODUCER_TERMINAL else None),
            ("b0", self.implied_start, None),
            ("g1", self.flags, 0),
        ):
            if value != told:
                row[short] = value
        if self.opening is not row:
            for short, of_opening in (("o1", "o"), ("k1", "k"), ("q1", "q"), ("m1", "m"), ("a1", "a"), ("v1", "v")):
                if of_opening in self.opening:
                    row[short] = self.opening[of_opening]


def _least(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)


def _greatest(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return max(one, other)
