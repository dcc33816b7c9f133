"""A database that has something to show: two weeks of the demo, with all that is worked out from it.

Up to a quarter of an hour ago it is history, alerts too; since then it went as in use: events came in, rules were
evaluated, and somebody was told.
"""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import Engine

from pulsewatch import alerting, delivery, ingest, resolve, rollups, slots
from pulsewatch.db import make_engine
from pulsewatch.demo import LOOPBACK, SEED, new_signing_secret
from pulsewatch.demo_alerts import make_alerts
from pulsewatch.demo_history import History
from pulsewatch.demo_load import SOURCE, Loader
from pulsewatch.demo_receiver import Receiver
from pulsewatch.outbound import Outbound
from pulsewatch.secretbox import open_box
from pulsewatch.settings import Settings
from pulsewatch.submissions import Submission
from tests.conftest import TEMPLATE, create_database, drop_database
from tests.running import unmeasured

DAYS = 14
NOW = datetime.now(UTC)
# The demo's staged troubles begin and end within these minutes.
LIVE_MINUTES = 15
ANCHOR = NOW - timedelta(minutes=LIVE_MINUTES)


@contextlib.contextmanager
def shown_database(server: str, name: str, days: int = DAYS) -> Iterator[str]:
    """Its address. Loaded through ingestion, and everything derived from it computed."""
    settings = Settings(secret_key=SecretStr("a key of tests that nobody has to keep"), outbound_allow=LOOPBACK)
    dsn = create_database(server, name, TEMPLATE)
    engine = make_engine(dsn, pool_size=4, application_name="tests")
    history = History.of(SEED, ANCHOR, days)
    try:
        with unmeasured():
            fill(engine, settings, history)
        yield dsn
    finally:
        engine.dispose()
        drop_database(server, name)


def fill(engine: Engine, settings: Settings, history: History) -> None:
    """Tell the history, work everything out, and live through the last minutes."""
    loader = Loader(engine, history, max_pipelines=settings.max_pipelines)
    assert loader.run(breathe, lambda: False)
    settle(engine, settings)
    secret = new_signing_secret()
    with Receiver(secret, 0, lambda _line: None) as receiver:
        with engine.begin() as connection:
            make_alerts(connection, open_box(settings), receiver.hook, secret, history.begins_at, ANCHOR)
        live(engine, settings, history)
    settle(engine, settings)


def breathe() -> None:
    """For a load to call while its writers work: without a rest it would take the processor from them."""
    time.sleep(0.02)


def live(engine: Engine, settings: Settings, history: History) -> None:
    """What came in since the anchor, minute by minute, and what became of it."""
    known = resolve.Names()
    outbound = Outbound(settings.outbound_networks)
    minutes = [ANCHOR + timedelta(minutes=minute) for minute in range(LIVE_MINUTES)]
    deliveries = history.deliveries(history.pipelines, ANCHOR, NOW)
    for after in minutes:
        until = after + timedelta(minutes=1)
        events = [one.event for one in deliveries if after < one.arrives_at <= until]
        submission = Submission(SOURCE, items=[*events], indexes=list(range(len(events))))
        now = datetime.now(UTC)
        ingest.store(engine.begin, [submission], known, max_pipelines=settings.max_pipelines, received_at=now)
        work(engine, settings)
        alerting.tick(engine, until, known_at=datetime.now(UTC))
        while delivery.deliver(engine, settings, outbound, datetime.now(UTC)) != delivery.Delivered():
            pass


def settle(engine: Engine, settings: Settings) -> None:
    """Do what the worker does, until there is nothing left to do; the planner knows of it."""
    work(engine, settings)
    with engine.begin() as connection:
        connection.exec_driver_sql("analyze")


def work(engine: Engine, settings: Settings) -> None:
    """Work out slots and numbers."""
    while True:
        round_ = slots.tick(engine, settings, NOW)
        marks = rollups.refresh(engine, settings, NOW)
        if round_ == slots.Round() and not marks:
            break
