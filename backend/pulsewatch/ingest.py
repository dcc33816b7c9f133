"""What is a duplicate; how events become run state. The one way in which run events are stored.

A run's row is a pure function of the set of its accepted events: every column is merged by an operation that does
not care for order or repetition (greatest, least, union, or the block of the event that is first or wins). The same
rules stand twice: in `runstate`, between the events of one batch, and in the function pulsewatch.merge_events (see its
migration), between the batch and what is stored. So an event that was there already can be merged again without harm,
and no look-up is needed. Only a conflict (same identity, other content) must not be merged: where one turns up, the
transaction is rolled back and done again without it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pulsewatch import catalog, ledger, resolve
from pulsewatch.db import fetch
from pulsewatch.event_batch import EventBatch
from pulsewatch.events import RunEvent
from pulsewatch.submissions import (
    ACCEPTED,
    CONFLICT,
    DUPLICATE,
    CatalogStatement,
    Item,
    Outcome,
    Receipt,
    Refusal,
    Submission,
)

# Taken shared by every ingest transaction; erasing a client takes it alone once, to see all of them end.
INGEST_LOCK = "select pg_advisory_xact_lock_shared(hashtext('pulsewatch.ingest'))"

# What others have committed while the first statement waited for them is seen by the second alone.
MERGE = "select fresh_count, fresh from pulsewatch.merge_events(%s::pulsewatch.merge_row[])"
CONFLICTS = "select client_id, dedupe_key, content_digest from pulsewatch.event_conflicts(%s::pulsewatch.merge_row[])"

CHECK_VIOLATION = "23514"
QUERY_CANCELED = "57014"

Begin = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class Work:
    """Items to store, for each the client its key is bound to (None: to none), and what to know for it."""

    items: Sequence[Item]
    owners: Sequence[int | None]
    known: resolve.Names
    max_pipelines: int

    def part(self, positions: Sequence[int]) -> "Work":
        """The same for some of the items."""
        return Work(
            [self.items[position] for position in positions],
            [self.owners[position] for position in positions],
            self.known,
            self.max_pipelines,
        )


class ConflictFound(Exception):
    """Some events have the identity of a stored event but other content. Holds their positions."""

    def __init__(self, positions: set[int]) -> None:
        super().__init__(positions)
        self.positions = positions


class CommitUnknownError(Exception):
    """The connection broke while committing: the events may be stored or not."""


def store(
    begin: Begin,
    submissions: Sequence[Submission],
    known: resolve.Names,
    *,
    max_pipelines: int,
    received_at: datetime,
) -> list[Receipt]:
    """Store what some requests sent, in one transaction; when this returns, it is committed.

    1. A month that has no partition yet gets one, once.
    2. Items that the database refuses (SQLSTATE classes 22 and 23) are found by halving and become rejects;
       their neighbours are stored.
    3. Rejects and counts are written with the events.

    Raises DBAPIError when the database is away or too busy (nothing is stored), CommitUnknownError when it went
    away in the act. Both may be tried again: storing is idempotent.
    """
    items = [item for submission in submissions for item in submission.items]
    owners = [submission.client_id for submission in submissions for _ in submission.items]
    work = Work(items, owners, known, max_pipelines)

    def attempt() -> list[Receipt]:
        learned = resolve.Names()
        with _transaction(begin) as connection:
            outcomes = merge(connection, work, excluded, learned)
            receipts = ledger.receipts(submissions, outcomes)
            ledger.record(connection, submissions, receipts, outcomes, received_at)
        known.learn(learned)
        return receipts

    excluded: dict[int, Refusal] = {}
    partitions_are_there = False
    while True:
        try:
            return attempt()
        except ConflictFound as found:
            excluded |= dict.fromkeys(found.positions, CONFLICT)
        except DBAPIError as error:
            if not is_refused_data(error):
                raise
            if sqlstate(error) == CHECK_VIOLATION and not partitions_are_there:
                _ensure_partitions(begin, items)
                partitions_are_there = True
            else:
                excluded |= _find_refused(begin, work, excluded)


class _transaction:  # noqa: N801 - reads as a statement
    """`begin()`, telling a commit that broke off from a statement that failed."""

    def __init__(self, begin: Begin) -> None:
        self._context = begin()

    def __enter__(self) -> Connection:
        return self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._context.__exit__(kind, error, trace)
        except DBAPIError as failed:
            if error is None and failed.connection_invalidated:
                raise CommitUnknownError from failed
            raise


def sqlstate(error: DBAPIError) -> str:
    """The five characters that PostgreSQL gives with an error; '' where the server could not answer."""
    return getattr(error.orig, "sqlstate", None) or ""


def is_worth_retrying(error: DBAPIError) -> bool:
    """Whether the same transaction may well succeed in a moment: it met another, or the server restarts."""
    state = sqlstate(error)
    if state == QUERY_CANCELED:
        return False  # our own timeout: the next try would take as long, and others wait
    return state[:2] in {"40", "57", "08"} or state == "55P03" or error.connection_invalidated


def is_refused_data(error: DBAPIError) -> bool:
    """Whether the data is at fault, so that trying again cannot help."""
    return sqlstate(error)[:2] in {"22", "23", "54"}


def _ensure_partitions(begin: Begin, items: Sequence[Item]) -> None:
    """Make the months that the events need. PostgreSQL tells a missing one by CHECK_VIOLATION alone."""
    months = sorted({item.occurred_at.strftime("%Y-%m-01") for item in items if isinstance(item, RunEvent)})
    with begin() as connection:
        for month in months:
            connection.exec_driver_sql("select pulsewatch.ensure_partition(%s::date)", (month,))


def _find_refused(begin: Begin, work: Work, excluded: dict[int, Refusal]) -> dict[int, Refusal]:
    """Which items the database refuses, found by halving in transactions that are rolled back."""
    refused: dict[int, Refusal] = {}
    halves = [[position for position in range(len(work.items)) if position not in excluded]]
    while halves:
        positions = halves.pop()
        try:
            with begin() as connection, connection.begin_nested() as trial:
                merge(connection, work.part(positions), {}, resolve.Names())
                trial.rollback()
        except ConflictFound:
            continue
        except DBAPIError as error:
            if not is_refused_data(error):
                raise
            if len(positions) == 1:
                reason = str(error.orig).splitlines()[0]
                refused[positions[0]] = Refusal("database_refused", "", f"PostgreSQL refuses this item: {reason}")
            else:
                middle = len(positions) // 2
                halves += [positions[:middle], positions[middle:]]
    if not refused:
        # Only together do they fail, which halving cannot find: give up loudly rather than loop.
        msg = "the database refused a batch of which it takes every part"
        raise RuntimeError(msg)
    return refused


def merge(connection: Connection, work: Work, excluded: dict[int, Refusal], learned: resolve.Names) -> list[Outcome]:
    """Merge items into the tables, within the caller's transaction; one outcome for each, in order.

    `excluded` are positions that are left out with the refusal given. Ids of pipelines that were looked up or made
    are put into `learned`, for the caller to keep once it has committed. Raises ConflictFound, after which the
    transaction must be rolled back.
    """
    items = work.items
    outcomes: list[Outcome | None] = [None] * len(items)
    for position, refusal in excluded.items():
        outcomes[position] = refusal
    fetch(connection, INGEST_LOCK)
    unbound = {item.client for item, owner in zip(items, work.owners, strict=True) if owner is None}
    clients = resolve.clients(connection, {item.client for item in items}, may_make=unbound)
    for position, (item, owner) in enumerate(zip(items, work.owners, strict=True)):
        if outcomes[position] is None:
            outcomes[position] = _refuse_client(clients.get(item.client), item.client, owner)
    _lock_clients(connection, items, outcomes, clients, work.known)
    pipeline_ids, made = _resolve_pipelines(connection, work, outcomes, clients, learned)
    _apply_catalog(connection, items, outcomes, clients, pipeline_ids, made)
    _merge_events(connection, items, outcomes, clients, pipeline_ids)
    return [outcome or ACCEPTED for outcome in outcomes]


def _refuse_client(client: resolve.KnownClient | None, slug: str, owner: int | None) -> Refusal | None:
    """Why this client takes no event from a key that is bound to `owner`, or to none; None if it does."""
    if client is None or (owner is not None and client.id != owner):
        # The key is remembered for a few seconds longer than its client, which was erased.
        return Refusal("forbidden_client", "/client", f"Client {slug!r}, to which the key was bound, is gone.")
    if client.is_archived:
        return Refusal("client_archived", "/client", f"Client {slug!r} is archived.")
    return None


def _lock_clients(
    connection: Connection,
    items: Sequence[Item],
    outcomes: list[Outcome | None],
    clients: dict[str, resolve.KnownClient],
    known: resolve.Names,
) -> None:
    """Where a client event is among the items, lock all clients that may be locked later on, at once and in order.

    Otherwise a writer that makes a pipeline of one client and then sets another's title could meet one that does
    it the other way round.
    """
    if all(item.pipeline is not None for item in items):
        return
    stated: set[int] = set()
    others: set[int] = set()
    for position, item in enumerate(items):
        if outcomes[position] is None:
            client_id = clients[item.client].id
            if item.pipeline is None:
                stated.add(client_id)
            elif known.pipeline_id((item.client, item.namespace, item.pipeline), client_id) is None:
                others.add(client_id)
    if stated:
        resolve.lock_clients(connection, stated | others)


def _resolve_pipelines(
    connection: Connection,
    work: Work,
    outcomes: list[Outcome | None],
    clients: dict[str, resolve.KnownClient],
    learned: resolve.Names,
) -> tuple[dict[resolve.PipelineName, int], set[resolve.PipelineName]]:
    """Ids of the pipelines that the items name, and which were made; items over the client's limit are refused."""
    ids: dict[resolve.PipelineName, int] = {}
    unknown: dict[resolve.PipelineName, resolve.Words] = {}
    for position, item in enumerate(work.items):
        if outcomes[position] is None and item.pipeline is not None:
            name = (clients[item.client].id, item.namespace, item.pipeline)
            if name not in ids and name not in unknown:
                words = (item.client, item.namespace, item.pipeline)
                found = work.known.pipeline_id(words, name[0])
                if found is None:
                    unknown[name] = words
                else:
                    ids[name] = found
    if not unknown:
        return ids, set()
    found_ids, made = resolve.pipelines(connection, unknown, max_pipelines=work.max_pipelines)
    learned.ids.update((unknown[name], (name[0], pipeline_id)) for name, pipeline_id in found_ids.items())
    if len(found_ids) < len(unknown):
        detail = f"The client has {work.max_pipelines} pipelines already, which is the most it may have."
        for position, item in enumerate(work.items):
            if outcomes[position] is None and item.pipeline is not None:
                name = (clients[item.client].id, item.namespace, item.pipeline)
                if name not in ids and name not in found_ids:
                    outcomes[position] = Refusal("pipeline_limit", "/pipeline", detail)
    return ids | found_ids, made


