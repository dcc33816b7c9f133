"""The queue before the writers, on real PostgreSQL: who shares a commit, who is told what when something fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from pulsewatch.batching import BATCH_ITEMS, BUSY_ITEMS, Batcher
from pulsewatch.db import LoopConnection, make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.problems import Problem
from pulsewatch.submissions import Receipt, Submission
from tests.serving import Relay, is_ingest_waiting, scalar, wait_until

AT = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


def submission(*runs: str, key: UUID | None = None, **fields: Any) -> Submission:
    """One request with one event of each of these runs."""
    sent = Submission("native", key_id=key)
    for index, run in enumerate(runs):
        words: dict[str, Any] = {"client": "acme", "pipeline": "nightly", "status": Status.RUNNING, "occurred_at": AT}
        sent.add(index, RunEvent(run=run, **words | fields))
    return sent


@asynccontextmanager
async def batching(dsn: str, *, writers: int = 1, queue_items: int = 50_000) -> AsyncIterator[Batcher]:
    engine = make_engine(dsn, pool_size=writers, application_name="pulsewatch ingest", is_probing=False)
    connection = LoopConnection(dsn, application_name="pulsewatch ingest")
    batcher = Batcher(engine, connection, writers=writers, queue_items=queue_items, max_pipelines=100)
    try:
        yield batcher
    finally:
        await batcher.close()
        engine.dispose()


@contextmanager
def stalled(dsn: str) -> Iterator[psycopg.Connection]:
    """Every ingest transaction waits until the block ends, as it does while a client is erased."""
    with psycopg.connect(dsn) as holder:
        holder.execute("select pg_advisory_xact_lock(hashtext('pulsewatch.ingest'))")
        yield holder


async def until_waiting(dsn: str) -> None:
    await asyncio.to_thread(wait_until, lambda: is_ingest_waiting(dsn), "a writer waits")


async def told(sending: "asyncio.Future[Receipt]") -> Receipt | tuple[int, str, str | None]:
    """The receipt, or status, code and Retry-After of the problem."""
    try:
        return await asyncio.wait_for(sending, 30)
    except Problem as problem:
        return problem.status, problem.code, problem.headers.get("Retry-After")


def transactions(dsn: str) -> int:
    """How many transactions stored the events that there are."""
    return scalar(dsn, "select count(distinct received_at) from pulsewatch.run_event")


def test_requests_that_queue_while_a_commit_runs_share_the_next_one(database: str) -> None:
    async def run() -> None:
        async with batching(database) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(submission("first")))
                await until_waiting(database)
                others = [asyncio.ensure_future(batcher.submit(submission(f"r{n}"))) for n in range(20)]
                await asyncio.sleep(0)
            assert [await told(one) for one in (first, *others)] == [Receipt(accepted=1)] * 21

    asyncio.run(run())
    assert transactions(database) == 2


def test_small_batches_of_known_names_take_the_connection_of_the_loop_and_others_a_thread(database: str) -> None:
    async def run() -> None:
        async with batching(database) as batcher:
            for names in (["new to the process"], ["small"], ["small, too"], map(str, range(BUSY_ITEMS))):
                await batcher.submit(submission(*names))

    asyncio.run(run())
    by_writer = "select sum(accepted) from pulsewatch.ingest_stat group by writer order by 1"
    assert scalar(database, f"{by_writer} limit 1") == 2
    assert scalar(database, f"{by_writer} desc limit 1") == BUSY_ITEMS + 1


def test_a_server_that_ended_the_connection_of_the_loop_gets_a_new_one(database: str) -> None:
    async def run() -> list[Any]:
        async with batching(database) as batcher:
            told_before = [await told(asyncio.ensure_future(batcher.submit(submission(name)))) for name in "ab"]
            ended = (
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where application_name = 'pulsewatch ingest' and datname = current_database()"
            )
            assert scalar(database, ended) == 2
            await asyncio.to_thread(wait_until, lambda: scalar(database, ended) == 0, "both are gone")
            return [
                *told_before,
                *[await told(asyncio.ensure_future(batcher.submit(submission(name)))) for name in "cd"],
            ]

    assert asyncio.run(run()) == [Receipt(accepted=1)] * 4


def test_where_the_loop_cannot_connect_the_threads_that_are_connected_store(database: str) -> None:
    async def run() -> list[Any]:
        async with batching(database) as batcher:
            first = await told(asyncio.ensure_future(batcher.submit(submission("a"))))
            with psycopg.connect(database, dbname="postgres", autocommit=True) as admin:
                admin.execute(f"alter database {make_url(database).database} allow_connections false".encode())
                second = await told(asyncio.ensure_future(batcher.submit(submission("b"))))
                admin.execute(f"alter database {make_url(database).database} allow_connections true".encode())
            return [first, second, await told(asyncio.ensure_future(batcher.submit(submission("c"))))]

    assert asyncio.run(run()) == [Receipt(accepted=1)] * 3
    by_writer = "select count(distinct writer) from pulsewatch.ingest_stat"
    assert scalar(database, by_writer) == 2


def test_the_neighbours_of_an_item_that_postgresql_refuses_are_stored(database: str) -> None:
    # The wires stop NUL; here it stands for whatever they may miss.
    async def run() -> list[Any]:
        async with batching(database) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(submission("first")))
                await until_waiting(database)
                bad = submission("good", "bad", "fine")
                bad.items[1].attributes = {"nul": "\0"}  # type: ignore[union-attr]  # run events only
                sent = [asyncio.ensure_future(batcher.submit(one)) for one in (bad, submission("neighbour"))]
                await asyncio.sleep(0)
            return [await told(one) for one in (first, *sent)]

    first, mixed, neighbour = asyncio.run(run())
    assert first == neighbour == Receipt(accepted=1)
    assert mixed.accepted == 2
    assert [(rejected.index, rejected.refusal.code) for rejected in mixed.rejected] == [(1, "database_refused")]
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 4


def test_a_request_that_trips_over_an_error_of_ours_fails_alone(database: str) -> None:
    # No wire lets half a surrogate pair pass; it stands for a mistake in one of them.
    async def run() -> list[Any]:
        async with batching(database) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(submission("first")))
                await until_waiting(database)
                sent = [asyncio.ensure_future(batcher.submit(submission(name))) for name in ("a", "\ud800", "b")]
                await asyncio.sleep(0)
            return [await told(one) for one in (first, *sent)]

    good = Receipt(accepted=1)
    assert asyncio.run(run()) == [good, good, (500, "internal", None), good]
    assert scalar(database, "select count(*) from pulsewatch.run") == 3


COUNT_TRIES = """
create sequence tries;
create function count_try() returns trigger language plpgsql as $$
begin
    perform nextval('tries');
    return null;
