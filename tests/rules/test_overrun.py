"""Runs that go on for too long."""

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, assert_looked_at_in_time, at, id_of, said, went

KIND = KINDS["overrun"]
RUNNING = Status.RUNNING


@pytest.fixture
def world(world: World) -> World:
    world.kind, world.levels = KIND, Levels(warning=600, critical=1200)
    return world


def test_it_is_how_long_the_longest_has_been_running(world: World) -> None:
    world.put(said("a", 0, RUNNING), said("b", 5, RUNNING), said("a", 20))
    world.refresh()
    assert [world.value(minutes) for minutes in (0, 6, 19, 20, 25)] == [0, 360, 1140, 900, 1200]


def test_where_nothing_runs_it_is_zero(world: World) -> None:
    world.put(said("a", 0, Status.QUEUED))
    world.refresh()
    seen = world.see(30)
    assert (seen.value, seen.next_at, seen.run_ids, seen.sample_at) == (0, None, (), at(30))


def test_it_names_the_running_ones_and_looks_again_at_the_next_level(world: World) -> None:
    world.put(said("a", 0, RUNNING), said("b", 5, RUNNING))
    world.refresh()
    assert world.see(6).run_ids == (id_of("b"), id_of("a"))
    assert [world.see(minutes).next_at for minutes in (6, 10, 20)] == [at(10), at(20), None]


def test_a_stuck_run_is_not_lost_among_many_newer_ones(world: World) -> None:
    world.put(said("stuck", 0, RUNNING), *(went(f"r{number}", number, number + 0.5) for number in range(1, 200)))
    world.refresh()
    assert world.see(300).value == 18_000
    # Nor if it ended much later.
    world.put(said("stuck", 4000))
    world.refresh()
    assert world.see(300).value == 18_000
    assert world.see(4000).value == 0


def test_a_new_attempt_begins_anew(world: World) -> None:
    world.receive(0, said("a", 0, RUNNING))
    world.receive(30, said("a", 30, RUNNING, attempt=1))
    world.refresh()
    assert (world.value(29, known=29), world.value(40, known=40)) == (29 * 60, 600)


def test_an_end_that_was_not_known_had_not_been(world: World) -> None:
    world.receive(0, said("a", 0, RUNNING))
    world.receive(60, said("a", 5))
    world.refresh()
    assert (world.value(30, known=30), world.value(30)) == (1800, 0)


def test_an_end_that_came_late_had_not_been_in_the_hours_before_either(world: World) -> None:
    world.receive(0, said("a", 0, RUNNING))
    world.receive(200, said("a", 5))
    world.refresh()
    assert [world.value(minutes, known=minutes) for minutes in (61, 130, 201)] == [3660, 7800, 0]


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    world.put(said("a", 0, RUNNING), said("b", 5, RUNNING), said("a", 14), said("b", 40), said("c", 70, RUNNING))
    world.refresh()
    assert_instants_tell_all(world, 120)
    assert_looked_at_in_time(world, 70, 120)


def test_it_says_what_it_saw() -> None:
    assert KIND.describe(3725, 3600, KIND.params(), {}) == "a run has been going on for 1 h 2 min (limit 1 h)"
