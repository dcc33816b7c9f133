"""One client with one pipeline, in a transaction that is rolled back after the test."""

from dataclasses import dataclass

import pytest
from sqlalchemy import Connection

from tests.analytics import rows


@dataclass(frozen=True, slots=True)
class Acme:
    """The client acme with its pipeline nightly."""

    connection: Connection
    client_id: int
    pipeline_id: int

    @property
    def ids(self) -> tuple[int, int]:
        return self.client_id, self.pipeline_id

    @property
    def keys(self) -> dict[str, int]:
        return {"client_id": self.client_id, "pipeline_id": self.pipeline_id}


@pytest.fixture
def acme(connection: Connection) -> Acme:
    rows.months(connection)
    client_id = rows.client(connection, title="Acme & Co")
    pipeline_id = rows.pipeline(
        connection, client_id, title="Nightly load", environment="prod", owner="data@acme.test", tags=["daily", "etl"]
    )
    return Acme(connection, client_id, pipeline_id)
