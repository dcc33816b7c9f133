"""The last run took too long, or was over too soon."""

from pulsewatch.rules import last_run
from pulsewatch.rules.base import Evidence, Kind, Params
from pulsewatch.rules.spans import check_seconds, spoken


class DurationThreshold(last_run.LastRun):
    """Of which runs, and whether a long or a short time is bad."""


def _describe(value: float, threshold: float, params: Params, _seen: Evidence) -> str:
    word = "or more" if last_run.direction(params) == "above" else "or less"
    return f"the last run took {spoken(value)} (limit {spoken(threshold)} {word})"


_TOLD = last_run.told("asked.last_duration_s")

KIND = Kind(
    name="duration_threshold",
    title="Duration of the last run",
    unit="s",
    params=DurationThreshold,
    observe=last_run.observe("run.duration_s", _TOLD),
    told=_TOLD,
    instants=last_run.INSTANTS,
    describe=_describe,
    direction=last_run.direction,
    check_level=check_seconds,
)
