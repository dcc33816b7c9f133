"""How Alembic reaches the database: over the connection of `pulsewatch migrate`, else by the settings."""

import re
from collections.abc import MutableMapping
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from pulsewatch import models
from pulsewatch.db import SCHEMA, make_engine
from pulsewatch.embedded import database_url
from pulsewatch.settings import get_settings

# What `ensure_partition` calls a month of a partitioned table.
PARTITION = re.compile(r"_\d{4}_\d{2}$")


def include_name(
    name: str | None,
    kind: str,
    _parents: MutableMapping[Any, str | None],
) -> bool:
    """Leave out what is made at run time (partitions) and what is not ours (other schemas)."""
    if kind == "schema":
        return name == SCHEMA
    return kind != "table" or name is None or PARTITION.search(name) is None


def run(connection: Connection) -> None:
    """Run the revisions in the transaction of this connection. Alembic's own table lies in our schema."""
    connection.execute(text(f"create schema if not exists {SCHEMA}"))
    # A role named like the schema would have it on its search path, and Alembic would take it for the default one.
    connection.execute(text("set local search_path = public"))
    context.configure(
        connection=connection,
        target_metadata=models.client.metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=include_name,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_by_settings() -> None:
    """The same from Alembic's own command line."""
    settings = get_settings()
    owner = settings.owner_database_url
    with database_url(settings) as dsn:
        engine = make_engine(owner.get_secret_value() if owner else dsn, pool_size=1, application_name="alembic")
        with engine.begin() as connection:
            run(connection)
        engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    run_by_settings()
