"""Erasure leaves nothing of the client, and everything of the others."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, text

from pulsewatch import erasure, ingest, resolve
from pulsewatch.db import make_engine
from pulsewatch.erasure import purge
from pulsewatch.events import RunEvent, Status
from pulsewatch.submissions import Submission
from tests.rows import add_client, add_row, add_run, execute, scalars
from tests.running import until

AS_OF = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


# Every table that names a client, partitioned ones as a whole.
TABLES_WITH_CLIENT = """
    select distinct relname from pg_attribute join pg_class as class on class.oid = attrelid
    where attname = 'client_id' and relnamespace = 'pulsewatch'::regnamespace and relkind in ('r', 'p')
        and not relispartition
"""


def fill(engine: Engine, slug: str, runs: int = 3) -> int:
    """A client with rows in every table that names one."""
    client_id = add_client(engine, slug)
    for number in range(runs):
        add_run(engine, client_id, f"{slug} {number}", AS_OF - timedelta(days=number), AS_OF)
    execute(engine, "insert into pulsewatch.dirty values (:id, 1, '2026-11-21T00:00:00Z')", id=client_id)
    for named, key in ((client_id, None), (None, client_id)):
        execute(
            engine,
            "insert into pulsewatch.ingest_reject (client_id, key_id, source, code, pointer, detail, item)"
            " select :named, (select id from pulsewatch.api_key where client_id = :key), 'native', 'c', '', 'd', '{}'",
            named=named,
            key=key,
        )
    for hours in range(3):
        at = AS_OF + timedelta(hours=hours)
        add_row(engine, "slot", client_id=client_id, slot_at=at, deadline_at=at)
        add_row(engine, "client_hour", client_id=client_id, hour_at=at)
        add_row(engine, "pipeline_day", client_id=client_id, pipeline_id=hours)
        for pipeline_id in (1, 2):
            add_row(engine, "pipeline_hour", client_id=client_id, pipeline_id=pipeline_id, hour_at=at)
    (pipeline_id,) = scalars(engine, "select id from pulsewatch.pipeline where client_id = :id", id=client_id)
    add_row(engine, "annotation", client_id=client_id, pipeline_id=pipeline_id)
    alerts_of(engine, client_id)
    for table in set(scalars(engine, TABLES_WITH_CLIENT)) - rows_of(engine, client_id).keys():
        add_row(engine, table, client_id=client_id)
    return client_id


def alerts_of(engine: Engine, client_id: int) -> None:
    """A rule and a channel of the client's own, and three alerts, one of them open."""
    add_row(engine, "alert_rule", client_id=client_id, key="slow")
    add_row(engine, "channel", client_id=client_id, key="mail")
    (rule_id,) = scalars(engine, "select id from pulsewatch.alert_rule where client_id = :id", id=client_id)
    (channel_id,) = scalars(engine, "select id from pulsewatch.channel where client_id = :id", id=client_id)
    add_row(engine, "alert_rule_version", client_id=client_id, rule_id=rule_id)
    add_row(engine, "alert_target", client_id=client_id, rule_id=rule_id)
    for number in range(3):
        alert_id, at = UUID(int=number), AS_OF + timedelta(minutes=number)
        ended = {"resolved_at": at, "resolve_reason": "recovered"} if number else {}
        add_row(engine, "alert", client_id=client_id, id=alert_id, rule_id=rule_id, fired_at=at, **ended)
        add_row(engine, "alert_event", client_id=client_id, alert_id=alert_id, rule_id=rule_id, as_of=at)
        add_row(
            engine, "notification", client_id=client_id, id=alert_id, alert_id=alert_id, channel_id=channel_id,
            sent_at=at, status="sent",
        )  # fmt: skip
        add_row(engine, "notification_attempt", client_id=client_id, notification_id=alert_id, started_at=at)


def rows_of(engine: Engine, client_id: int) -> dict[str, int]:
    """How many rows of this client there are, in every table that has any."""
    names = sorted(scalars(engine, TABLES_WITH_CLIENT))
    counts = {
        table: scalars(engine, f"select count(*) from pulsewatch.{table} where client_id = :id", id=client_id)[0]
        for table in names
    }
    counts["client"] = scalars(engine, "select count(*) from pulsewatch.client where id = :id", id=client_id)[0]
    return {table: number for table, number in counts.items() if number}


def test_a_client_is_erased_from_every_table_that_names_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "BATCH_ROWS", 2)
    acme, beta = fill(engine, "acme"), fill(engine, "beta")
    others = rows_of(engine, beta)
    assert set(scalars(engine, TABLES_WITH_CLIENT)) | {"client"} == set(others)
    assert {"slot", "pipeline_hour", "pipeline_day", "pipeline_state", "failing_span", "annotation"} <= set(others)
    assert {"alert", "alert_event", "alert_rule", "channel", "notification", "silence"} <= set(others)
    told: list[tuple[int, int]] = []
    purged = purge(engine, "acme", lambda done, total: told.append((done, total)))
    assert (purged.events, purged.runs, purged.pipelines, purged.keys) == (5, 3, 1, 1)
    total = sum(others[table] for table in erasure.BATCHED)
    assert total == 5 + 3 + 3 + 6 + 3 + 3 + 1 + 1 + 3 + 3 + 3 + 3
    # An open alert goes before they are counted.
    assert told[-1] == (total - 1, total - 1)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert rows_of(engine, acme) == {}
    assert rows_of(engine, beta) == others
    assert scalars(engine, "select count(*) from pulsewatch.ingest_reject") == [2]


