"""Storing events on real PostgreSQL: any order, any repetition and any split give the same rows."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from pulsewatch import ingest, resolve
from pulsewatch.events import Parent, RunEvent, Status, canonical_json, dedupe_key, pipeline_slug, run_id
from pulsewatch.submissions import CatalogStatement, Item, Receipt, Submission
from tests.examples import examples
from tests.reference import expected_run

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = NOW - timedelta(days=3)


def savepoint(connection: Connection) -> ingest.Begin:
    """Transactions for `ingest.store` that end with the test's own."""

    @contextmanager
    def begin() -> Iterator[Connection]:
        with connection.begin_nested():
            yield connection

    return begin


def put(connection: Connection, *items: Item, max_pipelines: int = 100) -> Receipt:
    """Store items as one request would, inside the test's transaction."""
    submission = Submission("native", list(items), list(range(len(items))))
    (receipt,) = ingest.store(
        savepoint(connection),
        [submission],
        resolve.Names(),
        max_pipelines=max_pipelines,
        received_at=NOW,
    )
    return receipt


def event(status: Status = Status.RUNNING, minutes: float = 0, **fields: Any) -> RunEvent:
    words = {"client": "acme", "pipeline": "nightly", "run": "r1"} | fields
    return RunEvent(status=status, occurred_at=DAY + timedelta(minutes=minutes), **words)


RUN_COLUMNS = """
    runs.client, runs.pipeline, runs.external_id, runs.status, runs.attempt, runs.first_at, runs.last_at,
    runs.scheduled_at,
    runs.started_at, runs.finished_at, runs.duration_s, runs.message, runs.error_class, runs.url,
    runs.parent_external_id, runs.is_finish_before_start, runs.is_external_id_reused, runs.is_assumed_utc,
    runs.is_scheduled_at_ignored, runs.run_id,
    coalesce(run.opening_metrics, '{}') || coalesce(run.winner_metrics, '{}') as metrics,
    coalesce(run.opening_attributes, '{}') || coalesce(run.winner_attributes, '{}') as attributes
"""


