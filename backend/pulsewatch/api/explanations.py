"""Why alerts fired, and why rules fire or do not."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection, Row, select

from pulsewatch import alert_targets, catalog, explain, models, notifications, rulebook
from pulsewatch.alert_writing import summary
from pulsewatch.api import alert_queries, alerts
from pulsewatch.api import explanation_schemas as schemas
from pulsewatch.api.alert_queries import shown_alert, shown_event, shown_notification
from pulsewatch.api.alert_rules import ONE, RuleKey, visible_rule
from pulsewatch.api.alerts import AlertId, visible_alert
from pulsewatch.api.answers import Item, TimeText, answer, parse_time
from pulsewatch.api.deps import Database, Reader, reading, visible_client, visible_pipeline
from pulsewatch.api.errors import invalid
from pulsewatch.api.openapi import problems
from pulsewatch.auth import Caller
from pulsewatch.explain import Explanation
from pulsewatch.problems import FieldError, Problem
from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec

router = APIRouter()


# -- alerts -----------------------------------------------------------------------------------------------------------


@router.get(
    f"{alerts.ONE}/explain",
    response_model=schemas.AlertExplanation,
    responses=problems(401, 403, 404, 422),
    summary="Explain an alert",
    tags=["alerts"],
)
def explain_alert(id_: AlertId, caller: Reader, engine: Database) -> Response:
    """Why it fired: what was measured, by which version of the rule, and the runs behind it; who was told, and why
    others were not. The events are those that were written down then, the runs are shown as they are now."""
    with reading(engine) as connection:
        row = visible_alert(connection, caller, id_)
        rule = _rule_of_version(connection, row.rule_id, row.rule_version)
        (target,) = alert_targets.describe(connection, {(row.client_id, row.pipeline_id)})
        events, _ = alert_queries.select_events(connection, row.client_id, row.id)
        fired = next((event for event in events if event.kind == "fired"), None)
        measured = row if fired is None else fired
        told = _shown_notifications(connection, caller, row)
        explained = {
            "alert": shown_alert(row),
            "because": summary(
                rule, target, measured.value, measured.threshold, None if fired is None else fired.evidence
            ),
            "rule": _shown_rule(rule, row.rule_client),
            "fired": None if fired is None else shown_event(fired),
            "events": [shown_event(event) for event in events],
            "runs": _shown_runs(connection, row.client_id, _run_ids(events)),
            "notifications": told,
            "nobody_told_because": None if told else _nobody_told(row, rule),
        }
    return answer(explained)


def _run_ids(events: Sequence[Row[Any]]) -> list[UUID]:
    """The runs of all evidence, the latest first."""
    found = [run_id for event in reversed(events) for run_id in (event.evidence or {}).get("runs", ())]
    return [UUID(run_id) for run_id in dict.fromkeys(found)][:MAX_RUNS]


MAX_RUNS = 100
HELD = {
    "silence": "A silence held it back.",
    "acknowledged": "Somebody had acknowledged the alert.",
    "snoozed": "Somebody had put the alert off.",
    "dry_run": "The rule only tries: nobody is told.",
    "backfill": "It was worked out afterwards: nobody is told.",
    "channel_disabled": "The channel was switched off.",
    "untold": "It was over before anybody was told that it went on.",
}
STATUSES = {
    "pending": "It is to be sent.",
    "leased": "It is being sent.",
    "sent": "It was sent.",
    "superseded": "A newer message says more.",
    "dead": "It was given up.",
    "dropped": "Nobody was to be told any more.",
    "held": "It is held back.",
}


def _shown_notifications(connection: Connection, caller: Caller, alert: Row[Any]) -> list[Item]:
    rows = alert_queries.notifications_of(connection, alert.client_id, alert.id)
    silences = _silences(connection, caller, [row.silence_id for row in rows if row.silence_id is not None])
    return [
        shown_notification(row, caller) | {"because": _became(row), "silence": silences.get(row.silence_id)}
        for row in rows
    ]


def _became(notification: Row[Any]) -> str:
    is_held = notification.held_by is not None and notification.status in {"held", "dropped"}
    return HELD[notification.held_by] if is_held else STATUSES[notification.status]


def _nobody_told(alert: Row[Any], rule: Rule) -> str:
    if alert.is_backfill:
        return HELD["backfill"]
    return "The channels of the rule did not exist." if rule.spec.channels else "The rule names no channels."


# -- rules ------------------------------------------------------------------------------------------------------------


@router.get(
    f"{ONE}:explain",
    response_model=schemas.RuleExplanation,
    responses=problems(401, 403, 404, 422),
    summary="Explain how an alert rule stands on a target",
    tags=["alert rules"],
)
def explain_rule(
    key: RuleKey,
    caller: Reader,
    engine: Database,
    client: Annotated[
        str | None,
        Query(
            description="Slug of the client, of the target. Of two rules of this key that of this client is meant, "
            "else that of all clients."
        ),
    ] = None,
    pipeline: Annotated[str | None, Query(description="Slug of the pipeline, for rules that watch pipelines.")] = None,
    as_of: Annotated[TimeText, Query(description="Explain this time, by what had been received by then.")] = None,
) -> Response:
    """What the rule sees of the target, what it holds that against, how it stands and what it waits for.

    With a time that is past: by the version of the rule and by what had been received by then.
    """
    errors: list[FieldError] = []
    asked_at = parse_time(as_of, "as_of", errors)
    if errors:
        raise invalid(errors)
    with reading(engine) as connection:
        row = _rule_for(connection, caller, client, key)
        now = catalog.clock(connection)
        at = now if asked_at is None else asked_at
        if at > now:
            raise invalid([FieldError("?as_of", "out_of_range", "It must not lie ahead.")])
        version, was_deleted = _version_then(connection, row, at)
        rule = _rule_of_version(connection, row.id, version)
        target, archived_at = _target(connection, caller, rule, client, pipeline)
        is_off = row.created_at > at or was_deleted or not rule.spec.is_enabled
        found = explain.explain(
            connection,
            rule,
            target,
            at,
            is_past=asked_at is not None,
            was_watched=not is_off and alert_targets.watched(rule, target) and _there(connection, target, at),
        )
        lack = _not_watched(row, rule, target, archived_at, found, at, was_deleted=was_deleted)
        shown = _shown_explanation(rule, row.client, target, at, found, lack) | {
            "silences": _covering(connection, caller, rule, target, found, at),
            "runs": _shown_rows(found.runs),
        }
    return answer(shown)


def _rule_for(connection: Connection, caller: Caller, client: str | None, key: str) -> Row[Any]:
    """The client's rule of this key, else that of all clients. Raises Problem 404."""
    try:
        return visible_rule(connection, caller, client, key)
    except Problem:
        if client is None or caller.client_id is not None:
            raise
        visible_client(connection, caller, client)
        return visible_rule(connection, caller, None, key)


