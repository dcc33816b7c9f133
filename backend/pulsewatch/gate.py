"""Whether PulseWatch can trust that nothing arrived: rules that measure time are left as they were while it cannot.

They would tell everybody that everything is missing, when it is ingestion, the database or the worker that was away.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from pulsewatch.rulebook import BUILTIN_KEY

# Without a tick for so long, the worker or the database was away.
AWAY_AFTER = timedelta(minutes=1)
# So long after that, producers have had the time to send what they could not.
SETTLES_WITHIN = timedelta(minutes=2)
AWAY = "worker_away"
DOUBTED = "ingestion"

LAST_TICK = """
select last.as_of, last.frozen_because, since.as_of as away_since
from (select as_of, frozen_because from pulsewatch.alert_tick order by as_of desc limit 1) as last
left join lateral (
    select min(streak.as_of) as as_of
    from pulsewatch.alert_tick as streak
    where streak.frozen_because = 'worker_away'
        and streak.as_of > last.as_of - interval '10 minutes'
        and streak.as_of > coalesce(
            (
                select max(before.as_of)
                from pulsewatch.alert_tick as before
                where before.as_of > last.as_of - interval '10 minutes'
                    and before.frozen_because is distinct from 'worker_away'
            ),
            '-infinity'
        )
) as since on last.frozen_because = 'worker_away'
"""

DOUBT = """
select exists (
    select
    from pulsewatch.alert_rule as rule
    join pulsewatch.alert_target as target on target.rule_id = rule.id
    where rule.client_id is null
        and rule.key = %(key)s
        and rule.deleted_at is null
        and target.client_id = 0
        and target.state in ('pending', 'firing', 'recovering')
)
"""


@dataclass(frozen=True, slots=True)
class LastTick:
    """The latest tick; `away_since`: the first one after the worker was away, while that still counts."""

    as_of: datetime
    away_since: datetime | None


def last_tick(connection: Connection) -> LastTick | None:
    """The latest tick there was; None if there was none ever."""
    row = connection.exec_driver_sql(LAST_TICK).one_or_none()
    return None if row is None else LastTick(row.as_of, row.away_since)


def away(last: LastTick | None, as_of: datetime) -> str | None:
    """Why, if the worker was away until a short time ago. Pure."""
    if last is None:
        return None
    if as_of - last.as_of > AWAY_AFTER:
        return AWAY
    return AWAY if last.away_since is not None and as_of - last.away_since < SETTLES_WITHIN else None


def doubted(connection: Connection) -> str | None:
    """Why, if the built-in rule says that no events arrive although they should."""
    return DOUBTED if connection.exec_driver_sql(DOUBT, {"key": BUILTIN_KEY}).scalar_one() else None