end $$;
create trigger count_try before insert on pulsewatch.run_event for each statement execute function count_try();
"""


def test_many_copies_of_a_conflict_cost_one_more_transaction_and_not_one_each(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(COUNT_TRIES.encode())

    async def run() -> list[Receipt]:
        async with batching(database) as batcher:
            first = await batcher.submit(submission("r1", event_id="e1", message="stands"))
            words = ["other", "stands", "other", "more", *map(str, range(500))]
            copies = Submission("native")
            for index, message in enumerate(words):
                copies.add(index, submission("r1", event_id="e1", message=message).items[0])
            return [first, await batcher.submit(copies)]

    first, copies = asyncio.run(run())
    assert (first.accepted, copies.accepted, copies.duplicates) == (1, 0, 1)
    assert {rejected.refusal.code for rejected in copies.rejected} == {"conflict"}
    assert [rejected.index for rejected in copies.rejected] == [0, *range(2, 504)]
    # Once for the first; then the short way and the long one, each of which learns that an event is known already.
    assert scalar(database, "select last_value from tries") == 1 + 2 * 2


FAIL_ONCE = """
create sequence tries;
create function fail_once() returns trigger language plpgsql as $$
begin
    if nextval('tries') = 1 then
        raise exception 'once' using errcode = '{sqlstate}';
    end if;
    return new;