def _version_then(connection: Connection, row: Row[Any], at: datetime) -> tuple[int, bool]:
    """The version that held then, and whether the rule was deleted; the first one, where there was none yet."""
    version = models.alert_rule_version
    query = (
        select(version.c.version, version.c.change)
        .where(version.c.rule_id == row.id, version.c.created_at <= at)
        .order_by(version.c.version.desc())
        .limit(1)
    )
    found = connection.execute(query).first()
    return (1, False) if found is None else (found.version, found.change == "deleted")


def _there(connection: Connection, target: Described, at: datetime) -> bool:
    """Whether the target was there already, and was not archived yet."""
    pipeline, client = models.pipeline, models.client
    query = select(client.c.created_at, client.c.archived_at).where(client.c.id == target.client_id)
    rows = list(connection.execute(query))
    if target.pipeline is not None:
        own = (pipeline.c.client_id == target.client_id) & (pipeline.c.id == target.pipeline_id)
        rows += connection.execute(select(pipeline.c.created_at, pipeline.c.archived_at).where(own))
    return all(row.created_at <= at and (row.archived_at is None or row.archived_at > at) for row in rows)


def _rule_of_version(connection: Connection, rule_id: int, number: int) -> Rule:
    rule, version = models.alert_rule, models.alert_rule_version
    query = (
        select(rule.c.client_id, rule.c.key, version.c.spec)
        .select_from(rule.join(version, version.c.rule_id == rule.c.id))
        .where(rule.c.id == rule_id, version.c.version == number)
    )
    found = connection.execute(query).one()
    return Rule(rule_id, found.client_id, found.key, number, rulebook.normalised(RuleSpec.model_validate(found.spec)))


def _target(
    connection: Connection, caller: Caller, rule: Rule, client: str | None, pipeline: str | None
) -> tuple[Described, datetime | None]:
    """The target that is meant, and since when it has been out of use. Raises Problem 404 or 422."""
    what, slug = rule.spec.definition.target, caller.client if client is None else client
    if pipeline is not None and what != "pipeline":
        raise invalid([FieldError("?pipeline", "unknown_value", "The rule does not watch single pipelines.")])
    if what == "fleet":
        return alert_targets.FLEET, None
    if slug is None:
        raise invalid([FieldError("?client", "missing_field", f"The rule watches each {what}: say which client's.")])
    if pipeline is None and what == "pipeline":
        raise invalid([FieldError("?pipeline", "missing_field", "The rule watches each pipeline: say which.")])
    owner = visible_client(connection, caller, slug)
    found = None if pipeline is None else visible_pipeline(connection, owner.id, pipeline)
    (target,) = alert_targets.describe(connection, {(owner.id, 0 if found is None else found.id)})
    return target, owner.archived_at or (None if found is None else found.archived_at)


def _not_watched(
    row: Row[Any],
    rule: Rule,
    target: Described,
    archived_at: datetime | None,
    found: Explanation,
    at: datetime,
    *,
    was_deleted: bool,
) -> str | None:
    """Why the rule does not watch the target; None if it does."""
    if found.standing is not None:
        return None
    if at < row.created_at:
        return "rule_not_there"
    if was_deleted:
        return "rule_deleted"
    if not rule.spec.is_enabled:
        return "rule_disabled"
    if not alert_targets.watched(rule, target):
        return "selector"
    return "archived" if archived_at is not None and archived_at <= at else "not_yet"


