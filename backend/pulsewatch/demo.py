"""`pulsewatch demo`: everything running, with two months of made-up history and live events.

What a start must know of the earlier ones is in demo.json in the data folder: the moment of the first start, from
which all is made up, how far it has been told, the keys, and where alerts are received. It has the rights of a secret.
"""

import base64
import contextlib
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.engine import make_url

from pulsewatch import auth, models
from pulsewatch.db import ERASING, SCHEMA, make_engine, metadata
from pulsewatch.demo_alerts import make_alerts, move_channels
from pulsewatch.demo_feeder import Feeder
from pulsewatch.demo_fleet import await_numbers, summary, table
from pulsewatch.demo_history import HISTORY_DAYS, History
from pulsewatch.demo_load import WRITERS, Loader
from pulsewatch.demo_receiver import Receiver
from pulsewatch.embedded import programs
from pulsewatch.events import canonical_time, run_id
from pulsewatch.secretbox import ensure_key_file, open_box
from pulsewatch.settings import Settings, export
from pulsewatch.supervisor import Signals, Stack, UpError, running

SEED = 20
FILE = "demo.json"
READ_OFTEN = ("run", "run_event", "slot", "pipeline_hour", "failing_span", "pipeline", "client")
LOOPBACK = "127.0.0.1/32"
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())


def new_signing_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


class Memory(msgspec.Struct, kw_only=True):
    """What demo.json holds. `told_until` is None while the history is not complete."""

    anchor: datetime
    keys: dict[auth.Role, str]
    told_until: datetime | None = None
    # Where the receiver of alerts listens; None while there are no alert rules yet.
    hook: str | None = None
    signing_secret: str = msgspec.field(default_factory=new_signing_secret)

    @staticmethod
    def path(settings: Settings) -> Path:
        return settings.data_dir.expanduser().absolute() / FILE

    @classmethod
    def read(cls, path: Path) -> "Memory | None":
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        """Whole or not at all, and for nobody else to read."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        part.write_bytes(msgspec.json.encode(self))
        part.rename(path)


def run(settings: Settings, *, fresh: bool) -> None:
    """Run the demo until Ctrl-C or SIGTERM. Raises UpError where the database holds data that is not the demo's."""
    settings = _open_to_alerts(settings)
    signals = Signals()
    path = Memory.path(settings)
    with running(settings) as stack, _engine(stack.dsn) as engine:
        memory = recall(engine, path, fresh=fresh)
        stack.wait_until_ready(signals.is_over)
        days = max(1, min(HISTORY_DAYS, settings.keep_events_days - 1))
        history = History.of(SEED, memory.anchor, days)
        loader = Loader(engine, history, max_pipelines=settings.max_pipelines)
        is_whole = True
        if memory.told_until is None and not signals.is_over() and loader.run(stack.turn, signals.is_over):
            _settle(engine)
            memory.told_until = memory.anchor
            memory.write(path)
            is_whole = await_numbers(engine, stack.turn, signals.is_over)
        if memory.told_until is None or signals.is_over():
            return

        def remember(told_until: datetime) -> None:
            memory.told_until = told_until
            memory.write(path)

        # What is past its keep time by now cannot be told any more.
        told_until = max(memory.told_until, datetime.now(UTC) - timedelta(days=days))
        with _receiver(memory) as receiver:
            _tell(engine, settings, memory, receiver, history.begins_at, stack.turn)
            memory.write(path)
            with Feeder(history, stack.url, memory.keys[auth.Role.INGEST], told_until, remember):
                with contextlib.suppress(OSError):  # the api has just died, and is being brought back
                    seen = summary(stack.url, memory.keys[auth.Role.READ], datetime.now(UTC))
                    Console().print(table(seen, is_whole=is_whole))
                click.echo("\n".join(guide(stack, settings, memory.keys, receiver.url, datetime.now(UTC))))
                while not signals.is_over():
                    stack.turn()


def _open_to_alerts(settings: Settings) -> Settings:
    """Settings with which alerts can be told on this machine; the processes that are started have them too."""
    allowed = {"outbound_allow": f"{settings.outbound_allow},{LOOPBACK}".strip(",")}
    if settings.database_url is None or settings.secret_key is not None:
        return export(allowed)
    return export(allowed | {"secret_key_file": ensure_key_file(settings.data_dir)})


def _receiver(memory: Memory) -> Receiver:
    """The receiver, where it was the last time if that is free."""
    port = 0 if memory.hook is None else make_url(memory.hook).port or 0
    return Receiver(memory.signing_secret, port, click.echo)


def _tell(
    engine: Engine,
    settings: Settings,
    memory: Memory,
    receiver: Receiver,
    begins_at: datetime,
    between: Callable[[], None],
) -> None:
    """See that there are alert rules, and that their channels lead to the receiver."""
    if memory.hook is None:
        _settle(engine)
        with Progress(*COLUMNS) as progress, engine.begin() as connection:
            task = progress.add_task("Trying the alert rules on it", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)
                between()

            as_of = memory.told_until or memory.anchor
            box = open_box(settings)
            make_alerts(connection, box, receiver.hook, memory.signing_secret, begins_at, as_of, show)
    elif memory.hook != receiver.hook:
        with engine.begin() as connection:
            move_channels(connection, memory.hook, receiver.hook)
    memory.hook = receiver.hook


