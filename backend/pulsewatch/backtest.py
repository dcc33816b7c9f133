"""What a rule would have done: its own statement, judge and state machine over a time that is past.

`as_known` sees at each time what had been received by then, at the ticks that there were: so it tells what live
evaluation told. Where no tick is on record it takes the next instant of the grid. `as_final` sees what is known now.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil
from time import monotonic

from sqlalchemy import Connection

from pulsewatch import alert_targets
from pulsewatch.backtest_sql import TARGET_SINCE, THERE_SINCE, TICKS, history_sql
from pulsewatch.backtest_sql import Mode as Mode
from pulsewatch.db import fetch
from pulsewatch.episodes import EventKind, Standing, Step, step
from pulsewatch.observing import (
    Asked,
    looks_again_at,
    observation_of,
    observe,
    policy_of,
    rules_json,
    verdict_of,
)
from pulsewatch.observing_sql import PLANNING
from pulsewatch.rules.base import Described, Level, Observation, Verdict
from pulsewatch.rules.rule import Rule

Key = tuple[int, int]  # client_id, pipeline_id
GRID = timedelta(seconds=5)
RESOLUTION = timedelta(microseconds=1)
GRID_FROM = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
LATER = datetime.max.replace(tzinfo=UTC)
# So that memory is bounded, and progress can be told.
CHUNK_TARGETS = 1000


@dataclass(frozen=True, slots=True)
class Moment:
    """What changes at a time: the step, and what it rests on."""

    as_of: datetime
    before: Standing
    step: Step
    verdict: Verdict
    observation: Observation


@dataclass(slots=True)
class Episode:
    """An alert that would have been. `resolved_at` is None where it would go on at the end.

    `level` is the worst there was, `value` what was measured when it fired.
    """

    fired_at: datetime
    level: Level
    value: float | None
    resolved_at: datetime | None = None
    changed_at: list[datetime] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What a rule would have done on one target."""

    target: Described
    episodes: list[Episode] = field(default_factory=list)


def backtest(
    connection: Connection,
    rule: Rule,
    from_at: datetime,
    to_at: datetime,
    mode: Mode,
    *,
    targets: Sequence[Described] | None = None,
    until: float | None = None,
) -> list[Outcome]:
    """The alerts that a rule would have made in [from_at, to_at), of each target that would have had any.

    `targets` and `until` as for `replay`.
    """
    outcomes = []
    for target, moments in replay(connection, rule, from_at, to_at, mode, targets=targets, until=until):
        episodes = _episodes(moments)
        if episodes:
            outcomes.append(Outcome(target, episodes))
    return outcomes


def notifications(rule: Rule, outcomes: Sequence[Outcome], to_at: datetime) -> int:
    """How many messages these alerts would have sent to each channel of the rule, repeats included."""
    repeat_s = rule.spec.repeat_s
    count = 0
    for episode in (episode for outcome in outcomes for episode in outcome.episodes):
        told = [episode.fired_at, *episode.changed_at]
        count += len(told) + (episode.resolved_at is not None)
        if repeat_s is not None:
            gaps = pairwise([*told, episode.resolved_at or to_at])
            # What is told anyhow at the time of a repeat takes its place.
            count += sum(max(ceil((after - before).total_seconds() / repeat_s) - 1, 0) for before, after in gaps)
    return count


def replay(
    connection: Connection,
    rule: Rule,
    from_at: datetime,
    to_at: datetime,
    mode: Mode,
    *,
    targets: Sequence[Described] | None = None,
    until: float | None = None,
) -> Iterator[tuple[Described, list[Moment]]]:
    """For each target that the rule picks now, what would have changed in [from_at, to_at), in order of time.

    A rule that is not stored has the id 0: it counts as watching from `from_at` on, or since the target has been there.
    `targets`: these, by number, instead of those that the rule picks. `until`, a time of the monotonic clock: then the
    database cancels it (SQLSTATE 57014).
    """
    targets = alert_targets.selected(connection, rule) if targets is None else targets
    since = _there_since(connection, targets, from_at)
    ticks: list[datetime] = []
    spec = rule.spec
    window = {"from_at": from_at, "to_at": to_at, "is_timed": spec.definition.is_timed}
    if mode == "as_known":
        since |= {
            (client_id, pipeline_id): target_since
            for client_id, pipeline_id, target_since in fetch(connection, TARGET_SINCE, {"rule_id": rule.id})
            if (client_id, pipeline_id) in since
        }
        ticks = [as_of for (as_of,) in fetch(connection, TICKS, window)]
    # Samples are counted one by one, and what is known bit by bit falls due at times of its own; else changes suffice.
    is_thinned = mode == "as_final" and spec.recover_consecutive == 1
    statement = history_sql(spec.definition, mode, is_thinned=is_thinned)
    connection.exec_driver_sql(PLANNING)
    at_once = CHUNK_TARGETS if is_thinned else CHUNK_TARGETS // 10
    for start in range(0, len(targets), at_once):
        some = {(one.client_id, one.pipeline_id): one for one in targets[start : start + at_once]}
        values = {
            "rules": rules_json([rule]),
            "client_ids": [client_id for client_id, _ in some],
            "pipeline_ids": [pipeline_id for _, pipeline_id in some],
            "target_sinces": [since[key] for key in some],
            **window,
            "known_at": to_at if mode == "as_known" else None,
        }
        bound(connection, until)
        seen = map(observation_of, connection.exec_driver_sql(statement, values))
        yield from _walk(connection, Course(rule, mode, ticks, to_at, until), some, since, seen)


