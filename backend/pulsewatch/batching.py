"""Requests that arrive together are committed together.

While a writer commits, requests queue; the next transaction takes what has queued. So a lone request is stored at
once, and under load the cost of a commit is shared by many, with nothing to tune. Each request is answered only
after the commit that holds it.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pulsewatch import ingest, ingest_at_once, telemetry
from pulsewatch.db import LoopConnection
from pulsewatch.problems import Problem, unavailable
from pulsewatch.resolve import Names
from pulsewatch.submissions import Receipt, Submission

log = logging.getLogger(__name__)

# One transaction takes whole requests until it holds this many items: larger ones gain nothing, and hold locks longer.
BATCH_ITEMS = 1000
ITEM_BYTES = 1024
# Below this one writer is enough: two would share the same few requests between twice as many commits.
BUSY_ITEMS = 256
# A transaction that met another in a deadlock, or a server that is shutting down or starting, is tried again.
TRIES = 4
FIRST_PAUSE_S = 0.05


@dataclass(slots=True)
class _Waiting:
    """A request that waits for its commit."""

    submission: Submission
    receipt: asyncio.Future[Receipt]
    # How many items; an item of more than ITEM_BYTES counts as several, so that memory is bounded too.
    size: int = field(init=False)

    def __post_init__(self) -> None:
        submission = self.submission
        self.size = max(len(submission.items) + len(submission.rejected), submission.body_bytes // ITEM_BYTES)


class Batcher:
    """The queue before the writers, of one process. Lives in one event loop."""

    def __init__(
        self, engine: Engine, connection: LoopConnection, *, writers: int, queue_items: int, max_pipelines: int
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._is_connection_free = True
        self._committing = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._max_pipelines = max_pipelines
        self._known = Names()
        self._queues: OrderedDict[UUID | None, deque[_Waiting]] = OrderedDict()
        self._sizes: dict[UUID | None, int] = {}
        self._queued_items = 0
        self._writing_items = 0
        self._queue_items = queue_items
        self._threads = ThreadPoolExecutor(writers, thread_name_prefix="ingest-writer")
        self._writers = self._idle_writers = writers
        telemetry.INGEST_QUEUE_EVENTS.set_function(lambda: self._queued_items)
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, submission: Submission) -> Receipt:
        """Store what one request sent; returns once it is committed.

        Raises Problem 503 where the queue is full, where this key fills half of it alone, or where the database
        is away. In every case the request may be sent again.
        """
        waiting = _Waiting(submission, asyncio.get_running_loop().create_future())
        key_id = submission.key_id
        # A queue that is empty takes anything: a request within its own limits can always be served.
        if self._queued_items and self._queued_items + waiting.size > self._queue_items:
            raise unavailable("More events are waiting than the database takes in; send it again.")
        if self._sizes.get(key_id, 0) and self._sizes[key_id] + waiting.size > self._queue_items // 2:
            raise unavailable("This key's events wait in the queue already and fill its share; send it again.")
        self._queues.setdefault(key_id, deque()).append(waiting)
        self._sizes[key_id] = self._sizes.get(key_id, 0) + waiting.size
        self._queued_items += waiting.size
        is_busy = self._queued_items + self._writing_items >= BUSY_ITEMS
        if self._idle_writers == self._writers or (self._idle_writers and is_busy):
            self._idle_writers -= 1
            task = asyncio.create_task(self._write())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.receipt

    async def close(self) -> None:
        """Wait until what has been taken is committed."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        self._threads.shutdown()
        await self._connection.close()

    async def _write(self) -> None:
        """One writer: commit what has queued, until nothing has."""
        loop = asyncio.get_running_loop()
        try:
            while self._queues:
                batch = self._draw()
                if not batch:
                    continue
                submissions = [one.submission for one in batch]
                size = sum(one.size for one in batch)
                self._writing_items += size
                try:
                    receipts = await self._store_in_loop(submissions, size)
                    if receipts is None:
                        receipts = await loop.run_in_executor(self._threads, self._store, submissions)
                except Exception as error:  # whatever it is, every request must get an answer
                    receipts = [_as_problem(error)] * len(batch)
                self._writing_items -= size
                for one, receipt in zip(batch, receipts, strict=True):
                    if one.receipt.done():
                        continue
                    if isinstance(receipt, Receipt):
                        one.receipt.set_result(receipt)
                    else:
                        one.receipt.set_exception(receipt)
        finally:
            self._idle_writers += 1

    def _draw(self) -> list[_Waiting]:
        """The next requests, one of each key in turn, so that no key waits behind another's backlog."""
        batch: list[_Waiting] = []
        size = 0
        while self._queues and (not batch or size < BATCH_ITEMS):
            key_id, queue = next(iter(self._queues.items()))
            if batch and size + queue[0].size > BATCH_ITEMS:
                break
            waiting = queue.popleft()
            size += waiting.size
            self._sizes[key_id] -= waiting.size
            if queue:
                self._queues.move_to_end(key_id)
            else:
                del self._queues[key_id], self._sizes[key_id]
            # Who hung up while waiting is left out: nobody is told, so nothing is owed.
            if not waiting.receipt.cancelled():
                batch.append(waiting)
        self._queued_items -= size
        return batch

    async def _store_in_loop(self, submissions: Sequence[Submission], size: int) -> list[Receipt | Exception] | None:
        """Store a small batch from here, without a thread. None: nothing is stored, it takes one.

        A thread and the loop would wait for each other, several times a commit and each time for milliseconds: only one
        of them runs at a time, and who waits has to let the other finish its turn.
        """
        if size >= BUSY_ITEMS or not self._is_connection_free:
            return None
        self._is_connection_free = False
        started = time.perf_counter()
        try:
            receipts = await ingest_at_once.store_in_loop(self._connection, submissions, self._known)
        except ingest.CommitUnknownError:
            raise
        except Exception as error:
            if isinstance(error, DBAPIError) and not ingest.is_worth_retrying(error):
                raise
            # A thread tries again: over its own connection where there is none here, and request by request where the
            # error is ours.
            return None
        finally:
            self._is_connection_free = True
        if receipts is None:
            return None
        _observe(submissions, receipts, started)
        return [*receipts]

    def _store(self, submissions: Sequence[Submission]) -> list[Receipt | Exception]:
        """Store in a thread. What trips over an error of our own is stored request by request, to spare the others."""
        try:
            return [*self._store_together(submissions)]
        except (DBAPIError, PoolTimeoutError, ingest.CommitUnknownError):
            raise
        except Exception:
            if len(submissions) == 1:
                raise
            log.exception("a batch cannot be stored; its requests are taken one by one")
        return [self._store_alone(submission) for submission in submissions]

    def _store_alone(self, submission: Submission) -> Receipt | Exception:
        try:
            return self._store_together([submission])[0]
        except Exception as error:  # as in _write
            return _as_problem(error)

    def _store_together(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Store in one transaction, trying again what the server asks to be tried again."""
        for attempt in range(1, TRIES + 1):
            started = time.perf_counter()
            try:
                receipts = ingest_at_once.store(self._committing.connect, submissions, self._known)
                if receipts is None:
                    receipts = ingest.store(
                        self._engine.begin,
                        submissions,
                        self._known,
                        max_pipelines=self._max_pipelines,
                        received_at=datetime.now(UTC),
                    )
            except DBAPIError as error:
                if attempt == TRIES or not ingest.is_worth_retrying(error):
                    raise
                log.info(
                    "ingest is tried again", extra={"fields": {"sqlstate": ingest.sqlstate(error), "attempt": attempt}}
                )
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            else:
                _observe(submissions, receipts, started)
                return receipts
        raise AssertionError  # the last attempt returns or raises


def _observe(submissions: Sequence[Submission], receipts: Sequence[Receipt], started: float) -> None:
    telemetry.INGEST_COMMIT_SECONDS.observe(time.perf_counter() - started)
    telemetry.INGEST_BATCH_EVENTS.observe(sum(len(submission.items) for submission in submissions))
    counts: Counter[tuple[str, str]] = Counter()
    for submission, receipt in zip(submissions, receipts, strict=True):
        counts[submission.source, "accepted"] += receipt.accepted
        counts[submission.source, "duplicate"] += receipt.duplicates
        counts[submission.source, "rejected"] += len(receipt.rejected)
    for (source, outcome), count in counts.items():
        if count:
            telemetry.INGEST_EVENTS.labels(source, outcome).inc(count)


def _as_problem(error: Exception) -> Exception:
    """What the requests of a failed transaction are told: all of it may be sent again."""
    if isinstance(error, ingest.CommitUnknownError):
        return unavailable("The database went away while committing; send it again, duplicates do no harm.")
    if isinstance(error, DBAPIError | PoolTimeoutError):
        log.warning("the database does not take events: %s", str(getattr(error, "orig", error)).splitlines()[:1])
        return unavailable("The database does not answer; send it again.", retry_after_s=2)
    log.exception("storing events failed", exc_info=error)
    return Problem(500, "internal", "Storing the events failed; the log says why.")
