"""How a rule stands on a target, and what a verdict changes about it. Pure.

    ok ---- breach ----> pending ---- held for_s ----> firing ---- good ----> recovering ---- held ----> ok
     ^        |             |                            ^                        |
     +- good -+- (for_s 0: firing at once)               +------- breach ---------+

While the past of a target is being loaded, what would fire is pending.

A breach while recovering goes on with the same episode. Where there is nothing to judge (no_data, error), an episode
that is open stays open; one that is not may be shown as such, or made an alert, as the rule says.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pulsewatch.rules.base import Lack, Level, Verdict

# What has been bad for so long fires though more of its past arrives.
HELD_AT_MOST = timedelta(hours=1)


class State(StrEnum):
    """How a rule stands on a target."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    NO_DATA = "no_data"
    ERROR = "error"

    @property
    def is_open(self) -> bool:
        """Whether there is an alert."""
        return self in {State.FIRING, State.RECOVERING}


class EventKind(StrEnum):
    """What a verdict can do."""

    PENDING = "pending"
    PENDING_CLEARED = "pending_cleared"
    FIRED = "fired"
    LEVEL_CHANGED = "level_changed"
    RECOVERING = "recovering"
    REFIRED = "refired"
    RESOLVED = "resolved"
    NO_DATA = "no_data"
    DATA_BACK = "data_back"
    ERROR = "error"
    ERROR_CLEARED = "error_cleared"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a rule says about time and about having nothing to judge."""

    for_s: float = 0
    keep_firing_s: float = 0
    recover_consecutive: int = 1
    on_no_data: Literal["keep", "ok", "no_data", "alert"] = "keep"
    on_error: Literal["keep", "alert"] = "keep"
    # Of the rule's levels, the one to alert with where there is nothing to judge.
    lowest: Level = Level.WARNING


@dataclass(frozen=True, slots=True)
class Standing:
    """How a rule stands on a target. `level` is what was told; `lower_since`: since when it has been below that."""

    state: State = State.OK
    level: Level = Level.NONE
    state_since: datetime | None = None
    pending_since: datetime | None = None
    lower_since: datetime | None = None
    ok_samples: int = 0
    sample_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One event of an episode."""

    kind: EventKind
    from_state: State
    state: State
    prev_level: Level
    level: Level


@dataclass(frozen=True, slots=True)
class Step:
    """Where a verdict leads. `deadline_at`: when time alone may lead further; None: never."""

    standing: Standing
    transitions: tuple[Transition, ...]
    deadline_at: datetime | None


def step(old: Standing, verdict: Verdict, as_of: datetime, sample_at: datetime | None, policy: Policy) -> Step:
    """What a verdict of `as_of` makes of a standing. The same verdict again changes nothing.

    `sample_at` is the newest sample that the verdict rests on: good samples in a row are counted by it.
    """
    level, lack = verdict.level, verdict.lack
    if lack is Lack.NO_DATA:
        if policy.on_no_data == "alert":
            level, lack = policy.lowest, None
        elif policy.on_no_data == "ok":
            lack = None
    elif lack is Lack.ERROR and policy.on_error == "alert":
        level, lack = policy.lowest, None
    if lack is not None:
        new = _lacking(old, lack, as_of, policy)
    elif level > Level.NONE:
        new = _breached(old, level, as_of, policy, verdict.held_until)
    else:
        new = _good(old, as_of, sample_at, policy)
    if new.state is not old.state:
        new = replace(new, state_since=as_of)
    return Step(new, tuple(_transitions(old, new)), _deadline(new, as_of, policy, verdict.held_until))


def closed(old: Standing, as_of: datetime) -> Step:
    """The end of whatever is going on, not by a verdict: the rule or the target is gone or another one."""
    new = Standing(State.OK, Level.NONE, as_of)
    return Step(new, tuple(_transitions(old, new)), None)


def _lacking(old: Standing, lack: Lack, as_of: datetime, policy: Policy) -> Standing:
    if old.state.is_open:
        return old
    if lack is Lack.NO_DATA and policy.on_no_data == "keep":
        if old.state is not State.ERROR:
            return old
        # It can be evaluated again, and is as it was before.
        state = State.OK if old.pending_since is None else State.PENDING
        return Standing(state, Level.NONE, as_of, old.pending_since)
    if lack is Lack.NO_DATA:
        return old if old.state is State.NO_DATA else Standing(State.NO_DATA, Level.NONE, as_of)
    # What cannot be evaluated for a moment is not good because of that: what was bad before may be still.
    return old if old.state is State.ERROR else Standing(State.ERROR, Level.NONE, as_of, old.pending_since)


