"""The share of runs that failed within a window."""

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, assert_looked_at_in_time, at, id_of, went

KIND = KINDS["failure_rate"]
BAD = Status.FAILED


@pytest.fixture
def world(world: World) -> World:
    world.kind, world.params = KIND, {"window_s": 1800, "min_runs": 2}
    world.levels = Levels(warning=0.3, critical=0.5)
    return world


@pytest.fixture
def failing(world: World) -> World:
    """Ends at 5, 10, 15 and 20 minutes; the second and the third failed."""
    world.put(went("a", 4, 5), went("b", 9, 10, BAD), went("c", 14, 15, BAD), went("d", 19, 20))
    world.refresh()
    return world


def test_it_is_the_share_of_the_runs_that_ended_in_the_window(failing: World) -> None:
    assert [failing.value(minutes) for minutes in (10, 15, 20)] == [1 / 2, 2 / 3, 2 / 4]


def test_a_run_leaves_when_the_window_has_passed_it(failing: World) -> None:
    assert [failing.value(minutes) for minutes in (34.99, 35, 40, 45, 50)] == [2 / 4, 2 / 3, 1 / 2, 0, None]


def test_too_few_runs_or_failures_are_no_rate(failing: World) -> None:
    failing.params = {"window_s": 1800, "min_runs": 3}
    assert (failing.value(10), failing.value(15)) == (0, 2 / 3)
    failing.params = {"window_s": 1800, "min_runs": 1, "min_failures": 2}
    assert (failing.value(10), failing.value(15)) == (0, 2 / 3)


def test_without_a_run_there_is_nothing_to_measure(failing: World) -> None:
    assert failing.value(4.5) is None
    assert (failing.see(4.5).sample_at, failing.see(4.5).next_at) == (None, None)


def test_cancelled_and_skipped_runs_count_for_nothing(failing: World) -> None:
    failing.put(went("e", 20, 21, Status.CANCELLED), went("f", 20, 21, Status.SKIPPED))
    assert failing.value(21) == 2 / 4


def test_its_runs_are_the_failed_ones_and_it_changes_when_the_oldest_leaves(failing: World) -> None:
    seen = failing.see(20)
    assert (seen.run_ids, seen.sample_at, seen.next_at) == ((id_of("c"), id_of("b")), at(20), at(35))
    # Without failures only the last one matters: then there is nothing left.
    assert failing.see(6).next_at == at(35)
    assert failing.see(46).next_at == at(50)


def test_a_run_counts_by_its_end_however_long_ago_it_began(world: World) -> None:
    world.put(went("long", 0, 2000, BAD), went("short", 1998, 1999))
    world.refresh()
    assert world.value(2000) == 1 / 2


def test_a_run_that_was_tried_again_since_counts_as_it_ended_then(world: World) -> None:
    world.params = {"window_s": 600, "min_runs": 1}
    world.receive(1, went("before", -150, -140))
    world.receive(45, went("a", 30, 45, BAD, attempt=0))
    world.receive(70, went("a", 61, 70, attempt=1))
    world.refresh()
    assert [world.value(minutes, known=minutes + 0.1) for minutes in (45, 50, 56, 70)] == [1, 1, None, 0]


def test_verdicts_change_at_its_instants_only(failing: World) -> None:
    assert_instants_tell_all(failing, 90)
    assert_looked_at_in_time(failing, 20, 90)


def test_a_level_is_a_share() -> None:
    for level in (0, -0.1, 1.01):
        with pytest.raises(ValueError, match="a share above 0 and up to 1"):
            KIND.check_level(level)
    KIND.check_level(1)


def test_it_tells_how_many_runs_it_counted(world: World) -> None:
    world.params = {"window_s": 1800}
    world.put(*(went(f"r{number}", number, number + 0.5, BAD) for number in range(4)))
    world.refresh()
    assert (world.see(5).value, world.see(5).evidence) == (0, {"run_count": 4, "failed_count": 4})
    params = KIND.params.model_validate(world.params)
    assert KIND.describe(0, 0.5, params, world.see(5).evidence or {}) == (
        "4 of 4 runs of the last 30 min failed: a rate takes 5 runs"
    )
    picky = KIND.params.model_validate({"window_s": 1800, "min_runs": 1, "min_failures": 5})
    assert KIND.describe(0, 0.5, picky, world.see(5).evidence or {}) == (
        "4 of 4 runs of the last 30 min failed: a rate takes 5 failures"
    )


def test_it_says_what_it_saw() -> None:
    params = KIND.params.model_validate({"window_s": 5400})
    assert KIND.describe(2 / 3, 0.5, params, {}) == "66.7 % of the runs of the last 1 h 30 min failed (limit 50 %)"
