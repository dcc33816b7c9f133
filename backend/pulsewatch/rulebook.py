"""Writes down what people say about alert rules: each change is a new version, and the targets follow in one commit.

Everything happens in the caller's transaction. Whoever changes a rule takes `lock` before anything else that he locks,
and reads the rule under it: what changes rules or alerts goes one after the other.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, and_, insert, select, update

from pulsewatch import alert_targets, models
from pulsewatch.alert_writing import ALERTING_LOCK, WAIT_BRIEFLY
from pulsewatch.rules.spec import RuleSpec

Change = Literal["created", "changed", "enabled", "disabled", "dry_run", "restored", "deleted"]


@dataclass(frozen=True, slots=True)
class Said:
    """Who says it (the name of a key), why, and when."""

    author: str | None
    comment: str | None
    as_of: datetime


def lock(connection: Connection, *, is_patient: bool = True) -> None:
    """Until the transaction ends nobody else changes rules or alerts.

    Where others take long, it waits for them; else it raises OperationalError (SQLSTATE 55P03) after two seconds.
    """
    if not is_patient:
        connection.exec_driver_sql(WAIT_BRIEFLY)
    connection.exec_driver_sql(ALERTING_LOCK)


def select_rules() -> Select[Any]:
    """The select of all rules with the version that holds, deleted ones too."""
    rule, version, client = models.alert_rule, models.alert_rule_version, models.client
    holds = and_(version.c.rule_id == rule.c.id, version.c.version == rule.c.version)
    return select(
        rule, client.c.slug.label("client"), version.c.change, version.c.spec, version.c.author, version.c.comment
    ).select_from(rule.join(version, holds).outerjoin(client, client.c.id == rule.c.client_id))


def find(connection: Connection, client_id: int | None, key: str, *, is_deleted_too: bool = False) -> Row[Any] | None:
    """The rule of this key of the client, or of all clients if that is None; None if there is none."""
    rule = models.alert_rule
    query = select_rules().where(rule.c.client_id.is_not_distinct_from(client_id), rule.c.key == key)
    if not is_deleted_too:
        query = query.where(rule.c.deleted_at.is_(None))
    return connection.execute(query).first()


def select_versions(rule_id: int) -> Select[Any]:
    """The select of the versions of a rule, newest first."""
    version = models.alert_rule_version
    return select(version).where(version.c.rule_id == rule_id).order_by(version.c.version.desc())


def normalised(spec: RuleSpec) -> RuleSpec:
    """The rule as it is stored: with all that the kind can be told, and each channel once."""
    said = {"params": spec.parsed.model_dump(mode="json"), "channels": tuple(dict.fromkeys(spec.channels))}
    return spec.model_copy(update=said)


def save(connection: Connection, client_id: int | None, key: str, spec: RuleSpec, said: Said) -> Change | None:
    """Make the rule, or give it a new version; None where it says just that already.

    A rule that was deleted comes back, and goes on counting its versions.
    """
    lock(connection)
    row = find(connection, client_id, key, is_deleted_too=True)
    if row is not None:
        change: Change = "changed" if row.deleted_at is None else "created"
        return change if _change(connection, row, spec, change, said) else None
    values = {"client_id": client_id, "key": key, "version": 1, "kind": spec.kind, "is_enabled": spec.is_enabled}
    times = {"created_at": said.as_of, "updated_at": said.as_of}
    new = insert(models.alert_rule).values(values | times).returning(models.alert_rule.c.id)
    rule_id: int = connection.execute(new).scalar_one()
    _write_version(connection, rule_id, 1, "created", _dumped(spec), said)
    alert_targets.retarget_rules(connection, [rule_id], said.as_of)
    return "created"


def set_enabled(connection: Connection, row: Row[Any], said: Said, *, is_enabled: bool) -> bool:
    """Switch a rule on or off; False if it is so already. Switched off it closes its alerts and watches nothing."""
    spec = RuleSpec.model_validate(row.spec).model_copy(update={"is_enabled": is_enabled})
    return _change(connection, row, spec, "enabled" if is_enabled else "disabled", said)


def set_dry_run(connection: Connection, row: Row[Any], said: Said, *, is_dry_run: bool) -> bool:
    """Whether a rule only tries: what it finds is written down, and nobody is told. False if it is so already."""
    spec = RuleSpec.model_validate(row.spec).model_copy(update={"is_dry_run": is_dry_run})
    return _change(connection, row, spec, "dry_run", said)


def restore(connection: Connection, row: Row[Any], spec: RuleSpec, said: Said) -> bool:
    """Let an earlier version, given by what it says, hold again; False if it does. A deleted rule comes back."""
    return _change(connection, row, spec, "restored", said)


def delete(connection: Connection, row: Row[Any], said: Said) -> None:
    """Take a rule away: its alerts are closed, it watches nothing. Its versions and its alerts stay."""
    _set(connection, row, said, deleted_at=said.as_of)
    _write_version(connection, row.id, row.version + 1, "deleted", row.spec, said)
    alert_targets.retarget_rules(connection, [row.id], said.as_of)


def _change(connection: Connection, row: Row[Any], spec: RuleSpec, change: Change, said: Said) -> bool:
    """Give the rule a new version, unless it says just that; whether it has one."""
    dumped = _dumped(spec)
    if row.deleted_at is None and row.spec == dumped:
        return False
    _set(connection, row, said, kind=spec.kind, is_enabled=spec.is_enabled, deleted_at=None)
    _write_version(connection, row.id, row.version + 1, change, dumped, said)
    # What was measured and counted for another kind says nothing about this one. And of what fired while the rule only
    # tried nobody would be told as long as it goes on: it has to fire anew.
    is_anew = spec.kind != row.kind or (bool(row.spec.get("is_dry_run")) and not spec.is_dry_run)
    alert_targets.retarget_rules(connection, [row.id], said.as_of, is_anew=is_anew)
    return True


def _dumped(spec: RuleSpec) -> dict[str, Any]:
    return normalised(spec).model_dump(mode="json")


def _set(connection: Connection, row: Row[Any], said: Said, **values: object) -> None:
    rule = models.alert_rule
    own = update(rule).where(rule.c.id == row.id)
    connection.execute(own.values(version=row.version + 1, updated_at=said.as_of, **values))


def _write_version(
    connection: Connection, rule_id: int, version: int, change: Change, spec: dict[str, Any], said: Said
) -> None:
    values = {"rule_id": rule_id, "version": version, "change": change, "spec": spec, "created_at": said.as_of}
    rule = models.alert_rule
    whose = {"client_id": select(rule.c.client_id).where(rule.c.id == rule_id).scalar_subquery()}
    who = {"author": said.author, "comment": said.comment}
    connection.execute(insert(models.alert_rule_version).values(values | whose | who))


# -- the rule that PulseWatch brings ------------------------------------------------------------------------------

BUILTIN_KEY = "pulsewatch-ingestion"
BUILTIN = {
    "title": "No events come in",
    "kind": "ingestion",
    # It speaks once whole five minutes have gone by in which something should have come.
    "levels": {"critical": 60},
    "keep_firing_s": 120,
}


def ensure_builtin(connection: Connection, as_of: datetime) -> bool:
    """Make the rule that tells when no events come in any more; False if it was ever made.

    It is a rule like others: people may change it, or delete it, and then it does not come back. Whether rules that
    measure time are left as they are (gate) does not depend on it.
    """
    lock(connection)
    if find(connection, None, BUILTIN_KEY, is_deleted_too=True) is not None:
        return False
    save(
        connection, None, BUILTIN_KEY, RuleSpec.model_validate(BUILTIN), Said(None, "Made by PulseWatch itself.", as_of)
    )
    return True