def bound(connection: Connection, until: float | None) -> None:
    """Let the next statements take no longer than that."""
    if until is not None:
        left_ms = max(int((until - monotonic()) * 1000), 1)
        connection.exec_driver_sql(f"set local statement_timeout = {left_ms}")


def _there_since(connection: Connection, targets: Sequence[Described], from_at: datetime) -> dict[Key, datetime]:
    """From when on each target may be watched: from this time on, or since it has been there."""
    since = dict.fromkeys(((one.client_id, one.pipeline_id) for one in targets), from_at)
    values = {
        "client_ids": [client_id for client_id, _ in since],
        "pipeline_ids": [pipeline_id for _, pipeline_id in since],
    }
    for client_id, pipeline_id, there_since in fetch(connection, THERE_SINCE, values):
        since[client_id, pipeline_id] = max(from_at, there_since)
    return since


@dataclass(frozen=True, slots=True)
class Course:
    """What a replay goes by."""

    rule: Rule
    mode: Mode
    ticks: Sequence[datetime]
    to_at: datetime
    until: float | None

    @property
    def delay(self) -> timedelta:
        """How far behind the ticks the rule looks."""
        return timedelta(seconds=self.rule.spec.evaluation_delay_s)

    def tick_of(self, at: datetime) -> datetime:
        """The first tick at or after a time: of those on record, else of the grid."""
        if self.ticks and self.ticks[0] <= at:
            found = bisect_left(self.ticks, at)
            return self.ticks[found] if found < len(self.ticks) else LATER
        over = (at - GRID_FROM) % GRID
        return at + (GRID - over) if over else at


def _walk(
    connection: Connection,
    course: Course,
    targets: Mapping[Key, Described],
    since: Mapping[Key, datetime],
    seen: Iterable[Observation],
) -> Iterator[tuple[Described, list[Moment]]]:
    """Step through what is seen of targets; what has to be looked at in between is, until nothing is left of that."""
    sights: dict[Key, dict[datetime, Observation]] = {}
    moments: dict[Key, list[Moment]] = {}
    while True:
        new = set()
        for one in seen:
            sights.setdefault((one.client_id, one.pipeline_id), {})[one.as_of + course.delay] = one
            new.add((one.client_id, one.pipeline_id))
        asked = []
        for key in sorted(new):
            moments[key], wanted = _steps(course, sights[key], since[key])
            known_ats = ((at, at if course.mode == "as_known" else None) for at in sorted(wanted))
            asked += [Asked(*key, at - course.delay, known_at, since[key]) for at, known_at in known_ats]
        if not asked:
            break
        bound(connection, course.until)
        seen = observe(connection, course.rule, asked)
    for key, own in moments.items():
        if own:
            yield targets[key], own


def _steps(
    course: Course, sights: Mapping[datetime, Observation], since: datetime
) -> tuple[list[Moment], set[datetime]]:
    """What changes about one target, and the ticks at which it has to be looked at besides.

    The first is right once there are none of the second.
    """
    rule, policy = course.rule, policy_of(course.rule)
    grace_ends_at = since + timedelta(seconds=rule.spec.new_target_grace_s)
    standing, moments, wanted = Standing(), [], set()
    ticks = sorted(at for at in sights if at < course.to_at)
    for at, next_at in zip(ticks, [*ticks[1:], course.to_at], strict=True):
        seen = sights[at]
        look_at: datetime | None
        if at < grace_ends_at and not standing.state.is_open:
            look_at = grace_ends_at
        else:
            verdict = verdict_of(rule, seen)
            taken = step(standing, verdict, at, seen.sample_at, policy)
            if taken.standing != standing:
                moments.append(Moment(at, standing, taken, verdict, seen))
            standing = taken.standing
            # What is known bit by bit may fall due at times that nothing tells of now.
            falls_due_at = looks_again_at(rule, seen) if course.mode == "as_known" else None
            look_at = min((due for due in (taken.deadline_at, falls_due_at) if due is not None), default=None)
        if look_at is not None and (tick := course.tick_of(max(look_at, at + RESOLUTION))) < next_at:
            wanted.add(tick)
    return moments, wanted


def _episodes(moments: Sequence[Moment]) -> list[Episode]:
    episodes: list[Episode] = []
    for moment in moments:
        for transition in moment.step.transitions:
            if transition.kind is EventKind.FIRED:
                episodes.append(Episode(moment.as_of, transition.level, moment.verdict.value))
            elif transition.kind is EventKind.LEVEL_CHANGED:
                episodes[-1].level = max(episodes[-1].level, transition.level)
                episodes[-1].changed_at.append(moment.as_of)
            elif transition.kind is EventKind.RESOLVED:
                episodes[-1].resolved_at = moment.as_of
    return episodes
