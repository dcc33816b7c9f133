"""A number that the last run reported is too high, or too low."""

from typing import cast

from pydantic import Field

from pulsewatch.rules import last_run
from pulsewatch.rules.base import Evidence, Kind, Params


class MetricThreshold(last_run.LastRun):
    """Which number, of which runs, and whether more is worse or less is."""

    metric: str = Field(min_length=1, max_length=100, description="Name of the metric, as the runs report it.")


def _describe(value: float, threshold: float, params: Params, _seen: Evidence) -> str:
    word = "or more" if last_run.direction(params) == "above" else "or less"
    return f"the last run reported {cast('MetricThreshold', params).metric} {value:g} (limit {threshold:g} {word})"


KIND = Kind(
    name="metric_threshold",
    title="Metric of the last run",
    unit="",
    params=MetricThreshold,
    observe=last_run.observe("(run.metrics ->> (asked.params ->> 'metric'))::double precision"),
    instants=last_run.INSTANTS,
    describe=_describe,
    direction=last_run.direction,
)
