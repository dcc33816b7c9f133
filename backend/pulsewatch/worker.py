"""The only clock: which tick runs how often.

A tick is a function of (engine, settings, as_of). A tick that fails is logged and comes again at its next time:
the worker outlives restarts of the database. Several workers may run at once.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType

from apscheduler.events import EVENT_SCHEDULER_STARTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import Engine, text

from pulsewatch import retention
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings

log = logging.getLogger(__name__)
# Under `up`, which tells itself what starts and ends, these lines are left out.
life = logging.getLogger(f"{__name__}.life")

POOL_SIZE = 3
BEAT_EVERY = timedelta(seconds=5)
HOUSEKEEPING_EVERY = timedelta(minutes=10)


def heartbeat(engine: Engine, started_at: datetime, worker_id: str, as_of: datetime) -> None:
    """Say that this worker is alive; /ready looks for it."""
    beat = text(
        "insert into pulsewatch.worker_heartbeat (worker_id, started_at, beat_at)"
        " values (:worker_id, :started_at, :as_of) on conflict (worker_id) do update"
        " set started_at = excluded.started_at, beat_at = excluded.beat_at"
    )
    with engine.begin() as connection:
        connection.execute(beat, {"worker_id": worker_id, "started_at": started_at, "as_of": as_of})


def farewell(engine: Engine, worker_id: str) -> None:
    """Take the sign of life back, so that /ready knows at once."""
    with engine.begin() as connection:
        leave = text("delete from pulsewatch.worker_heartbeat where worker_id = :worker_id")
        connection.execute(leave, {"worker_id": worker_id})


def make_room(engine: Engine, settings: Settings, as_of: datetime) -> None:
    """Make the partitions of the months to come."""
    made = retention.ensure_partitions(engine, settings, as_of)
    if made:
        log.info("partitions made: %s", ", ".join(f"{month:%Y-%m}" for month in made))


def clean_up(engine: Engine, settings: Settings, as_of: datetime) -> None:
    """Remove what is past its keep time."""
    removed = retention.remove_expired(engine, settings, as_of)
    if removed != retention.Removed():
        log.info(
            "removed past their keep time: %s months of events, %s runs, %s rejects",
            len(removed.partitions),
            removed.runs,
            removed.rejects,
        )


def guarded(name: str, tick: Callable[[datetime], None]) -> Callable[[], None]:
    """The tick at the current time, its failure logged and left to the next time."""

    def run() -> None:
        try:
            tick(datetime.now(UTC))
        except Exception as error:
            # One line, not a trace: the database restarts, and each tick would tell so.
            log.warning("%s failed and is tried again: %s", name, str(error).strip().split("\n")[0])
            log.debug("%s failed", name, exc_info=True)

    return run


class Worker:
    """The process that runs the ticks until it is told to stop."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self.settings = settings
        self.engine = make_engine(dsn, pool_size=POOL_SIZE, application_name="pulsewatch worker")
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}"
        self.scheduler = BlockingScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(POOL_SIZE)},
            # After a pause (a laptop asleep) a tick runs once, however late, not once for each time missed.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._is_told_to_stop = threading.Event()
        self._ticks_are_over = threading.Event()
        self.scheduler.add_listener(self._stop_if_told, EVENT_SCHEDULER_STARTED)
        started_at = datetime.now(UTC)
        self._every(BEAT_EVERY, "heartbeat", partial(heartbeat, self.engine, started_at, self.worker_id))
        self._every(HOUSEKEEPING_EVERY, "partitions", partial(make_room, self.engine, settings))
        self._every(HOUSEKEEPING_EVERY, "retention", partial(clean_up, self.engine, settings))

    def _every(self, interval: timedelta, name: str, tick: Callable[[datetime], None]) -> None:
        self.scheduler.add_job(
            guarded(name, tick),
            "interval",
            seconds=interval.total_seconds(),
            id=name,
            next_run_time=datetime.now(UTC),
        )

    def run(self) -> None:
        """Run the ticks until SIGTERM or SIGINT; ticks that have begun are finished."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        life.info("worker %s started", self.worker_id)
        try:
            self.scheduler.start()
            # It returns as soon as no tick begins any more; those that have begun still use the database.
            self._ticks_are_over.wait()
        finally:
            guarded("farewell", lambda _now: farewell(self.engine, self.worker_id))()
            self.engine.dispose()
        life.info("worker %s stopped", self.worker_id)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_told_to_stop.set()
        # One that has not started yet cannot be shut down: it looks for itself as soon as it has.
        if self.scheduler.running:
            self._stop_if_told()

    def _stop_if_told(self, _event: object = None) -> None:
        # The scheduler's locks are held by the main thread while it sleeps: another thread has to shut it down.
        if self._is_told_to_stop.is_set():
            threading.Thread(target=self._shut_down, name="shutdown").start()

    def _shut_down(self) -> None:
        with contextlib.suppress(SchedulerNotRunningError):  # told twice
            self.scheduler.shutdown()
            self._ticks_are_over.set()
