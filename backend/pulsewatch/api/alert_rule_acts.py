"""What can be done with an alert rule: see whether it is right and what it would watch, switch it, restore it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Response
from sqlalchemy import Connection, Row

from pulsewatch import alert_targets, models, rulebook
from pulsewatch.api import alert_rule_schemas as schemas
from pulsewatch.api.alert_rule_bodies import read_dry_run, read_spec, whose_errors
from pulsewatch.api.alert_rules import (
    MAX_INT,
    ONE,
    Comment,
    RuleClient,
    RuleKey,
    checked,
    said_by,
    shown,
    tag_of,
    visible_rule,
)
from pulsewatch.api.answers import Cursor, Item, Limit, answer, decode_cursor, encode_cursor, page
from pulsewatch.api.deps import Body, Database, Reader, Writer, reading, require_visible
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import body_of, problems
from pulsewatch.api.paths import WORD
from pulsewatch.rules.base import Described
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec

router = APIRouter(tags=["alert rules"])

VersionNumber = Annotated[int, Path(alias="version", ge=1, le=MAX_INT, description="Number of the version.")]


def shown_target(target: Described) -> Item:
    """A target as the API shows it."""
    return {
        "client": target.client,
        "pipeline": target.pipeline,
        "tags": target.tags,
        "owner": target.owner,
        "environment": target.environment,
    }


# -- what a rule would watch ------------------------------------------------------------------------------------------


@router.post(
    "/v1/alert-rules:validate",
    response_model=schemas.ValidatedRule,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("AlertRuleSpec"),
    summary="Check an alert rule",
)
def validate_rule(caller: Reader, body: Body, engine: Database, client: RuleClient = None) -> Response:
    """Whether a PUT would take this rule, what it would store, and how many targets there are. Nothing is written."""
    with reading(engine) as connection:
        spec, owner = checked(connection, caller, client, body)
        targets = alert_targets.selected(connection, _unsaved(spec, owner))
    dumped = rulebook.normalised(spec).model_dump(mode="json")
    return answer({"spec": dumped, "target_count": len(targets)})


@router.post(
    "/v1/alert-rules:targets",
    response_model=schemas.AlertRuleTargetPage,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("AlertRuleSpec"),
    summary="Preview the targets of a rule that is not stored",
)
def preview_targets(
    caller: Reader,
    body: Body,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: RuleClient = None,
) -> Response:
    """What this rule would watch now, by client and pipeline. Nothing is written."""
    after = _target_cursor(cursor)
    with reading(engine) as connection:
        spec, owner = checked(connection, caller, client, body)
        targets = alert_targets.selected(connection, _unsaved(spec, owner))
    return _target_page(targets, limit, after)


@router.get(
    f"{ONE}:targets",
    response_model=schemas.AlertRuleTargetPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List the targets of an alert rule",
)
def list_targets(
    key: RuleKey,
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: RuleClient = None,
) -> Response:
    """What this rule watches, or would if it were enabled; by client and pipeline."""
    after = _target_cursor(cursor)
    with reading(engine) as connection:
        row = visible_rule(connection, caller, client, key)
        rules = alert_targets.load_rules(connection, [row.id])
        targets = [target for rule in rules for target in alert_targets.selected(connection, rule)]
    return _target_page(targets, limit, after)


def _unsaved(spec: RuleSpec, owner: Row[Any] | None) -> Rule:
    return Rule(0, None if owner is None else owner.id, "", 0, spec)


def _target_order(target: Described) -> tuple[str, str]:
    return target.client or "", target.pipeline or ""


def _target_cursor(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    _, client, pipeline = decode_cursor(cursor, tuple[Literal["alert-rule-targets"], str, str])
    return client, pipeline


def _target_page(targets: list[Described], limit: int, after: tuple[str, str] | None) -> Response:
    listed = sorted(targets, key=_target_order)
    if after is not None:
        listed = [target for target in listed if _target_order(target) > after]
    cursor_of = lambda target: encode_cursor("alert-rule-targets", *_target_order(target))  # noqa: E731
    return page(listed[: limit + 1], limit, shown_target, cursor_of)


# -- acts -------------------------------------------------------------------------------------------------------------

Act = Callable[[Connection, Row[Any], rulebook.Said], object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A rule that somebody wants to change, and why."""

    key: RuleKey
    caller: Writer
    engine: Database
    client: RuleClient = None
    comment: Comment = None

    def act(self, act: Act, *, is_deleted_too: bool = False) -> Response:
        """Do this to the rule, and show it as it is then."""
        with self.engine.begin() as connection:
            rulebook.lock(connection, is_patient=False)
            row = visible_rule(connection, self.caller, self.client, self.key, is_deleted_too=is_deleted_too)
            act(connection, row, said_by(connection, self.caller, self.comment))
            row = visible_rule(connection, self.caller, self.client, self.key)
        return answer(shown(row), headers={"ETag": tag_of(row)})


WantedRule = Annotated[Wanted, Depends()]


@router.post(
    f"{ONE}:enable",
    response_model=schemas.AlertRule,
    responses=problems(401, 403, 404, 422),
    summary="Switch an alert rule on",
)
def enable_rule(wanted: WantedRule) -> Response:
    """Evaluate the rule from now on. Where it is on already nothing changes."""
    return wanted.act(lambda *its: rulebook.set_enabled(*its, is_enabled=True))


@router.post(
    f"{ONE}:disable",
    response_model=schemas.AlertRule,
    responses=problems(401, 403, 404, 422),
    summary="Switch an alert rule off",
)
def disable_rule(wanted: WantedRule) -> Response:
    """Evaluate the rule no more, and close its alerts (`rule_disabled`). Where it is off already nothing changes."""
    return wanted.act(lambda *its: rulebook.set_enabled(*its, is_enabled=False))


@router.post(
    f"{ONE}:dry-run",
    response_model=schemas.AlertRule,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("DryRunRequest"),
    summary="Let an alert rule only try, or tell",
)
def set_dry_run(wanted: WantedRule, body: Body) -> Response:
    """A rule that only tries is evaluated and its alerts are written down, but nobody is told of those that fire."""
    is_dry_run, errors = read_dry_run(body)
    if wanted.client is not None:
        require_visible(wanted.caller, wanted.client)
    if errors:
        raise invalid(errors)
    return wanted.act(lambda *its: rulebook.set_dry_run(*its, is_dry_run=is_dry_run))


@router.post(
    f"{ONE}/versions/{{version:{WORD}}}:restore",
    response_model=schemas.AlertRule,
    responses=problems(401, 403, 404, 422),
    summary="Let an earlier version of an alert rule hold again",
)
def restore_version(wanted: WantedRule, version: VersionNumber) -> Response:
    """Make a new version that says what this one said. A rule that was deleted comes back by it.

    It must still be a rule that could be PUT: its channels may be gone.
    """
    return wanted.act(lambda *its: _restore(*its, version=version), is_deleted_too=True)


def _restore(connection: Connection, row: Row[Any], said: rulebook.Said, *, version: int) -> None:
    earlier = models.alert_rule_version.c.version == version
    found = connection.execute(rulebook.select_versions(row.id).where(earlier)).first()
    if found is None:
        raise not_found("version", str(version))
    spec, errors = read_spec(found.spec)
    if spec is not None:
        errors = whose_errors(connection, row.client_id, spec)
    if spec is None or errors:
        raise invalid(errors)
    rulebook.restore(connection, row, spec, said)
