"""A number that the last run reported."""

from typing import Any

import pytest
from pydantic import ValidationError

from pulsewatch.events import Status
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, at, id_of, said, went

KIND = KINDS["metric_threshold"]


@pytest.fixture
def world(world: World) -> World:
    world.kind, world.params, world.levels = KIND, {"metric": "rows"}, Levels(warning=100)
    world.put(
        went("a", 0, 1, metrics={"rows": 5.0}),
        went("b", 10, 11, metrics={"rows": 120.5, "bytes": 1.0}),
        went("c", 20, 21, metrics={"bytes": 9.0}),
        went("d", 30, 31, Status.FAILED, metrics={"rows": 1.0}),
        went("e", 40, 41, metrics={"rows": -3.0}),
    )
    return world


def test_it_is_the_metric_of_the_newest_run_that_succeeded_and_has_it(world: World) -> None:
    assert [world.value(minutes) for minutes in (0.5, 1, 11, 21, 31, 41)] == [None, 5, 120.5, 120.5, 120.5, -3]
    seen = world.see(31)
    assert (seen.run_ids, seen.sample_at, seen.next_at) == ((id_of("b"),), at(11), None)


def test_which_ends_count_can_be_told(world: World) -> None:
    world.params = {"metric": "rows", "statuses": ["succeeded", "failed"]}
    assert world.value(31) == 1


def test_a_metric_that_nobody_reports_is_nothing_to_measure(world: World) -> None:
    world.params = {"metric": "no' || \"such"}
    assert world.value(50) is None


def test_what_the_end_says_is_laid_over_what_the_beginning_said(world: World) -> None:
    world.put(
        said("f", 50, Status.RUNNING, metrics={"rows": 1.0, "queued_s": 2.0}), said("f", 51, metrics={"rows": 7.0})
    )
    assert world.value(51) == 7
    world.params = {"metric": "queued_s"}
    assert (world.value(50), world.value(51)) == (None, 2)


def test_too_little_can_be_bad(world: World) -> None:
    world.params, world.levels = {"metric": "rows", "direction": "below"}, Levels(warning=0)
    assert [verdict.level for verdict in world.judged([at(11), at(41)])] == [0, 1]


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    world.refresh()
    assert_instants_tell_all(world, 60)


@pytest.mark.parametrize("params", [{}, {"metric": ""}, {"metric": "rows", "direction": "up"}, {"metric": "a", "x": 1}])
def test_parameters_that_mean_nothing_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KIND.params.model_validate(params)


def test_it_says_what_it_saw() -> None:
    params = KIND.params.model_validate({"metric": "rows", "direction": "below"})
    assert KIND.describe(0, 1000, params, {}) == "the last run reported rows 0 (limit 1000 or less)"