def test_the_numbers_of_the_fleet_are_those_of_the_clients_that_are_left(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH_ROWS", 2)
    acme, beta = add_client(engine, "acme"), add_client(engine, "beta")
    hours = [AS_OF + timedelta(hours=number) for number in range(5)]
    # Of the first day the hours are past their keep time; its numbers are those of days alone.
    days = [AS_OF.replace(hour=0) - timedelta(days=500), AS_OF.replace(hour=0)]
    ours: dict[str, object] = {"succeeded_count": 2, "duration_count": 2, "duration_sum_s": 2.5, "duration_min_s": 1}
    ours |= {"duration_max_s": 1.5, "duration_buckets": [0, 4], "duration_counts": [1, 1]}
    whole: dict[str, object] = {"succeeded_count": 9, "duration_count": 9, "duration_sum_s": 99, "duration_min_s": 0.1}
    whole |= {"duration_max_s": 60, "duration_buckets": [0, 4, 47], "duration_counts": [4, 3, 2]}
    for table, time, times in (("hour", "hour_at", hours), ("day", "day_utc", days)):
        for place, at in enumerate(times):
            add_row(engine, f"client_{table}", client_id=acme, **{time: at}, failed_count=7)
            if place > 0 or table == "day":
                add_row(engine, f"client_{table}", client_id=beta, **{time: at}, **ours)
            add_row(engine, f"fleet_{table}", **{time: at}, failed_count=7, **whole)
    untouched = AS_OF - timedelta(days=1)
    add_row(engine, "fleet_hour", hour_at=untouched, failed_count=1)

    purge(engine, "acme")

    for table, time, wanted in (("fleet_hour", "hour_at", hours[1:]), ("fleet_day", "day_utc", days)):
        query = f"select {time}, failed_count, {', '.join(ours)} from pulsewatch.{table} where {time} <> :at order by 1"
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(text(query), {"at": untouched})]
        assert rows == [(at, 0, *ours.values()) for at in wanted], table
    # Hours that the client had no part in are left alone.
    assert scalars(engine, "select failed_count from pulsewatch.fleet_hour where hour_at = :at", at=untouched) == [1]


def test_a_client_that_never_was_cannot_be_erased(engine: Engine) -> None:
    with pytest.raises(LookupError, match="there is no client 'acme'"):
        purge(engine, "acme")


