"""Nothing has arrived at all, though it should have."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from tests.rules.observing import World, assert_instants_tell_all, assert_looked_at_in_time, at

KIND = KINDS["ingestion"]
DAY = 24 * 60


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection, KIND, levels=Levels(warning=600, critical=1800))


def came(world: World, from_minute: int, to_minute: int, accepted: int = 5) -> None:
    """So many events in each five minutes, from two writers."""
    world.connection.execute(
        text(
            "insert into pulsewatch.ingest_stat (bucket_at, source, writer, accepted)"
            " select bucket_at, 'native', writer, :accepted * (2 - writer)"
            " from generate_series(:from_at, :until_at, interval '5 minutes') as bucket_at,"
            " generate_series(1, 2) as writer"
        ),
        {"from_at": at(from_minute), "until_at": at(to_minute) - timedelta(seconds=1), "accepted": accepted},
    )


def test_it_is_the_time_since_the_last_five_minutes_in_which_anything_came(world: World) -> None:
    came(world, -DAY, 0)
    assert [world.value(minutes) for minutes in (-3, 0, 9.9, 10, 25.5, 60)] == [0, 0, 0, 600, 1500, 3600]
    assert (world.see(10).sample_at, world.see(9.5).next_at) == (at(0), at(10))


def test_it_counts_from_the_last_arrival_itself(world: World) -> None:
    came(world, -DAY - 60, 5)
    world.connection.execute(
        text("update pulsewatch.ingest_stat set last_at = bucket_at + make_interval(secs => 60 * writer)")
    )
    # The last came at minute 1; twice five minutes in which more should have come have gone by at minute 15.
    assert [world.value(minutes) for minutes in (4, 14, 15, 15.9, 25)] == [0, 0, 840, 840, 1440]
    assert world.see(15).sample_at == at(1)
    seen = world.see(15).evidence or {}
    assert (datetime.fromisoformat(seen["last_arrival_at"]), seen["awaited_count"]) == (at(1), 10)


def test_what_pulsewatch_says_itself_is_no_arrival(world: World) -> None:
    came(world, -DAY, 0)
    statement = text(
        "insert into pulsewatch.ingest_stat (bucket_at, source, writer, accepted, last_at)"
        " values (:at, 'pulsewatch', 1, 7, :at)"
    )
    for minutes in (5, 10, -DAY - 60):
        world.connection.execute(statement, {"at": at(minutes)})
    assert [world.value(minutes) for minutes in (10, 15)] == [600, 900]


def test_it_is_zero_where_nothing_was_to_be_expected(world: World) -> None:
    came(world, -DAY - 60, -DAY)
    came(world, -60, 0)
    # The day before there was nothing from minute 0 up to noon.
    came(world, -DAY + 720, -DAY + 780)
    assert [world.value(minutes) for minutes in (10, 700, 724, 731)] == [0, 0, 0, 731 * 60]


def test_a_silence_does_not_end_in_a_quiet_night(world: World) -> None:
    came(world, -DAY - 60, -DAY + 30)
    came(world, -60, 0)
    assert [world.value(minutes) for minutes in (10, 30, 600)] == [600, 1800, 36_000]


def test_the_week_before_tells_more_than_the_day_before(world: World) -> None:
    """Monday: nothing came on Sunday, but on the last Monday it did."""
    came(world, -7 * DAY - 60, -7 * DAY + 60)
    came(world, -60, 0)
    assert world.value(10) == 600


def test_on_a_quiet_saturday_nothing_is_missed(world: World) -> None:
    came(world, -8 * DAY, -7 * DAY)
    came(world, -DAY - 60, 0)
    assert world.value(600) == 0


def test_a_young_installation_goes_by_its_rate(world: World) -> None:
    came(world, -60, 0, accepted=10)
    # 120 in an hour: ten are missing after five minutes.
    assert [world.value(minutes) for minutes in (4.9, 5)] == [0, 300]


def test_a_few_events_on_the_first_day_are_no_rate(world: World) -> None:
    # With which somebody tried things out: a nightly job that does not come is missed all the same.
    came(world, -60, 0, accepted=8)
    assert [world.value(minutes) for minutes in (5, 60, 23 * 60)] == [0, 0, 0]


def test_nothing_ever_came(world: World) -> None:
    seen = world.see(600)
    assert (seen.value, seen.sample_at, seen.run_ids) == (0, None, ())


def test_how_many_must_be_missing_can_be_told(world: World) -> None:
    came(world, -DAY - 5, 0, accepted=1)
    assert (world.value(45), world.value(50)) == (0, 3000)
    world.params = {"min_events": 2}
    assert (world.value(5), world.value(10)) == (0, 600)


def test_refused_items_and_repeats_are_no_arrivals(world: World) -> None:
    came(world, -DAY, 0)
    world.connection.execute(
        text(
            "insert into pulsewatch.ingest_stat (bucket_at, source, writer, duplicates, rejected)"
            " values (:at, 'native', 1, 7, 7)"
        ),
        {"at": at(5)},
    )
    assert world.value(10) == 600


def test_verdicts_change_at_its_instants_only(world: World) -> None:
    came(world, -DAY, 0, accepted=1)
    came(world, 100, 120)
    assert_instants_tell_all(world, 180)
    assert_looked_at_in_time(world, 120, 200)


def test_it_says_what_it_saw() -> None:
    assert KIND.describe(900, 600, KIND.params(), {}) == "nothing has arrived from anybody for 15 min (limit 10 min)"
