"""Whether PulseWatch can trust that nothing arrived: rules that measure time are left as they were while it cannot.

They would tell everybody that everything is missing, when it is ingestion, the database or the worker that was away.
Nothing that people change about the rule that tells of it changes anything about that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from pulsewatch.observing import Asked, observe
from pulsewatch.rulebook import BUILTIN, BUILTIN_KEY, normalised
from pulsewatch.rules.ingestion import ARRIVED, LAST_AT
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec

# When no worker has seen to the rules for so long, the worker or the database was away.
AWAY_AFTER_S = 60.0
# A worker that has to wait for what is not worked out yet says so often that it is there.
STILL_THERE_AFTER_S = 20.0
# So long after a doubt is over, producers have had the time to send what they could not.
SETTLES_WITHIN = timedelta(minutes=2)
# By then whole five minutes have gone by in which something should have come: what should have is known.
DECIDED_AFTER_S = 660.0

AWAY = "worker_away"
DOUBTED = "ingestion"
CATCHING_UP = "catching_up"

# The columns of LastTick. Of ticks that a clock which was ahead has left in the future nothing is known.
LAST_TICK = """
select
    last.as_of, last.seen_at, least(%(now)s::timestamptz, clock_timestamp()) as now,
    (
        select max(doubted.as_of)
        from pulsewatch.alert_tick as doubted
        where doubted.as_of > last.as_of - interval '2 minutes'
            and doubted.as_of <= last.as_of
            and doubted.frozen_because in ('worker_away', 'ingestion')
    ) as doubted_at
from pulsewatch.alert_tick as last
where last.as_of <= least(%(now)s::timestamptz, clock_timestamp())
order by last.as_of desc
limit 1
"""

STILL_THERE = "update pulsewatch.alert_tick set seen_at = %(now)s where as_of = %(as_of)s"

# What should have come is told by whole five minutes only: too late for a rule that speaks after three. Until then it
# is in doubt as soon as it is silent for longer than it ever was of late: where something came in each five minutes of
# the last hour, twice as long as any of these was silent at its end, and so long that ten events are missing.
SILENCE = f"""
with last as (
    select newest.bucket_at, max({LAST_AT}) as at
    from (
        select stat.bucket_at
        from pulsewatch.ingest_stat as stat
        where stat.bucket_at <= %(as_of)s and {ARRIVED}
        order by stat.bucket_at desc
        limit 1
    ) as newest
    join pulsewatch.ingest_stat as stat on stat.bucket_at = newest.bucket_at and {ARRIVED}
    group by newest.bucket_at
),

recent as (
    select
        stat.bucket_at, sum(stat.accepted) as event_count,
        extract(epoch from stat.bucket_at + interval '5 minutes' - max({LAST_AT})) as silent_s
    from last
    join pulsewatch.ingest_stat as stat
        on stat.bucket_at >= last.bucket_at - interval '1 hour'
        and stat.bucket_at < last.bucket_at
        and {ARRIVED}
    group by stat.bucket_at
)

select
    extract(epoch from %(as_of)s - last.at)::double precision as silent_s,
    (
        select greatest(30, 2 * max(recent.silent_s), 10 * 300 / min(recent.event_count))::double precision
        from recent
        having count(*) = 12
    ) as usual_s
from last
"""  # noqa: S608 - constants
# What that gives: for how many seconds nothing has come, and how long is usual; no row where nothing ever came.
SilentFor = Sequence[tuple[Any, ...]]


# The rule that PulseWatch brings, as it brings it.
RULE = Rule(0, None, BUILTIN_KEY, 1, normalised(RuleSpec.model_validate(BUILTIN)))
LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class LastTick:
    """The latest tick. `seen_at`: when a worker last saw to the rules; `doubted_at`: the last doubt, if that is recent.

    `now` is the present, as the worker and the database agree on it.
    """

    as_of: datetime
    seen_at: datetime
    now: datetime
    doubted_at: datetime | None = None

    @property
    def away_s(self) -> float | None:
        """For how long nobody saw to the rules, where that is too long."""
        unseen_s = (self.now - self.seen_at).total_seconds()
        return unseen_s if unseen_s > AWAY_AFTER_S else None


def still_there(connection: Connection, last: LastTick) -> None:
    """Say that a worker is there, though no tick is due, or what is received is not worked out yet.

    When that is done, ticks go on as if nothing had been: all is known then, and producers were never shut out.
    """
    unseen_s = (last.now - last.seen_at).total_seconds()
    if STILL_THERE_AFTER_S <= unseen_s <= AWAY_AFTER_S:
        connection.exec_driver_sql(STILL_THERE, {"now": last.now, "as_of": last.as_of})


def frozen_because(connection: Connection, last: LastTick | None, as_of: datetime, silent_for: SilentFor) -> str | None:
    """Why rules that measure time are left as they were; None: they are not. `silent_for`: what SILENCE gives."""
    if last is not None and last.away_s is not None:
        return AWAY
    if is_doubted(connection, as_of, silent_for):
        return DOUBTED
    is_recent = last is not None and last.doubted_at is not None and as_of - last.doubted_at < SETTLES_WITHIN
    return CATCHING_UP if is_recent else None


def is_doubted(connection: Connection, as_of: datetime, silent_for: SilentFor) -> bool:
    """Whether events should arrive and do not: at first by how long it is usually silent, then by what should come."""
    if not silent_for:
        return False
    silent_s, usual_s = silent_for[0]
    if usual_s is not None and usual_s <= silent_s < DECIDED_AFTER_S:
        return True
    if silent_s < LONGEST_S:
        return False
    (seen,) = observe(connection, RULE, [Asked(0, 0, as_of, None, as_of)])
    return float((seen.evidence or {})["silent_s"]) >= LONGEST_S
