"""What machines ask: is the process alive, can it serve, what do its numbers say."""

from math import nan
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from pulsewatch import delivery, rollups
from pulsewatch.api import schemas
from pulsewatch.api.answers import answer
from pulsewatch.api.deps import Database, check_query
from pulsewatch.api.openapi import OPEN, problems
from pulsewatch.migrate import is_migrated
from pulsewatch.telemetry import (
    ALERTS_LAG_SECONDS,
    NOTIFICATION_ATTEMPTS,
    NOTIFICATIONS_DEAD,
    NOTIFICATIONS_OLDEST_SECONDS,
    NOTIFICATIONS_PENDING,
    ROLLUP_LAG_SECONDS,
    ROLLUP_MARKS,
)


async def _checked(request: Request) -> None:
    check_query(request)


router = APIRouter(tags=["health"], dependencies=[Depends(_checked)])

# The worker gives a sign of life every few seconds.
HEARTBEAT_MAX_AGE_S = 60

_HEARTBEAT = text("select extract(epoch from now() - max(beat_at))::float8 from pulsewatch.worker_heartbeat")


# A scrape waits for ten seconds by default; the other numbers matter most when the database is slow.
_LAG_TIMEOUT = text("set local statement_timeout = '2s'")
_ALERTS_LAG = text("select extract(epoch from now() - max(as_of))::float8 from pulsewatch.alert_tick")


# HEAD is what some load balancers ask with; the document leaves it to GET.
@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz", response_model=schemas.Health, responses=problems(422), openapi_extra=OPEN, summary="Is it alive?"
)
async def health() -> Response:
    """200 as long as the process answers; it asks nobody else."""
    return answer({"status": "ok"})


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    response_model=schemas.Readiness,
    responses=problems(422)
    | {
        503: {
            "model": schemas.Readiness,
            "description": "Something is missing; the parts say what.",
            "headers": {"Retry-After": {"schema": {"type": "integer"}}},
        }
    },
    openapi_extra=OPEN,
    summary="Can it serve?",
)
def ready(engine: Database) -> Response:
    """200 if the database answers, its tables are those of this version, and a worker is alive; else 503."""
    parts = _parts(engine)
    is_ready = all(part["ok"] for part in parts.values())
    payload = {"status": "ready" if is_ready else "not_ready", **parts}
    return answer(payload, 200 if is_ready else 503, {} if is_ready else {"Retry-After": "5"})


def _parts(engine: Engine) -> dict[str, dict[str, Any]]:
    """The parts and their state. Details are our own words: errors of the database name hosts and users."""
    unknown = {"ok": False, "detail": "unknown: the database does not answer"}
    parts = {"database": {"ok": False, "detail": "does not answer"}, "migrations": unknown, "worker": unknown}
    try:
        migrated = is_migrated(engine)
        parts["database"] = {"ok": True, "detail": "answers"}
        parts["migrations"] = {
            "ok": migrated,
            "detail": "up to date" if migrated else "not those of this version; run 'pulsewatch migrate'",
        }
        parts["worker"] = _worker(engine) if migrated else {"ok": False, "detail": "unknown: no tables to look into"}
    except SQLAlchemyError:
        pass
    return parts


def _worker(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        age_s = connection.execute(_HEARTBEAT).scalar_one()
    if age_s is None:
        return {"ok": False, "detail": "no worker has ever run; start 'pulsewatch worker'"}
    return {"ok": age_s < HEARTBEAT_MAX_AGE_S, "detail": f"last sign of life {max(age_s, 0):.0f} s ago"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(422),
    },
    openapi_extra=OPEN,
    summary="Numbers for Prometheus",
)
def metrics(engine: Database) -> Response:
    """Requests, ingestion and connections of this process, how far the rollups are behind, and how delivery is doing.

    No number carries a client's name.
    """
    marks, lag_s = _rollup_lag(engine)
    ROLLUP_MARKS.set(marks)
    ROLLUP_LAG_SECONDS.set(lag_s)
    ALERTS_LAG_SECONDS.set(_alerts_lag_s(engine))
    standing = _delivery_standing(engine)
    NOTIFICATIONS_PENDING.set(standing.pending)
    NOTIFICATIONS_OLDEST_SECONDS.set(standing.oldest_pending_s)
    NOTIFICATIONS_DEAD.set(standing.dead)
    NOTIFICATION_ATTEMPTS.clear()
    for (kind, outcome), count in standing.attempts.items():
        NOTIFICATION_ATTEMPTS.labels(kind, outcome).set(count)
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _rollup_lag(engine: Engine) -> tuple[float, float]:
    """Marks that wait and the age of the oldest in seconds; the other numbers are told without a database too."""
    try:
        with engine.begin() as connection:
            connection.execute(_LAG_TIMEOUT)
            return rollups.lag(connection)
    except SQLAlchemyError:
        return nan, nan


def _alerts_lag_s(engine: Engine) -> float:
    """Likewise how long ago the time is that rules were last evaluated for."""
    try:
        with engine.begin() as connection:
            connection.execute(_LAG_TIMEOUT)
            lag_s: float | None = connection.execute(_ALERTS_LAG).scalar_one()
    except SQLAlchemyError:
        return nan
    return nan if lag_s is None else lag_s


def _delivery_standing(engine: Engine) -> delivery.Standing:
    """Likewise for notifications."""
    try:
        with engine.begin() as connection:
            connection.execute(_LAG_TIMEOUT)
            return delivery.standing(connection)
    except SQLAlchemyError:
        return delivery.Standing(nan, nan, nan, {})
