"""Alert rules, alerts and what was told of them, put straight into the tables."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from tests.analytics.conftest import Acme
from tests.analytics.rows import at, insert, uuid

SPEC: dict[str, Any] = {
    "title": "Too many failures",
    "kind": "consecutive_failures",
    "levels": {"warning": 2, "critical": 5},
    "selector": {"clients": [], "pipelines": ["night*", "load"], "tags": [], "owners": [], "environments": ["prod"]},
    "for_s": 60,
    "keep_firing_s": 0,
    "recover_consecutive": 2,
    "on_no_data": "keep",
    "on_error": "alert",
    "evaluation_delay_s": 30,
    "new_target_grace_s": 0,
    "repeat_s": None,
    "channels": ["mail", "chat"],
    "runbook_url": "https://runbook.test",
    "is_enabled": True,
    "is_dry_run": False,
}


@dataclass(frozen=True, slots=True)
class Alerting:
    """A rule and a channel of all clients, and the pipeline nightly of acme."""

    acme: Acme
    rule_id: int
    channel_id: int

    @property
    def connection(self) -> Connection:
        return self.acme.connection

    def alert(self, number: int, **values: Any) -> UUID:
        """An alert of the pipeline that fired at one o'clock; given an end, it recovered.

        Taken on, it was so for the first time.
        """
        row: dict[str, Any] = {
            "rule_id": self.rule_id,
            "rule_version": 1,
            "level": 1,
            "fired_at": at(1),
            "summary": f"alert {number}",
            "resolve_reason": "recovered" if values.get("resolved_at") else None,
        }
        if "acknowledged_at" in values:
            row["first_acknowledged_at"] = values["acknowledged_at"]
        row |= {**self.acme.keys, **values}
        row.setdefault("max_level", row["level"])
        insert(self.connection, "alert", id=uuid(number), **row)
        return uuid(number)

    def event(self, number: int, seq: int, **values: Any) -> None:
        """The event of this number of an alert; it fired, as a warning."""
        row: dict[str, Any] = {
            "alert_id": uuid(number), "seq": seq, "rule_id": self.rule_id, "rule_version": 1, "as_of": at(1),
            "kind": "fired", "from_state": "ok", "state": "firing", "prev_level": 0, "level": 1,
        }  # fmt: skip
        insert(self.connection, "alert_event", **row | {**self.acme.keys, **values})

    def message(self, number: int, **values: Any) -> UUID:
        """A message about the alert of the same number, which is yet to be sent."""
        row: dict[str, Any] = {
            "id": uuid(number), "client_id": self.acme.client_id, "channel_id": self.channel_id,
            "alert_id": uuid(number), "event_as_of": at(1), "event_seq": 1, "reason": "fired", "status": "pending",
            "body": {"secret": "words"}, "next_attempt_at": at(1), "expires_at": at(25), "created_at": at(1),
        }  # fmt: skip
        insert(self.connection, "notification", **row | values)
        return uuid(number)

    def attempt(self, number: int, n: int, **values: Any) -> None:
        keys = {"client_id": self.acme.client_id, "notification_id": uuid(number)}
        insert(self.connection, "notification_attempt", **keys, n=n, **{"latency_s": 0.5, "outcome": "sent", **values})


def rule(acme: Acme, key: str = "failures", client_id: int | None = None, **values: Any) -> int:
    """A rule with its first version; `spec` changes what it says."""
    spec = SPEC | values.pop("spec", {})
    row: dict[str, Any] = {"kind": spec["kind"], "version": 1, "is_enabled": True, **values}
    rule_id: int = insert(acme.connection, "alert_rule", client_id=client_id, key=key, **row)
    version(acme, rule_id, 1, spec, client_id=client_id, change="created", created_at=at(0), author="ops")
    return rule_id


def version(acme: Acme, rule_id: int, number: int, spec: dict[str, Any], **values: Any) -> None:
    insert(acme.connection, "alert_rule_version", rule_id=rule_id, version=number, spec=spec, **values)


def alerting(acme: Acme) -> Alerting:
    channel_id = insert(
        acme.connection, "channel", key="mail", kind="email", title="On call", config={"to": "a@b.test"}
    )
    return Alerting(acme, rule(acme), channel_id)
