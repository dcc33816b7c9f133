"""What a schedule and a time zone may look like, and when a schedule expects a start. Pure.

Three forms: five-field cron (`30 6 * * 1-5`), the names `@hourly @daily @weekly @monthly @yearly`, and intervals
(`every 15m`, in s, m, h or d, of at least 10 seconds).
"""

import difflib
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

from cronsim import CronSim, CronSimError

from pulsewatch.events import EPOCH

MAX_SCHEDULE_LENGTH = 200
MIN_INTERVAL_S = 10
MAX_INTERVAL_S = 366 * 86_400

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Listed on some machines, but they mean another thing on each, or nothing.
MACHINE_ZONES = {"localtime", "Factory"}
_EVERY = re.compile(r"every ([0-9]{1,9}) ?([smhd])", re.ASCII)
# Any fixed instant will do: it is only where the search for a first occurrence begins.
_PROBE_FROM = datetime(2024, 1, 1, tzinfo=UTC)


def validate_schedule(schedule: str) -> None:
    """Raise ValueError, saying what is wrong and what would do, unless the text is a schedule."""
    if len(schedule) > MAX_SCHEDULE_LENGTH:
        msg = f"A schedule has at most {MAX_SCHEDULE_LENGTH} characters."
        raise ValueError(msg)
    if schedule.startswith("@"):
        _validate_name(schedule)
    elif schedule.lower().startswith("every"):
        _validate_interval(schedule)
    else:
        _validate_cron(schedule)


def _validate_name(schedule: str) -> None:
    if schedule not in NAMED:
        msg = f"'{schedule}' is not one of {', '.join(sorted(NAMED))}."
        raise ValueError(msg)


def _validate_interval(schedule: str) -> None:
    match = _EVERY.fullmatch(schedule)
    if match is None:
        msg = f"'{schedule}' is not an interval; write 'every 30s', 'every 15m', 'every 6h' or 'every 1d'."
        raise ValueError(msg)
    seconds = int(match[1]) * UNIT_S[match[2]]
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        msg = f"'{schedule}' is out of range: an interval lasts {MIN_INTERVAL_S} seconds to 366 days."
        raise ValueError(msg)


def _validate_cron(schedule: str) -> None:
    fields = schedule.split()
    if len(fields) != 5:
        msg = (
            f"'{schedule}' has {len(fields)} fields; cron has five: minute, hour, day of month, month, day of week. "
            "'@daily' and 'every 15m' are understood too."
        )
        raise ValueError(msg)
    try:
        next(CronSim(schedule, _PROBE_FROM))
    except CronSimError as error:
        msg = f"'{schedule}' is not a cron expression: {str(error).lower()}."
        raise ValueError(msg) from error
    except StopIteration:
        msg = f"'{schedule}' never comes due."
        raise ValueError(msg) from None


def occurrences(schedule: str, timezone: str | None, after: datetime, until: datetime) -> Iterator[datetime]:
    """The starts that a valid schedule expects within (after, until], ascending, in UTC. None for the zone is UTC.

    Cron and the names are read in the zone. Where clocks go forward, a start at a fixed time that is skipped is
    expected at the first minute there is. Where they go back, a start at a fixed time is expected once, at the first
    of the two. A schedule whose minute or hour begins with `*` follows elapsed time through both. Intervals count
    from 1970-01-01 00:00 UTC, whatever the zone: 'every 6h' is 00:00, 06:00, 12:00 and 18:00 UTC.

    Raises ValueError where this machine does not know the schedule's form or its zone.
    """
    found = _intervals(schedule, after) if schedule.startswith("every") else _cron(schedule, timezone, after)
    for at in found:
        if at > until:
            return
        # Within the hour that comes twice, cron's walk begins in local time: it may look back.
        if at > after:
            yield at


def _intervals(schedule: str, after: datetime) -> Iterator[datetime]:
    match = _EVERY.fullmatch(schedule)
    if match is None:
        msg = f"'{schedule}' is not an interval."
        raise ValueError(msg)
    step = timedelta(seconds=int(match[1]) * UNIT_S[match[2]])
    at = after - (after - EPOCH) % step
    while True:
        at += step
        yield at


def _cron(schedule: str, timezone: str | None, after: datetime) -> Iterator[datetime]:
    try:
        # This object, not a zone of the same name, spares the walk all its conversions.
        zone = UTC if timezone is None or timezone == "UTC" else zoneinfo.ZoneInfo(timezone)
        for at in CronSim(NAMED.get(schedule, schedule), after.astimezone(zone)):
            yield at.astimezone(UTC)
    except (CronSimError, zoneinfo.ZoneInfoNotFoundError) as error:
        msg = f"'{schedule}' in '{timezone}' cannot be worked out: {error}"
        raise ValueError(msg) from error


def validate_timezone(name: str) -> None:
    """Raise ValueError, naming a similar zone where there is one, unless the text is an IANA time zone."""
    if name not in zone_names():
        near = difflib.get_close_matches(name[:100], zone_names(), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else " Write it as in 'Europe/Berlin' or 'UTC'."
        msg = f"'{name[:100]}' is not an IANA time zone.{hint}"
        raise ValueError(msg)


@cache
def zone_names() -> frozenset[str]:
    """All IANA zones this machine knows. A listing, not a file lookup, so that no odd name reaches the disk."""
    return frozenset(zoneinfo.available_timezones()) - MACHINE_ZONES