@contextlib.contextmanager
def _engine(dsn: str) -> Iterator[Engine]:
    engine = make_engine(dsn, pool_size=WRITERS, application_name="pulsewatch demo")
    try:
        yield engine
    finally:
        engine.dispose()


def recall(engine: Engine, path: Path, *, fresh: bool) -> Memory:
    """What is known of the earlier starts; a new memory, with new keys, where the database is empty.

    `fresh` empties it. A database that holds anything but a demo's data is never touched: that it is ours is shown by
    the demo's own admin key, which it has to know. Raises UpError.
    """
    memory = Memory.read(path)
    with engine.begin() as connection:
        if memory is not None and _knows(connection, memory.keys[auth.Role.ADMIN]):
            if not fresh:
                return memory
            _empty(connection)
        elif connection.execute(select(models.client.c.id).limit(1)).first() is not None:
            msg = "the database holds data that is not the demo's; choose another --data-dir for the demo"
            raise UpError(msg)
        keys = {role: auth.create_key(connection, role, None, name=f"demo {role}")[1] for role in auth.Role}
        memory = Memory(anchor=datetime.now(UTC), keys=keys)
    memory.write(path)
    return memory


def _knows(connection: Connection, key: str) -> bool:
    known = select(models.api_key.c.id).where(models.api_key.c.secret_digest == auth.secret_digest(key))
    return connection.execute(known).first() is not None


def _empty(connection: Connection) -> None:
    """Leave nothing in the tables; the tables stay, and migrate's list of the views that it made."""
    connection.execute(text(ERASING))
    tables = ", ".join(f"{SCHEMA}.{table.name}" for table in metadata.sorted_tables if table.name != "analytics_object")
    connection.execute(text(f"truncate {tables} restart identity"))


def _settle(engine: Engine) -> None:
    """Let the planner know what it has, rather than a minute later."""
    with engine.begin() as connection:
        connection.execute(text(f"analyze {', '.join(f'{SCHEMA}.{name}' for name in READ_OFTEN)}"))


def guide(stack: Stack, settings: Settings, keys: dict[auth.Role, str], receiver_url: str, now: datetime) -> list[str]:
    """What a person is told once everything runs."""
    width = max(map(len, keys))
    return [
        f"ready {stack.url}",
        "",
        f"  API docs    {stack.url}/docs",
        f"  runs        {stack.url}/v1/runs  (with a key)",
        f"  alerts      {receiver_url}  (what the demo's channels are told)",
        f"  PostgreSQL  {psql(stack.dsn, settings)}",
        "              select * from analytics.runs limit 5;",
        "",
        "Keys, one of each role:",
        *(f"  {role:{width}}  {key}" for role, key in keys.items()),
        "",
        "Send an event, read its run, list what has failed, list the alerts that nobody has taken on:",
        *curl_lines(stack.url, keys, now),
        "",
        "Live events keep coming in; within minutes an alert fires, and ends. What channels are told is shown below.",
        "Ctrl-C stops everything; the next start goes on from here.",
    ]


def psql(dsn: str, settings: Settings) -> str:
    """The command that opens the database, by the psql that is installed, else by the embedded server's."""
    if settings.database_url is not None:
        return 'psql "$PULSEWATCH_DATABASE_URL"'
    program = "psql" if shutil.which("psql") else str(programs(settings.embedded_version) / "psql")
    password = shlex.quote(str(settings.data_dir.expanduser().absolute() / "postgres.password"))
    url = make_url(dsn)
    options = f"-h {url.host} -p {url.port} -U {url.username} {url.database}"
    return f'PGPASSWORD="$(cat {password})" {program} {options}'


def curl_lines(url: str, keys: dict[auth.Role, str], now: datetime) -> Sequence[str]:
    """Commands that work when pasted: send an event, read its run, list failed runs, list firing alerts."""
    client, pipeline, run = "acme-retail", "hello-world", f"first-{now:%H%M%S}"
    event = {
        "type": "run",
        "client": client,
        "pipeline": pipeline,
        "run": run,
        "status": "succeeded",
        "occurred_at": canonical_time(now.replace(microsecond=0)),
        "duration_s": 4.2,
        "metrics": {"rows": 128},
    }
    reader = ("-H", f"Authorization: Bearer {keys[auth.Role.READ]}")
    sender = ("-H", f"Authorization: Bearer {keys[auth.Role.INGEST]}", "-H", "Content-Type: application/json")
    return [
        shlex.join(("curl", "-sS", f"{url}/v1/events", *sender, "-d", msgspec.json.encode(event).decode())),
        shlex.join(("curl", "-sS", f"{url}/v1/runs/{run_id(client, '', pipeline, run)}", *reader)),
        shlex.join(("curl", "-sS", f"{url}/v1/runs?status=failed&limit=5", *reader)),
        shlex.join(("curl", "-sS", f"{url}/v1/alerts?state=firing&limit=5", *reader)),
    ]
