"""Runs as they were at a time by what was known then: what ingestion would have made of those events alone."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from pulsewatch.events import RunEvent, Status, dedupe_key
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Levels
from pulsewatch.rules.known_runs import COMING, known_runs
from tests.examples import examples
from tests.reference import expected_run
from tests.rules.observing import World, at, id_of, said, went

COLUMNS = (
    "id", "first_at", "last_at", "started_at", "scheduled_at", "finished_at", "status", "duration_s", "error_class",
    "metrics",
)  # fmt: skip
ASKED = """
with asked as (
    select client_id, id as pipeline_id, %(as_of)s::timestamptz as as_of, %(known_at)s::timestamptz as known_at,
        %(known_at)s::timestamptz = 'infinity' as is_settled
    from pulsewatch.pipeline
    where slug = 'nightly'
)
"""


def known(
    connection: Connection, as_of: datetime, known_at: datetime | None = None, **how: Any
) -> list[dict[str, Any]]:
    statement = f"{ASKED} select run.* from asked cross join lateral {known_runs(**how)} as run"
    values = {"as_of": as_of, "known_at": "infinity" if known_at is None else known_at}
    return [
        {name: getattr(row, name) for name in COLUMNS}
        for row in connection.exec_driver_sql(statement, values)
    ]  # fmt: skip


def expected(events: list[RunEvent], as_of: datetime) -> list[dict[str, Any]]:
    """The same, from the set of events by the rules for runs, newest first."""
    seen = []
    for name in {event.run for event in events}:
        run = expected_run([event for event in events if event.run == name])
        has_ended = run["finished_at"] is not None and run["finished_at"] <= as_of
        has_started = run["started_at"] is not None and run["started_at"] <= as_of
        if run["first_at"] > as_of:
            continue
        is_running = has_started and run["status"] != "queued"
        run["status"] = run["status"] if has_ended else "running" if is_running else "queued"
        if not has_ended:
            run |= {"finished_at": None, "duration_s": None, "error_class": None, "metrics": None}
        seen.append({name: run.get(name) for name in COLUMNS} | {"id": id_of(name)})
    return sorted(seen, key=lambda run: (run["first_at"], run["id"]), reverse=True)


times = st.sampled_from([at(minutes) for minutes in (0, 1, 1.5, 61, 62, 200)])
events = st.builds(
    RunEvent,
    client=st.just("acme"),
    pipeline=st.sampled_from(["nightly", "nightly", "nightly", "hourly"]),
    run=st.sampled_from(["r1", "r2", "r3"]),
    status=st.sampled_from(list(Status)),
    occurred_at=times,
    event_id=st.none() | st.sampled_from(["e1", "e2", "e3"]),
    attempt=st.none() | st.integers(0, 2),
    started_at=st.none() | times,
    scheduled_at=st.none() | times,
    duration_s=st.none() | st.sampled_from([0.0, 0.1, 12.345678, 3600.0, 7200.123456789]),
    error_class=st.none() | st.sampled_from(["ValueError", "OSError"]),
    metrics=st.none() | st.dictionaries(st.sampled_from(["rows", "bytes"]), st.sampled_from([1.0, 2.5]), min_size=1),
)


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[RunEvent]]:
    """Events that come in one after the other, in any order."""
    told = draw(
        st.lists(events, min_size=1, max_size=12, unique_by=lambda event: (event.occurred_at, dedupe_key(event)))
    )
    cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=4)))
    batches = [told[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(told)], strict=True)]
    return [batch for batch in batches if batch]


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
def test_what_is_known_at_a_time_is_what_the_events_received_before_it_make(
    connection: Connection, batches: list[list[RunEvent]]
) -> None:
    with connection.begin_nested() as undone:
        world = World(connection)
        for minute, batch in enumerate(batches):
            world.receive(minute, *batch)
        for minute in range(len(batches) + 1):
            heard = [event for batch in batches[:minute] for event in batch if event.pipeline == "nightly"]
            for as_of in (at(0), at(1.5), at(61), at(100), at(500)):
                # They come in the order of what is known by now.
                runs = known(connection, as_of, at(minute))
                runs.sort(key=lambda run: (run["first_at"], run["id"]), reverse=True)
                assert runs == expected(heard, as_of)
        everything = [event for batch in batches for event in batch if event.pipeline == "nightly"]
        runs = known(connection, at(500))
        assert [run["first_at"] for run in runs] == sorted((run["first_at"] for run in runs), reverse=True)
        assert sorted(runs, key=lambda run: (run["first_at"], run["id"]), reverse=True) == expected(everything, at(500))
        undone.rollback()


def test_an_event_received_at_the_very_moment_is_not_known_yet(world: World) -> None:
    world.receive(5, went("a", 0, 4))
    assert known(world.connection, at(9), at(5)) == []
    assert [run["id"] for run in known(world.connection, at(9), at(5) + timedelta(microseconds=1))] == [id_of("a")]


def test_a_run_is_running_from_its_start_up_to_its_end_and_not_there_before(world: World) -> None:
    world.put(went("a", 10, 20, metrics={"rows": 1.0}))
    statuses = [[run["status"] for run in known(world.connection, at(minutes))] for minutes in (9.99, 10, 19.99, 20)]
    assert statuses == [[], ["running"], ["running"], ["succeeded"]]
    assert known(world.connection, at(19.99))[0]["metrics"] is None


def test_they_come_newest_first_and_no_more_than_are_wanted(world: World) -> None:
    world.put(*(went(f"r{number}", number, number + 0.5) for number in range(70)))
    names = [run["id"] for run in known(world.connection, at(100))]
    assert names == [id_of(f"r{number}") for number in range(69, 5, -1)]
    assert len(known(world.connection, at(100), newest=3)) == 3
    assert len(known(world.connection, at(100), newest=None)) == 70
    assert len(known(world.connection, at(100), since=f"'{at(60).isoformat()}'")) == 10


def test_runs_that_were_not_known_take_no_place_from_those_that_were(world: World) -> None:
    world.receive(5, *(went(f"r{number}", number / 100, 1) for number in range(10)))
    world.receive(6, *(went(f"late{number}", 1 + number / 100, 3) for number in range(70)))
    assert [run["id"] for run in known(world.connection, at(9), at(6), newest=8)] == [
        id_of(f"r{number}") for number in range(9, 1, -1)
    ]


def test_a_run_is_known_from_the_first_received_of_its_events_on(world: World) -> None:
    world.receive(5, said("a", 0, Status.RUNNING))
    world.receive(7, said("a", 1))
    statuses = [[run["status"] for run in known(world.connection, at(9), at(minutes))] for minutes in (5, 6, 7, 8)]
    assert statuses == [[], ["running"], ["running"], ["succeeded"]]


def test_runs_of_other_pipelines_and_clients_are_left_out_unless_the_client_is_asked_for(world: World) -> None:
    world.put(went("a", 0, 1), went("b", 0, 1, pipeline="hourly"), went("c", 0, 1, client="globex"))
    acme = "client_id = (select id from pulsewatch.client where slug = 'acme')"
    world.connection.exec_driver_sql("delete from pulsewatch.pipeline where slug = 'nightly' and not " + acme)
    assert [run["id"] for run in known(world.connection, at(5))] == [id_of("a")]
    assert {run["id"] for run in known(world.connection, at(5), of="client")} == {id_of("a"), id_of("b", "hourly")}


def coming(world: World, as_of: datetime, known_at: datetime) -> list[tuple[datetime, str]]:
    rows = world.connection.exec_driver_sql(
        f"{ASKED} select next_at, slug from ({COMING}) as coming inner join pulsewatch.pipeline"
        " on coming.client_id = pipeline.client_id and coming.pipeline_id = pipeline.id order by next_at",
        {"as_of": as_of, "known_at": known_at, "earliest": as_of},
    )
    return [(row.next_at, row.slug) for row in rows]


def test_events_of_a_time_to_come_tell_when_to_look_again(world: World) -> None:
    world.put(said("a", 10, Status.RUNNING), said("a", 20), said("b", 30), said("c", 15, pipeline="hourly"))
    assert coming(world, at(10), at(10)) == [(at(15), "hourly"), (at(20), "nightly")]


def test_where_a_rule_looks_back_the_runs_of_its_pipeline_tell(world: World) -> None:
    world.put(
        went("long", -300, 17),
        went("a", 10, 20),
        *(went(f"r{number}", number - 200, number - 199) for number in range(70)),
        said("c", 15, pipeline="hourly"),
    )
    world.refresh()
    found = [coming(world, at(minutes), at(60)) for minutes in (-301, 9, 10, 17, 20)]
    assert found == [[(at(-300), "nightly")], [(at(10), "nightly")], [(at(17), "nightly")], [(at(20), "nightly")], []]


ENDS = st.builds(
    went,
    st.sampled_from(["r1", "r2", "r3", "r4", "r5"]),
    st.sampled_from([0, 1, 5, 50]),
    st.sampled_from([5, 6, 50, 61, 200]),
    st.sampled_from(
        [Status.SUCCEEDED, Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELLED, Status.RUNNING]
    ),
    attempt=st.none() | st.integers(0, 1),
    duration_s=st.none() | st.just(12.5),
)


QUICK: dict[str, dict[str, Any]] = {
    "consecutive_failures": {},
    "failure_rate": {"window_s": 3600, "min_runs": 1},
    "freshness": {},
    "duration_threshold": {},
    "overrun": {},
}


@pytest.mark.slow(15)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENDS, min_size=1, max_size=8, unique_by=lambda event: (event.occurred_at, dedupe_key(event))))
def test_what_the_pipelines_state_tells_is_what_its_runs_tell(connection: Connection, told: list[RunEvent]) -> None:
    """Where nothing was received since, rules take the short way."""
    with connection.begin_nested() as undone:
        World(connection).receive(300, *told)
        World(connection).refresh()
        for name, params in QUICK.items():
            world = World(connection, KINDS[name], params, levels=Levels(warning=10))
            times = [at(minutes) for minutes in (0, 5, 6, 7, 60, 61, 65, 66, 100, 121, 250, 260, 301)]
            by_runs = world.see_all(times, at(400))
            assert world.see_all(times, at(400), is_settled=True) == by_runs
            # What ticks go by, once all that is known has happened.
            if quickly := world.told(400):
                seen = world.see(400, 400)
                assert quickly == (seen.value, seen.next_at)
        undone.rollback()
