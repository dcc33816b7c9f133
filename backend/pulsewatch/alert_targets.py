"""Which rule watches what: the rows of alert_target follow the rules, the pipelines and the clients.

Targets are picked when a rule or a pipeline changes, not whenever rules are evaluated. A pipeline or client is in use
unless it, or its client, is archived; only what is in use is watched. Whoever retargets holds ALERTING_LOCK.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from pulsewatch import alert_writing
from pulsewatch.db import fetch
from pulsewatch.rules.base import Described
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec

log = logging.getLogger(__name__)

Named = tuple[int, int]  # client_id, pipeline_id
Key = tuple[int, int, int]  # client_id, pipeline_id, rule_id

FLEET = Described(0, 0, None, None)

RULES = """
select
    rule.id, rule.client_id, rule.key, rule.version, version.spec::text as spec,
    rule.deleted_at is not null as is_deleted
from pulsewatch.alert_rule as rule
join pulsewatch.alert_rule_version as version on version.rule_id = rule.id and version.version = rule.version
"""
IN_FORCE = f"{RULES} where rule.is_enabled and rule.deleted_at is null order by rule.id"
THESE_RULES = f"{RULES} where rule.id = any(%(rule_ids)s) order by rule.id"

PIPELINES = """
select
    pipeline.client_id, pipeline.id, client.slug, pipeline.slug, pipeline.tags, pipeline.owner, pipeline.environment
from pulsewatch.pipeline as pipeline
join pulsewatch.client as client on client.id = pipeline.client_id
"""
CLIENTS = "select client.id, 0, client.slug, null, '{}'::text[], null, null from pulsewatch.client as client"
PIPELINE_IN_USE = "pipeline.archived_at is null and client.archived_at is null"
OF_CLIENT = "(%(client_id)s::bigint is null or client.id = %(client_id)s::bigint)"
NAMED = "select * from unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[])"

PIPELINES_IN_USE = f"{PIPELINES} where {PIPELINE_IN_USE} and {OF_CLIENT} order by 1, 2"
CLIENTS_IN_USE = f"{CLIENTS} where client.archived_at is null and {OF_CLIENT} order by 1"
NAMED_PIPELINES = f"{PIPELINES} where (pipeline.client_id, pipeline.id) in ({NAMED}) order by 1, 2"
NAMED_CLIENTS = f"{CLIENTS} where (client.id, 0) in ({NAMED}) order by 1"
# Those that are named, and all of the clients that are: apart, so that few named among many are found by their keys.
TOUCHED_PIPELINES = f"""
{PIPELINES} where {PIPELINE_IN_USE} and (pipeline.client_id, pipeline.id) in ({NAMED})
union
{PIPELINES} where {PIPELINE_IN_USE} and pipeline.client_id = any(%(whole_ids)s)
"""
TOUCHED_CLIENTS = f"{CLIENTS} where client.archived_at is null and client.id = any(%(whole_ids)s)"

TARGETS_OF_RULES = """
select target.client_id, target.pipeline_id, target.rule_id
from pulsewatch.alert_target as target
where target.rule_id = any(%(rule_ids)s)
"""
TOUCHED_TARGETS = f"""
select target.client_id, target.pipeline_id, target.rule_id
from pulsewatch.alert_target as target
where (target.client_id, target.pipeline_id) in ({NAMED})
union
select target.client_id, target.pipeline_id, target.rule_id
from pulsewatch.alert_target as target
where target.client_id = any(%(whole_ids)s)
"""
OF_TARGETS = "unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[], %(rule_ids)s::bigint[])"
INSERT_TARGETS = f"""
insert into pulsewatch.alert_target (client_id, pipeline_id, rule_id, target_since, deadline_at, state_since)
select new.client_id, new.pipeline_id, new.rule_id, %(as_of)s, %(as_of)s, %(as_of)s
from {OF_TARGETS} as new (client_id, pipeline_id, rule_id)
order by new.client_id, new.pipeline_id, new.rule_id
on conflict (client_id, pipeline_id, rule_id) do nothing
"""
DELETE_TARGETS = f"""
delete from pulsewatch.alert_target as target
using {OF_TARGETS} as gone (client_id, pipeline_id, rule_id)
where target.client_id = gone.client_id
    and target.pipeline_id = gone.pipeline_id
    and target.rule_id = gone.rule_id
