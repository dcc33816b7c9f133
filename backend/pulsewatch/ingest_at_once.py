"""The short way of ingestion: all of a transaction in one round trip, for the usual batch.

That is one of run events alone, over one wire, of clients and pipelines that this process knows. Each round trip that
`ingest.store` makes, to lock, look up, count and commit, costs as much as storing some events: of requests with one
event each that is most of the work. Where a batch turns out to be unusual, nothing is stored, and it is done there.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pulsewatch import resolve
from pulsewatch.db import LoopConnection, fetch, fetch_named, is_dead
from pulsewatch.event_batch import EventBatch
from pulsewatch.events import RunEvent
from pulsewatch.ingest import Begin, CommitUnknownError, is_refused_data, sqlstate
from pulsewatch.submissions import ACCEPTED, CONFLICT, DUPLICATE, Outcome, Receipt, Submission

STORE = """
select is_stored, fresh_count, fresh
from pulsewatch.store_events(
    %(batch)s::pulsewatch.merge_row[], %(client_ids)s::bigint[], %(source)s, %(repeated_count)s
)
"""
# Raised by the function where an event contradicts a stored one.
CONTRADICTED = "PW001"


def store(connect: Begin, submissions: Sequence[Submission], known: resolve.Names) -> list[Receipt] | None:
    """Store what some requests sent, in one transaction; when this returns receipts, it is committed.

    None: it takes `ingest.store`, nothing is stored. `connect` gives connections that commit each statement.
    Raises DBAPIError when the database is away or too busy (nothing is stored), CommitUnknownError when it went away
    in the act.
    """
    if not _is_usual(submissions):
        return None
    try:
        with connect() as connection:
            _refuse_dead(connection)
            ids = _ids(submissions, known)
            if ids is None and _look_up(connection, submissions, known):
                ids = _ids(submissions, known)
            prepared = _prepare(submissions, ids)
            if prepared is None:
                return None
            with _committing():
                (answer,) = fetch_named(connection, STORE, prepared.parameters)
    except DBAPIError as error:
        _refuse_unless_unusual(error)
        return None
    return prepared.receipts(answer)


async def store_in_loop(
    connection: LoopConnection, submissions: Sequence[Submission], known: resolve.Names
) -> list[Receipt] | None:
    """The same over the connection of the event loop, for batches so small that packing them delays nobody.

    Names that are not known take the long way too.
    """
    prepared = _prepare(submissions, _ids(submissions, known)) if _is_usual(submissions) else None
    if prepared is None:
        return None
    try:
        with _committing():
            (answer,) = await connection.fetch(STORE, prepared.parameters)
    except DBAPIError as error:
        _refuse_unless_unusual(error)
        return None
    return prepared.receipts(answer)


@contextlib.contextmanager
def _committing() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated:
            raise CommitUnknownError from error
        raise


def _refuse_unless_unusual(error: DBAPIError) -> None:
    """Raise what the long way cannot help with either."""
    if not is_refused_data(error) and sqlstate(error) != CONTRADICTED:
        raise error


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A usual batch on its way."""

    submissions: Sequence[Submission]
    batch: EventBatch
    outcomes: list[Outcome]  # of each event, as far as the batch tells
    parameters: dict[str, Any]  # of STORE

    def receipts(self, answer: tuple[Any, ...]) -> list[Receipt] | None:
        """What the row that STORE gave tells each request; None: nothing is stored."""
        is_stored, fresh_count, fresh = answer
        if not is_stored:
            return None
        if fresh_count < len(self.batch.rows):
            for position in self.batch.places_known(fresh or ()):
                self.outcomes[position] = DUPLICATE
        return _receipts(self.submissions, self.outcomes)


def _prepare(submissions: Sequence[Submission], ids: Sequence[tuple[int, int]] | None) -> _Prepared | None:
    """The batch, packed. None: a name is not known (so are no ids), or some events contradict each other."""
    if ids is None:
        return None
    batch = EventBatch()
    outcomes = _fold(batch, submissions, ids)
    if outcomes is None:
        return None
    parameters = {
        "batch": batch.packed(),
        # An array as its text: to have a list turned into one takes ten times as long.
        "client_ids": "{" + ",".join({str(client_id) for client_id, _ in ids}) + "}",
        "source": submissions[0].source,
        "repeated_count": len(ids) - len(batch.rows),
    }
    return _Prepared(submissions, batch, outcomes, parameters)


def _receipts(submissions: Sequence[Submission], outcomes: Sequence[Outcome]) -> list[Receipt]:
    """Deal the outcomes out to the requests they belong to; none is a refusal, and each has a place of its own."""
    receipts = []
    done = 0
    for submission in submissions:
        count = len(submission.items)
        duplicates = outcomes[done : done + count].count(DUPLICATE)
        receipts.append(Receipt(accepted=count - duplicates, duplicates=duplicates, received=submission.received))
        done += count
    return receipts


def _is_usual(submissions: Sequence[Submission]) -> bool:
    """Whether all are run events, each by itself, of one wire, and nothing was rejected."""
    return all(
        not submission.rejected
        and submission.source == submissions[0].source
        and len(set(submission.indexes)) == len(submission.items)
        and all(isinstance(item, RunEvent) for item in submission.items)
        for submission in submissions
    )


def _ids(submissions: Sequence[Submission], known: resolve.Names) -> list[tuple[int, int]] | None:
    """Client and pipeline of each event, in order. None: one is not known, or not the client that its key is for."""
    known_ids = known.ids
    ids = []
    for submission in submissions:
        owner = submission.client_id
        for item in cast("list[RunEvent]", submission.items):
            found = known_ids.get((item.client, item.namespace, item.pipeline))
            if found is None or (owner is not None and owner != found[0]):
                return None
            ids.append(found)
    return ids


def _look_up(connection: Connection, submissions: Sequence[Submission], known: resolve.Names) -> bool:
    """Learn the names that the process has not met yet but the database has; whether there were any to look up."""
    events = (cast("RunEvent", item) for submission in submissions for item in submission.items)
    words = {(event.client, event.namespace, event.pipeline) for event in events}
    # The dictionary itself, not its keys: those would all be gone through, while other threads learn more.
    unknown = words.difference(known.ids)
    if unknown:
        known.learn(resolve.look_up(connection, unknown, known.met))
    return bool(unknown)


def _fold(batch: EventBatch, submissions: Sequence[Submission], ids: Sequence[tuple[int, int]]) -> list[Outcome] | None:
    """Put all events into the batch; the outcome of each, as far as it tells. None: some contradict each other."""
    outcomes: list[Outcome] = []
    for submission in submissions:
        for item in submission.items:
            place = len(outcomes)
            outcome = batch.add(place, cast("RunEvent", item), *ids[place])
            if outcome is CONFLICT:
                return None
            outcomes.append(outcome or ACCEPTED)
    return outcomes


def _refuse_dead(connection: Connection) -> None:
    """Raise DBAPIError for a connection that is dead already; it is not used, so nothing is unknown."""
    if is_dead(cast("psycopg.Connection", connection.connection.driver_connection).pgconn):
        fetch(connection, "select 1")
