"""Whatever comes in, in whatever order and however often, and whenever it is worked out: the numbers are the same."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from pulsewatch import rollups
from pulsewatch.events import RunEvent, Status, dedupe_key
from pulsewatch.settings import Settings
from pulsewatch.submissions import CatalogStatement
from tests.examples import examples
from tests.rollup_reference import expected, stored
from tests.rollup_steps import assert_equal, written
from tests.test_ingest import DAY, NOW, put

SETTINGS = Settings()

instants = st.sampled_from([DAY + timedelta(minutes=minutes) for minutes in (0, 1, 1.5, 59, 61, 62, 200, 1500, 3000)])
events = st.builds(
    RunEvent,
    client=st.sampled_from(["acme", "acme", "globex"]),
    pipeline=st.sampled_from(["nightly", "nightly", "hourly"]),
    run=st.sampled_from(["r1", "r2", "r3", "r4", "r5", "r6"]),
    # Ends are what the numbers are about.
    status=st.sampled_from([*Status, Status.FAILED, Status.FAILED, Status.SUCCEEDED, Status.TIMED_OUT]),
    occurred_at=instants,
    attempt=st.none() | st.integers(0, 2),
    started_at=st.none() | instants,
    duration_s=st.none() | st.sampled_from([0.0, 0.1, 12.345678, 12.5, 3600.0, 7200.123456789, 90_000.0]),
    error_class=st.none() | st.just("ValueError"),
    metrics=st.none()
    | st.dictionaries(st.sampled_from(["rows", "bytes", "other"]), st.sampled_from([0.0, 1.0, 0.1, 2e13]), min_size=1),
)


@dataclass(frozen=True)
class Judged:
    """A slot that comes to be, or is judged anew."""

    minutes: int
    status: str


@dataclass(frozen=True)
class Refreshed:
    """Marks are worked out, so many at most."""

    limit: int


steps = (
    st.lists(events, min_size=1, max_size=5)
    | st.builds(Refreshed, st.integers(1, 12))
    | st.builds(Judged, st.sampled_from([0, 15, 90, 1500]), st.sampled_from(["on_time", "late", "missed"]))
    | st.builds(Judged, st.sampled_from([4325, 4400]), st.just("open"))
)
Step = list[RunEvent] | Refreshed | Judged


def judge(connection: Connection, slot: Judged) -> None:
    """Write a slot of acme's nightly as the slots' tick does: with a mark for its hour."""
    put(connection, CatalogStatement("acme", {}, DAY, "nightly"))
    client_id, pipeline_id = pipeline_ids(connection)
    values = {
        "client_id": client_id,
        "pipeline_id": pipeline_id,
        "slot_at": DAY + timedelta(minutes=slot.minutes),
        "status": slot.status,
        "run_id": uuid4() if slot.status in {"on_time", "late"} else None,
    }
    connection.exec_driver_sql(
        "insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at, status, run_id)"
        " values (%(client_id)s, %(pipeline_id)s, %(slot_at)s, %(slot_at)s, %(status)s, %(run_id)s)"
        " on conflict (client_id, pipeline_id, slot_at) do update"
        " set status = excluded.status, run_id = excluded.run_id",
        values,
    )
    connection.exec_driver_sql(
        "insert into pulsewatch.dirty (client_id, pipeline_id, hour_at)"
        " values (%(client_id)s, %(pipeline_id)s, date_trunc('hour', %(slot_at)s))",
        values,
    )


def pipeline_ids(connection: Connection) -> tuple[int, int]:
    row = connection.exec_driver_sql(
        "select client_id, pipeline.id from pulsewatch.pipeline"
        " inner join pulsewatch.client on client.id = pipeline.client_id"
        " where client.slug = 'acme' and pipeline.name = 'nightly'"
    ).one()
    return row[0], row[1]


def catch_up(connection: Connection, limit: int = 1000) -> None:
    while rollups.refresh_chunk(connection, SETTINGS, NOW, limit=limit)[0]:
        pass


def take(connection: Connection, step: Step) -> None:
    match step:
        case Refreshed(limit):
            rollups.refresh_chunk(connection, SETTINGS, NOW, limit=limit)
        case Judged():
            judge(connection, step)
        case _:
            put(connection, *step)


def without_conflicts(taken: list[Step]) -> list[Step]:
    """The steps without events that say something else of one identity."""
    known: dict[Any, RunEvent] = {}
    kept: list[Step] = []
    for step in taken:
        if isinstance(step, list):
            step = [one for one in step if known.setdefault((one.client, one.occurred_at, dedupe_key(one)), one) == one]
        kept.append(step)
    return kept


@pytest.mark.slow(30)
@hypothesis_settings(
    max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(steps, min_size=1, max_size=12), st.integers(1, 30), st.randoms(use_true_random=False))
def test_once_caught_up_every_row_is_what_the_runs_and_slots_say(
    connection: Connection, taken: list[Step], limit: int, random: Any
) -> None:
    taken = without_conflicts(taken)
    again = random.sample(taken, random.randint(0, len(taken)))
    with connection.begin_nested() as undone:
        for step in (*taken, *again):
            take(connection, step)
        catch_up(connection, limit)
        assert_equal(stored(connection), expected(connection))
        undone.rollback()


@pytest.mark.slow
@hypothesis_settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(steps, min_size=1, max_size=8))
def test_what_is_worked_out_again_is_not_written_again(connection: Connection, taken: list[Step]) -> None:
    with connection.begin_nested() as undone:
        for step in without_conflicts(taken):
            take(connection, step)
        connection.exec_driver_sql("create temporary table mark on commit drop as select * from pulsewatch.dirty")
        catch_up(connection)
        connection.exec_driver_sql("insert into pulsewatch.dirty select * from mark")
        before = written(connection)
        catch_up(connection)
        assert written(connection) == before
        undone.rollback()
