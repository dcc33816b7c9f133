"""Starts that were expected and did not come."""

from datetime import datetime

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from pulsewatch.submissions import CatalogStatement
from tests.rules.observing import World, assert_instants_tell_all, assert_looked_at_in_time, at, said, went

KIND = KINDS["missed_run"]
RUNNING = Status.RUNNING


@pytest.fixture
def world(world: World) -> World:
    """A pipeline that is due at 0, 60, 120 ... minutes, with five minutes of grace."""
    world.kind, world.levels = KIND, Levels(warning=1, critical=2)
    world.put(CatalogStatement("acme", {"schedule": "0 * * * *"}, at(0), "nightly"))
    world.refresh(0)
    return world


def test_it_counts_missed_starts_in_a_row_the_newest_first(world: World) -> None:
    world.put(said("a", 1), said("b", 181))
    world.refresh(300)
    assert [world.value(minutes) for minutes in (4.99, 5, 64.99, 65, 124, 125, 180, 181, 185, 245)] == [
        None, 0, 0, 1, 1, 2, 2, 2, 0, 1,
    ]  # fmt: skip


def test_it_names_the_starts_that_were_missed(world: World) -> None:
    world.put(said("a", 1))
    world.refresh(300)
    assert world.see(5).evidence is None
    slots = (world.see(190).evidence or {})["slots"]
    assert [datetime.fromisoformat(slot) for slot in slots] == [at(180), at(120), at(60)]


def test_it_does_not_matter_when_the_worker_judges_the_slots(world: World) -> None:
    world.put(said("a", 1))
    assert [world.value(minutes) for minutes in (5, 65)] == [0, 1]
    world.put(said("b", 130, RUNNING))
    assert [world.value(minutes) for minutes in (125, 129, 130)] == [2, 2, 0]
    world.refresh(200)
    assert [world.value(minutes) for minutes in (5, 65, 125, 129, 130)] == [0, 1, 2, 2, 0]


def test_a_run_counts_from_its_start_and_from_when_it_is_known(world: World) -> None:
    world.receive(30, said("a", 20, RUNNING))
    assert [world.value(minutes, known) for minutes, known in ((25, 25), (25, 31), (19, 31))] == [1, 0, 1]
    world.refresh(40)
    assert [world.value(minutes, known) for minutes, known in ((25, 25), (25, 31), (19, 31))] == [1, 0, 1]


def test_one_that_is_only_queued_has_not_come_and_one_that_was_skipped_has(world: World) -> None:
    world.put(said("a", 0, Status.QUEUED))
    assert world.value(5) == 1
    world.put(said("b", 1, Status.SKIPPED))
    assert world.value(5) == 0


def test_a_run_counts_for_the_slot_that_it_names(world: World) -> None:
    world.put(said("late", 70, RUNNING, scheduled_at=at(0)))
    assert [world.value(minutes) for minutes in (65, 71)] == [2, 1]
    world.put(said("now", 75, RUNNING))
    assert world.value(76) == 0


def test_a_scheduled_at_that_is_no_slot_says_nothing(world: World) -> None:
    world.put(said("a", 1, RUNNING, scheduled_at=at(30)))
    assert world.value(5) == 0


def test_a_start_up_to_a_minute_early_counts_for_the_coming_slot(world: World) -> None:
    world.put(said("a", 1), said("early", 59.5, RUNNING))
    assert world.value(65) == 0
    world.put(said("too early", 118.5, RUNNING))
    assert world.value(125) == 1


def test_it_looks_again_at_the_next_deadline(world: World) -> None:
    assert [world.see(minutes).next_at for minutes in (0, 4.99, 5, 64, 65)] == [
        at(5), at(5), at(65), at(65), at(125),
    ]  # fmt: skip
    assert (world.see(0).sample_at, world.see(5).sample_at, world.see(70).sample_at) == (None, at(5), at(65))


def test_what_the_slots_tell_is_what_the_runs_tell(world: World) -> None:
    """Where a slot was judged missed, runs are read only where more may have come since."""
    world.receive(300, said("a", 1), went("b", 130, 140), said("c", 250, RUNNING))
    world.receive(310, said("c", 251, attempt=1))
    world.refresh(400)
    times = [at(minutes) for minutes in (0, 5, 65, 70, 125, 135, 185, 245, 249, 250, 251, 305, 399)]
    by_runs = world.see_all(times, at(399.5))
    assert world.see_all(times, at(399.5), is_settled=True) == by_runs == world.see_all(times)
    assert [one.value for one in by_runs] == [None, 0, 1, 1, 2, 0, 1, 2, 2, 0, 0, 1, 2]


def test_without_a_schedule_there_is_nothing_to_measure(world: World) -> None:
    world.put(said("a", 0, pipeline="unplanned"))
    world.pipeline = "unplanned"
    assert (world.value(100), world.see(100).next_at) == (None, None)


def test_all_that_it_looks_at_may_be_missed(world: World) -> None:
    world.put(CatalogStatement("acme", {"schedule": "every 1m", "start_grace_s": 0.0}, at(0), "often"))
    world.refresh(120)
    world.pipeline = "often"
    assert world.value(30.5) == 31
    assert world.value(110) == 64


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    world.put(went("a", 1, 3), went("b", 130, 140), said("c", 179.5, RUNNING), said("d", 255, Status.SKIPPED))
    world.refresh(400)
    assert_instants_tell_all(world, 400)
    assert_looked_at_in_time(world, 256, 400)


def test_a_level_is_a_whole_number_of_starts() -> None:
    for level in (0, 1.5, 65):
        with pytest.raises(ValueError, match="a number of starts from 1 to 64"):
            KIND.check_level(level)


def test_it_says_what_it_saw() -> None:
    assert KIND.describe(1, 1, KIND.params(), {}) == "1 expected start was missed (limit 1)"
    assert KIND.describe(3, 2, KIND.params(), {}) == "3 expected starts in a row were missed (limit 2)"
