"""Writes down the past of a rule: the alerts that it would have made before it was evaluated. Nobody is told of them.

Each target is gone through by the same statement, judge and state machine as live, by all that is known now, up to
when the rule began to watch it. Where live evaluation has not looked at it yet, it goes on from there: what is open at
the end stays open, and is resolved live. Elsewhere what would still be open is left out, because it began anew live.

A target that has alerts of the rule from that time already is left alone; so the same again writes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from sqlalchemy import Connection

from pulsewatch import alert_writing, backtest
from pulsewatch.alert_writing import Change, Stored
from pulsewatch.backtest import Moment
from pulsewatch.db import fetch
from pulsewatch.episodes import Standing, State
from pulsewatch.rules.base import Described
from pulsewatch.rules.rule import Rule

# So that memory is bounded, and progress can be told.
CHUNK_TARGETS = 500

TARGETS = """
select
    target.client_id, target.pipeline_id, target.target_since,
    target.state = 'ok' and coalesce(target.deadline_at <= target.target_since, false) as is_untouched,
    exists (
        select
        from pulsewatch.alert
        where alert.client_id = target.client_id
            and alert.pipeline_id = target.pipeline_id
            and alert.rule_id = target.rule_id
            and alert.fired_at < target.target_since
    ) as has_past
from pulsewatch.alert_target as target
where target.rule_id = %(rule_id)s
"""

# An alert that began live is open, and a target has one open alert of a rule at most: it steps aside while the past is
# written. Nobody else sees that.
STEP_ASIDE = """
update pulsewatch.alert
set resolved_at = fired_at, resolve_reason = 'recovered'
where rule_id = %(rule_id)s and resolved_at is null
returning client_id, id
"""
STEP_BACK = """
update pulsewatch.alert
set resolved_at = null, resolve_reason = null
where (client_id, id) in (select * from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[]))
"""


@dataclass(frozen=True, slots=True)
class _Target:
    """What is known of a target: since when it is watched, whether a tick has looked at it, whether it has a past."""

    since: datetime
    is_untouched: bool
    has_past: bool


def backfill(
    connection: Connection,
    rule: Rule,
    from_at: datetime,
    to_at: datetime,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write the past of a stored rule in [from_at, to_at) in the caller's transaction; how many events there were.

    Until that commits no rule is evaluated. `on_progress` is called with how many targets are done, and of how many.
    """
    connection.exec_driver_sql(alert_writing.ALERTING_LOCK)
    targets = {
        (client_id, pipeline_id): _Target(*rest)
        for client_id, pipeline_id, *rest in fetch(connection, TARGETS, {"rule_id": rule.id})
    }
    aside = fetch(connection, STEP_ASIDE, {"rule_id": rule.id})
    events = done = 0
    pasts: list[list[Change]] = []
    for described, moments in backtest.replay(connection, rule, from_at, to_at, "as_final"):
        target = targets.get((described.client_id, described.pipeline_id))
        if target is None or target.has_past:
            continue
        pasts.append(list(_past(rule, described, target, moments, goes_on=to_at >= target.since)))
        if len(pasts) == CHUNK_TARGETS:
            events += _write(connection, pasts, targets)
            done += len(pasts)
            on_progress(done, len(targets))
            pasts = []
    events += _write(connection, pasts, targets)
    back = {"client_ids": [client_id for client_id, _ in aside], "ids": [alert_id for _, alert_id in aside]}
    connection.exec_driver_sql(STEP_BACK, back)
    on_progress(len(targets), len(targets))
    return events


def _past(
    rule: Rule, described: Described, target: _Target, moments: Sequence[Moment], *, goes_on: bool
) -> Iterator[Change]:
    """What is to be written of a target, one after the other."""
    told = [moment for moment in moments if moment.as_of < target.since]
    if not (goes_on and target.is_untouched):
        while told and told[-1].step.standing.state is not State.OK:
            told.pop()
    stored = Stored(Standing())
    for moment in told:
        change = Change(
            rule,
            described,
            stored,
            moment.step,
            moment.as_of,
            # The first tick looks at all there is.
            target.since,
            moment.verdict,
            moment.observation,
        )
        yield change
        stored = alert_writing.after(change)


def _write(connection: Connection, pasts: Sequence[Sequence[Change]], targets: dict[tuple[int, int], _Target]) -> int:
    """Write the pasts of some targets, of each its first change, then of each its second ..., and where they stand."""
    events = 0
    for changes in zip_longest(*pasts):
        told = [change for change in changes if change is not None and change.step.transitions]
        events += alert_writing.tell(connection, told, is_backfill=True)
    last = [past[-1] for past in pasts if past]
    alert_writing.stand(
        connection,
        [one for one in last if targets[one.target.client_id, one.target.pipeline_id].is_untouched],
    )
    return events
