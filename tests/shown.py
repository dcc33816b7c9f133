"""A database that has something to show: two weeks of the demo, with its slots and rollups."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine

from pulsewatch import rollups, slots
from pulsewatch.db import make_engine
from pulsewatch.demo import SEED
from pulsewatch.demo_history import History
from pulsewatch.demo_load import Loader
from pulsewatch.settings import Settings
from tests.conftest import TEMPLATE, create_database, drop_database

DAYS = 14
NOW = datetime.now(UTC)


@contextlib.contextmanager
def shown_database(server: str, name: str) -> Iterator[str]:
    """Its address. Loaded through ingestion, and everything derived from it computed."""
    settings = Settings()
    dsn = create_database(server, name, TEMPLATE)
    engine = make_engine(dsn, pool_size=4, application_name="tests")
    try:
        loader = Loader(engine, History.of(SEED, NOW, DAYS), max_pipelines=settings.max_pipelines)
        assert loader.run(lambda: None, lambda: False)
        settle(engine, settings)
        yield dsn
    finally:
        engine.dispose()
        drop_database(server, name)


def settle(engine: Engine, settings: Settings) -> None:
    """Do what the worker does, until there is nothing left to do."""
    while True:
        round_ = slots.tick(engine, settings, NOW)
        marks = rollups.refresh(engine, settings, NOW)
        if round_ == slots.Round() and not marks:
            break
    with engine.begin() as connection:
        connection.exec_driver_sql("analyze")
