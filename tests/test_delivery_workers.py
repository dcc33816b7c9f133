"""Several workers, killed at random while alerts go on, lose nothing and tell everything in order."""

import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from pulsewatch import notifications
from pulsewatch.db import make_engine
from pulsewatch.delivery import deliver
from pulsewatch.notifying import notify
from pulsewatch.outbound import Outbound
from pulsewatch.settings import Settings
from tests import telling
from tests.rows import NOON, scalars
from tests.running import ROOT, Command, command, until
from tests.telling import Answer, add_alert, add_channel, add_rule, add_target, over, worse

LOAD_S = float(os.environ.get("PULSEWATCH_TEST_LOAD_S", "10"))
PATHS = {"PYTHONPATH": f"{ROOT}:{ROOT / 'backend'}"}
WORKER = """
import sys, time
from datetime import datetime, UTC
from pulsewatch.db import make_engine
from pulsewatch.delivery import deliver
from pulsewatch.settings import Settings
from tests.telling import outbound
engine = make_engine(sys.argv[1], pool_size=4, application_name="victim")
print("started", flush=True)
while True:
    deliver(engine, Settings(), outbound(), datetime.now(UTC))
    time.sleep(0.05)
"""


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


def start(database: str) -> Command:
    return Command(program=(sys.executable, "-c", WORKER, database), **PATHS)


@pytest.mark.slow
def test_workers_that_are_killed_at_random_lose_nothing_and_keep_the_order(database: str, engine: Engine) -> None:
    chance = random.Random(5)  # noqa: S311 - an order, not a secret
    with telling.receiver([Answer(503), Answer(200, {}, 0.05), telling.DROP] * 30) as far:
        kills = _load(database, engine, far.url, chance)
        assert kills > 0
        # What the dead have left is taken over once their leases have run out.
        deliver(engine, Settings(), telling.outbound(), datetime.now(UTC) + timedelta(minutes=2), jitter=lambda: 0.0)
        later = datetime.now(UTC) + timedelta(minutes=4)
        while scalars(engine, "select count(*) from pulsewatch.notification where status in ('pending', 'leased')")[0]:
            deliver(engine, Settings(), telling.outbound(), later, jitter=lambda: 0.0)
            later += timedelta(minutes=2)
    query = "select distinct status || ':' || coalesce(held_by, '') from pulsewatch.notification order by 1"
    assert set(scalars(engine, query)) <= {"dropped:untold", "sent:", "superseded:"}
    sent = scalars(
        engine, "select 'msg_' || replace(id::text, '-', '') from pulsewatch.notification where status = 'sent'"
    )
    assert set(sent) <= set(far.ids)
    first_told: defaultdict[str, list[str]] = defaultdict(list)
    for got in far.got:
        assert got.alert_id is not None
        first_told[got.alert_id].append(got.reason)
    untold = scalars(engine, "select alert_id from pulsewatch.notification where held_by = 'untold'")
    assert len(first_told) + len(untold) == len(scalars(engine, "select id from pulsewatch.alert"))
    for reasons in first_told.values():
        assert reasons[0] in ("fired", "level_changed")
        assert reasons[-1] == "resolved"
        assert set(reasons[reasons.index("resolved") :]) == {"resolved"}


def _load(database: str, engine: Engine, url: str, chance: random.Random) -> int:
    """Alerts come, get worse and end while workers are killed; returns how many were."""
    with engine.begin() as connection:
        add_channel(connection, url)
        rule = add_rule(connection)
    workers = [start(database) for _ in range(3)]
    kills, number = 0, 0
    ends_s = time.monotonic() + LOAD_S
    try:
        while time.monotonic() < ends_s or (kills < 3 and time.monotonic() < ends_s + 60):
            number += 1
            at = datetime.now(UTC)
            with engine.begin() as connection:
                target = add_target(connection, pipeline=f"p{number}")
                fired = add_alert(connection, rule, target, f"a{number}", fired_at=at, event_as_of=at)
                notify(connection, [fired], at)
            if chance.random() < 0.5:
                with engine.begin() as connection:
                    notify(connection, [worse(connection, fired, 0)], datetime.now(UTC))
            with engine.begin() as connection:
                ended = over(connection, fired, (datetime.now(UTC) - NOON).total_seconds())
                notify(connection, [ended], datetime.now(UTC))
            victim = chance.randrange(3)
            if chance.random() < 0.05 and workers[victim].out:
                workers[victim].stop(signal.SIGKILL)
                workers[victim] = start(database)
                kills += 1
    finally:
        for worker in workers:
            worker.stop(signal.SIGKILL)
    return kills


def test_a_worker_sends_what_is_due(database: str, engine: Engine) -> None:
    with telling.receiver() as far:
        with engine.begin() as connection:
            id_ = notifications.try_out(connection, add_channel(connection, far.url), 0, None, datetime.now(UTC))
        with command("worker", PULSEWATCH_DATABASE_URL=database, PULSEWATCH_OUTBOUND_ALLOW="127.0.0.0/8") as worker:
            until(lambda: scalars(engine, "select status from pulsewatch.notification") == ["sent"])
            assert worker.stop() == 0
    assert far.ids == [f"msg_{id_.hex}"]
    assert any("notifications: 1 sent" in line for line in worker.err)


def test_what_may_not_be_reached_is_refused_before_anybody_is_asked(engine: Engine) -> None:
    with telling.receiver() as far:
        with engine.begin() as connection:
            notifications.try_out(connection, add_channel(connection, far.url), 0, None, NOON)
        deliver(engine, Settings(), Outbound(), NOON)
        assert far.got == []
    with engine.connect() as connection:
        (error,) = connection.execute(text("select last_error from pulsewatch.notification")).scalars()
    assert "127.0.0.1" in error
