"""Seconds since anything arrived from a pipeline, or from a client."""

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, assert_looked_at_in_time, at, id_of, said, went

KIND = KINDS["no_data"]
RUNNING = Status.RUNNING


@pytest.fixture
def world(world: World) -> World:
    world.kind, world.levels = KIND, Levels(warning=600, critical=1200)
    return world


def test_it_is_the_time_since_anything_was_received(world: World) -> None:
    world.receive(3, said("a", 0, RUNNING))
    world.receive(8, said("a", 1))
    assert [world.value(minutes, known=minutes) for minutes in (7, 8, 13, 18)] == [240, 300, 300, 600]
    assert world.see(13, known=13).run_ids == (id_of("a"),)


def test_at_the_moment_at_which_it_was_received_it_is_not_known_yet(world: World) -> None:
    world.receive(3, said("a", 0, RUNNING))
    world.receive(8, said("a", 1))
    assert world.see(8, known=8.001).value == 0


def test_what_pours_in_since_hides_nothing_of_what_was_known(world: World) -> None:
    world.receive(3, said("a", 0))
    world.receive(20, *(said(f"r{number}", 1 + number / 100) for number in range(100)))
    for name in ("no_data", "client_no_data"):
        world.kind = KINDS[name]
        assert world.value(10, known=10) == 420
        assert world.see(10, known=10).run_ids == (id_of("a"),)


def test_where_nothing_ever_came_it_counts_from_when_the_rule_began_to_watch(world: World) -> None:
    world.receive(30, said("a", 0))
    world.target_since = 5
    assert (world.value(15, known=15), world.see(15, known=15).next_at) == (600, at(25))
    assert world.see(15, known=15).run_ids == ()


def test_with_hindsight_events_count_when_they_happened(world: World) -> None:
    world.receive(5000, went("a", 0, 4), said("b", 10, RUNNING), said("b", 30))
    assert [world.value(minutes) for minutes in (2, 4, 9, 12, 29, 30)] == [120, 0, 300, 120, 1140, 0]


def test_it_looks_again_at_the_next_level(world: World) -> None:
    world.receive(0, said("a", 0))
    assert [world.see(minutes, known=90).next_at for minutes in (1, 10, 20)] == [at(10), at(20), None]


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    world.put(went("a", 0, 4), said("b", 10, RUNNING), said("b", 45), went("c", 46, 47))
    world.refresh()
    assert_instants_tell_all(world, 120)
    assert_looked_at_in_time(world, 47, 120)


def test_a_client_is_heard_of_while_any_of_its_pipelines_is(world: World) -> None:
    world.kind = KINDS["client_no_data"]
    world.receive(5, said("a", 0), said("other", 0, client="globex"))
    world.receive(20, said("b", 1, pipeline="hourly"))
    world.receive(25, said("other", 30, client="globex"))
    assert [world.value(minutes, known=minutes) for minutes in (15, 25, 35)] == [600, 300, 900]
    assert world.see(35, known=35).run_ids == (id_of("b", "hourly"),)


def test_verdicts_on_a_client_change_at_its_instants_only(world: World) -> None:
    world.kind = KINDS["client_no_data"]
    world.put(went("a", 0, 4), said("b", 10, RUNNING, pipeline="hourly"), said("b", 45, pipeline="hourly"))
    world.refresh()
    assert_instants_tell_all(world, 120)
    assert_looked_at_in_time(world, 45, 120)


def test_it_says_what_it_saw() -> None:
    assert KIND.describe(7260, 3600, KIND.params(), {}) == "nothing has arrived for 2 h 1 min (limit 1 h)"
