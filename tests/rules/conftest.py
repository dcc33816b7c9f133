"""A world for each test of a kind."""

import pytest
from sqlalchemy import Connection

from tests.rules.observing import World


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)
