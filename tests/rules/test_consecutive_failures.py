"""So many failures in a row."""

import pytest

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, at, id_of, said, went

KIND = KINDS["consecutive_failures"]
BAD = Status.FAILED


@pytest.fixture
def failing(world: World) -> World:
    world.put(went("a", 0, 1), went("b", 10, 11, BAD), went("c", 20, 21, BAD), went("d", 30, 31))
    return world


def test_it_counts_failures_since_the_last_success(failing: World) -> None:
    assert [failing.value(minutes) for minutes in (0.5, 1, 10.99, 11, 20.5, 21, 30.5, 31)] == [
        None, 0, 0, 1, 1, 2, 2, 0,
    ]  # fmt: skip


def test_its_runs_are_those_that_failed_newest_first_and_its_sample_the_last_end(failing: World) -> None:
    seen = failing.see(25)
    assert (seen.run_ids, seen.sample_at, seen.next_at) == ((id_of("c"), id_of("b")), at(21), None)
    assert (failing.see(31).run_ids, failing.see(31).sample_at) == ((), at(31))


def test_runs_that_go_on_or_were_cancelled_or_skipped_count_for_nothing(failing: World) -> None:
    failing.put(
        went("e", 40, 41, BAD), went("f", 42, 43, Status.CANCELLED), went("g", 44, 45, Status.SKIPPED),
        said("h", 46, Status.RUNNING),
    )  # fmt: skip
    assert failing.value(50) == 1


def test_of_runs_that_began_together_the_one_with_the_greater_id_is_the_newest(failing: World) -> None:
    names = sorted(("e", "f", "g"), key=id_of)
    failing.put(went(names[2], 40, 41, BAD), went(names[0], 40, 41, BAD), went(names[1], 40, 41))
    assert (failing.value(41), failing.see(41).run_ids) == (1, (id_of(names[2]),))


def test_what_counts_as_a_failure_can_be_told(failing: World) -> None:
    failing.put(went("e", 40, 41, Status.CANCELLED), went("f", 42, 43, BAD))
    failing.params = {"statuses": ["cancelled"]}
    assert failing.value(41) == 1
    # A failure that does not count as one is an end all the same.
    assert failing.value(43) == 0


def test_without_any_end_there_is_nothing_to_measure(world: World) -> None:
    world.put(said("a", 0, Status.RUNNING))
    assert (world.value(5), world.see(5).sample_at, world.see(5).run_ids) == (None, None, ())


def test_it_shows_ten_runs_and_counts_sixty_four(world: World) -> None:
    world.put(went("good", 0, 0.5), *(went(f"r{number}", number, number + 0.5, BAD) for number in range(1, 81)))
    assert world.value(12) == 11
    assert world.see(100).value == 64
    assert world.see(100).run_ids == tuple(id_of(f"r{number}") for number in range(80, 70, -1))


def test_only_what_was_known_then_counts(world: World) -> None:
    world.receive(1, went("a", 0, 1))
    world.receive(30, went("b", 10, 11, BAD))
    assert (world.value(20, known=20), world.value(20, known=31), world.value(20)) == (0, 1, 1)


def test_a_retry_that_succeeds_takes_the_failure_back_once_it_is_known(world: World) -> None:
    world.receive(1, went("a", 0, 1, BAD))
    world.receive(6, went("a", 5, 6, attempt=1))
    assert (world.value(2, known=2), world.value(7, known=7)) == (1, 0)


def test_verdicts_change_at_its_instants_only(failing: World) -> None:
    failing.refresh()
    failing.levels = Levels(warning=1, critical=2)
    assert_instants_tell_all(failing, 60)


def test_a_level_is_a_whole_number_of_runs() -> None:
    for level in (0, 0.5, 1.5, 51, -1):
        with pytest.raises(ValueError, match="a number of runs from 1 to 50"):
            KIND.check_level(level)
    KIND.check_level(1)
    KIND.check_level(50)


def test_it_says_what_it_saw() -> None:
    params = KIND.params.model_validate({})
    assert KIND.describe(3, 2, params, {}) == "3 runs in a row have failed or timed out (limit 2)"
    assert KIND.describe(1, 1, params, {}) == "1 run has failed or timed out (limit 1)"
    assert KIND.describe(64, 2, params, {}) == "64 or more runs in a row have failed or timed out (limit 2)"
