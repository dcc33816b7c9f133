"""The only clock: which tick runs how often.

A tick is a function of (engine, settings, as_of). A tick that fails is logged and comes again at its next time:
the worker outlives restarts of the database. Several workers may run at once.
"""

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType

from apscheduler.events import EVENT_SCHEDULER_STARTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import Engine, text

from pulsewatch import alerting, delivery, ingest, resolve, retention, rollups, rulebook, slots
from pulsewatch.db import make_engine
from pulsewatch.outbound import Outbound
from pulsewatch.overdue import overdue
from pulsewatch.settings import Settings
from pulsewatch.submissions import Submission

log = logging.getLogger(__name__)
# Under `up`, which tells itself what starts and ends, these lines are left out.
life = logging.getLogger(f"{__name__}.life")

POOL_SIZE = 5
BEAT_EVERY = timedelta(seconds=5)
HOUSEKEEPING_EVERY = timedelta(minutes=10)
ROLLUPS_EVERY = timedelta(seconds=2)
REST = 9  # times as long as it worked
MOST_REST_S = 30
PAUSE_S = 10  # floods come in waves: a shorter pause is part of one
LONG_S = 60
SLOTS_EVERY = timedelta(seconds=2)
# Where much is to be done at once, so many rounds are gone before the next tick.
SLOT_ROUNDS = 10
OVERDUE_EVERY = timedelta(seconds=10)
# More often than there are instants to evaluate for: one is evaluated as soon as all is known of it.
ALERTS_EVERY = timedelta(seconds=1)
# So long after some rules could not be looked at together with all others.
CAREFUL_S = 300
DELIVERY_EVERY = timedelta(seconds=1)


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
            "removed past their keep time: partitions %s; %s runs, %s spans, %s hours, %s rejects",
            ", ".join(removed.partitions) or "none",
            removed.runs,
            removed.spans,
            removed.hours,
            removed.rejects,
        )


class Refresher:
    """The tick that works out the numbers of hours and days that marks touch.

    Where it takes long while events pour in, it rests for longer: the more comes in meanwhile, the more marks it takes
    at once, which is cheaper for each, and ingestion keeps the better part of the machine. It catches up once
    nothing more comes, or marks have waited long. After that it may have worked for minutes, which is no reason to
    rest for longer than MOST_REST_S.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._pace = rollups.Pace()
        self._rests_until_s = -math.inf

    def __call__(self, as_of: datetime) -> None:
        began_s = time.monotonic()
        if began_s < self._rests_until_s and self._is_flood():
            return
        try:
            rollups.refresh(self._engine, self._settings, as_of, self._pace, may_go_on=self._may_go_on)
        finally:
            if not self._may_go_on():
                ended_s = time.monotonic()
                self._rests_until_s = ended_s + min(REST * (ended_s - began_s), MOST_REST_S)

    def _is_flood(self) -> bool:
        with self._engine.connect() as connection:
            return rollups.is_pouring_in(connection, PAUSE_S)

    def _may_go_on(self) -> bool:
        with self._engine.connect() as connection:
            return not rollups.is_pouring_in(connection) or rollups.lag(connection)[1] >= LONG_S


def judge_slots(engine: Engine, settings: Settings, as_of: datetime) -> None:
    """Make the slots of the hours to come, and judge those that are due or that runs have touched."""
    for _ in range(SLOT_ROUNDS):
        if not slots.tick(engine, settings, as_of).is_full:
            return


def time_out(engine: Engine, settings: Settings, as_of: datetime) -> None:
    """Say of runs that go on for longer than their pipeline allows that they have timed out."""
    with engine.connect() as connection:
        events = overdue(connection, as_of)
    if not events:
        return
    submission = Submission("pulsewatch", items=[*events], indexes=list(range(len(events))))
    known = resolve.Names()
    (receipt,) = ingest.store(
        engine.begin, [submission], known, max_pipelines=settings.max_pipelines, received_at=as_of
    )
    log.info("timed out: %s runs", receipt.accepted)


class Evaluator:
    """The tick that evaluates the alert rules. The first one makes the rule that PulseWatch brings."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_first = True
        self._careful_until_s = -math.inf

    def __call__(self, as_of: datetime) -> alerting.Ticked | None:
        if self._is_first:
            with self._engine.begin() as connection:
                rulebook.ensure_builtin(connection, as_of)
            self._is_first = False
        is_careful = time.monotonic() < self._careful_until_s
        ticked = alerting.tick(self._engine, as_of, is_careful=is_careful)
        if ticked is not None:
            if ticked.is_careful and not is_careful:
                self._careful_until_s = time.monotonic() + CAREFUL_S
            if ticked.events:
                log.info("alert rules: %s events", ticked.events)
        return ticked


def deliver(
    engine: Engine, settings: Settings, outbound: Outbound, is_stopping: Callable[[], bool], as_of: datetime
) -> None:
    """Send the notifications that are due."""
    done = delivery.deliver(engine, settings, outbound, as_of, is_stopping=is_stopping)
    if done != delivery.Delivered():
        log.info(
            "notifications: %s sent, %s failed and tried again, %s refused, %s taken over from a worker that is gone",
            done.sent,
            done.retry,
            done.permanent,
            done.taken_over,
        )


def guarded(name: str, tick: Callable[[datetime], object]) -> Callable[[], None]:
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
        # To plan what the alert rules look at takes longer than to look: a connection of their own keeps the plans.
        self.alerting_engine = make_engine(dsn, pool_size=1, application_name="pulsewatch worker", is_preparing=True)
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
        self._every(ROLLUPS_EVERY, "rollups", Refresher(self.engine, settings))
        self._every(SLOTS_EVERY, "slots", partial(judge_slots, self.engine, settings))
        self._every(OVERDUE_EVERY, "overdue", partial(time_out, self.engine, settings))
        self._every(ALERTS_EVERY, "alerts", Evaluator(self.alerting_engine))
        outbound = Outbound(settings.outbound_networks)
        self._every(
            DELIVERY_EVERY, "delivery", partial(deliver, self.engine, settings, outbound, self._is_told_to_stop.is_set)
        )
        self._every(HOUSEKEEPING_EVERY, "partitions", partial(make_room, self.engine, settings))
        self._every(HOUSEKEEPING_EVERY, "retention", partial(clean_up, self.engine, settings))

    def _every(self, interval: timedelta, name: str, tick: Callable[[datetime], object]) -> None:
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
            self.alerting_engine.dispose()
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
