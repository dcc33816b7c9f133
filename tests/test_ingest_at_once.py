"""The short way of ingestion stores what the long one does, or nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, text

from pulsewatch import ingest, ingest_at_once, resolve
from pulsewatch.db import fetch
from pulsewatch.event_batch import EventBatch
from pulsewatch.events import RunEvent, Status
from pulsewatch.submissions import CatalogStatement, Item, Receipt, Submission
from tests.examples import examples
from tests.test_ingest import DAY, NOW, arrivals, event, savepoint, stored_rows

STATS = "select source, accepted, duplicates, rejected, lag_s_sum, lag_s_max from pulsewatch.ingest_stat"


def submission(*items: Item, **fields: object) -> Submission:
    made = Submission("native", list(items), list(range(len(items))))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def at_once(
    connection: Connection, *submissions: Submission, known: resolve.Names | None = None
) -> list[Receipt] | None:
    return ingest_at_once.store(savepoint(connection), submissions, known or resolve.Names())


def step_by_step(connection: Connection, *submissions: Submission) -> list[Receipt]:
    return ingest.store(savepoint(connection), submissions, resolve.Names(), max_pipelines=100, received_at=NOW)


def count(connection: Connection, table: str) -> int:
    found: int = connection.execute(text(f"select count(*) from pulsewatch.{table}")).scalar_one()
    return found


@pytest.fixture
def met(connection: Connection) -> Connection:
    """A database that has met the pipeline of `event`."""
    step_by_step(connection, submission(event(run="first")))
    connection.execute(text("delete from pulsewatch.ingest_stat"))
    return connection


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
def test_both_ways_leave_the_same_rows_and_say_the_same(
    connection: Connection, drawn: tuple[list[RunEvent], list[list[RunEvent]]]
) -> None:
    _, batches = drawn

    def store(batch: Sequence[RunEvent], *, is_short: bool) -> Receipt:
        receipts = at_once(connection, submission(*batch)) if is_short else None
        (receipt,) = receipts or step_by_step(connection, submission(*batch))
        return receipt

    found = []
    for is_short in (False, True):
        with connection.begin_nested() as attempt:
            told = [store(batch, is_short=is_short) for batch in batches]
            found.append((stored_rows(connection), told))
            attempt.rollback()
    assert found[0] == found[1]


def test_what_the_database_has_met_is_looked_up_and_remembered(met: Connection) -> None:
    known = resolve.Names()
    assert at_once(met, submission(event()), known=known) == [Receipt(accepted=1)]
    assert list(known.ids) == [("acme", "", "nightly")]


def test_a_client_that_is_met_is_learnt_whole_and_later_only_what_is_new(
    met: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_by_step(met, submission(event(pipeline="hourly"), event(client="other")))
    known = resolve.Names()
    asked: list[set[resolve.Words]] = []

    def look_up(connection: Connection, wanted: set[resolve.Words], met: set[str]) -> resolve.Names:
        asked.append(wanted)
        return found(connection, wanted, met)

    found = resolve.look_up
    monkeypatch.setattr(resolve, "look_up", look_up)
    assert at_once(met, submission(event(minutes=1)), known=known) is not None
    assert set(known.ids) == {("acme", "", "nightly"), ("acme", "", "hourly")}
    assert known.met == {"acme"}
    step_by_step(met, submission(event(pipeline="weekly")))
    for pipeline in ("hourly", "weekly", "nightly"):
        both = submission(event(pipeline=pipeline, run="r2"), event(minutes=2, pipeline="hourly"))
        assert at_once(met, both, known=known) is not None
    assert asked == [{("acme", "", "nightly")}, {("acme", "", "weekly")}]
    # Nothing is kept of clients that are not there: there is no end of those.
    assert at_once(met, submission(event(client="unheard")), known=known) is None
    assert known.met == {"acme"}


def test_the_ids_of_a_client_that_was_made_anew_are_learnt_anew(met: Connection) -> None:
    known = resolve.Names()
    known.ids["acme", "", "nightly"] = (0, 1)
    assert at_once(met, submission(event(minutes=1)), known=known) is None
    begin = savepoint(met)
    ingest.store(begin, [submission(event(minutes=2))], known, max_pipelines=9, received_at=NOW)
    assert at_once(met, submission(event(minutes=3)), known=known) == [Receipt(accepted=1)]


def test_outcomes_are_counted_with_the_lag_of_what_was_new(met: Connection) -> None:
    now = met.execute(text("select now()")).scalar_one()
    assert at_once(met, submission(event(), event(), event(minutes=1)), submission(event(run="first"))) == [
        Receipt(accepted=2, duplicates=1),
        Receipt(duplicates=1),
    ]
    lags = [(now - DAY).total_seconds(), (now - DAY).total_seconds() - 60]
    assert [tuple(row) for row in met.execute(text(STATS))] == [
        ("native", 2, 2, 0, pytest.approx(sum(lags)), pytest.approx(lags[0]))
    ]


def test_every_copy_and_every_known_event_is_a_duplicate_in_its_place(met: Connection) -> None:
    at_once(met, submission(event()))
    assert at_once(met, submission(event(minutes=1)), submission(event()), submission(event(minutes=1))) == [
        Receipt(accepted=1),
        Receipt(duplicates=1),
        Receipt(duplicates=1),
    ]


LOOKING_S = """
    select nullif(current_setting('pulsewatch.looking_until', true), '')::float - date_part('epoch', now())
