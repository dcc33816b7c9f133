"""Alerts straight into tables, with how their rule stands on its target, for tests of the API."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from pulsewatch.rules.base import Described
from pulsewatch.rules.rule import Rule
from tests.api.conftest import World
from tests.telling import add_rule, add_target

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Fired:
    """An alert in the tables."""

    client_id: int
    id: UUID
    rule: Rule
    target: Described

    @property
    def path(self) -> str:
        return f"/v1/alerts/{self.id}"


def fire(
    world: World,
    client: str,
    pipeline: str = "load",
    *,
    rule: Rule | None = None,
    minutes_ago: float = 10,
    level: int = 1,
    is_resolved: bool = False,
    labels: dict[str, str] | None = None,
    **described: object,
) -> Fired:
    """An alert of a rule (of all clients, if none is given) on a pipeline, with the event that tells that it fired."""
    with world.begin() as connection:
        target = add_target(connection, client, pipeline, **described)
        rule = rule or add_rule(connection, f"fails-{client}-{pipeline}")
        alert_id, at = uuid4(), NOW - timedelta(minutes=minutes_ago)
        values = {
            "client_id": target.client_id,
            "id": alert_id,
            "rule_id": rule.id,
            "pipeline_id": target.pipeline_id,
            "level": level,
            "at": at,
            "resolved_at": NOW if is_resolved else None,
            "reason": "recovered" if is_resolved else None,
            "summary": f"{client}/{pipeline}: 2 runs in a row failed",
            "labels": json.dumps(labels or {"team": "data"}),
            "state": "ok" if is_resolved else "firing",
            "standing": 0 if is_resolved else level,
            "of_standing": None if is_resolved else alert_id,
            "seq": 0 if is_resolved else 1,
            "evidence": json.dumps({"runs": [str(uuid4())]}),
        }
        for statement in (ALERT, TARGET, EVENT):
            connection.execute(text(statement), values)
    return Fired(target.client_id, alert_id, rule, target)


ALERT = """
insert into pulsewatch.alert (client_id, id, rule_id, rule_version, pipeline_id, level, max_level, pending_at, fired_at,
    value, threshold, summary, labels, annotations, resolved_at, resolve_reason)
values (:client_id, :id, :rule_id, 1, :pipeline_id, :level, :level, :at, :at, 2, 2, :summary, :labels,
    '{"description": "Call."}', :resolved_at, :reason)
"""
TARGET = """
insert into pulsewatch.alert_target (client_id, pipeline_id, rule_id, target_since, state, level, alert_id,
    state_since, pending_since, seq)
values (:client_id, :pipeline_id, :rule_id, :at, :state, :standing, :of_standing, :at, :at, :seq)
"""
EVENT = """
insert into pulsewatch.alert_event (client_id, as_of, alert_id, seq, rule_id, rule_version, pipeline_id, kind,
    from_state, state, prev_level, level, value, threshold, evidence)
values (:client_id, :at, :id, 1, :rule_id, 1, :pipeline_id, 'fired', 'ok', 'firing', 0, :level, 2, 2, :evidence)
"""


def notify(
    connection: Connection,
    fired: Fired,
    channel_id: int,
    status: str = "sent",
    *,
    minutes_ago: float = 5,
    reason: str = "fired",
    attempts: int = 1,
    error: str = "Answered 500 Internal Server Error.",
) -> UUID:
    """A notification of the alert, with attempts that failed but for the last of one that was sent."""
    id_, at = uuid4(), NOW - timedelta(minutes=minutes_ago)
    connection.execute(
        text(
            "insert into pulsewatch.notification (client_id, id, channel_id, alert_id, event_as_of, event_seq, reason,"
            " status, body, attempt_count, next_attempt_at, expires_at, created_at, sent_at, last_error)"
            " values (:client_id, :id, :channel_id, :alert_id, :at, 1, :reason, :status, :body, :attempts, :at,"
            " :at + interval '24 h', :at, :sent_at, :error)"
        ),
        {
            "client_id": fired.client_id,
            "id": id_,
            "channel_id": channel_id,
            "alert_id": fired.id,
            "at": at,
            "reason": reason,
            "status": status,
            "body": json.dumps({"title": "Failing", "status": "firing"}),
            "attempts": attempts,
            "sent_at": at if status == "sent" else None,
            "error": error,
        },
    )
    for n in range(1, attempts + 1):
        is_sent = status == "sent" and n == attempts
        connection.execute(
            text(
                "insert into pulsewatch.notification_attempt (client_id, started_at, notification_id, n, latency_s,"
                " outcome, http_status, error) values (:client_id, :at, :id, :n, 0.5, :outcome, :http_status, :error)"
            ),
            {
                "client_id": fired.client_id,
                "at": at + timedelta(seconds=n),
                "id": id_,
                "n": n,
                "outcome": "sent" if is_sent else "retry",
                "http_status": 200 if is_sent else 500,
                "error": None if is_sent else error,
            },
        )
    return id_
