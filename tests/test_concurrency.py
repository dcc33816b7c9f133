"""Writers at the same time, on real commits: the rows are those that one writer alone would leave."""

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pulsewatch import ingest, resolve
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.submissions import CatalogStatement, Item, Receipt, Submission
from tests.examples import examples
from tests.serving import is_ingest_waiting, make_key, scalar, serve, wait_until
from tests.test_ingest import arrivals

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def writers(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=3, application_name="pulsewatch ingest")
    yield engine
    engine.dispose()


def put(begin: ingest.Begin, items: Sequence[Item], known: resolve.Names) -> Receipt:
    """Store as the batcher does: again, when PostgreSQL asks for it."""
    while True:
        try:
            (receipt,) = ingest.store(
                begin,
                [Submission("native", list(items), list(range(len(items))))],
                known,
                max_pipelines=100,
                received_at=NOW,
            )
        except DBAPIError as error:
            if not ingest.is_worth_retrying(error):
                raise
        else:
            return receipt


def held_open(engine: Engine, is_other_done: threading.Event) -> ingest.Begin:
    """Transactions that stay open, before they commit, until the other writer waits for them or is done."""

    def may_go_on(dsn: str) -> bool:
        return is_other_done.is_set() or is_ingest_waiting(dsn)

    @contextmanager
    def begin() -> Iterator[Connection]:
        with engine.begin() as connection:
            yield connection
            dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
            wait_until(lambda: may_go_on(dsn), "the other writer waits or is done")

    return begin


def for_client(events: Sequence[RunEvent], suffix: str) -> list[RunEvent]:
    return [msgspec.structs.replace(event, client=f"{event.client}-{suffix}") for event in events]


def stored_rows(engine: Engine, suffix: str) -> tuple[list[Any], list[Any]]:
    """All facts about the runs and events of the clients with this suffix, without what depends on their names."""
    own = f"inner join pulsewatch.client on client_id = client.id and client.slug like '%%-{suffix}'"
    without = (
        "'{client_id,pipeline_id,id,run_id,content_digest,received_at,first_received_at,prev_started_at,"
        "prev_finished_at}'::text[]"
    )
    with engine.begin() as connection:
        run_rows = connection.exec_driver_sql(
            f"select split_part(client.slug, '-', 1), pipeline.name, pipeline.namespace, to_jsonb(run) - {without}"
            f" from pulsewatch.run {own}"
            " inner join pulsewatch.pipeline on run.client_id = pipeline.client_id and run.pipeline_id = pipeline.id"
            " order by 1, 2, 3, run.external_id"
        ).all()
        event_rows = connection.exec_driver_sql(
            f"select split_part(client.slug, '-', 1), to_jsonb(run_event) - {without}"
            f" from pulsewatch.run_event {own} order by 1, occurred_at, dedupe_key"
        ).all()
    return [tuple(row) for row in run_rows], [tuple(row) for row in event_rows]


numbers = count()


@pytest.mark.slow
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrival=arrivals(), dealt=st.integers(0, 2**20), is_held=st.booleans(), is_known=st.booleans())
def test_two_writers_at_once_leave_the_rows_of_one(
    writers: Engine,
    arrival: tuple[list[RunEvent], list[list[RunEvent]]],
    dealt: int,
    is_held: bool,
    is_known: bool,
) -> None:
    """The second one runs while the first one's transaction is open, or they race as they like."""
    events, batches = arrival
    number = next(numbers)
    together, alone = f"t{number}", f"a{number}"
    # Both writers send every event at least once between them; some batches are sent by both.
    shares = [[batch for place, batch in enumerate(batches) if dealt >> 2 * place & 3 != other] for other in (1, 2)]
    known = resolve.Names()
    if is_known:
        put(
            writers.begin,
            [CatalogStatement(f"{e.client}-{together}", {}, NOW, e.pipeline, e.namespace) for e in events],
            known,
        )
    both_start, is_second_done = threading.Barrier(2), threading.Event()

    def write(share: list[list[RunEvent]], begin: ingest.Begin, done: threading.Event) -> list[Receipt]:
        try:
            both_start.wait(30)
            return [put(begin, for_client(batch, together), known) for batch in share]
        finally:
            done.set()

    with ThreadPoolExecutor(2) as threads:
        first_begin = held_open(writers, is_second_done) if is_held else writers.begin
        writing = [
            threads.submit(write, shares[0], first_begin, threading.Event()),
            threads.submit(write, shares[1], writers.begin, is_second_done),
        ]
        receipts = [receipt for each in writing for receipt in each.result()]
    sent = sum(len(batch) for share in shares for batch in share)
    put(writers.begin, for_client(events, alone), resolve.Names())

    assert (sum(r.accepted for r in receipts), sum(r.duplicates for r in receipts)) == (len(events), sent - len(events))
    assert stored_rows(writers, together) == stored_rows(writers, alone)


