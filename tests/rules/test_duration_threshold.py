"""The duration of the last run."""

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, at, id_of, said, went

KIND = KINDS["duration_threshold"]


@pytest.fixture
def world(world: World) -> World:
    world.kind, world.levels = KIND, Levels(warning=120, critical=300)
    world.put(went("a", 0, 1), went("b", 10, 15), went("c", 20, 21, Status.FAILED), went("d", 30, 32))
    return world


def test_it_is_that_of_the_newest_run_that_succeeded(world: World) -> None:
    assert [world.value(minutes) for minutes in (0.5, 1, 14.9, 15, 21, 32)] == [None, 60, 60, 300, 300, 120]
    seen = world.see(21)
    assert (seen.run_ids, seen.sample_at, seen.next_at) == ((id_of("b"),), at(15), None)


def test_which_ends_count_can_be_told(world: World) -> None:
    world.params = {"statuses": ["failed"]}
    assert [world.value(minutes) for minutes in (15, 21, 32)] == [None, 60, 60]


def test_what_the_producer_says_comes_first_and_runs_without_a_duration_are_passed_over(world: World) -> None:
    world.put(said("e", 40), said("f", 41, duration_s=7.5))
    assert (world.value(40), world.value(41)) == (120, 7.5)


def test_too_short_can_be_bad(world: World) -> None:
    world.params, world.levels = {"direction": "below"}, Levels(warning=100, critical=60)
    assert [verdict.level for verdict in world.judged([at(1), at(15)])] == [2, 0]


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    world.refresh()
    assert_instants_tell_all(world, 60)


def test_it_says_what_it_saw() -> None:
    assert KIND.describe(90, 60, KIND.params(), {}) == "the last run took 1 min 30 s (limit 1 min or more)"
    below = KIND.params.model_validate({"direction": "below"})
    assert KIND.describe(0.25, 1, below, {}) == "the last run took 0.25 s (limit 1 s or less)"
