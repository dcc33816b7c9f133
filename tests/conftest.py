"""One real PostgreSQL for the whole test run, of the major version in PULSEWATCH_TEST_POSTGRES (18 by default).

It is migrated once, as a template. `connection` undoes everything after the test; `database` is a database of the
test's own, cloned from the template, for what has to commit, crash or restart.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from pulsewatch.db import make_engine
from pulsewatch.embedded import EmbeddedPostgres
from pulsewatch.migrate import migrate
from pulsewatch.settings import PREFIX, Settings, get_settings
from tests.running import unmeasured

VERSION = os.environ.get("PULSEWATCH_TEST_POSTGRES", "18")
TEMPLATE = "pulsewatch_template"
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of random name is made in it
MEMORY_BYTES = 4 * 2**30
# Files whose tests share something that takes long to make.
DEAR = frozenset(
    f"tests/{name}.py"
    for name in (
        "analytics/test_plans",
        "intake/test_edge",
        "intake/test_openlineage_clients",
        "metabase/test_apply",
        "metabase/test_command",
        "test_dashboard_queries",
        "test_faults",
        "test_package",
        "test_readers",
    )
)
DATABASE_FIXTURES = frozenset({"server", "dsn", "engine", "connection", "database"})


# How long one example takes says little about the code where several workers share the processor.
hypothesis.settings.register_profile("pulsewatch", deadline=None)
hypothesis.settings.load_profile("pulsewatch")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "database: depends on PostgreSQL and its version (set by itself)")
    config.addinivalue_line("markers", "any_postgresql: needs PostgreSQL, but of no matter which version")
    config.addinivalue_line("markers", "slow(s): takes many seconds, so many if 15 or more; not run by `make test`")
    config.addinivalue_line("markers", "unmeasured: left out of the coverage, which slows it down")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What its fixtures do is left out too."""
    with unmeasured() if item.get_closest_marker("unmeasured") else contextlib.nullcontext():
        return (yield)


class Together(LoadScopeScheduling):  # type: ignore[misc] # xdist ships no types
    """Tests are dealt out one by one, those of a file that has a dear set-up to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in DEAR else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    """In place of xdist's own way, unless another one is asked for."""
    return Together(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needs_database = DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if needs_database and item.get_closest_marker("any_postgresql") is None:
            item.add_marker("database")
    # The long ones first: no worker is left with one of them when the others have nothing more to do.
    items.sort(key=_seconds, reverse=True)


def _seconds(item: pytest.Item) -> int:
    """How long a test takes, roughly."""
    slow = item.get_closest_marker("slow")
    return 0 if slow is None else next(iter(slow.args), 1)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings of the person who runs the tests, and those left by another test, change nothing."""
    for name in list(os.environ):
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}TEST_"):
            monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@contextlib.contextmanager
def logging_as_before() -> Iterator[None]:
    """What a program in the block does to the process's logs is undone after it."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    before = [(logger, logger.level, logger.disabled, logger.propagate) for logger in loggers]
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
    known = {logger.name for logger in loggers}
    new = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name not in known]
    for logger, level, disabled, propagate in [*before, *((logger, logging.NOTSET, False, True) for logger in new)]:
        logger.setLevel(level)
        logger.disabled, logger.propagate = disabled, propagate


@pytest.fixture(autouse=True)
def _logging_as_before_the_test() -> Iterator[None]:
    """The next test may look at its own logs."""
    with logging_as_before():
        yield


@pytest.fixture(autouse=True, scope="module")
def _logging_as_before_the_module() -> Iterator[None]:
    """So may the next module's, whatever was set up for all of this one."""
    with logging_as_before():
        yield


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that the server's user can reach: pytest's own temporary folders are closed to others.

    A database is a thousand files, and hundreds of tests have one of their own: they lie in memory, where that has room
    enough and may hold programs. (In a container it may have 64 MB, and only data.)
    """
    has_room = (
        MEMORY.is_dir()
        and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES
        and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    )
    with tempfile.TemporaryDirectory(
        prefix="pulsewatch-test-", dir=MEMORY if has_room else None, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def data_dir(open_folder: Path) -> Iterator[Path]:
    """A folder for an embedded server of the test's own."""
    folder = Path(tempfile.mkdtemp(dir=open_folder))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def create_database(server: str, name: str, template: str = "template0") -> str:
    """Create a database on the server and return its address."""
    with psycopg.connect(server, dbname="postgres", autocommit=True) as admin:
        create = sql.SQL("create database {} template {} strategy file_copy")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def drop_database(server: str, name: str) -> None:
    with psycopg.connect(server, dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


class ForgetfulPostgres(EmbeddedPostgres):
    """A server whose data need not survive a power cut, and which makes a database of its template fast."""

    def _options(self, port: int) -> dict[str, str]:
        forgetful = dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit", "wal_init_zero"), "off")
        # What is copied from the template is not logged, and the few files of the log are used over and over.
        little_log = {"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "256MB"}
        return super()._options(port) | forgetful | little_log | {"shared_buffers": "256MB"}


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """A server whose data lie in this folder: the address of its first database, which is empty; the template is not.

    Its data need not survive a power cut.
    """
    settings = Settings.model_validate({"data_dir": folder, "embedded_version": VERSION})
    with ForgetfulPostgres(settings) as address:
        migrate(create_database(address, TEMPLATE), settings)
        yield address


@pytest.fixture(scope="session")
def server(open_folder: Path) -> Iterator[str]:
    """The address of the server's first database, which is empty; the template beside it is migrated."""
    with running_server(open_folder / "server") as address:
        yield address


@pytest.fixture(scope="session")
def dsn(server: str) -> str:
    """A migrated database that all tests of this run share; leave nothing behind in it."""
    return create_database(server, "pulsewatch_shared", TEMPLATE)


@pytest.fixture(scope="session")
def engine(dsn: str) -> Iterator[Engine]:
    engine = make_engine(dsn, pool_size=10, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back after the test; `begin_nested()` gives savepoints."""
    with engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        if transaction.is_active:
            transaction.rollback()


_numbers = iter(range(1_000_000))


@pytest.fixture
def database(server: str) -> Iterator[str]:
    """The address of a migrated, empty database of the test's own, where everything really commits."""
    name = f"pulsewatch_{next(_numbers)}"
    yield create_database(server, name, TEMPLATE)
    drop_database(server, name)


@pytest.fixture
def empty_database(server: str) -> Iterator[str]:
    """The address of a database of the test's own that was never migrated."""
    name = f"pulsewatch_{next(_numbers)}"
    yield create_database(server, name)
    drop_database(server, name)


@pytest.fixture
def settings(database: str) -> Settings:
    """Settings that name the test's own database."""
    return Settings.model_validate({"database_url": database})