end $$;
create trigger fail_once before insert on pulsewatch.ingest_stat for each row execute function fail_once();
"""


@pytest.mark.parametrize(
    "sqlstate",
    ["40001", "40P01", "57P01", "55P03"],
    ids=["serialization failure", "deadlock", "shutdown", "lock timeout"],
)
def test_what_may_succeed_in_a_moment_is_tried_again(database: str, sqlstate: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(FAIL_ONCE.format(sqlstate=sqlstate).encode())

    async def run() -> Receipt:
        async with batching(database) as batcher:
            return await batcher.submit(submission("r1"))

    assert asyncio.run(run()) == Receipt(accepted=1)
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 1


def test_a_real_deadlock_with_somebody_elses_transaction_is_survived(database: str) -> None:
    name = make_url(database).database
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"alter database {name} set deadlock_timeout = '50ms'".encode())

    async def run() -> Receipt:
        async with batching(database) as batcher:
            await batcher.submit(submission("r1", "r2"))
            with psycopg.connect(database) as other:
                # The other one is patient, so that it is ours that PostgreSQL ends.
                other.execute("set deadlock_timeout = '20s'")
                second, first = other.execute("select id from pulsewatch.run order by id desc").fetchall()
                touch = "update pulsewatch.run set status = status where id = %s"
                other.execute(touch, second)
                later: dict[str, Any] = {"status": Status.SUCCEEDED, "occurred_at": AT + timedelta(minutes=1)}
                sending = asyncio.ensure_future(batcher.submit(submission("r1", "r2", **later)))
                await until_waiting(database)
                await asyncio.to_thread(other.execute, touch, first)
                other.commit()
            return await sending

    assert asyncio.run(run()) == Receipt(accepted=2)
    assert scalar(database, "select count(*) from pulsewatch.run where status = 'succeeded'") == 2
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    wait_until(lambda: scalar(database, deadlocks) == 1, "the deadlock is counted")


def test_a_statement_that_took_too_long_is_not_tried_again(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(FAIL_ONCE.format(sqlstate="57014").encode())

    async def run() -> Any:
        async with batching(database) as batcher:
            return await told(asyncio.ensure_future(batcher.submit(submission("r1"))))

    assert asyncio.run(run()) == (503, "unavailable", "2")
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 0


def test_a_commit_whose_fate_is_unknown_is_503_and_sending_again_gives_one_event(database: str) -> None:
    async def run(relay: Relay) -> list[Any]:
        async with batching(relay.dsn) as batcher:
            await batcher.submit(submission("of a thread"))
            await batcher.submit(submission("of the loop"))
            relay.withholds = True
            sending = asyncio.ensure_future(batcher.submit(submission("r1")))
            assert await asyncio.to_thread(relay.withheld.wait, 30)
            relay.withholds = False
            relay.cut()
            first = await told(sending)
            relay.open()
            return [first, await told(asyncio.ensure_future(batcher.submit(submission("r1"))))]

    with Relay(database) as relay:
        first, second = asyncio.run(run(relay))
    assert first == (503, "unavailable", "1")
    assert second == Receipt(duplicates=1)
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 3


def test_a_database_that_is_away_is_503_at_once_and_taken_up_again_when_it_is_back(database: str) -> None:
    async def run(relay: Relay) -> tuple[list[Any], float]:
        async with batching(relay.dsn, writers=2) as batcher:
            for name in ("of a thread", "of the loop"):
                await batcher.submit(submission(name))
            relay.cut()
            started = time.monotonic()
            sent = [asyncio.ensure_future(batcher.submit(submission(f"r{n}"))) for n in range(10)]
            away = [await told(one) for one in sent]
            took_s = time.monotonic() - started
            relay.open()
            back = await told(asyncio.ensure_future(batcher.submit(submission("r1"))))
            return [*away, back], took_s

    with Relay(database) as relay:
        answers, took_s = asyncio.run(run(relay))
    assert answers == [(503, "unavailable", "2")] * 10 + [Receipt(accepted=1)]
    assert took_s < 5
    assert scalar(database, "select count(*) from pulsewatch.run") == 3


def test_a_full_queue_is_503_and_what_was_taken_is_stored(database: str) -> None:
    async def run() -> list[Any]:
        async with batching(database, queue_items=30) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(submission("first", key=uuid4())))
                await until_waiting(database)
                requests = [submission(*(f"{n}-{i}" for i in range(10)), key=uuid4()) for n in range(5)]
                sent = [asyncio.ensure_future(batcher.submit(one)) for one in requests]
                await asyncio.sleep(0)
            return [await told(one) for one in (first, *sent)]

    full = (503, "unavailable", "1")
    assert asyncio.run(run()) == [Receipt(accepted=1), *[Receipt(accepted=10)] * 3, full, full]
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 31


def test_one_key_may_fill_half_of_the_queue_and_the_others_still_get_in(database: str) -> None:
    greedy, modest = uuid4(), uuid4()

    async def run() -> list[Any]:
        async with batching(database, queue_items=40) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(submission("first", key=greedy)))
                await until_waiting(database)
                requests = [submission(*(f"{n}-{i}" for i in range(10)), key=greedy) for n in range(4)]
                requests.append(submission("modest", key=modest))
                sent = [asyncio.ensure_future(batcher.submit(one)) for one in requests]
                await asyncio.sleep(0)
            return [await told(one) for one in (first, *sent)]

    full = (503, "unavailable", "1")
    assert asyncio.run(run()) == [
        Receipt(accepted=1),
        *[Receipt(accepted=10)] * 2,
        full,
        full,
        Receipt(accepted=1),
    ]


def test_large_events_count_as_several_so_that_the_queue_holds_no_more_than_memory_allows(database: str) -> None:
    def large(name: str) -> Submission:
        sent = submission(name, key=uuid4())
        sent.body_bytes = 10 * 1024
        return sent

    async def run() -> list[Any]:
        async with batching(database, queue_items=30) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(large("first")))
                await until_waiting(database)
                sent = [asyncio.ensure_future(batcher.submit(large(f"r{n}"))) for n in range(4)]
                await asyncio.sleep(0)
            return [await told(one) for one in (first, *sent)]

    assert asyncio.run(run()) == [*[Receipt(accepted=1)] * 4, (503, "unavailable", "1")]


def test_a_key_does_not_wait_behind_the_backlog_of_another(database: str) -> None:
    greedy, modest = uuid4(), uuid4()
    many = BATCH_ITEMS // 2

    async def run() -> list[str]:
        answered: list[str] = []
        async with batching(database) as batcher:

            async def send(name: str, sent: Submission) -> None:
                await batcher.submit(sent)
                answered.append(name)

            with stalled(database):
                sending = [asyncio.ensure_future(send("first", submission("first", key=greedy)))]
                await until_waiting(database)
                for n in range(5):
                    backlog = submission(*(f"{n}-{i}" for i in range(many)), key=greedy)
                    sending.append(asyncio.ensure_future(send(f"greedy {n}", backlog)))
                await asyncio.sleep(0)
                sending.append(asyncio.ensure_future(send("modest", submission("modest", key=modest))))
                await asyncio.sleep(0)
            await asyncio.gather(*sending)
        return answered

    assert asyncio.run(run())[:3] == ["first", "greedy 0", "modest"]


def test_a_request_larger_than_the_queue_is_taken_when_the_queue_is_empty(database: str) -> None:
    async def run() -> Receipt:
        async with batching(database, queue_items=5) as batcher:
            return await batcher.submit(submission(*map(str, range(50))))

    assert asyncio.run(run()) == Receipt(accepted=50)


def test_whoever_stops_waiting_does_not_strand_those_behind_him(database: str) -> None:
    async def run() -> tuple[list[Any], Any]:
        async with batching(database) as batcher:
            with stalled(database):
                first = asyncio.ensure_future(batcher.submit(submission("first")))
                await until_waiting(database)
                # So many that they fill a transaction of their own.
                leaving = asyncio.ensure_future(batcher.submit(submission(*map(str, range(BATCH_ITEMS)))))
                behind = asyncio.ensure_future(batcher.submit(submission("behind")))
                await asyncio.sleep(0)
                leaving.cancel()
            return [await told(first), await told(behind)], leaving.cancelled()

    assert asyncio.run(run()) == ([Receipt(accepted=1)] * 2, True)
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 2


def test_closing_waits_until_what_was_taken_is_committed(database: str) -> None:
    async def run() -> list[Any]:
        async with batching(database) as batcher:
            with stalled(database) as holder:
                sent = [asyncio.ensure_future(batcher.submit(submission(f"r{n}"))) for n in range(10)]
                await until_waiting(database)
                closing = asyncio.ensure_future(batcher.close())
                await asyncio.sleep(0)
                assert not closing.done()
                holder.rollback()
                await closing
            return [one.result() for one in sent]

    assert asyncio.run(run()) == [Receipt(accepted=1)] * 10
    assert scalar(database, "select count(*) from pulsewatch.run_event") == 10