"""


def test_a_known_event_makes_the_connection_look_before_it_inserts_for_a_minute(met: Connection) -> None:
    assert at_once(met, submission(event())) == [Receipt(accepted=1)]
    assert met.execute(text(LOOKING_S)).scalar_one() is None
    both = Receipt(accepted=1, duplicates=1)
    assert at_once(met, submission(event(), event(run="second"))) == [both]
    assert met.execute(text(LOOKING_S)).scalar_one() == 60
    # While it looks, the end of that stays; later it is set anew.
    for left_s, run, other, set_s in ((30, "second", "third", 30), (-1, "third", "fourth", 60)):
        until = f"(date_part('epoch', now()) + {left_s})::text"
        met.execute(text(f"select set_config('pulsewatch.looking_until', {until}, false)"))
        assert at_once(met, submission(event(run=run), event(run=other))) == [both]
        assert met.execute(text(LOOKING_S)).scalar_one() == set_s
    assert (count(met, "run_event"), count(met, "run"), count(met, "dirty")) == (5, 5, 5)


def test_events_are_sorted_by_run_so_that_writers_never_meet_crosswise(connection: Connection) -> None:
    batch = EventBatch()
    events = [event(status, run=run) for run in "dbac" for status in (Status.RUNNING, Status.FAILED)]
    for place, one in enumerate(events):
        batch.add(place, one, 2 - place % 2, 1)
    read = "select client_id, run_id, occurred_at, dedupe_key from unnest(%s::pulsewatch.merge_row[])"
    rows = [tuple(row) for row in fetch(connection, read, (batch.packed(),))]
    assert len(rows) == 8
    assert rows == sorted(rows)


def test_nothing_is_stored_for_a_client_that_was_archived_since(met: Connection) -> None:
    known = resolve.Names()
    at_once(met, submission(event()), known=known)
    met.execute(text("update pulsewatch.client set archived_at = now()"))
    assert at_once(met, submission(event(minutes=1)), known=known) is None
    assert count(met, "run_event") == 2


def test_nothing_is_stored_for_a_client_that_is_gone(met: Connection) -> None:
    known = resolve.Names()
    known.ids["acme", "", "nightly"] = (0, 1)
    assert at_once(met, submission(event()), known=known) is None
    assert count(met, "run_event") == 1


UNUSUAL = {
    "a pipeline never met": [submission(event(pipeline="unheard"))],
    "a client never met": [submission(event(client="unheard"))],
    "a statement": [submission(event(), CatalogStatement("acme", {}, NOW, "nightly"))],
    "a reject": [submission(event(), rejected=[object()])],
    "two wires": [submission(event()), submission(event(minutes=1), source="openlineage")],
    "an event of two items": [submission(event(), event(minutes=1), indexes=[0, 0])],
    "the client of another key": [submission(event(), client_id=0)],
    "two that contradict each other": [submission(event(event_id="e"), event(Status.FAILED, event_id="e"))],
    "one that contradicts a stored one": [submission(event(), event(run="first", message="other", minutes=0))],
    "a month without a partition": [
        submission(RunEvent("acme", "nightly", "r", Status.FAILED, datetime(2001, 1, 1, tzinfo=UTC)))
    ],
}


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_what_is_unusual_is_left_to_the_long_way_and_leaves_nothing(met: Connection, unusual: str) -> None:
    assert at_once(met, *UNUSUAL[unusual]) is None
    for table, there in (("run_event", 1), ("run", 1), ("ingest_stat", 0), ("client", 1), ("pipeline", 1)):
        assert count(met, table) == there, table