def test_an_erasure_that_was_interrupted_is_completed_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH_ROWS", 1)
    acme = fill(engine, "acme")

    def stop(done: int, _total: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purge(engine, "acme", stop)
    assert scalars(engine, "select archived_at is not null from pulsewatch.client") == [True]
    assert 0 < rows_of(engine, acme)["run"] <= 3
    purge(engine, "acme")
    assert rows_of(engine, acme) == {}


def test_an_erasure_waits_for_writers_that_began_before_it(engine: Engine, database: str) -> None:
    acme = fill(engine, "acme")
    done = threading.Event()

    def go() -> None:
        purge(engine, "acme")
        done.set()

    with psycopg.connect(database) as writer:
        writer.execute("select pg_advisory_xact_lock_shared(hashtext('pulsewatch.ingest'))")
        thread = threading.Thread(target=go)
        thread.start()
        until(lambda: scalars(engine, "select count(*) from pg_locks where not granted") == [1])
        assert not done.is_set()
        # What this writer stores now is stored before the erasure counts and deletes.
        writer.execute("insert into pulsewatch.dirty select id, 2, '2026-11-21T00:00:00Z' from pulsewatch.client")
    thread.join(30)
    assert done.is_set()
    assert rows_of(engine, acme) == {}


@pytest.mark.parametrize("lock", ["pulsewatch.slot", "pulsewatch.rollup", "pulsewatch.alerting"])
def test_what_the_worker_is_computing_for_the_client_is_waited_for(engine: Engine, database: str, lock: str) -> None:
    acme = fill(engine, "acme")
    done, is_computing = threading.Event(), threading.Event()

    with psycopg.connect(database) as worker:

        def compute(_done: int, _total: int) -> None:
            if not is_computing.is_set():
                # As the refresher does: the lock, its rows; the commit comes later.
                worker.execute("select pg_advisory_xact_lock(hashtext(%s))", [lock])
                worker.execute(
                    "insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at)"
                    " select id, 7, now(), now() from pulsewatch.client where id = %s",
                    [acme],
                )
                is_computing.set()

        def go() -> None:
            purge(engine, "acme", compute)
            done.set()

        thread = threading.Thread(target=go)
        thread.start()
        waiting = "select count(*) from pg_locks where not granted"
        until(lambda: is_computing.is_set() and (done.is_set() or scalars(engine, waiting) == [1]))
        assert not done.is_set()
        worker.commit()
    thread.join(30)
    assert done.is_set()
    assert rows_of(engine, acme) == {}


def test_no_marks_are_left_to_compute_while_the_batches_go(engine: Engine) -> None:
    fill(engine, "acme")
    seen: set[int] = set()
    marks = (
        "select (select count(*) from pulsewatch.dirty) + (select count(*) from pulsewatch.slot_mark)"
        " + (select count(*) from pulsewatch.alert_mark)"
    )
    purge(engine, "acme", lambda _done, _total: seen.update(scalars(engine, marks)))
    assert seen == {0}


def test_messages_are_not_erased_while_they_are_claimed_or_settled(engine: Engine, database: str) -> None:
    acme = fill(engine, "acme")
    thread = threading.Thread(target=purge, args=(engine, "acme"))
    with psycopg.connect(database) as worker:
        worker.execute("select pg_advisory_xact_lock(hashtext('pulsewatch.delivery'))")
        thread.start()
        until(lambda: scalars(engine, "select count(*) from pg_locks where not granted") == [1])
        assert rows_of(engine, acme)["notification"] == 3
    thread.join(30)
    assert rows_of(engine, acme) == {}


def test_no_rule_looks_at_the_client_while_the_batches_go_and_no_alert_is_open(engine: Engine) -> None:
    fill(engine, "acme")
    seen: set[int] = set()
    targets = (
        "select (select count(*) from pulsewatch.alert_target)"
        " + (select count(*) from pulsewatch.alert where resolved_at is null)"
    )
    purge(engine, "acme", lambda _done, _total: seen.update(scalars(engine, targets)))
    assert seen == {0}


REVIVE = "update pulsewatch.client set archived_at = null where slug = 'acme'"


def test_a_writer_let_in_by_a_revival_is_waited_for_before_the_last_step(engine: Engine, database: str) -> None:
    acme = fill(engine, "acme")
    done, is_writing = threading.Event(), threading.Event()

    with psycopg.connect(database) as writer:

        def revive(_done: int, _total: int) -> None:
            if not is_writing.is_set():
                execute(engine, REVIVE)
                # As ingestion does: the lock, the look at the client, its rows; the commit comes later.
                writer.execute("select pg_advisory_xact_lock_shared(hashtext('pulsewatch.ingest'))")
                writer.execute("select from pulsewatch.client where slug = 'acme' and archived_at is null")
                writer.execute("insert into pulsewatch.dirty values (%s, 2, '2026-11-21T00:00:00Z')", [acme])
                is_writing.set()

        def go() -> None:
            purge(engine, "acme", revive)
            done.set()

        thread = threading.Thread(target=go)
        thread.start()
        waiting = "select count(*) from pg_locks where not granted"
        until(lambda: is_writing.is_set() and (done.is_set() or scalars(engine, waiting) == [1]))
        assert not done.is_set()
        writer.commit()
    thread.join(30)
    assert done.is_set()
    assert rows_of(engine, acme) == {}


def test_a_client_that_is_brought_back_again_and_again_is_erased_all_the_same(engine: Engine) -> None:
    acme = fill(engine, "acme")
    turns: list[int] = []

    def revive(done: int, _total: int) -> None:
        turns.append(done)
        execute(engine, REVIVE)

    purge(engine, "acme", revive)
    assert rows_of(engine, acme) == {}
    assert len(turns) == len(erasure.BATCHED) * (erasure.REVIVALS + 1)


def test_nothing_is_left_of_a_client_that_is_written_to_and_brought_back_throughout(engine: Engine) -> None:
    acme = fill(engine, "acme", runs=30)
    over = threading.Event()
    outcomes: set[str] = set()
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        known = resolve.Names()
        number = 0
        try:
            while not over.is_set():
                number += 1
                event = RunEvent(
                    client="acme",
                    pipeline="load",
                    run=f"{writer} {number}",
                    status=Status.RUNNING,
                    occurred_at=datetime.now(UTC).replace(microsecond=number % 1_000_000),
                )
                # By a key that is bound to the client: none of its events can make the client anew.
                submission = Submission("native", [event], [0], client_id=acme)
                (receipt,) = ingest.store(
                    engine.begin, [submission], known, max_pipelines=10, received_at=datetime.now(UTC)
                )
                outcomes.update(rejected.refusal.code for rejected in receipt.rejected)
                outcomes.update(["accepted"] * receipt.accepted)
                execute(engine, REVIVE)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: "accepted" in outcomes or bool(failures))
        purge(engine, "acme")
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert rows_of(engine, acme) == {}
