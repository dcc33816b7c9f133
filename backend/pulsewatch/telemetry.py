"""What PulseWatch tells of itself: logs with request ids, and numbers for Prometheus.

No number carries a client's name, and no line carries a key or a password.
"""

import json
import logging
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from platform import python_version
from typing import Any

import msgspec
from prometheus_client import Counter, Gauge, Histogram, Info
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from pulsewatch import __version__
from pulsewatch.problems import MEDIA_TYPE, Problem
from pulsewatch.settings import Settings

# ASGI's own types, as Starlette and uvicorn spell them.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A bare ASGI application names its route here; FastAPI's routes are found by themselves.
ROUTE_KEY = "pulsewatch.route"
REQUEST_ID_KEY = "pulsewatch.request_id"

request_id: ContextVar[str | None] = ContextVar("pulsewatch_request_id", default=None)
log = logging.getLogger("pulsewatch.http")

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)

HTTP_REQUESTS = Counter(
    "pulsewatch_http_requests", "Requests by method, route template and status.", ["method", "route", "status"]
)
HTTP_SECONDS = Histogram(
    "pulsewatch_http_request_seconds",
    "Seconds from a request's first byte to its answer's last.",
    ["method", "route"],
    buckets=LATENCY_BUCKETS,
)
INGEST_EVENTS = Counter(
    "pulsewatch_ingest_events", "Events by wire and outcome: accepted, duplicate, rejected.", ["source", "outcome"]
)
INGEST_BATCH_EVENTS = Histogram("pulsewatch_ingest_batch_events", "Events in one transaction.", buckets=BATCH_BUCKETS)
INGEST_QUEUE_EVENTS = Gauge("pulsewatch_ingest_queue_events", "Events that wait for a writer.")
INGEST_COMMIT_SECONDS = Histogram(
    "pulsewatch_ingest_commit_seconds", "Seconds of one ingest transaction.", buckets=LATENCY_BUCKETS
)
ROLLUP_LAG_SECONDS = Gauge(
    "pulsewatch_rollup_lag_seconds",
    "Seconds that the oldest change waits to be seen in hours, days and states; NaN while the database does not tell.",
)
ROLLUP_MARKS = Gauge("pulsewatch_rollup_marks", "Marks of changes that wait; NaN while the database does not tell.")
ALERTS_LAG_SECONDS = Gauge(
    "pulsewatch_alerts_lag_seconds",
    "Seconds since the time that alert rules were last evaluated for; NaN before, or while the database does not tell.",
)
NOTIFICATIONS_PENDING = Gauge(
    "pulsewatch_notifications_pending", "Notifications that wait to be sent; NaN while the database does not tell."
)
NOTIFICATIONS_OLDEST_SECONDS = Gauge(
    "pulsewatch_notifications_oldest_pending_seconds",
    "Seconds that the oldest of them has waited; NaN while the database does not tell.",
)
NOTIFICATIONS_DEAD = Gauge(
    "pulsewatch_notifications_dead", "Notifications that were given up; NaN while the database does not tell."
)
NOTIFICATION_ATTEMPTS = Gauge(
    "pulsewatch_notification_attempts_last_hour",
    "Attempts of the last hour by kind of channel and outcome (sent, retry, permanent, lost).",
    ["kind", "outcome"],
)
POOL_CONNECTIONS = Gauge(
    "pulsewatch_db_pool_connections",
    "Connections of this process by pool (api, ingest) and state (in_use, idle).",
    ["pool", "state"],
)
POOL_SIZE = Gauge("pulsewatch_db_pool_size", "Connections that the pool may hold.", ["pool"])
APP_INFO = Info("pulsewatch_app", "What runs here.")
APP_INFO.info({"version": __version__, "python": python_version()})

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Asked by machines every few seconds; worth a line only when something is wrong.
_QUIET_ROUTES = frozenset({"/healthz", "/ready", "/metrics"})


def watch_pool(engine: Engine, name: str) -> None:
    """Show this engine's pool in the numbers, under this name."""
    pool = engine.pool
    if isinstance(pool, QueuePool):
        POOL_SIZE.labels(name).set_function(pool.size)
        POOL_CONNECTIONS.labels(name, "in_use").set_function(pool.checkedout)
        POOL_CONNECTIONS.labels(name, "idle").set_function(pool.checkedin)


