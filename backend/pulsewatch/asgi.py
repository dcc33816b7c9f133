"""One ASGI application of two edges: ingestion in front, the API behind.

For `uvicorn --factory pulsewatch.asgi:build`.
"""

from pulsewatch import api, telemetry
from pulsewatch.auth import Keyring
from pulsewatch.batching import Batcher
from pulsewatch.db import LoopConnection, make_engine
from pulsewatch.intake import WIRES
from pulsewatch.intake.edge import Edge
from pulsewatch.settings import Settings, get_settings

# Nothing that the API does takes longer on a healthy database.
STATEMENT_TIMEOUT_S = 30
INGEST = "pulsewatch ingest"  # as PostgreSQL shows who is connected


def build(settings: Settings | None = None) -> telemetry.App:
    """The whole application, on the database that the settings name.

    Raises RuntimeError where they name none: the command line starts the embedded one and passes its address on.
    """
    settings = settings or get_settings()
    if settings.database_url is None:
        msg = "PULSEWATCH_DATABASE_URL is not set; `pulsewatch up` and `pulsewatch api` find the embedded PostgreSQL."
        raise RuntimeError(msg)
    telemetry.configure_logging(settings)
    dsn = settings.database_url.get_secret_value()
    engine = make_engine(
        dsn,
        pool_size=settings.pool_size,
        application_name="pulsewatch api",
        statement_timeout_s=STATEMENT_TIMEOUT_S,
    )
    writing = make_engine(
        dsn,
        pool_size=settings.ingest_writers,
        application_name=INGEST,
        statement_timeout_s=STATEMENT_TIMEOUT_S,
        is_probing=False,  # the batcher tries again
    )
    telemetry.watch_pool(writing, "ingest")
    keyring = Keyring(engine)
    batcher = Batcher(
        writing,
        LoopConnection(dsn, application_name=INGEST, statement_timeout_s=STATEMENT_TIMEOUT_S),
        writers=settings.ingest_writers,
        queue_items=settings.ingest_queue_events,
        max_pipelines=settings.max_pipelines,
    )
    app = api.create_app(settings, engine, keyring)
    api.describe(app, {path: item for wire in WIRES for path, item in wire.openapi_paths().items()}, {})

    async def closing(scope: telemetry.Scope, receive: telemetry.Receive, send: telemetry.Send) -> None:
        await app(scope, receive, send)
        if scope["type"] == "lifespan":
            writing.dispose()
            engine.dispose()

    return telemetry.Observed(Edge(closing, WIRES, batcher, keyring, settings))
