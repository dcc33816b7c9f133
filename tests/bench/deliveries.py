"""Delivery: a thousand notifications to a receiver on this machine, beside as many posts of nothing but the network."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Engine, text

from pulsewatch.db import make_engine
from pulsewatch.delivery import deliver
from pulsewatch.notifying import notify
from pulsewatch.settings import Settings
from tests import telling
from tests.bench.alerts import Timed, timed
from tests.bench.measures import Sizes
from tests.rows import NOON

HEADERS = {"content-type": "application/json", "webhook-id": "msg_0"}
PIPELINES = """
insert into pulsewatch.pipeline (client_id, slug, name, identity_digest)
select :client_id, :prefix || n, :prefix || n, gen_random_uuid()
from generate_series(1, :number) as n
returning id, slug
"""


def measure(dsn: str, sizes: Sizes, advance: Callable[[str], None]) -> list[Timed]:
    """Times in turn: what alerts cost to be told, and what the same posts cost without a word written down."""
    engine = make_engine(dsn, pool_size=8, application_name="bench")
    rounds: dict[str, list[float]] = {}
    with telling.receiver() as far:
        with engine.begin() as connection:
            # As many a minute as it can: the rate is not what is measured.
            telling.add_channel(connection, far.url, rate_per_min=6000)
            rule, target = telling.add_rule(connection), telling.add_target(connection)
        for number in range(sizes.delivery_rounds):
            advance("deliveries")
            with engine.begin() as connection:
                values = {"client_id": target.client_id, "prefix": f"round{number}-", "number": sizes.messages}
                made = connection.execute(text(PIPELINES), values).all()
                each = [replace(target, pipeline_id=row.id, pipeline=row.slug) for row in made]
                notify(connection, [telling.add_alert(connection, rule, one, one.pipeline or "") for one in each], NOON)
            rounds.setdefault(f"{sizes.messages} notifications delivered", []).append(
                _deliver(engine, number, sizes.messages)
            )
            rounds.setdefault(f"{sizes.messages} posts, nothing written", []).append(_post(far.url, sizes.messages))
    engine.dispose()
    return [timed(name, values) for name, values in rounds.items()]


def _deliver(engine: Engine, number: int, messages: int) -> float:
    """Seconds until all are sent and settled; the clock of rates is turned on by a minute with each call."""
    began, sent, calls = time.perf_counter(), 0, 0
    while sent < messages:
        at = NOON + timedelta(hours=number, minutes=calls, seconds=1)
        sent += deliver(engine, Settings(), telling.outbound(), at).sent
        calls += 1
    return time.perf_counter() - began


def _post(url: str, messages: int) -> float:
    outbound = telling.outbound()
    body = json.dumps({"pulsewatch": {"reason": "fired", "alert_id": None, "level": "warning"}, "filler": "x" * 1500})
    began = time.perf_counter()
    for _ in range(messages):
        outbound.request("POST", url, headers=HEADERS, body=body.encode(), timeout_s=10)
    return time.perf_counter() - began
