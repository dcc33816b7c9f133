"""What goes when its time is up, and what erasure leaves: nothing of the client, everything of the others."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from sqlalchemy import Engine, text

from pulsewatch import auth, ingest, resolve, retention
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status, epoch_us
from pulsewatch.retention import Removed, ensure_partitions, partitions, purge, remove_expired
from pulsewatch.settings import Settings
from pulsewatch.submissions import Submission
from tests.running import until

AS_OF = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = Settings(keep_events_days=60, keep_runs_days=90, keep_rejects_days=14)
NAMES = UUID("00000000-0000-0000-0000-000000000000")


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


def execute(engine: Engine, statement: str, **values: object) -> Any:
    with engine.begin() as connection:
        return connection.execute(text(statement), values)


def scalars(engine: Engine, query: str, **values: object) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values).scalars())


def add_client(engine: Engine, slug: str) -> int:
    with engine.begin() as connection:
        insert = "insert into pulsewatch.client (slug) values (:slug) returning id"
        client_id: int = connection.execute(text(insert), {"slug": slug}).scalar_one()
        connection.execute(
            text(
                "insert into pulsewatch.pipeline (client_id, slug, name, identity_digest)"
                " values (:client_id, 'load', 'load', gen_random_uuid())"
            ),
            {"client_id": client_id},
        )
        auth.create_key(connection, auth.Role.INGEST, slug)
    return client_id


def add_run(engine: Engine, client_id: int, name: str, first_at: datetime, last_at: datetime | None = None) -> UUID:
    """A run as ingestion leaves it: its row, and one event at its first and one at its last time."""
    run_id, last_at = uuid5(NAMES, name), last_at or first_at
    values = {"client_id": client_id, "id": run_id, "first_at": first_at, "last_at": last_at, "name": name}
    with engine.begin() as connection:
        for at in {first_at, last_at}:
            connection.execute(text("select pulsewatch.ensure_partition(:day)"), {"day": at.date()})
            connection.execute(
                text(
                    "insert into pulsewatch.run_event (client_id, occurred_at, dedupe_key, content_digest, run_id,"
                    " pipeline_id, status)"
                    " values (:client_id, :at, gen_random_uuid(), gen_random_uuid(), :id, 1, 'info')"
                ),
                values | {"at": at},
            )
        connection.execute(
            text(
                "insert into pulsewatch.run (client_id, id, pipeline_id, state_key, winner_key, opened_at, opening_key,"
                " first_at, last_at, status, external_id)"
                " values (:client_id, :id, 1, :state_key, gen_random_uuid(), :first_at,"
                " gen_random_uuid(), :first_at, :last_at, 'running', :name)"
            ),
            values | {"state_key": 1 << 56 | epoch_us(last_at) << 3},
        )
    return run_id


# -- partitions ----------------------------------------------------------------------------------------------


def test_missing_months_are_made_and_the_others_left(engine: Engine) -> None:
    before = partitions(engine)
    later = datetime(2027, 3, 5, tzinfo=UTC)
    made = ensure_partitions(engine, SETTINGS, later)
    wanted = {date(2027, month, 1) for month in (1, 2, 3, 4, 5)}
    assert set(made) == wanted - set(before)
    assert wanted <= set(partitions(engine))
    assert ensure_partitions(engine, SETTINGS, later) == []


def test_the_newest_month_is_made_first_and_a_locked_one_left_to_the_next_time(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    execute(engine, "create table pulsewatch.asked (month date, place int generated always as identity)")
    execute(
        engine,
        "create or replace function pulsewatch.ensure_partition(month date) returns boolean language plpgsql"
        " as $$ begin if month = '2027-03-01' then raise exception 'no' using errcode = 'lock_not_available'; end if;"
        " insert into pulsewatch.asked (month) values (month); return true; end $$",
    )
    made = ensure_partitions(engine, SETTINGS, datetime(2027, 3, 5, tzinfo=UTC))
    assert made == [date(2027, month, 1) for month in (1, 2, 4, 5)]
    assert scalars(engine, "select month from pulsewatch.asked order by place") == made[::-1]
    assert "no room is made for 2027-03" in caplog.text


def test_a_table_that_a_person_attached_is_none_of_our_months(engine: Engine) -> None:
    before = partitions(engine)
    for name, year in (("run_event_archive", 2011), ("run_event_2012_13", 2012)):
        execute(
            engine,
            f"create table pulsewatch.{name} partition of pulsewatch.run_event"
            f" for values from ('{year}-01-01T00:00:00Z') to ('{year}-02-01T00:00:00Z')",
        )
    assert partitions(engine) == before
    remove_expired(engine, SETTINGS, AS_OF)
    assert scalars(engine, "select to_regclass('pulsewatch.run_event_archive')::text") == [
        "pulsewatch.run_event_archive"
    ]


def test_dropping_a_month_makes_ingestion_wait_for_a_moment_only(engine: Engine) -> None:
    setting = "select unnest(proconfig) from pg_proc where oid = 'pulsewatch.drop_partition(date)'::regprocedure"
    assert "lock_timeout=200ms" in scalars(engine, setting)


def test_a_month_goes_when_all_of_it_is_past_the_keep_time(engine: Engine) -> None:
    client_id = add_client(engine, "acme")
    # 60 days before AS_OF is 22 September: August is past, September is not.
    add_run(engine, client_id, "old", datetime(2026, 8, 31, 23, 59, tzinfo=UTC))
    add_run(engine, client_id, "kept", datetime(2026, 9, 1, tzinfo=UTC))
    removed = remove_expired(engine, SETTINGS, AS_OF)
    assert removed.partitions[-1] == date(2026, 8, 1)
    assert partitions(engine)[0] == date(2026, 9, 1)
    assert scalars(engine, "select count(*) from pulsewatch.run_event") == [1]


def test_a_month_that_is_being_read_is_left_to_the_next_time(engine: Engine, database: str) -> None:
    execute(engine, "alter function pulsewatch.drop_partition(date) set lock_timeout = '50ms'")
    execute(engine, "select pulsewatch.ensure_partition('2024-05-01')")
    oldest = partitions(engine)[0]
    with psycopg.connect(database) as reader:
        reader.execute("select count(*) from pulsewatch.run_event")
        assert remove_expired(engine, SETTINGS, AS_OF).partitions == []
    assert remove_expired(engine, SETTINGS, AS_OF).partitions[0] == oldest


# -- runs, rejects, statistics -------------------------------------------------------------------------------


def test_runs_go_when_their_last_word_is_past_the_keep_time(engine: Engine) -> None:
    client_id = add_client(engine, "acme")
    limit = AS_OF - timedelta(days=90)
    add_run(engine, client_id, "gone", limit - timedelta(days=2), limit - timedelta(microseconds=1))
    add_run(engine, client_id, "ended lately", limit - timedelta(days=2), limit)
    add_run(engine, client_id, "young", limit)
    assert remove_expired(engine, SETTINGS, AS_OF).runs == 1
    names = scalars(engine, "select external_id from pulsewatch.run order by 1")
    assert names == ["ended lately", "young"]


def test_a_run_stays_until_its_events_have_gone_with_their_month(engine: Engine) -> None:
    settings = Settings(keep_events_days=60, keep_runs_days=60)
    client_id = add_client(engine, "acme")
    # Both are past the keep time, which is 22 September; the second one's events are in a month that is not.
    add_run(engine, client_id, "month gone", datetime(2026, 8, 31, 23, 59, 59, 999999, tzinfo=UTC))
    add_run(engine, client_id, "month kept", datetime(2026, 9, 1, tzinfo=UTC))
    assert remove_expired(engine, settings, AS_OF).runs == 1
    assert scalars(engine, "select external_id from pulsewatch.run") == ["month kept"]
    orphans = (
        "select count(*) from pulsewatch.run_event where not exists"
        " (select from pulsewatch.run where run.client_id = run_event.client_id and run.id = run_event.run_id)"
    )
    assert scalars(engine, orphans) == [0]


def test_runs_go_in_batches_and_for_every_client(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for slug in ("acme", "beta"):
        client_id = add_client(engine, slug)
        for number in range(5):
            add_run(engine, client_id, f"{number}", AS_OF - timedelta(days=100 + number))
    assert remove_expired(engine, SETTINGS, AS_OF).runs == 10


def test_a_run_that_ingestion_holds_is_passed_over(engine: Engine, database: str) -> None:
    client_id = add_client(engine, "acme")
    for name in ("held", "free"):
        add_run(engine, client_id, name, AS_OF - timedelta(days=100))
    with psycopg.connect(database) as writer:
        writer.execute("update pulsewatch.run set message = 'x' where external_id = 'held'")
        assert remove_expired(engine, SETTINGS, AS_OF).runs == 1
    assert scalars(engine, "select external_id from pulsewatch.run") == ["held"]


def test_rejects_statistics_and_signs_of_life_go(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for days in (13, 15, 15, 15, 400):
        at = AS_OF - timedelta(days=days)
        execute(
            engine,
            "insert into pulsewatch.ingest_reject (received_at, source, code, pointer, detail, item)"
            " values (:at, 'native', 'c', '', 'd', '{}')",
            at=at,
        )
    for days in (59, 61):
        stat = "insert into pulsewatch.ingest_stat (bucket_at, source, writer) values (:at, 'native', 1)"
        execute(engine, stat, at=AS_OF - timedelta(days=days))
    for name, hours in (("lives", 23), ("dead", 25)):
        beat = "insert into pulsewatch.worker_heartbeat values (:name, :at, :at)"
        execute(engine, beat, name=name, at=AS_OF - timedelta(hours=hours))
    removed = remove_expired(engine, SETTINGS, AS_OF)
    assert (removed.rejects, removed.stats) == (4, 1)
    assert scalars(engine, "select received_at from pulsewatch.ingest_reject") == [AS_OF - timedelta(days=13)]
    assert scalars(engine, "select worker_id from pulsewatch.worker_heartbeat") == ["lives"]


def test_nothing_is_done_twice_while_another_worker_is_at_it(engine: Engine, database: str) -> None:
    client_id = add_client(engine, "acme")
    add_run(engine, client_id, "old", AS_OF - timedelta(days=100))
    with psycopg.connect(database) as other:
        other.execute("select pg_advisory_xact_lock(hashtext('pulsewatch.retention'))")
        assert remove_expired(engine, SETTINGS, AS_OF) == Removed()
    assert remove_expired(engine, SETTINGS, AS_OF).runs == 1


# -- erasure -------------------------------------------------------------------------------------------------

TENANT_ROWS = """
    select 'run_event' as table_name, client_id from pulsewatch.run_event
    union all select 'run', client_id from pulsewatch.run
    union all select 'dirty', client_id from pulsewatch.dirty
    union all select 'pipeline', client_id from pulsewatch.pipeline
    union all select 'api_key', client_id from pulsewatch.api_key
    union all select 'ingest_reject', client_id from pulsewatch.ingest_reject
    union all select 'client', id from pulsewatch.client
