"""Alerts that are told, sent at a time of the test's own, and what became of it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from pulsewatch.delivery import Delivered, deliver
from pulsewatch.notifying import Told, notify
from pulsewatch.settings import Settings
from tests import telling
from tests.rows import NOON
from tests.telling import add_alert, add_channel, add_rule, add_target, after, over, worse

SETTINGS = Settings()


def fire(engine: Engine, url: str, *names: str, **channel: Any) -> list[Told]:
    """Alerts that have fired, and one channel that is to hear of them."""
    with engine.begin() as connection:
        add_channel(connection, url, **channel)
        rule, target = add_rule(connection), None
        fired = []
        for name in names or ("a",):
            target = add_target(connection, pipeline=name)
            fired.append(add_alert(connection, rule, target, name))
        notify(connection, fired, NOON)
    return fired


def tell(engine: Engine, told: Told) -> None:
    with engine.begin() as connection:
        notify(connection, [told], told.event_as_of)


def end(engine: Engine, told: Told, seconds: float) -> None:
    with engine.begin() as connection:
        notify(connection, [over(connection, told, seconds)], after(seconds))


def go_critical(engine: Engine, told: Told, seconds: float) -> Told:
    with engine.begin() as connection:
        changed = worse(connection, told, seconds)
        notify(connection, [changed], after(seconds))
    return changed


def send(
    engine: Engine,
    seconds: float = 0,
    jitter: float = 1.0,
    as_of: datetime | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Delivered:
    as_of = as_of or after(seconds)
    return deliver(engine, SETTINGS, telling.outbound(), as_of, jitter=lambda: jitter, is_stopping=is_stopping)


def shown(engine: Engine, columns: str = "reason, status") -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return telling.notifications(connection, columns)


def attempts(engine: Engine, columns: str = "n, outcome, http_status") -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        query = f"select {columns} from pulsewatch.notification_attempt order by started_at, n"
        return [tuple(row) for row in connection.execute(text(query))]


def one_row(engine: Engine, query: str) -> tuple[Any, ...]:
    with engine.connect() as connection:
        return tuple(connection.execute(text(query)).one())


def waits_s(engine: Engine) -> float:
    """From the end of the last attempt until the next one."""
    query = (
        "select extract(epoch from next_attempt_at - attempt.started_at)::float8 - attempt.latency_s"
        " from pulsewatch.notification join pulsewatch.notification_attempt as attempt"
        " on attempt.notification_id = notification.id order by n desc limit 1"
    )
    return round(float(one_row(engine, query)[0]), 3)


def fire_more(engine: Engine, name: str) -> Told:
    """One more alert, which has not been told, of a rule that names the same channel."""
    with engine.begin() as connection:
        return add_alert(connection, add_rule(connection, f"rule-{name}"), add_target(connection, pipeline=name), name)
