"""What rules see of their targets: what the statements are given, what their rows mean, and how a rule judges it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from pulsewatch.episodes import Policy
from pulsewatch.observing_sql import PLANNING, asked_sql
from pulsewatch.rules.base import Level, Observation, Verdict, judge
from pulsewatch.rules.rule import Rule


@dataclass(frozen=True, slots=True)
class Asked:
    """A target of a rule at a time, by what had been received by `known_at`; None: by all there is."""

    client_id: int
    pipeline_id: int
    as_of: datetime
    known_at: datetime | None
    target_since: datetime


def observe(connection: Connection, rule: Rule, asked: Sequence[Asked]) -> list[Observation]:
    """What a rule sees of targets at times; one for each, by target and time."""
    connection.exec_driver_sql(PLANNING)
    values = {
        "rules": rules_json([rule]),
        "client_ids": [one.client_id for one in asked],
        "pipeline_ids": [one.pipeline_id for one in asked],
        "as_ofs": [one.as_of for one in asked],
        "known_ats": [one.known_at for one in asked],
        "target_sinces": [one.target_since for one in asked],
    }
    return [observation_of(row) for row in connection.exec_driver_sql(asked_sql(rule.spec.definition), values)]


def rules_json(rules: Iterable[Rule]) -> str:
    """Rules as the statements read them."""
    return json.dumps([_rule_row(rule) for rule in rules])


def _rule_row(rule: Rule) -> Mapping[str, Any]:
    spec = rule.spec
    thresholds = [level for level in (spec.levels.warning, spec.levels.critical) if level is not None]
    return {
        "rule_id": rule.id,
        "kind": spec.kind,
        "params": spec.params,
        "thresholds": thresholds,
        "warning": spec.levels.warning,
        "critical": spec.levels.critical,
        "is_above": spec.definition.direction(spec.parsed) == "above",
        "is_lack_told": spec.on_no_data in {"no_data", "alert"},
        "delay_s": spec.evaluation_delay_s,
        "grace_s": spec.new_target_grace_s,
    }


def observation_of(row: Any) -> Observation:
    """A row of either statement."""
    return Observation(
        row.rule_id,
        row.client_id,
        row.pipeline_id,
        row.as_of,
        row.value,
        row.sample_at,
        row.next_at,
        tuple(row.run_ids or ()),
        row.evidence,
        row.held_until,
    )


def verdict_of(rule: Rule, observation: Observation) -> Verdict:
    """How a rule judges what it sees."""
    spec = rule.spec
    verdict = judge(observation.value, spec.levels, spec.definition.direction(spec.parsed))
    return replace(verdict, held_until=observation.held_until)


def looks_again_at(rule: Rule, observation: Observation) -> datetime | None:
    """When what was observed may change although nothing arrives, as the rule sees it: after its delay."""
    if observation.next_at is None:
        return None
    return observation.next_at + timedelta(seconds=rule.spec.evaluation_delay_s)


def policy_of(rule: Rule) -> Policy:
    """What a rule says about time."""
    spec = rule.spec
    lowest = Level.CRITICAL if spec.levels.warning is None else Level.WARNING
    return Policy(spec.for_s, spec.keep_firing_s, spec.recover_consecutive, spec.on_no_data, spec.on_error, lowest)