"""
TABLES_WITH_CLIENT = """
    select distinct relname from pg_attribute join pg_class as class on class.oid = attrelid
    where attname = 'client_id' and relnamespace = 'pulsewatch'::regnamespace and relkind in ('r', 'p')
        and not relispartition
"""


def fill(engine: Engine, slug: str, runs: int = 3) -> int:
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
    return client_id


def rows_of(engine: Engine, client_id: int) -> dict[str, int]:
    query = f"select table_name, count(*) as number from ({TENANT_ROWS}) as rows where client_id = :id group by 1"
    with engine.connect() as connection:
        return {row.table_name: row.number for row in connection.execute(text(query), {"id": client_id})}


def test_a_client_is_erased_from_every_table_that_names_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    acme, beta = fill(engine, "acme"), fill(engine, "beta")
    others = rows_of(engine, beta)
    assert set(scalars(engine, TABLES_WITH_CLIENT)) | {"client"} == set(others)
    told: list[tuple[int, int]] = []
    purged = purge(engine, "acme", lambda done, total: told.append((done, total)))
    assert (purged.events, purged.runs, purged.pipelines, purged.keys) == (5, 3, 1, 1)
    assert told[-1] == (8, 8)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert rows_of(engine, acme) == {}
    assert rows_of(engine, beta) == others
    assert scalars(engine, "select count(*) from pulsewatch.ingest_reject") == [2]


def test_a_client_that_never_was_cannot_be_erased(engine: Engine) -> None:
    with pytest.raises(LookupError, match="there is no client 'acme'"):
        purge(engine, "acme")


def test_an_erasure_that_was_interrupted_is_completed_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 1)
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
    assert len(turns) == 2 * (retention.REVIVALS + 1)  # events and runs, each time


def test_nothing_is_left_of_a_client_that_is_written_to_and_brought_back_throughout(engine: Engine) -> None:
    acme = fill(engine, "acme", runs=30)
    over = threading.Event()
    outcomes: set[str] = set()
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        known = resolve.PipelineCache()
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
