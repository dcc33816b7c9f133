"""What the demo shows once its history is there: the fleet, as the summary endpoint sees it."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from pulsewatch import rollups
from pulsewatch.events import canonical_time

WINDOW = timedelta(days=7)
# Then it shows what there is: the worker goes on by itself.
PATIENCE_S = 90
MOST_CLIENTS = 8


def await_numbers(
    engine: Engine, between: Callable[[], None], is_over: Callable[[], bool], patience_s: float = PATIENCE_S
) -> bool:
    """Wait until the worker has worked out what the history touches, and say so meanwhile; False: it still does."""
    deadline = time.monotonic() + patience_s
    with Console().status("Working out slots, hours and days"):
        while not is_over() and time.monotonic() < deadline and _waiting(engine):
            between()
    return not _waiting(engine)


def _waiting(engine: Engine) -> bool:
    """Whether the worker has marks to look at."""
    with engine.connect() as connection:
        count, _ = rollups.lag(connection)
        return count > 0 or connection.exec_driver_sql("select from pulsewatch.slot_mark limit 1").first() is not None


def summary(url: str, key: str, now: datetime) -> dict[str, Any]:
    """The last seven days, from `/v1/summary`. Raises OSError where the api does not answer."""
    query = urlencode({"from": canonical_time(now - WINDOW), "to": canonical_time(now), "step": "none"})
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("GET", f"/v1/summary?{query}", headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        msg = f"/v1/summary answered {response.status}"
        raise OSError(msg)
    answer: dict[str, Any] = msgspec.json.decode(body)
    return answer


def table(answer: Mapping[str, Any], *, is_whole: bool = True) -> Table:
    """The fleet and its clients with the lowest success rates; says where these are not all worked out yet."""
    drawn = Table(title="The fleet in the last seven days (/v1/summary)", title_justify="left", box=SIMPLE_HEAD)
    if not is_whole:
        drawn.caption = "The worker is still working these out; ask /v1/summary again in a minute."
    drawn.add_column("client")
    for name in ("runs", "success", "failed", "late", "missed", "p50", "p95"):
        drawn.add_column(name, justify="right")
    clients = sorted(answer["clients"], key=_worst_first)
    for client in clients[:MOST_CLIENTS]:
        drawn.add_row(client["client"], *_cells(client))
    if len(clients) > MOST_CLIENTS:
        drawn.add_row(f"... {len(clients) - MOST_CLIENTS} more", style="dim")
    drawn.add_section()
    drawn.add_row("all", *_cells(answer["totals"]), style="bold")
    return drawn


def _worst_first(client: Mapping[str, Any]) -> tuple[float, str]:
    rate = client["success_rate"]
    return (2.0 if rate is None else rate), client["client"]


def _cells(numbers: Mapping[str, Any]) -> tuple[str, ...]:
    rate = numbers["success_rate"]
    return (
        f"{numbers['finished_count']:,}",
        "" if rate is None else f"{rate:.1%}",
        f"{numbers['failed_count'] + numbers['timed_out_count']:,}",
        f"{numbers['late_count']:,}",
        f"{numbers['missed_count']:,}",
        _duration(numbers["duration_p50_s"]),
        _duration(numbers["duration_p95_s"]),
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
