"""Every table, constraint and index. Each index names the query it serves.

Rules (docs/decisions/0002-schema-rules.md): `client_id` leads every key of a tenant's table; no b-tree on a column
that changes while a run goes on; digests are 16 fixed bytes (`uuid`), never payloads.
"""

from pulsewatch.models.alerts import (
    alert,
    alert_event,
    alert_mark,
    alert_rule,
    alert_rule_version,
    alert_target,
    alert_tick,
    channel,
    notification,
    notification_attempt,
    silence,
)
from pulsewatch.models.clients import annotation, api_key, client, pipeline
from pulsewatch.models.numbers import (
    client_day,
    client_hour,
    failing_span,
    fleet_day,
    fleet_hour,
    pipeline_day,
    pipeline_hour,
    pipeline_state,
    slot,
    slot_mark,
    slot_plan,
)
from pulsewatch.models.runs import dirty, ingest_reject, ingest_stat, run, run_event
from pulsewatch.models.service import analytics_object, worker_heartbeat

__all__ = [
    "alert",
    "alert_event",
    "alert_mark",
    "alert_rule",
    "alert_rule_version",
    "alert_target",
    "alert_tick",
    "analytics_object",
    "annotation",
    "api_key",
    "channel",
    "client",
    "client_day",
    "client_hour",
    "dirty",
    "failing_span",
    "fleet_day",
    "fleet_hour",
    "ingest_reject",
    "ingest_stat",
    "notification",
    "notification_attempt",
    "pipeline",
    "pipeline_day",
    "pipeline_hour",
    "pipeline_state",
    "run",
    "run_event",
    "silence",
    "slot",
    "slot_mark",
    "slot_plan",
    "worker_heartbeat",
]
