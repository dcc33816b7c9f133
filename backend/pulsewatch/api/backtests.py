"""What alert rules would have done: stored or not, over a time that is past. Nothing is written, nothing locked."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from time import monotonic
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError

from pulsewatch import alert_targets, backtest, catalog, models, rulebook
from pulsewatch.api import backtest_schemas as schemas
from pulsewatch.api.alert_rule_bodies import read_spec, whose_errors
from pulsewatch.api.alert_rules import ONE, RuleClient, RuleKey, visible_rule, whose
from pulsewatch.api.answers import Item, answer
from pulsewatch.api.deps import Body, Database, Reader, Words
from pulsewatch.api.errors import QUERY_CANCELED, invalid
from pulsewatch.api.model_bodies import read_body
from pulsewatch.api.openapi import body_of, problems
from pulsewatch.auth import Caller
from pulsewatch.backtest import Episode, Mode, Outcome
from pulsewatch.problems import FieldError, Problem, unavailable
from pulsewatch.rules.base import Described
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import RuleSpec

router = APIRouter(tags=["alert rules"])

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
MAX_WINDOW = timedelta(days=400)
# What would run into the timeout is not begun: so many targets times days (docs/backtests.md has the measurement).
MOST_WORK: dict[Mode, int] = {"as_final": 1_000_000, "as_known": 50_000}
TIMEOUT_S = 60.0
# Each holds a thread and a connection of the API for long.
AT_ONCE = 2
_places = BoundedSemaphore(AT_ONCE)
READ_ONLY = "set transaction isolation level repeatable read, read only"


@dataclass(frozen=True, slots=True)
class Window:
    """Over which time, by what."""

    from_at: datetime
    to_at: datetime
    mode: Mode

    @property
    def days(self) -> float:
        return (self.to_at - self.from_at) / timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tried:
    """What a rule would have done. `key` and `version` are None where it is not stored."""

    rule: Rule
    key: str | None
    version: int | None
    targets: Sequence[Described]
    outcomes: Sequence[Outcome]


@router.post(
    "/v1/alert-rules:backtest",
    response_model=schemas.Backtest,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("BacktestSpecRequest"),
    summary="Try a rule that is not stored on the past",
)
def backtest_spec(caller: Reader, body: Body, engine: Database, client: RuleClient = None) -> Response:
    """What this rule would have told, as if it had been there since `from`: on the targets that it would watch now.

    With `compare_with` also what another rule would have told, and what only one of them would.
    """
    asked = read_body(schemas.ReadSpecBacktest, body)
    with _trying(engine) as connection:
        window = _window(connection, asked)
        subject = _unsaved(connection, caller, client, asked.spec, "/spec")
        other = _compared(connection, caller, client, asked.compare_with, None)
        return _answer(connection, window, subject, other)


@router.post(
    f"{ONE}:backtest",
    response_model=schemas.Backtest,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("BacktestRequest"),
    summary="Try an alert rule on the past",
)
def backtest_rule(key: RuleKey, caller: Reader, body: Body, engine: Database, client: RuleClient = None) -> Response:
    """What this rule would have told, as if it had been there since `from`: on the targets that it would watch now.

    With `compare_with` also what another rule or version would have told, and what only one of them would.
    """
    with _trying(engine) as connection:
        row = visible_rule(connection, caller, client, key)
        asked = read_body(schemas.ReadBacktest, body)
        window = _window(connection, asked)
        subject = _stored(connection, row, asked.version, "/version")
        other = _compared(connection, caller, client, asked.compare_with, row)
        return _answer(connection, window, subject, other)


# -- which rules ------------------------------------------------------------------------------------------------------


def _unsaved(connection: Connection, caller: Caller, client: str | None, given: Words, at: str) -> Tried:
    owner = whose(connection, caller, client)
    owner_id = None if owner is None else owner.id
    spec, errors = read_spec(given)
    if spec is not None:
        errors = whose_errors(connection, owner_id, spec)
    if spec is None or errors:
        raise invalid([replace(error, pointer=at + error.pointer) for error in errors])
    return Tried(Rule(0, owner_id, "", 0, rulebook.normalised(spec)), None, None, (), ())


def _stored(connection: Connection, row: Row[Any], version: int | None, at: str) -> Tried:
    written, number = row.spec, row.version
    if version is not None:
        numbered = models.alert_rule_version.c.version == version
        found = connection.execute(rulebook.select_versions(row.id).where(numbered)).first()
        if found is None:
            raise invalid([FieldError(at, "unknown_value", f"The rule has versions 1 to {row.version}.")])
        written, number = found.spec, found.version
    # Without a number, so that what the rule watches since when does not count.
    return Tried(Rule(0, row.client_id, row.key, number, RuleSpec.model_validate(written)), row.key, number, (), ())


def _compared(
    connection: Connection,
    caller: Caller,
    client: str | None,
    given: schemas.ReadCompared | None,
    row: Row[Any] | None,
) -> Tried | None:
    """The other rule; `row` is the stored one that it is compared with. Raises Problem 404 or 422."""
    if given is None:
        return None
    if given.spec is not None:
        if given.key is not None or given.version is not None:
            raise invalid([FieldError("/compare_with", "invalid_value", "Give either a spec, or a key or version.")])
        return _unsaved(connection, caller, client, given.spec, "/compare_with/spec")
    if given.key is not None:
        row = visible_rule(connection, caller, client, given.key)
    if row is None:
        raise invalid([FieldError("/compare_with", "missing_field", "Give a spec or a key.")])
    return _stored(connection, row, given.version, "/compare_with/version")


# -- trying them ------------------------------------------------------------------------------------------------------


@contextmanager
def _trying(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, and sees one state of things. Raises Problem 422 or 503."""
    if not _places.acquire(blocking=False):
        raise unavailable(f"{AT_ONCE} backtests are being made; no more at once.", retry_after_s=5)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(READ_ONLY)
            yield connection
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != QUERY_CANCELED:
            raise
        detail = f"It took more than {TIMEOUT_S:.0f} s: take a shorter time, a narrower selector, or as_final."
        raise Problem(422, "too_much_work", detail) from error
    finally:
        _places.release()