def _fires_at(since: datetime, policy: Policy, held_until: datetime | None) -> datetime:
    at = since + timedelta(seconds=policy.for_s)
    return at if held_until is None else max(at, min(held_until, since + HELD_AT_MOST))


def _breached(old: Standing, level: Level, as_of: datetime, policy: Policy, held_until: datetime | None) -> Standing:
    if old.state.is_open:
        return _still_firing(old, level, as_of, policy)
    since = as_of if old.pending_since is None else old.pending_since
    if as_of >= _fires_at(since, policy, held_until):
        return Standing(State.FIRING, level, as_of, pending_since=since)
    return old if old.state is State.PENDING else Standing(State.PENDING, Level.NONE, as_of, pending_since=since)


def _still_firing(old: Standing, level: Level, as_of: datetime, policy: Policy) -> Standing:
    """Worse is told at once, better only after it has been so for keep_firing_s."""
    firing = replace(old, state=State.FIRING, ok_samples=0, sample_at=None)
    if level >= old.level:
        return replace(firing, level=level, lower_since=None)
    lower_since = old.lower_since or as_of
    if as_of - lower_since >= timedelta(seconds=policy.keep_firing_s):
        return replace(firing, level=level, lower_since=None)
    return replace(firing, lower_since=lower_since)


def _good(old: Standing, as_of: datetime, sample_at: datetime | None, policy: Policy) -> Standing:
    if old.state is State.OK:
        return old
    if not old.state.is_open:
        return Standing(State.OK, Level.NONE, as_of)
    lower_since = as_of if old.lower_since is None else old.lower_since
    is_new = old.ok_samples == 0 or sample_at != old.sample_at
    ok_samples = min(old.ok_samples + is_new, policy.recover_consecutive)
    # Good means below every level: what was lower, but a breach still, does not count.
    good_since = lower_since if old.state is State.RECOVERING else as_of
    held = as_of - good_since >= timedelta(seconds=policy.keep_firing_s)
    if held and ok_samples >= policy.recover_consecutive:
        return Standing(State.OK, Level.NONE, as_of)
    return replace(old, state=State.RECOVERING, lower_since=good_since, ok_samples=ok_samples, sample_at=sample_at)


def _transitions(old: Standing, new: Standing) -> Iterator[Transition]:
    """The events between two standings; an episode that begins and fires at once has one."""
    names: dict[tuple[State, State], EventKind] = {
        (State.FIRING, State.RECOVERING): EventKind.RECOVERING,
        (State.RECOVERING, State.FIRING): EventKind.REFIRED,
    }

    def event(kind: EventKind) -> Transition:
        return Transition(kind, old.state, new.state, old.level, new.level)

    if old.state is new.state:
        if old.level != new.level:
            yield event(EventKind.LEVEL_CHANGED)
        return
    if old.state.is_open and new.state.is_open:
        yield event(names[old.state, new.state])
        if old.level != new.level:
            yield Transition(EventKind.LEVEL_CHANGED, new.state, new.state, old.level, new.level)
    elif old.state.is_open:
        yield event(EventKind.RESOLVED)
    elif new.state is State.FIRING:
        yield event(EventKind.FIRED)
    elif new.state is State.OK:
        yield event(
            {
                State.PENDING: EventKind.PENDING_CLEARED,
                State.NO_DATA: EventKind.DATA_BACK,
                State.ERROR: EventKind.ERROR_CLEARED,
            }[old.state]
        )
    else:
        yield event(EventKind(new.state.value))


def _deadline(new: Standing, as_of: datetime, policy: Policy, held_until: datetime | None) -> datetime | None:
    """When time alone may lead further; what waits for samples has no deadline."""
    if new.state is State.PENDING and new.pending_since is not None:
        at = _fires_at(new.pending_since, policy, held_until)
    elif new.lower_since is not None:
        at = new.lower_since + timedelta(seconds=policy.keep_firing_s)
    else:
        return None
    return at if at > as_of else None