def test_a_conflict_with_an_event_that_another_writer_is_just_storing_is_found(writers: Engine) -> None:
    """The first one to commit stays, and the other's neighbours are stored."""
    first = RunEvent(
        client="acme", pipeline="p", run="r1", status=Status.FAILED, occurred_at=NOW, event_id="e1", message="first"
    )
    other = msgspec.structs.replace(first, message="other")
    neighbour = msgspec.structs.replace(first, run="r2", event_id="e2")
    put(writers.begin, [CatalogStatement("acme", {}, NOW, "p")], resolve.Names())
    is_done, is_inserted = threading.Event(), threading.Event()

    @contextmanager
    def begin() -> Iterator[Connection]:
        with held_open(writers, is_done)() as connection:
            yield connection
            is_inserted.set()

    with ThreadPoolExecutor(1) as threads:
        storing = threads.submit(put, begin, [first], resolve.Names())
        assert is_inserted.wait(30)
        receipt = put(writers.begin, [neighbour, other], resolve.Names())
        is_done.set()
        assert storing.result().accepted == 1
    assert receipt.accepted == 1
    assert [(rejected.index, rejected.refusal.code) for rejected in receipt.rejected] == [(1, "conflict")]
    with writers.begin() as connection:
        rows = connection.exec_driver_sql("select external_id, message from pulsewatch.run order by 1").all()
    assert [tuple(row) for row in rows] == [("r1", "first"), ("r2", "first")]


def test_writers_that_name_clients_and_make_pipelines_crosswise_never_deadlock(database: str, writers: Engine) -> None:
    def crosswise(number: int, mine: str, others: str) -> list[Item]:
        made = RunEvent(client=others, pipeline=f"p{number}-{mine}", run="r", status=Status.RUNNING, occurred_at=NOW)
        return [made, CatalogStatement(mine, {"title": f"{number}"}, NOW + timedelta(microseconds=number))]

    def write(mine: str, others: str) -> int:
        known = resolve.Names()
        return sum(put(writers.begin, crosswise(n, mine, others), known).accepted for n in range(40))

    put(writers.begin, [CatalogStatement("a", {}, NOW), CatalogStatement("b", {}, NOW)], resolve.Names())
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(write, "ab", "ba")) == [80, 80]
    writers.dispose()
    assert_no_deadlock(database)


def test_two_writers_make_the_partition_of_a_month_at_once(database: str, writers: Engine) -> None:
    long_ago = datetime(2019, 5, 17, tzinfo=UTC)
    with ThreadPoolExecutor(3) as threads:
        events = [
            RunEvent(client="acme", pipeline="p", run=f"r{n}", status=Status.RUNNING, occurred_at=long_ago)
            for n in range(3)
        ]
        storing = [threads.submit(put, writers.begin, [event], resolve.Names()) for event in events]
        assert [each.result().accepted for each in storing] == [1, 1, 1]
    assert scalar(database, "select count(*) from pulsewatch.run_event where occurred_at < '2020-01-01'") == 3


def assert_no_deadlock(dsn: str) -> None:
    """No deadlock in this database so far; its writers must have ended, because they count when they leave."""
    writing = "select count(*) from pg_stat_activity where application_name = 'pulsewatch ingest'"
    wait_until(lambda: scalar(dsn, f"{writing} and datname = current_database()") == 0, "the writers have left")
    assert scalar(dsn, "select deadlocks from pg_stat_database where datname = current_database()") == 0


STATUSES = ("queued", "running", "info", "succeeded", "failed")


def overlapping(number: int, runs: int) -> list[dict[str, str]]:
    """All events of all runs, in an order that depends on the number."""
    events = [
        {
            "type": "run",
            "client": f"client-{run % 3}",
            "pipeline": f"pipeline-{run % 7}",
            "run": f"run-{run}",
            "status": status,
            "occurred_at": (NOW - timedelta(minutes=90 - 10 * place)).isoformat(),
        }
        for run in range(runs)
        for place, status in enumerate(STATUSES)
    ]
    random.Random(number).shuffle(events)  # noqa: S311 - an order, not a secret
    return events


@pytest.mark.slow(15)
def test_64_connections_that_post_the_same_runs_in_parallel_never_deadlock(database: str) -> None:
    connections, runs = 64, 12
    _, headers = make_key(database)

    async def send(client: httpx.AsyncClient, number: int) -> tuple[int, int, set[int]]:
        events = overlapping(number, runs)
        cuts = range(0, len(events), 20)
        answers = [await client.post("/v1/events", json=events[at : at + 20], headers=headers) for at in cuts]
        told = [answer.json() for answer in answers]
        accepted, duplicates = (sum(each[name] for each in told) for name in ("accepted", "duplicates"))
        return accepted, duplicates, {answer.status_code for answer in answers}

    async def run(url: str) -> list[tuple[int, int, set[int]]]:
        limits = httpx.Limits(max_connections=connections)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(send(client, number) for number in range(connections)))

    # More writers than usual, so that they meet.
    with serve(database, ingest_writers=8) as server:
        told = asyncio.run(run(server.url))
        assert server.terminate() == 0
    assert set.union(*(statuses for _, _, statuses in told)) == {200}
    assert sum(accepted for accepted, _, _ in told) == runs * len(STATUSES)
    assert sum(duplicates for _, duplicates, _ in told) == (connections - 1) * runs * len(STATUSES)
    assert_no_deadlock(database)
    with psycopg.connect(database) as connection:
        rows = connection.execute("select status, count(*) from pulsewatch.run group by status").fetchall()
    assert rows == [("failed", runs)]
    assert scalar(database, "select count(*) from pulsewatch.run_event") == runs * len(STATUSES)