def _apply_catalog(
    connection: Connection,
    items: Sequence[Item],
    outcomes: list[Outcome | None],
    clients: dict[str, resolve.KnownClient],
    pipeline_ids: dict[resolve.PipelineName, int],
    made: set[resolve.PipelineName],
) -> None:
    """Set what client and pipeline events say; what says nothing new is a duplicate.

    All statements about one row go in one update, and rows are taken in one order by every writer.
    """
    said: dict[resolve.PipelineName | tuple[int], list[tuple[int, CatalogStatement]]] = {}
    for position, item in enumerate(items):
        if outcomes[position] is None and isinstance(item, CatalogStatement):
            client_id = clients[item.client].id
            about = (client_id,) if item.pipeline is None else (client_id, item.namespace, item.pipeline)
            said.setdefault(about, []).append((position, item))
    for about, statements in sorted(said.items()):
        heard = [(statement.changes, statement.occurred_at) for _, statement in statements]
        if len(about) == 1:
            told = catalog.hear_client(connection, about[0], heard)
            is_new = clients[statements[0][1].client].is_new
        else:
            told = catalog.hear_pipeline(connection, about[0], pipeline_ids[about], heard)
            is_new = about in made
        # What made the row said something new, even if it was no more than the name.
        told[0] = told[0] or is_new
        seen: list[tuple[dict[str, Any], datetime]] = []
        for (position, statement), is_news in zip(statements, told, strict=True):
            if not is_news or (statement.changes, statement.occurred_at) in seen:
                outcomes[position] = DUPLICATE
            seen.append((statement.changes, statement.occurred_at))


def _merge_events(
    connection: Connection,
    items: Sequence[Item],
    outcomes: list[Outcome | None],
    clients: dict[str, resolve.KnownClient],
    pipeline_ids: dict[resolve.PipelineName, int],
) -> None:
    """Insert the run events and merge them into their runs; say which were there already."""
    batch = EventBatch()
    for position, item in enumerate(items):
        if outcomes[position] is None and isinstance(item, RunEvent):
            client_id = clients[item.client].id
            pipeline_id = pipeline_ids[client_id, item.namespace, item.pipeline]
            outcomes[position] = batch.add(position, item, client_id, pipeline_id)
    if not batch.rows:
        return
    parameter = batch.packed()
    ((fresh_count, fresh),) = fetch(connection, MERGE, (parameter,))
    if fresh_count == len(batch.rows):
        return
    conflicts = fetch(connection, CONFLICTS, (parameter,))
    if conflicts:
        raise ConflictFound(
            batch.conflicting({(client_id, key.bytes): digest.bytes for client_id, key, digest in conflicts})
        )
    for position in batch.places_known(fresh or ()):
        outcomes[position] = DUPLICATE