NOT_WATCHED = {
    "rule_not_there": "The rule did not exist yet.",
    "rule_deleted": "The rule was deleted then.",
    "rule_disabled": "The rule is switched off.",
    "selector": "The rule's selector does not pick this target.",
    "archived": "The target is archived.",
    "not_yet": "The rule does not watch the target yet.",
}


def _because(rule: Rule, found: Explanation, lack: str | None) -> str:
    if lack is not None:
        return NOT_WATCHED[lack]
    if found.standing is not None and found.standing.state.is_open:
        is_good = found.verdict.level is Level.NONE and found.verdict.value is not None
        said = f"It fires{', though it is good now' * is_good}: {found.summary}."
    else:
        said = _measured(rule, found)
    return " ".join([said, *(one.detail for one in found.waits)])


def _measured(rule: Rule, found: Explanation) -> str:
    verdict = found.verdict
    if verdict.value is None:
        return "It does not fire: there is nothing to measure."
    if verdict.level is not Level.NONE:
        return f"It does not fire yet: {verdict.value:g} has reached its threshold of {verdict.threshold:g}."
    if found.observation.evidence:
        return f"It does not fire: {found.summary}."
    side = "below" if rule.spec.definition.direction(rule.spec.parsed) == "above" else "above"
    return f"It does not fire: {verdict.value:g} is {side} its threshold of {verdict.threshold:g}."


def _shown_explanation(
    rule: Rule, rule_client: str | None, target: Described, at: datetime, found: Explanation, lack: str | None
) -> Item:
    verdict, standing = found.verdict, found.standing
    return {
        "rule": _shown_rule(rule, rule_client),
        "client": target.client,
        "pipeline": target.pipeline,
        "as_of": at,
        "because": _because(rule, found, lack),
        "is_watched": lack is None,
        "not_watched_because": lack,
        "target_since": found.target_since,
        "state": None if standing is None else standing.state,
        "state_since": None if standing is None else standing.state_since,
        "state_level": None if standing is None else standing.level.word,
        "alert_id": found.alert_id,
        "value": verdict.value,
        "threshold": verdict.threshold,
        "level": verdict.level.word,
        "summary": found.summary,
        "sample_at": found.observation.sample_at,
        "evidence": found.observation.evidence,
        "changes_at": found.changes_at,
        "looks_again_at": found.looks_again_at,
        "waits": [{"wait": one.wait, "until": one.until, "detail": one.detail} for one in found.waits],
        "frozen_because": found.frozen_because,
    }


# -- what both show ---------------------------------------------------------------------------------------------------

SHOWN_SPEC = (
    "kind", "title", "params", "for_s", "keep_firing_s", "recover_consecutive", "on_no_data", "on_error",
    "evaluation_delay_s", "new_target_grace_s",
)  # fmt: skip


def _shown_rule(rule: Rule, client: str | None) -> Item:
    """What it says about when it fires: not whom else it watches, and whom it tells."""
    spec = rule.spec
    return {
        "key": rule.key,
        "client": client,
        "version": rule.version,
        "unit": spec.definition.unit,
        "direction": spec.definition.direction(spec.parsed),
        "levels": spec.levels.model_dump(exclude_none=True),
    } | {name: getattr(spec, name) for name in SHOWN_SPEC}


def _shown_runs(connection: Connection, client_id: int, run_ids: Sequence[UUID]) -> list[Item]:
    return _shown_rows(explain.runs_of(connection, client_id, run_ids))


def _shown_rows(rows: Iterable[Row[Any]]) -> list[Item]:
    return [dict(row._mapping) | {"href": f"/v1/runs/{row.id}"} for row in rows]


def _covering(
    connection: Connection, caller: Caller, rule: Rule, target: Described, found: Explanation, at: datetime
) -> list[Item]:
    """The silences in force that cover an alert of this rule on this target, as bad as it is or may become."""
    told = Level.NONE if found.standing is None else found.standing.level
    level = max(told, found.verdict.level)
    levels = [Level.WARNING, Level.CRITICAL] if level is Level.NONE else [level]
    ids = [
        silence.id
        for silence in notifications.silences_in_force(connection, at)
        if any(silence.covers(rule.key, target, level) for level in levels)
    ]
    return list(_silences(connection, caller, ids).values())


def _silences(connection: Connection, caller: Caller, ids: Sequence[UUID]) -> Mapping[UUID, Item]:
    """These silences; what is said about those of all clients is not for bound keys."""
    silence = models.silence
    query = select(silence).where(silence.c.id.in_(ids)).order_by(silence.c.starts_at, silence.c.id)
    rows = list(connection.execute(query)) if ids else []
    return {
        row.id: {
            "id": row.id,
            "starts_at": row.starts_at,
            "ends_at": row.ends_at,
            "comment": row.comment if caller.client_id in (None, row.client_id) else None,
        }
        for row in rows
    }