def runs(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.exec_driver_sql(
        f"select {RUN_COLUMNS} from analytics.runs"
        " inner join pulsewatch.run on runs.client_id = run.client_id and runs.run_id = run.id"
        " order by runs.client, runs.pipeline, runs.external_id"
    )
    return [dict(row._mapping) for row in rows]


def stored_rows(connection: Connection) -> tuple[list[Any], list[Any]]:
    """Every column of run and run_event that is a fact; ids given by arrival are replaced by names."""
    run_rows = connection.exec_driver_sql(
        "select to_jsonb(run) - 'client_id' - 'pipeline_id' - 'prev_started_at' - 'prev_finished_at'"
        " from pulsewatch.run order by id"
    )
    event_rows = connection.exec_driver_sql(
        "select to_jsonb(run_event) - 'client_id' - 'pipeline_id' - 'received_at'"
        " from pulsewatch.run_event order by run_id, occurred_at, dedupe_key"
    )
    return [row[0] for row in run_rows], [row[0] for row in event_rows]


instants = st.sampled_from([DAY + timedelta(minutes=minutes) for minutes in (0, 1, 1.5, 61, 62, 200)])
maybe_instant = st.none() | instants
run_events = st.builds(
    RunEvent,
    client=st.sampled_from(["acme", "globex"]),
    namespace=st.sampled_from(["", "prod"]),
    pipeline=st.sampled_from(["nightly", "Bücher laden"]),
    run=st.sampled_from(["r1", "0199011e-7a10-7c3e-9f57-3f6d1a0c9b11"]),
    status=st.sampled_from(list(Status)),
    occurred_at=instants,
    event_id=st.none() | st.sampled_from(["e1", "e2", "e3", "e4", "e5", "e6"]),
    attempt=st.none() | st.integers(0, 2),
    scheduled_at=maybe_instant,
    started_at=maybe_instant,
    duration_s=st.none() | st.sampled_from([0.0, 12.5, 7200.0]),
    message=st.none() | st.sampled_from(["fine", "boom"]),
    error_class=st.none() | st.just("ValueError"),
    url=st.none() | st.just("https://ci.example/1"),
    metrics=st.none() | st.dictionaries(st.sampled_from(["rows", "bytes"]), st.sampled_from([1.0, 2.5]), min_size=1),
    attributes=st.none() | st.dictionaries(st.sampled_from("ab"), st.sampled_from([1, "x", None]), min_size=1),
    parent=st.none() | st.builds(Parent, pipeline=st.just("parent"), run=st.sampled_from(["p1", "p2"])),
    flags=st.sampled_from([0, 0, 0, 1, 2, 3]),
)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[RunEvent], list[list[RunEvent]]]:
    """A set of events without conflicts, and one way in which it may arrive: order, repeats, split."""
    events = draw(
        st.lists(run_events, min_size=1, max_size=12, unique_by=lambda e: (e.client, e.occurred_at, dedupe_key(e)))
    )
    again = draw(st.lists(st.sampled_from(events), max_size=4))
    order = draw(st.permutations([*events, *again]))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=4)))
    batches = [order[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    return events, [batch for batch in batches if batch]


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
def test_any_order_repetition_and_split_gives_the_run_that_the_set_of_events_makes(
    connection: Connection, arrival: tuple[list[RunEvent], list[list[RunEvent]]]
) -> None:
    events, batches = arrival
    with connection.begin_nested() as undone:
        receipts = [put(connection, *batch) for batch in batches]
        assert sum(receipt.accepted for receipt in receipts) == len(events)
        assert sum(receipt.duplicates for receipt in receipts) == sum(map(len, batches)) - len(events)
        assert not any(receipt.rejected for receipt in receipts)

        by_run: dict[tuple[str, str, str, str], list[RunEvent]] = defaultdict(list)
        for one in events:
            by_run[one.client, one.namespace, one.pipeline, one.run].append(one)
        expected = {run_id(*words): expected_run(of_run) for words, of_run in by_run.items()}
        actual = {str(row["run_id"]): row for row in runs(connection)}
        assert actual.keys() == expected.keys()
        for identity, run in expected.items():
            assert {name: actual[identity][name] for name in run} == run

        shuffled = stored_rows(connection)
        undone.rollback()
    with connection.begin_nested() as undone:
        put(connection, *events)
        assert stored_rows(connection) == shuffled
        undone.rollback()


def test_a_retry_is_a_duplicate_and_changes_nothing(connection: Connection) -> None:
    start, end = event(), event(Status.SUCCEEDED, 5, metrics={"rows": 7.0})
    assert put(connection, start, end).accepted == 2
    before = stored_rows(connection)
    marks = connection.exec_driver_sql("select count(*) from pulsewatch.dirty").scalar_one()

    again = put(connection, end, start)

    assert (again.accepted, again.duplicates) == (0, 2)
    assert stored_rows(connection) == before
    assert connection.exec_driver_sql("select count(*) from pulsewatch.dirty").scalar_one() == marks


def test_the_same_event_twice_in_one_batch_counts_once(connection: Connection) -> None:
    receipt = put(connection, event(), event(), event())
    assert (receipt.accepted, receipt.duplicates) == (1, 2)


def test_one_instant_in_two_offsets_is_one_event(connection: Connection) -> None:
    elsewhere = event()
    elsewhere.occurred_at = elsewhere.occurred_at.astimezone(ZoneInfo("Asia/Kolkata"))
    receipt = put(connection, event(), elsewhere)
    assert (receipt.accepted, receipt.duplicates) == (1, 1)


@pytest.mark.parametrize("split", [True, False], ids=["in two requests", "in one request"])
def test_the_same_event_id_with_other_content_is_a_conflict_and_the_first_stays(
    connection: Connection, *, split: bool
) -> None:
    first = event(Status.FAILED, event_id="e1", message="boom")
    other = event(Status.SUCCEEDED, event_id="e1", message="fine")
    neighbour = event(run="r2")
    receipts = (
        [put(connection, first), put(connection, other, neighbour)]
        if split
        else [put(connection, first, other, neighbour)]
    )

    assert sum(receipt.accepted for receipt in receipts) == 2
    (rejected,) = receipts[-1].rejected
    assert (rejected.refusal.code, rejected.refusal.pointer) == ("conflict", "/event_id")
    assert [(run["external_id"], run["status"], run["message"]) for run in runs(connection)] == [
        ("r1", "failed", "boom"),
        ("r2", "running", None),
    ]


def test_an_event_id_may_be_used_again_at_another_time(connection: Connection) -> None:
    receipt = put(connection, event(event_id="e1"), event(Status.SUCCEEDED, 1, event_id="e1"))
    assert receipt.accepted == 2


def test_two_pipelines_may_use_the_same_external_id(connection: Connection) -> None:
    put(connection, event(), event(pipeline="hourly"), event(client="globex"))
    assert [(run["client"], run["pipeline"]) for run in runs(connection)] == [
        ("acme", "hourly"),
        ("acme", "nightly"),
        ("globex", "nightly"),
    ]


def test_a_late_start_does_not_reopen_a_finished_run(connection: Connection) -> None:
    put(connection, event(Status.SUCCEEDED, 5))
    put(connection, event(Status.RUNNING, 0))
    (run,) = runs(connection)
    assert (run["status"], run["duration_s"]) == ("succeeded", 300.0)


def test_a_producers_end_beats_timed_out_whenever_it_comes(connection: Connection) -> None:
    put(connection, event(Status.TIMED_OUT, 60))
    put(connection, event(Status.SUCCEEDED, 30))
    assert runs(connection)[0]["status"] == "succeeded"


def test_a_finish_before_the_start_is_kept_flagged_and_has_no_duration(connection: Connection) -> None:
    put(connection, event(Status.RUNNING, 10), event(Status.FAILED, 5))
    (run,) = runs(connection)
    assert (run["status"], run["duration_s"], run["is_finish_before_start"]) == ("failed", None, True)


def test_events_for_an_archived_client_are_refused_and_its_neighbours_are_not(connection: Connection) -> None:
    put(connection, event())
    connection.exec_driver_sql("update pulsewatch.client set archived_at = now() where slug = 'acme'")
    receipt = put(connection, event(Status.SUCCEEDED, 5), event(client="globex"))
    assert receipt.accepted == 1
    assert [(rejected.index, rejected.refusal.code) for rejected in receipt.rejected] == [(0, "client_archived")]


def test_events_for_an_archived_pipeline_are_kept(connection: Connection) -> None:
    put(connection, event())
    connection.exec_driver_sql("update pulsewatch.pipeline set archived_at = now()")
    assert put(connection, event(Status.SUCCEEDED, 5)).accepted == 1


def test_a_client_has_at_most_so_many_pipelines(connection: Connection) -> None:
    named: Sequence[RunEvent] = [event(pipeline=f"p{number}") for number in range(5)]
    receipt = put(connection, *named, max_pipelines=3)
    assert receipt.accepted == 3
    assert [rejected.refusal.code for rejected in receipt.rejected] == ["pipeline_limit"] * 2
    assert put(connection, event(Status.SUCCEEDED, 1, pipeline="p0"), max_pipelines=3).accepted == 1


@pytest.mark.parametrize("taken_first", [True, False])
def test_a_name_whose_slug_is_another_pipelines_name_gets_a_longer_one(
    connection: Connection, *, taken_first: bool
) -> None:
    short = pipeline_slug("prod", "nightly")
    both = [event(namespace="prod", pipeline="nightly"), event(pipeline=short)]
    for one in both if taken_first else reversed(both):
        assert put(connection, one).accepted == 1
    slugs = connection.exec_driver_sql("select slug from pulsewatch.pipeline order by length(slug)").scalars().all()
    assert slugs[0] == short
    assert slugs[1] in {pipeline_slug("prod", "nightly", 32), pipeline_slug("", short, 32)}


def test_client_and_pipeline_events_set_fields_and_make_what_is_missing(connection: Connection) -> None:
    receipt = put(
        connection,
        CatalogStatement("acme", {"title": "Acme"}, DAY),
        CatalogStatement("acme", {"schedule": "0 2 * * *", "tags": ["etl"]}, DAY, "nightly"),
    )
    assert receipt.accepted == 2
    assert connection.exec_driver_sql("select slug, title from pulsewatch.client").all() == [("acme", "Acme")]
    assert connection.exec_driver_sql("select slug, schedule, tags from pulsewatch.pipeline").all() == [
        ("nightly", "0 2 * * *", ["etl"])
    ]


statements = st.builds(
    CatalogStatement,
    client=st.just("acme"),
    changes=st.dictionaries(st.sampled_from(["title", "owner"]), st.none() | st.sampled_from(["a", "b"]), max_size=2),
    occurred_at=instants,
    pipeline=st.sampled_from(["nightly", "hourly"]),
)


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(statements, min_size=1, max_size=8), st.randoms(use_true_random=False), st.integers(1, 4))
def test_statements_in_any_order_and_split_leave_the_latest_of_each_field(
    connection: Connection, said: list[CatalogStatement], random: Random, size: int
) -> None:
    def latest(pipeline: str | None, field: str) -> object:
        heard = [
            (one.occurred_at, canonical_json(one.changes[field]))
            for one in said
            if one.pipeline == pipeline and field in one.changes
        ]
        return json.loads(max(heard)[1]) if heard else None

    expected = {name: (latest(name, "title"), latest(name, "owner")) for name in {one.pipeline for one in said}}
    random.shuffle(said)
    with connection.begin_nested() as undone:
        for start in range(0, len(said), size):
            put(connection, *said[start : start + size])
        rows = connection.exec_driver_sql("select name, title, owner from pulsewatch.pipeline").all()
        assert {name: (title, owner) for name, title, owner in rows} == expected
        undone.rollback()


def test_a_statement_that_says_nothing_new_is_a_duplicate(connection: Connection) -> None:
    made = CatalogStatement("acme", {}, DAY, "nightly")
    early = CatalogStatement("acme", {"title": "Early"}, DAY, "nightly")
    late = CatalogStatement("acme", {"title": "Late"}, DAY + timedelta(hours=1), "nightly")
    receipts = [put(connection, *said) for said in ([made, late, early, late], [late], [early], [made])]
    assert [(receipt.accepted, receipt.duplicates) for receipt in receipts] == [(3, 1), (0, 1), (0, 1), (0, 1)]
    assert connection.exec_driver_sql("select title from pulsewatch.pipeline").scalar_one() == "Late"


def test_one_event_of_two_items_counts_once(connection: Connection) -> None:
    submission = Submission(
        "openlineage", [event(), CatalogStatement("acme", {"owner": "data"}, DAY, "nightly")], [0, 0], received=1
    )
    for accepted in (1, 0):
        (receipt,) = ingest.store(
            savepoint(connection), [submission], resolve.Names(), max_pipelines=9, received_at=NOW
        )
        assert (receipt.accepted, receipt.duplicates, receipt.received) == (accepted, 1 - accepted, 1)


def test_a_bound_key_never_brings_an_erased_client_back(connection: Connection) -> None:
    submission = Submission("native", [event()], [0], client_id=123_456, text_of=lambda _: b"{}")
    (receipt,) = ingest.store(savepoint(connection), [submission], resolve.Names(), max_pipelines=9, received_at=NOW)
    assert [rejected.refusal.code for rejected in receipt.rejected] == ["forbidden_client"]
    assert connection.exec_driver_sql("select count(*) from pulsewatch.client").scalar_one() == 0
    assert connection.exec_driver_sql("select client_id from pulsewatch.ingest_reject").scalar_one() is None


def test_an_ignored_scheduled_time_is_no_conflict_once_it_is_within_bounds(connection: Connection) -> None:
    far = NOW + timedelta(days=400, seconds=5)
    assert put(connection, event(ignored_scheduled_at=far, flags=2)).accepted == 1
    assert put(connection, event(scheduled_at=far)).duplicates == 1


def test_rejects_are_kept_and_outcomes_are_counted(connection: Connection) -> None:
    put(connection, event(event_id="e1"))
    submission = Submission(
        "native",
        [event(event_id="e1"), event(event_id="e1", message="other"), event(run="r2")],
        [0, 1, 3],
        text_of=lambda index: f'{{"number": {index}, "nul": "\0"}}'.encode(),
    )
    ingest.store(savepoint(connection), [submission], resolve.Names(), max_pipelines=9, received_at=NOW)
    rejects = connection.exec_driver_sql("select code, pointer, item, source from pulsewatch.ingest_reject").all()
    assert rejects == [("conflict", "/event_id", '{"number": 1, "nul": "\N{REPLACEMENT CHARACTER}"}', "native")]
    stats = connection.exec_driver_sql(
        "select sum(accepted), sum(duplicates), sum(rejected), max(lag_s_max), max(last_at) from pulsewatch.ingest_stat"
    ).one()
    assert tuple(stats) == (2, 1, 1, (NOW - DAY).total_seconds(), NOW)


def test_both_hours_are_marked_when_a_finish_moves(connection: Connection) -> None:
    put(connection, event(Status.RUNNING, 0), event(Status.FAILED, 10))
    connection.exec_driver_sql("delete from pulsewatch.dirty")
    put(connection, event(Status.SUCCEEDED, 190))
    marked = connection.exec_driver_sql("select distinct hour_at from pulsewatch.dirty order by 1").scalars().all()
    hours = {(DAY + timedelta(minutes=minutes)).replace(minute=0, second=0) for minutes in (0, 10, 190)}
    assert marked == sorted(hours)


def test_an_event_that_postgresql_refuses_does_not_sink_its_neighbours(connection: Connection) -> None:
    # The wires stop this earlier; here it stands for whatever they may miss.
    receipt = put(connection, event(), event(run="r2", attributes={"nul": "\0"}), event(run="r3"))
    assert receipt.accepted == 2
    assert [(rejected.index, rejected.refusal.code) for rejected in receipt.rejected] == [(1, "database_refused")]


def test_a_month_without_a_partition_gets_one(connection: Connection) -> None:
    long_ago = event()
    long_ago.occurred_at = NOW - timedelta(days=1200)
    assert put(connection, long_ago).accepted == 1
