"""Fills the past of the demo through the real ingestion path, with several writers at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event, Lock

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from pulsewatch import ingest, resolve
from pulsewatch.demo_cast import CLIENTS, Pipeline
from pulsewatch.demo_history import History
from pulsewatch.submissions import Item, Receipt, Submission

WRITERS = 3
# A writer tells a client's events of so many days at a time, one batch a transaction.
STRETCH = timedelta(days=5)
BATCH_EVENTS = 2000
SOURCE = "demo"


@dataclass(slots=True)
class Loaded:
    """What became of the deliveries so far. Shared by the writers."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def add(self, receipt: Receipt) -> None:
        with self._lock:
            self.accepted += receipt.accepted
            self.duplicates += receipt.duplicates
            self.rejected += [f"{one.refusal.code}: {one.refusal.detail}" for one in receipt.rejected]


class Loader:
    """Stores what arrived before the anchor. Repeating it does no harm: the events are the same."""

    def __init__(self, engine: Engine, history: History, *, max_pipelines: int) -> None:
        self._engine = engine
        self._history = history
        self._max_pipelines = max_pipelines
        self._known = resolve.Names()
        self._stop = Event()
        self.loaded = Loaded()

    def run(self, between: Callable[[], None], is_over: Callable[[], bool]) -> bool:
        """Load all of it, showing how far it is; False if `is_over` before. `between` is called again and again."""
        columns = (
            TextColumn("Making up {task.fields[days]} days"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[events]:,} events"),
            TimeElapsedColumn(),
        )
        stretches = list(self._stretches())
        with Progress(*columns) as progress, ThreadPoolExecutor(WRITERS, "demo-writer") as writers:
            task = progress.add_task("", total=len(stretches), days=self._history.days, events=0)
            try:
                self._store(list(self._history.statements()))
                waiting = [writers.submit(self._tell, *stretch) for stretch in stretches]
                while not is_over() and (left := _unfinished(waiting)):
                    done = len(stretches) - len(left)
                    progress.update(task, completed=done, events=self.loaded.accepted)
                    waiting = left
                    between()
            finally:
                self._stop.set()
                writers.shutdown(cancel_futures=True)
            if is_over():
                return False
            progress.update(task, completed=len(stretches), events=self.loaded.accepted)
        return True

    def _stretches(self) -> Iterator[tuple[tuple[Pipeline, ...], datetime, datetime]]:
        """By time and then by client: rows that belong together in time come to lie together."""
        pipelines = self._history.pipelines
        by_client = [tuple(one for one in pipelines if one.client is client) for client in CLIENTS]
        after, anchor = self._history.begins_at, self._history.anchor
        while after < anchor:
            until = min(after + STRETCH, anchor)
            for own in by_client:
                yield own, after, until
            after = until

    def _tell(self, own: tuple[Pipeline, ...], after: datetime, until: datetime) -> None:
        deliveries = self._history.deliveries(own, after, until)
        for start in range(0, len(deliveries), BATCH_EVENTS):
            if self._stop.is_set():
                return
            self._store([delivery.event for delivery in deliveries[start : start + BATCH_EVENTS]])

    def _store(self, items: list[Item]) -> None:
        submission = Submission(SOURCE, items=items, indexes=list(range(len(items))))
        (receipt,) = ingest.store(
            self._engine.begin,
            [submission],
            self._known,
            max_pipelines=self._max_pipelines,
            received_at=datetime.now(UTC),
        )
        self.loaded.add(receipt)


def _unfinished(waiting: list[Future[None]]) -> list[Future[None]]:
    """Those that still run; raises what one of them raised."""
    left = []
    for future in waiting:
        if future.done():
            future.result()
        else:
            left.append(future)
    return left