"""
# The next tick judges anew what a changed rule watches still.
LOOK_AGAIN = """
update pulsewatch.alert_target
set deadline_at = %(as_of)s
where rule_id = any(%(rule_ids)s) and (deadline_at is null or deadline_at > %(as_of)s)
"""


def load_rules(connection: Connection, rule_ids: Collection[int] | None = None) -> list[Rule]:
    """The rules that are in force; or these, in force or not. By number.

    A rule that this version of PulseWatch does not understand is left out, and the log says so.
    """
    return understood(fetch(connection, IN_FORCE) if rule_ids is None else _these(connection, rule_ids))


def understood(rows: Iterable[tuple[Any, ...]]) -> list[Rule]:
    """What rows of IN_FORCE tell."""
    return [rule for rule, _ in _read_rules(rows)]


def _these(connection: Connection, rule_ids: Collection[int]) -> list[tuple[Any, ...]]:
    return fetch(connection, THESE_RULES, {"rule_ids": list(rule_ids)})


def _read_rules(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Rule, str | None]]:
    """The rules, each with why it is not in force, None if it is."""
    loaded = []
    for id_, client_id, key, version, written, is_deleted in rows:
        try:
            spec = _spec(written)
        except ValidationError as error:
            log.error("alert rule %s, version %s, is not understood: %s", key, version, error.errors()[0]["msg"])
            continue
        over = "rule_deleted" if is_deleted else None if spec.is_enabled else "rule_disabled"
        loaded.append((Rule(id_, client_id, key, version, spec), over))
    return loaded


@lru_cache(4096)
def _spec(written: str) -> RuleSpec:
    """What a version says: versions never change, and each tick reads all that hold. Raises ValidationError."""
    return RuleSpec.model_validate_json(written)


def describe(connection: Connection, targets: Iterable[Named] | None = None) -> list[Described]:
    """These targets, in use or not, by number; those that were erased are left out. None: all that are in use."""
    if targets is None:
        every = {"client_id": None}
        found = [*_read(connection, PIPELINES_IN_USE, every), *_read(connection, CLIENTS_IN_USE, every), FLEET]
    else:
        named = _columns(targets)
        found = [*_read(connection, NAMED_PIPELINES, named), *_read(connection, NAMED_CLIENTS, named)]
        if FLEET.client_id in named["client_ids"]:
            found.append(FLEET)
    return sorted(found, key=lambda target: (target.client_id, target.pipeline_id))


def _read(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Described]:
    return [
        Described(client_id, pipeline_id, client, pipeline, tuple(tags), owner, environment)
        for client_id, pipeline_id, client, pipeline, tags, owner, environment in fetch(connection, statement, values)
    ]


def _columns(targets: Iterable[Named]) -> dict[str, list[int]]:
    listed = sorted(set(targets))
    return {"client_ids": [client_id for client_id, _ in listed], "pipeline_ids": [number for _, number in listed]}


def watched(rule: Rule, target: Described) -> bool:
    """Whether the rule, as long as it is in force, watches a target that is in use. Pure."""
    if rule.client_id is not None and rule.client_id != target.client_id:
        return False
    what = "fleet" if target.client is None else "client" if target.pipeline is None else "pipeline"
    return what == rule.spec.definition.target and rule.spec.selector.matches(target)


def selected(connection: Connection, rule: Rule) -> list[Described]:
    """What the rule watches as long as it is in force, by number."""
    found = [FLEET]
    if rule.spec.definition.target != "fleet":
        statement = PIPELINES_IN_USE if rule.spec.definition.target == "pipeline" else CLIENTS_IN_USE
        found = _read(connection, statement, {"client_id": rule.client_id})
    return [target for target in found if watched(rule, target)]


def retarget_rules(
    connection: Connection, rule_ids: Collection[int], as_of: datetime, *, is_anew: bool = False
) -> None:
    """Give rules that were made or changed the targets that they watch now; none if disabled or deleted.

    What a rule watches no longer is closed, and goes. What it watches still keeps its state and is judged anew by the
    next tick, as new targets are; `is_anew`: it is closed too, and begins from nothing.
    """
    loaded = _read_rules(_these(connection, rule_ids))
    rules = {rule.id: rule for rule, _ in loaded}
    reasons = {rule.id: over or "rule_changed" for rule, over in loaded}
    wanted = {
        (target.client_id, target.pipeline_id, rule.id)
        for rule, over in loaded
        if over is None
        for target in selected(connection, rule)
    }
    there = set(fetch(connection, TARGETS_OF_RULES, {"rule_ids": list(rules)}))
    kept = set() if is_anew else there & wanted
    _remove(connection, there - kept, rules, reasons, as_of)
    if kept:
        connection.exec_driver_sql(LOOK_AGAIN, {"rule_ids": list(rules), "as_of": as_of})
    _add(connection, wanted - kept, as_of)


def retarget_pipelines(connection: Connection, pipelines: Iterable[Named], as_of: datetime) -> None:
    """Find out which rules watch these pipelines, that are new or were described anew.

    (client, 0) stands for a client that is new, or was archived or brought back: for it and all its pipelines.
    """
    listed = set(pipelines)
    named = {**_columns(listed), "whole_ids": [client_id for client_id, pipeline_id in listed if pipeline_id == 0]}
    found = [*_read(connection, TOUCHED_PIPELINES, named), *_read(connection, TOUCHED_CLIENTS, named)]
    wanted = {
        (target.client_id, target.pipeline_id, rule.id)
        for rule in load_rules(connection)
        for target in found
        if watched(rule, target)
    }
    there = set(fetch(connection, TOUCHED_TARGETS, named))
    gone = there - wanted
    rules = {rule.id: rule for rule in load_rules(connection, {rule_id for _, _, rule_id in gone})} if gone else {}
    _remove(connection, gone, rules, dict.fromkeys(rules, "target_removed"), as_of)
    _add(connection, wanted - there, as_of)


def _remove(
    connection: Connection, gone: set[Key], rules: Mapping[int, Rule], reasons: Mapping[int, str], as_of: datetime
) -> None:
    """Close and delete targets."""
    if not gone:
        return
    described = {
        (target.client_id, target.pipeline_id): target
        for target in describe(connection, {(client_id, pipeline_id) for client_id, pipeline_id, _ in gone})
    }
    closing: dict[str, list[tuple[Rule, Described]]] = {}
    for client_id, pipeline_id, rule_id in sorted(gone):
        # The alerts of what was erased went with it.
        if (client_id, pipeline_id) in described and rule_id in rules:
            pair = rules[rule_id], described[client_id, pipeline_id]
            closing.setdefault(reasons[rule_id], []).append(pair)
    for reason, pairs in closing.items():
        alert_writing.close(connection, pairs, reason, as_of)
    connection.exec_driver_sql(DELETE_TARGETS, _key_columns(gone))


def _add(connection: Connection, new: set[Key], as_of: datetime) -> None:
    if new:
        connection.exec_driver_sql(INSERT_TARGETS, {**_key_columns(new), "as_of": as_of})


def _key_columns(keys: set[Key]) -> dict[str, list[int]]:
    client_ids, pipeline_ids, rule_ids = zip(*sorted(keys), strict=True)
    return {"client_ids": list(client_ids), "pipeline_ids": list(pipeline_ids), "rule_ids": list(rule_ids)}
