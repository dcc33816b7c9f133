"""A database that was migrated, a role that reads it, and a Metabase before both."""

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from pulsewatch.db import make_engine
from pulsewatch.metabase import provision, render
from pulsewatch.metabase.provision import load_specs
from pulsewatch.metabase.rest import Clock
from pulsewatch.metabase.server import Access
from pulsewatch.metabase.specs import Specs
from pulsewatch.migrate import readers
from pulsewatch.settings import Settings
from tests.metabase.contents import State
from tests.metabase.fake import EMAIL, PASSWORD, READER_PASSWORD, Fake
from tests.metabase.wire import NEWEST, OLDEST, Persona

Do = Callable[..., list[str]]


class FastClock(Clock):
    """Time passes at once when somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(scope="session")
def reader_dsn(dsn: str) -> str:
    """The address of the shared database for the role that Metabase reads with."""
    settings = Settings.model_validate({"database_url": dsn})
    engine = make_engine(dsn, pool_size=1, application_name="tests")
    with engine.begin() as connection:
        readers(connection, dsn, settings).set_password("pulsewatch_metabase", READER_PASSWORD)
    engine.dispose()
    reader = make_url(dsn).set(username="pulsewatch_metabase", password=READER_PASSWORD)
    return reader.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def specs() -> Specs:
    return load_specs()


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


@pytest.fixture(params=[pytest.param(OLDEST, marks=pytest.mark.unmeasured), NEWEST], ids=lambda persona: persona.tag)
def fake(request: pytest.FixtureRequest, dsn: str, reader_dsn: str) -> Iterator[Fake]:
    """A Metabase that was just installed, of the oldest and of the newest version."""
    with Fake(dsn, reader_dsn, request.param) as fake:
        yield fake
    assert fake.faults == []


@pytest.fixture
def new_fake(dsn: str, reader_dsn: str) -> Iterator[Fake]:
    """A Metabase that was just installed, of the newest version."""
    with Fake(dsn, reader_dsn, NEWEST) as fake:
        yield fake
    assert fake.faults == []


@pytest.fixture(scope="session")
def kept_after_apply(dsn: str, reader_dsn: str, specs: Specs) -> Callable[[Persona], State]:
    """What a Metabase keeps that apply has filled once; each test gets it for itself."""

    @functools.cache
    def fill(persona: Persona) -> State:
        with Fake(dsn, reader_dsn, persona) as fake:
            provision.apply(access_to(fake), specs, ignore, clock=FastClock())
            assert fake.faults == []
            return fake.state

    return lambda persona: copy.deepcopy(fill(persona))


@pytest.fixture
def filled(fake: Fake, kept_after_apply: Callable[[Persona], State]) -> Fake:
    """A Metabase that apply has filled, of the oldest and of the newest version."""
    fake.state = kept_after_apply(fake.persona)
    return fake


@pytest.fixture
def new_filled(new_fake: Fake, kept_after_apply: Callable[[Persona], State]) -> Fake:
    """A Metabase that apply has filled, of the newest version."""
    new_fake.state = kept_after_apply(new_fake.persona)
    return new_fake


def access_to(fake: Fake, **changed: object) -> Access:
    values = {"url": fake.url, "email": EMAIL, "password": PASSWORD, "reader_password": READER_PASSWORD}
    return Access(**{**values, **changed})  # type: ignore[arg-type] # the tests' own values


def ignore(_: str) -> None:
    """What it tells on the way."""


@pytest.fixture
def apply(specs: Specs, clock: Clock) -> Do:
    def do(fake: Fake, say: Callable[[str], None] = ignore, *, is_forced: bool = False, **changed: object) -> list[str]:
        changed_specs = changed.pop("specs", specs)
        assert isinstance(changed_specs, Specs)
        return provision.apply(access_to(fake, **changed), changed_specs, say, is_forced=is_forced, clock=clock)

    return do


@pytest.fixture
def plan(specs: Specs, clock: Clock) -> Do:
    def do(fake: Fake, **changed: object) -> list[str]:
        changed_specs = changed.pop("specs", specs)
        assert isinstance(changed_specs, Specs)
        return provision.plan(access_to(fake, **changed), changed_specs, ignore, clock=clock)

    return do


def ours(fake: Fake) -> dict[str, dict[str, Any]]:
    """What carries a marker, by key. Fails if two things carry the same."""
    found: dict[str, dict[str, Any]] = {}
    for kept in (fake.state.collections, fake.state.cards, fake.state.dashboards):
        for thing in kept.values():
            marker = render.marker_of(thing)
            if marker is not None:
                assert marker[0] not in found, marker
                found[marker[0]] = thing
    return found


GOLDEN = Path(__file__).with_name("golden")
