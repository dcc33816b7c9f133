"""The API in front of a database in which rules were evaluated at times of the test's own choosing."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from pulsewatch.api import create_app
from pulsewatch.auth import Keyring
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from tests.alert_stage import Stage, at
from tests.api.conftest import Api, World


class Scene(Stage):
    """A stage with the API in front of it."""

    def __init__(self, world: World, settings: Settings) -> None:
        super().__init__(world.engine, settings)
        self.world = world
        self.admin = world.caller("admin")

    def run(
        self,
        minutes: float,
        name: str,
        status: Status,
        *,
        late: float = 0,
        client: str = "acme",
        pipeline: str = "load",
        **said: Any,
    ) -> None:
        """Receive a run that ended at that time; so many minutes later, where it is late."""
        event = RunEvent(client=client, pipeline=pipeline, run=name, status=status, occurred_at=at(minutes), **said)
        self.receive(minutes + late, event)

    def caller(self, role: str, client: str | None = None) -> Api:
        return self.world.caller(role, client)


@pytest.fixture
def scene(database: str, settings: Settings) -> Iterator[Scene]:
    engine = make_engine(database, pool_size=5, application_name="api under test")
    app = create_app(settings, engine, Keyring(engine))
    with TestClient(app, raise_server_exceptions=True) as client:
        yield Scene(World(engine, app, client), settings)
    engine.dispose()


def iso(minutes: float) -> str:
    """The time of so many minutes, as answers show it."""
    return at(minutes).isoformat().replace("+00:00", "Z")
