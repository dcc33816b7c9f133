"""Seconds since the last success."""

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, assert_looked_at_in_time, at, id_of, said, went

KIND = KINDS["freshness"]
BAD = Status.FAILED


@pytest.fixture
def world(world: World) -> World:
    world.kind, world.levels = KIND, Levels(warning=600, critical=1200)
    return world


def test_it_is_the_time_since_the_newest_success(world: World) -> None:
    world.put(went("a", 0, 1), went("b", 10, 11, BAD), went("c", 20, 22))
    world.refresh()
    assert [world.value(minutes) for minutes in (1, 11, 21.5, 22, 23.5)] == [0, 600, 1230, 0, 90]
    assert world.see(21).run_ids == (id_of("a"),)
    assert world.see(30).run_ids == (id_of("c"),)


def test_where_nothing_ever_succeeded_it_counts_from_when_the_rule_began_to_watch(world: World) -> None:
    world.put(went("a", 0, 1, BAD))
    world.refresh()
    world.target_since = 5
    assert (world.value(4), world.value(15), world.see(15).run_ids) == (0, 600, ())


def test_a_long_run_that_succeeds_after_a_newer_one_counts(world: World) -> None:
    world.put(went("long", 0, 200), went("short", 100, 101))
    world.refresh()
    assert [world.value(minutes) for minutes in (150, 199, 200, 210)] == [49 * 60, 98 * 60, 0, 600]
    assert (world.see(150).run_ids, world.see(210).run_ids) == ((id_of("short"),), (id_of("long"),))


def test_a_success_before_the_newest_sixty_four_runs_still_counts(world: World) -> None:
    world.put(went("good", 0, 1), *(went(f"r{number}", number, number + 0.5, BAD) for number in range(2, 72)))
    world.refresh()
    assert world.value(101) == 6000


def test_a_success_before_the_newest_sixty_four_runs_counts_once_it_is_known(world: World) -> None:
    world.receive(90, went("good", 0, 1), *(went(f"r{number}", number, number + 0.5, BAD) for number in range(2, 72)))
    world.receive(110, went("late", 0.5, 1.5))
    world.refresh()
    assert [world.value(121, known=known) for known in (80, 100, 120)] == [7260, 7200, 7170]


def test_a_run_that_was_tried_again_succeeded_when_it_did(world: World) -> None:
    world.receive(1, went("long", 0, 50), went("short", 10, 11))
    world.receive(200, went("long", 180, 190, BAD, attempt=1))
    world.refresh()
    assert (world.value(60, known=100), world.value(60, known=300)) == (600, 2940)


def test_a_success_counts_once_it_is_known(world: World) -> None:
    world.receive(1, went("a", 0, 1))
    world.receive(30, went("b", 10, 11))
    world.refresh()
    assert (world.value(21, known=21), world.value(21, known=31)) == (1200, 600)


def test_it_looks_again_at_the_next_level(world: World) -> None:
    world.put(went("a", 0, 1))
    world.refresh()
    assert [world.see(minutes).next_at for minutes in (1, 11, 21)] == [at(11), at(21), None]
    assert world.see(5).sample_at == at(5)


@pytest.mark.parametrize("level", [0.000001, 0.1, 7.123457, 86_399.999999, 2_678_399.000001])
def test_at_the_time_that_it_names_the_level_is_reached(world: World, level: float) -> None:
    world.put(said("a", 0.123457 / 60))
    world.refresh()
    world.levels = Levels(warning=level)
    next_at = world.see(0.123457 / 60).next_at
    assert next_at is not None
    assert [verdict.level for verdict in world.judged([next_at])] == [1]


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    world.put(went("a", 0, 1), went("b", 10, 15, BAD), went("c", 30, 35), went("d", 31, 38), went("long", 2, 70))
    world.refresh()
    assert_instants_tell_all(world, 150)
    assert_looked_at_in_time(world, 70, 120)


def test_a_level_is_told_to_the_microsecond() -> None:
    for level in (0, -1):
        with pytest.raises(ValueError, match="above 0"):
            KIND.check_level(level)
    with pytest.raises(ValueError, match="six decimals"):
        KIND.check_level(0.1234567)


def test_it_says_what_it_saw() -> None:
    assert KIND.describe(97_200, 86_400, KIND.params(), {}) == "no success for 1 d 3 h (limit 1 d)"