def _window(connection: Connection, asked: "schemas.ReadBacktest | schemas.ReadSpecBacktest") -> Window:
    """The time to look at, not beyond now. Raises Problem 422."""
    from_at, to_at = asked.from_, min(asked.to, catalog.clock(connection))
    if from_at < EARLIEST:
        raise invalid([FieldError("/from", "out_of_range", "The year 2000 is the earliest.")])
    if from_at >= to_at:
        raise invalid([FieldError("/from", "out_of_range", "It must lie before to, and before now.")])
    # Only now: not every time of the years 1 and 9999 is one in UTC.
    from_at, to_at = from_at.astimezone(UTC), to_at.astimezone(UTC)
    if to_at - from_at > MAX_WINDOW:
        raise invalid([FieldError("/from", "out_of_range", f"It may lie {MAX_WINDOW.days} days before to at most.")])
    return Window(from_at, to_at, asked.mode)


def _try(connection: Connection, subjects: Sequence[Tried], window: Window) -> list[Tried]:
    """What these rules would have done. Raises Problem 422 where that is too much work."""
    listed = [replace(one, targets=alert_targets.selected(connection, one.rule)) for one in subjects]
    count = sum(len(one.targets) for one in listed)
    if count * window.days > MOST_WORK[window.mode]:
        detail = (
            f"{count} targets over {window.days:.3g} days are too many: {window.mode} may look at"
            f" {MOST_WORK[window.mode]} targets times days. Take a shorter time, a narrower selector"
            f"{', or as_final' * (window.mode == 'as_known')}."
        )
        raise Problem(422, "too_much_work", detail)
    until = monotonic() + TIMEOUT_S
    return [
        replace(
            one,
            outcomes=backtest.backtest(
                connection, one.rule, window.from_at, window.to_at, window.mode, targets=one.targets, until=until
            ),
        )
        for one in listed
    ]


# -- showing what they would have done --------------------------------------------------------------------------------

Named = tuple[Described, Episode]


def _answer(connection: Connection, window: Window, subject: Tried, other: Tried | None) -> Response:
    tried = _try(connection, [subject] if other is None else [subject, other], window)
    shown = _shown(tried[0], window) | {"from": window.from_at, "to": window.to_at, "mode": window.mode}
    if other is None:
        return answer(shown | {"compared_with": None, "only_this": None, "only_other": None})
    this, that = (_episodes(one) for one in tried)
    compared = {
        "compared_with": _shown(tried[1], window),
        "only_this": _shown_alerts(_only(this, that, window.to_at)),
        "only_other": _shown_alerts(_only(that, this, window.to_at)),
    }
    return answer(shown | compared)


def _shown(tried: Tried, window: Window) -> Item:
    targets = [_shown_target(outcome, window.to_at) for outcome in tried.outcomes]
    targets.sort(key=lambda one: (-one["alert_count"], one["client"] or "", one["pipeline"] or ""))
    return _shown_alerts(_episodes(tried)) | {
        "key": tried.key,
        "version": tried.version,
        "target_count": len(tried.targets),
        "firing_target_count": len(targets),
        "targets": targets[: schemas.MAX_TARGETS],
        "notification_count": backtest.notifications(tried.rule, tried.outcomes, window.to_at),
    }


def _shown_target(outcome: Outcome, to_at: datetime) -> Item:
    lasted = ((one.resolved_at or to_at) - one.fired_at for one in outcome.episodes)
    return {
        "client": outcome.target.client,
        "pipeline": outcome.target.pipeline,
        "alert_count": len(outcome.episodes),
        "firing_s": sum(lasted, timedelta()).total_seconds(),
    }


def _episodes(tried: Tried) -> list[Named]:
    return [(outcome.target, episode) for outcome in tried.outcomes for episode in outcome.episodes]


def _shown_alerts(named: Sequence[Named]) -> Item:
    first = sorted(named, key=lambda one: (one[1].fired_at, one[0].client_id, one[0].pipeline_id))
    alerts = [
        {
            "client": target.client,
            "pipeline": target.pipeline,
            "fired_at": episode.fired_at,
            "resolved_at": episode.resolved_at,
            "level": episode.level.word,
            "value": episode.value,
        }
        for target, episode in first[: schemas.MAX_ALERTS]
    ]
    return {"alert_count": len(named), "alerts": alerts}


def _only(these: Sequence[Named], those: Sequence[Named], to_at: datetime) -> list[Named]:
    """Those of `these` at whose time there is none of `those` on the same target."""
    others: defaultdict[tuple[int, int], list[Episode]] = defaultdict(list)
    for target, episode in those:
        others[target.client_id, target.pipeline_id].append(episode)

    def is_alone(target: Described, one: Episode) -> bool:
        # They are in order of time, and one is over before the next begins.
        listed = others[target.client_id, target.pipeline_id]
        place = bisect_left(listed, one.resolved_at or to_at, key=lambda other: other.fired_at)
        return place == 0 or (listed[place - 1].resolved_at or to_at) <= one.fired_at

    return [(target, episode) for target, episode in these if is_alone(target, episode)]
