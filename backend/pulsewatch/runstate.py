"""How a run's state follows from the set of its events, whatever their order. Pure.

`RunDelta` is what some events say together of one run. `RunDelta.of` takes one event, `absorb` joins two deltas; the
join does not care for order or repetition. The function pulsewatch.merge_events joins a delta with the stored row, by
the same rules.
"""

from datetime import datetime, timedelta
from typing import Self

from pulsewatch import packing
from pulsewatch.events import PRODUCER_TERMINAL, TERMINAL, Status, state_key
from pulsewatch.packing import Row

ATTEMPT_SHIFT = 58


class RunDelta:
    """What some events say together of one run."""

    __slots__ = (
        "earliest_end",
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

    # Set by `of`.
    state_key: int
    winner: Row
    opening: Row
    first_at: datetime
    last_at: datetime
    start: datetime | None
    latest_start: datetime | None
    earliest_end: datetime | None
    implied_start: datetime | None
    flags: int

    @classmethod
    def of(cls, row: Row) -> Self:
        """What one event says. An info event counts for no attempt, no start and no end."""
        delta = cls()
        event = row.event
        status, occurred_at, started_at = event.status, event.occurred_at, event.started_at
        delta.state_key = state_key(event, row.at_us)
        delta.winner = delta.opening = row
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
        if (other.state_key, other.winner.dedupe_key) > (self.state_key, self.winner.dedupe_key):
            self.state_key, self.winner, self.implied_start = (
                other.state_key,
                other.winner,
                other.implied_start,
            )
        if (other.opening.at_us, other.opening.dedupe_key) < (self.opening.at_us, self.opening.dedupe_key):
            self.opening = other.opening
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)
        self.flags |= other.flags

    def finish(self) -> None:
        """Write the delta into the row of its winning event, which stands for the run in the batch."""
        opening = self.opening
        self.winner.run = b"".join(
            (
                packing.bigint(self.state_key),
                packing.text(self.winner.event.run),
                packing.time(self.first_at),
                packing.time(self.last_at),
                packing.time(self.start),
                packing.time(self.latest_start),
                packing.time(self.earliest_end),
                packing.time(self.implied_start),
                packing.smallint(self.flags),
                packing.NO_OPENING if opening is self.winner else packing.opening(opening),
            )
        )


def finish_alone(row: Row) -> None:
    """The same for a run of which the batch holds this event only: most of what it says the row itself tells."""
    event = row.event
    if event.started_at is None and event.duration_s is None:
        row.run = packing.run_alone(state_key(event, row.at_us), event.run)
    else:
        RunDelta.of(row).finish()


def _least(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)


def _greatest(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return max(one, other)