def problem_answer(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of a problem, with the id of the request it answers."""
    body = problem.body()
    current = request_id.get()
    if current is not None:
        body["request_id"] = current
    content = msgspec.json.encode(body)
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    headers += [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(content)).encode())]
    return headers, content


class Observed:
    """ASGI middleware around everything: request id, numbers, one log line, and the last resort for errors.

    The id is the caller's X-Request-ID where that is sane, and is sent back. It may be laid around an application
    that has it already: the inner one then does nothing.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or REQUEST_ID_KEY in scope:
            await self.app(scope, receive, send)
            return
        id_ = _request_id(scope)
        scope[REQUEST_ID_KEY] = id_
        token = request_id.set(id_)
        started_s = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id_.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise  # The answer has begun: all that is left is to break the connection.
            await _send_problem(send_with_id, _internal())
        finally:
            _record(scope, status, time.perf_counter() - started_s)
            request_id.reset(token)


def _internal() -> Problem:
    return Problem(500, "internal", "Something failed on our side. The log has more, under this request_id.")


async def _send_problem(send: Send, problem: Problem) -> None:
    headers, body = problem_answer(problem)
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value, "ascii")
    return f"{random.getrandbits(64):016x}"


def route_template(scope: Scope) -> str:
    """The path with names for its parts (`/v1/runs/{id}`); `unmatched` keeps invented paths out of the numbers."""
    named = scope.get(ROUTE_KEY)
    if named is not None:
        return str(named)
    return str(getattr(scope.get("route"), "path_format", "unmatched"))


@cache  # there are few: no invented path or method gets here
def _numbers(method: str, route: str, status: int) -> tuple[Callable[[], None], Callable[[float], None]]:
    """What counts such a request, and what notes how long it took: finding them costs more than using them."""
    return HTTP_REQUESTS.labels(method, route, str(status)).inc, HTTP_SECONDS.labels(method, route).observe


def _record(scope: Scope, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    route = route_template(scope)
    count, observe = _numbers(method, route, status)
    count()
    observe(seconds)
    # Thousands of acknowledged events a second are numbers, not lines.
    is_quiet = status < 400 and (route in _QUIET_ROUTES or ROUTE_KEY in scope)
    level = logging.DEBUG if is_quiet else logging.INFO
    if log.isEnabledFor(level):
        log.log(
            level,
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={"fields": {"route": route, "status": status, "duration_s": round(seconds, 6)}},
        )


_SECRETS = (
    (re.compile(r"pw_[A-Za-z0-9_-]{43}"), "pw_***"),
    (re.compile(r"(://[^:/@\s]*):[^@\s]+@"), r"\1:***@"),
    (re.compile(r"(password=)\S+", re.IGNORECASE), r"\1***"),
)


def redacted(words: str) -> str:
    """The text without API keys and without passwords in addresses."""
    for pattern, shown in _SECRETS:
        words = pattern.sub(shown, words)
    return words


def _redacted_json(value: object) -> object:
    """The same for every text in a value. The finished line would not do: a password may end where its quote begins."""
    if isinstance(value, dict):
        return {redacted(str(name)): _redacted_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted_json(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float)) else redacted(str(value))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, request_id, and what the record adds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        current = request_id.get()
        if current is not None:
            line["request_id"] = current
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(_redacted_json(line))


class TextFormatter(logging.Formatter):
    """The same for people: time, level, message, what the record adds."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        current = request_id.get()
        if current is not None:
            fields["request_id"] = current
        said = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{at} {record.levelname.lower():7} {record.name}: {record.getMessage()}{said}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redacted(line)


def configure_logging(settings: Settings) -> None:
    """Send this process's logs to standard error in the form that the settings ask for."""
    is_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Our own line says more than uvicorn's, and keeps query strings out. Without a handler in sight, uvicorn does not
    # even put one together.
    access = logging.getLogger("uvicorn.access")
    access.disabled, access.propagate = True, False
    # A tick that takes longer than its interval has the next one skipped, which is as it should be, not a warning.
    for name, level in (("apscheduler", logging.ERROR), ("alembic", logging.WARNING)):
        logging.getLogger(name).setLevel(max(level, root.level))
