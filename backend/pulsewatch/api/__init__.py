"""The HTTP API: managing clients, pipelines and keys, reading runs. Events come in by `intake`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import Engine

from pulsewatch import __version__, telemetry
from pulsewatch.api import (
    alert_rule_acts,
    alert_rules,
    alerts,
    annotations,
    backtests,
    channels,
    clients,
    docs,
    errors,
    explanations,
    health,
    keys,
    notifications,
    openapi,
    pipelines,
    rejects,
    runs,
    silences,
    summaries,
)
from pulsewatch.auth import Keyring
from pulsewatch.settings import Settings

DESCRIPTION = """\
Run history for data pipelines and scheduled jobs.

Times are RFC 3339 in UTC, durations are seconds. Lists answer `items` and `next_cursor`. Errors are RFC 9457
problems (`application/problem+json`) with a stable code at the end of `type`.
"""
TAGS = [
    {"name": "events", "description": "What producers send."},
    {"name": "runs", "description": "Executions of pipelines, worked out from their events."},
    {"name": "clients", "description": "Whose work it is."},
    {"name": "pipelines", "description": "What runs again and again."},
    {"name": "summaries", "description": "How many runs, how they ended, how long they took, over time."},
    {"name": "alert rules", "description": "When people are told that something is wrong."},
    {"name": "alerts", "description": "What is wrong, or was, and what people did about it."},
    {"name": "silences", "description": "Times in which people are not told."},
    {"name": "channels", "description": "Where people are told."},
    {"name": "notifications", "description": "What they were told, and how it went."},
    {"name": "annotations", "description": "Deploys and notes beside the runs."},
    {"name": "rejects", "description": "What was refused, and why."},
    {"name": "keys", "description": "Who may do what."},
    {"name": "health", "description": "For machines."},
]
ROUTERS = (
    clients.router,
    pipelines.router,
    runs.router,
    summaries.router,
    annotations.router,
    alert_rules.router,
    alert_rule_acts.router,
    backtests.router,
    alerts.router,
    explanations.router,
    silences.router,
    channels.router,
    notifications.router,
    rejects.router,
    keys.router,
    health.router,
    docs.router,
)


def create_app(settings: Settings, engine: Engine, keyring: Keyring) -> FastAPI:
    """The management and reading part, on an engine of `settings.pool_size` connections."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A thread more than connections would only wait for one, and time out under load.
        to_thread.current_default_thread_limiter().total_tokens = settings.pool_size
        yield

    # Not include_router: it would make each of them anew, which the first request waits for.
    routes = [route for router in ROUTERS for route in router.routes]
    app = FastAPI(
        routes=routes,
        title="PulseWatch",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,  # served by `docs`, whose routes are counted and know their methods
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.settings, app.state.engine, app.state.keyring = settings, engine, keyring
    app.state.known_parameters = {}
    app.state.api_routes = routes
    errors.install(app)
    app.add_middleware(telemetry.Observed)
    telemetry.watch_pool(engine, "api")
    describe(app, {}, {})
    return app


def describe(app: FastAPI, extra_paths: dict[str, Any], extra_schemas: dict[str, Any]) -> None:
    """Add hand-written paths and schemas to the OpenAPI document, in place of those added before."""
    app.openapi_schema = None

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.complete(app, extra_paths, extra_schemas)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way that FastAPI documents
