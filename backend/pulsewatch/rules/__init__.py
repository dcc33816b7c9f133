"""Door 2: the kinds of alert rules. One file each; adding one is a file, a line here and a test."""

from pulsewatch.rules import (
    client_no_data,
    consecutive_failures,
    duration_threshold,
    failure_rate,
    freshness,
    ingestion,
    metric_threshold,
    missed_run,
    no_data,
    overrun,
)
from pulsewatch.rules.base import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        consecutive_failures.KIND,
        failure_rate.KIND,
        missed_run.KIND,
        overrun.KIND,
        duration_threshold.KIND,
        freshness.KIND,
        no_data.KIND,
        client_no_data.KIND,
        metric_threshold.KIND,
        ingestion.KIND,
    )
}
