"""Every arrow of an episode, and what holds for any sequence of verdicts and times."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsewatch.episodes import EventKind, Policy, Standing, State, Step, closed, step
from pulsewatch.rules.base import Lack, Level, Verdict

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
GOOD, WARNING, CRITICAL = (Verdict(level, 1.0, 0.0) for level in Level)
NO_DATA = Verdict(Level.NONE, 1.0, None, Lack.NO_DATA)
ERROR = Verdict(Level.NONE, None, None, Lack.ERROR)
VERDICTS = (GOOD, WARNING, CRITICAL, NO_DATA, ERROR)

# More of the past of the target arrives, until seven seconds after the hour.
ARRIVING = Verdict(Level.WARNING, 1.0, 0.0, held_until=NOON + timedelta(seconds=7))
FOR_EVER = Verdict(Level.WARNING, 1.0, 0.0, held_until=NOON + timedelta(days=1))

Told = list[tuple[float, str, int]]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def seconds(at: datetime) -> float:
    return (at - NOON).total_seconds()


def play(policy: Policy, *said: tuple[float, Verdict]) -> Told:
    """The events of these verdicts, as (seconds, kind, level); each is a sample of its own."""
    standing, told = Standing(), []
    for at, verdict in said:
        taken = step(standing, verdict, after(at), after(at), policy)
        told += [(at, one.kind.value, int(one.level)) for one in taken.transitions]
        standing = taken.standing
    return told


AT_ONCE = Policy()
HELD = Policy(for_s=60)
SLOW = Policy(keep_firing_s=60)
THRICE = Policy(recover_consecutive=3)
TELLS = Policy(on_no_data="no_data")


@pytest.mark.parametrize(
    ("policy", "said", "told"),
    [
        (AT_ONCE, [(0, GOOD), (9, GOOD)], []),
        (AT_ONCE, [(0, WARNING)], [(0, "fired", 1)]),
        (AT_ONCE, [(0, WARNING), (5, GOOD)], [(0, "fired", 1), (5, "resolved", 0)]),
        (AT_ONCE, [(0, WARNING), (5, CRITICAL)], [(0, "fired", 1), (5, "level_changed", 2)]),
        (AT_ONCE, [(0, CRITICAL), (5, WARNING)], [(0, "fired", 2), (5, "level_changed", 1)]),
        # It has to hold, at whatever level.
        (HELD, [(0, WARNING)], [(0, "pending", 0)]),
        (HELD, [(0, WARNING), (59, CRITICAL)], [(0, "pending", 0)]),
        (HELD, [(0, WARNING), (60, CRITICAL)], [(0, "pending", 0), (60, "fired", 2)]),
        (HELD, [(0, WARNING), (30, GOOD)], [(0, "pending", 0), (30, "pending_cleared", 0)]),
        (
            HELD,
            [(0, WARNING), (30, GOOD), (40, WARNING), (99, WARNING)],
            [(0, "pending", 0), (30, "pending_cleared", 0), (40, "pending", 0)],
        ),
        # What is arriving still is waited for, though not for ever; what fires already goes on.
        (AT_ONCE, [(0, ARRIVING), (6, ARRIVING), (7, ARRIVING)], [(0, "pending", 0), (7, "fired", 1)]),
        (AT_ONCE, [(0, ARRIVING), (6, GOOD)], [(0, "pending", 0), (6, "pending_cleared", 0)]),
        (AT_ONCE, [(0, FOR_EVER), (3599, FOR_EVER), (3600, FOR_EVER)], [(0, "pending", 0), (3600, "fired", 1)]),
        (HELD, [(0, ARRIVING), (59, ARRIVING), (60, ARRIVING)], [(0, "pending", 0), (60, "fired", 1)]),
        (
            AT_ONCE,
            [(0, CRITICAL), (1, ARRIVING), (2, CRITICAL)],
            [
                (0, "fired", 2),
                (1, "level_changed", 1),
                (2, "level_changed", 2),
            ],
        ),
        # It goes on firing for a while, and as bad as it was.
        (SLOW, [(0, WARNING), (5, GOOD), (64, GOOD)], [(0, "fired", 1), (5, "recovering", 1)]),
        (SLOW, [(0, WARNING), (5, GOOD), (65, GOOD)], [(0, "fired", 1), (5, "recovering", 1), (65, "resolved", 0)]),
        (
            SLOW,
            [(0, WARNING), (5, GOOD), (30, WARNING), (40, GOOD), (99, GOOD)],
            [(0, "fired", 1), (5, "recovering", 1), (30, "refired", 1), (40, "recovering", 1)],
        ),
        (
            SLOW,
            [(0, WARNING), (5, GOOD), (30, CRITICAL)],
            [(0, "fired", 1), (5, "recovering", 1), (30, "refired", 2), (30, "level_changed", 2)],
        ),
        (SLOW, [(0, CRITICAL), (5, WARNING), (64, WARNING)], [(0, "fired", 2)]),
        (SLOW, [(0, CRITICAL), (5, WARNING), (65, WARNING)], [(0, "fired", 2), (65, "level_changed", 1)]),
        (SLOW, [(0, CRITICAL), (5, WARNING), (30, CRITICAL), (70, WARNING)], [(0, "fired", 2)]),
        # Lower is not good: that counts from when it was.
        (
            SLOW,
            [(0, CRITICAL), (5, WARNING), (40, GOOD), (99, GOOD), (100, GOOD)],
            [(0, "fired", 2), (40, "recovering", 2), (100, "resolved", 0)],
        ),
        # So many good samples in a row.
        (
            THRICE,
            [(0, WARNING), (1, GOOD), (2, GOOD), (3, WARNING), (4, GOOD), (5, GOOD), (6, GOOD)],
            [(0, "fired", 1), (1, "recovering", 1), (3, "refired", 1), (4, "recovering", 1), (6, "resolved", 0)],
        ),
        # Nothing to measure.
        (AT_ONCE, [(0, NO_DATA)], []),
        (AT_ONCE, [(0, WARNING), (5, NO_DATA), (9, GOOD)], [(0, "fired", 1), (9, "resolved", 0)]),
        (HELD, [(0, WARNING), (30, NO_DATA), (60, WARNING)], [(0, "pending", 0), (60, "fired", 1)]),
        (TELLS, [(0, NO_DATA), (5, NO_DATA), (9, GOOD)], [(0, "no_data", 0), (9, "data_back", 0)]),
        (TELLS, [(0, NO_DATA), (5, WARNING)], [(0, "no_data", 0), (5, "fired", 1)]),
        (TELLS, [(0, WARNING), (5, NO_DATA)], [(0, "fired", 1)]),
        (
            Policy(for_s=60, on_no_data="no_data"),
            [(0, WARNING), (30, NO_DATA), (60, WARNING)],
            [(0, "pending", 0), (30, "no_data", 0), (60, "pending", 0)],
        ),
        (Policy(on_no_data="ok"), [(0, WARNING), (5, NO_DATA)], [(0, "fired", 1), (5, "resolved", 0)]),
        (Policy(on_no_data="alert"), [(0, NO_DATA), (5, GOOD)], [(0, "fired", 1), (5, "resolved", 0)]),
        (Policy(on_no_data="alert", lowest=Level.CRITICAL), [(0, NO_DATA)], [(0, "fired", 2)]),
        (Policy(on_no_data="alert", for_s=60), [(0, WARNING), (60, NO_DATA)], [(0, "pending", 0), (60, "fired", 1)]),
        # It cannot be evaluated.
        (AT_ONCE, [(0, ERROR), (5, GOOD)], [(0, "error", 0), (5, "error_cleared", 0)]),
        (AT_ONCE, [(0, WARNING), (5, ERROR), (9, GOOD)], [(0, "fired", 1), (9, "resolved", 0)]),
        (TELLS, [(0, NO_DATA), (5, ERROR), (9, NO_DATA)], [(0, "no_data", 0), (5, "error", 0), (9, "no_data", 0)]),
        (Policy(on_error="alert"), [(0, ERROR), (5, GOOD)], [(0, "fired", 1), (5, "resolved", 0)]),
        (AT_ONCE, [(0, ERROR), (5, NO_DATA)], [(0, "error", 0), (5, "error_cleared", 0)]),
        (HELD, [(0, WARNING), (5, ERROR), (9, NO_DATA)], [(0, "pending", 0), (5, "error", 0), (9, "pending", 0)]),
        # A moment in which it cannot be evaluated does not let the time start anew.
        (HELD, [(0, WARNING), (30, ERROR), (60, WARNING)], [(0, "pending", 0), (30, "error", 0), (60, "fired", 1)]),
        (
            HELD,
            [(0, WARNING), (30, ERROR), (40, GOOD), (60, WARNING)],
            [(0, "pending", 0), (30, "error", 0), (40, "error_cleared", 0), (60, "pending", 0)],
        ),
    ],
)
def test_a_verdict_leads_to_these_events(policy: Policy, said: list[tuple[float, Verdict]], told: Told) -> None:
    assert play(policy, *said) == told


def test_the_same_sample_seen_again_is_no_further_good_one() -> None:
    standing = step(Standing(), WARNING, after(0), after(0), THRICE).standing
    for at, sample in ((1, 1), (2, 1), (3, 1), (4, 4)):
        standing = step(standing, GOOD, after(at), after(sample), THRICE).standing
        assert standing.state is State.RECOVERING
    assert standing.ok_samples == 2
    assert step(standing, GOOD, after(5), after(5), THRICE).standing.state is State.OK


def test_state_and_level_are_as_the_events_say() -> None:
    taken = step(Standing(), CRITICAL, after(0), None, AT_ONCE)
    assert taken.standing == Standing(State.FIRING, Level.CRITICAL, NOON, pending_since=NOON)
    (fired,) = taken.transitions
    assert (fired.from_state, fired.state, fired.prev_level, fired.level) == (
        State.OK,
        State.FIRING,
        Level.NONE,
        Level.CRITICAL,
    )


def test_an_episode_may_end_otherwise() -> None:
    firing = step(Standing(), WARNING, after(0), None, AT_ONCE).standing
    ended = closed(firing, after(9))
    assert [one.kind for one in ended.transitions] == [EventKind.RESOLVED]
    assert ended.standing == Standing(State.OK, Level.NONE, after(9))
    pending = step(Standing(), WARNING, after(0), None, HELD).standing
    assert [one.kind for one in closed(pending, after(9)).transitions] == [EventKind.PENDING_CLEARED]
    assert closed(Standing(), after(9)).transitions == ()


@pytest.mark.parametrize(
    ("policy", "said", "deadline"),
    [
        (AT_ONCE, [(0, GOOD)], None),
        (AT_ONCE, [(0, WARNING)], None),
        (HELD, [(0, WARNING), (30, WARNING)], 60),
        (HELD, [(0, WARNING), (60, WARNING)], None),
        (SLOW, [(0, WARNING), (5, GOOD), (30, GOOD)], 65),
        (SLOW, [(0, CRITICAL), (5, WARNING)], 65),
        (SLOW, [(0, CRITICAL), (5, WARNING), (40, GOOD)], 100),
        # Time alone does not end it.
        (THRICE, [(0, WARNING), (5, GOOD)], None),
    ],
)
def test_the_time_to_look_again_is_when_time_alone_leads_further(
    policy: Policy, said: list[tuple[float, Verdict]], deadline: float | None
) -> None:
    standing, taken = Standing(), None
    for at, verdict in said:
        taken = step(standing, verdict, after(at), after(at), policy)
        standing = taken.standing
    assert taken is not None
    assert (None if taken.deadline_at is None else seconds(taken.deadline_at)) == deadline


# -- what holds for any sequence --------------------------------------------------------------------------------------

POLICIES = st.builds(
    Policy,
    for_s=st.sampled_from((0, 0.5, 30, 90)),
    keep_firing_s=st.sampled_from((0, 0.5, 30, 90)),
    recover_consecutive=st.integers(1, 3),
    on_no_data=st.sampled_from(("keep", "ok", "no_data", "alert")),
    on_error=st.sampled_from(("keep", "alert")),
    lowest=st.sampled_from((Level.WARNING, Level.CRITICAL)),
)
# Seconds since the verdict before, the verdict, and whether it is a new sample.
COURSES = st.lists(
    st.tuples(st.sampled_from((0, 0.5, 5, 30, 61, 200)), st.sampled_from(VERDICTS), st.booleans()), max_size=30
)
Course = Sequence[tuple[float, Verdict, bool]]


def steps(policy: Policy, course: Course) -> Iterable[tuple[Standing, Verdict, datetime, datetime | None, Step]]:
    """Each step of the course: the standing before, the verdict, its time, its sample, and where it led."""
    standing, now, sample = Standing(), NOON, NOON
    for waited, verdict, is_new in course:
        now += timedelta(seconds=waited)
        sample = now if is_new else sample
        taken = step(standing, verdict, now, sample, policy)
        yield standing, verdict, now, sample, taken
        standing = taken.standing


@given(POLICIES, COURSES)
def test_nothing_is_resolved_that_did_not_fire_nor_fires_twice(policy: Policy, course: Course) -> None:
    is_open = False
    for _, _, _, _, taken in steps(policy, course):
        for one in taken.transitions:
            if one.kind is EventKind.FIRED:
                assert not is_open
                is_open = True
            elif one.kind is EventKind.RESOLVED:
                assert is_open
                is_open = False
            elif one.kind in {EventKind.LEVEL_CHANGED, EventKind.RECOVERING, EventKind.REFIRED}:
                assert is_open
            else:
                assert not is_open
        assert taken.standing.state.is_open == is_open
        assert (taken.standing.level > Level.NONE) == is_open


@given(POLICIES, COURSES)
def test_events_lead_from_one_state_to_the_next(policy: Policy, course: Course) -> None:
    state, level = State.OK, Level.NONE
    for before, _, now, _, taken in steps(policy, course):
        for one in taken.transitions:
            assert one.prev_level is level
        for one, following in pairwise(taken.transitions):
            assert (one.state, one.level) == (following.from_state, following.level)
        if taken.transitions:
            assert taken.transitions[0].from_state is state
            state, level = taken.transitions[-1].state, taken.transitions[-1].level
        assert (taken.standing.state, taken.standing.level) == (state, level)
        assert taken.standing.state_since == (now if state is not before.state else before.state_since)


@given(POLICIES, COURSES)
def test_the_same_verdict_at_the_same_time_changes_nothing(policy: Policy, course: Course) -> None:
    for _, verdict, now, sample, taken in steps(policy, course):
        again = step(taken.standing, verdict, now, sample, policy)
        assert again == Step(taken.standing, (), taken.deadline_at)


@given(POLICIES, COURSES, st.floats(0, 1, exclude_max=True))
def test_the_time_to_look_again_is_never_too_late(policy: Policy, course: Course, share: float) -> None:
    """Until then the same verdict changes nothing, however often it comes; without such a time it never does."""
    for _, verdict, now, sample, taken in steps(policy, course):
        until = taken.deadline_at or now + timedelta(days=400)
        assert until > now
        # A share next to 1 is rounded up to the whole.
        between = min(now + (until - now) * share, until - timedelta(microseconds=1))
        assert step(taken.standing, verdict, between, sample, policy).standing == taken.standing
