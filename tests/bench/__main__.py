"""The command line of the bench: makes a server and a history, measures, prints Markdown."""

import argparse
import contextlib
import multiprocessing
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pulsewatch import rollups
from pulsewatch.auth import Role
from pulsewatch.db import make_engine
from pulsewatch.embedded import EmbeddedPostgres, programs
from pulsewatch.migrate import migrate
from pulsewatch.settings import Settings
from tests.bench import alerts, deliveries, machine, panels, report
from tests.bench.history import SPAN, Catalog, make_catalog, make_history, make_slots
from tests.bench.measures import Bench, Place, Sizes
from tests.bench.stream import Stream
from tests.conftest import create_database
from tests.running import Command
from tests.serving import make_key, serve

PARTS = ("batches", "storage", "singles", "reads", "panels", "alerts")
USUAL = Sizes(
    rounds=5,
    batches=60,
    batch_connections=4,
    singles=12_000,
    single_connections=64,
    ping_seconds=3,
    read_users=1000,
    reads_per_s=200,
    reads=3000,
    alert_rounds=15,
    alert_warm_up=20,
    alert_settling=3,
    delivery_rounds=3,
    messages=1000,
)
QUICK = Sizes(
    rounds=1,
    batches=3,
    batch_connections=4,
    singles=100,
    single_connections=8,
    ping_seconds=1,
    read_users=20,
    reads_per_s=100,
    reads=30,
    alert_rounds=1,
    alert_warm_up=1,
    alert_settling=0,
    delivery_rounds=1,
    messages=50,
)
# New events lie behind the history and before now, however long the bench takes.
HISTORY_ENDS_BEFORE_NOW = timedelta(hours=3)
SETUP_STEPS = 2


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    sizes = QUICK if options.quick else USUAL
    until = datetime.now(UTC) - HISTORY_ENDS_BEFORE_NOW
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(_progress(options, sizes))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulsewatch-bench-", dir=options.dir)))
        folder.chmod(0o711)
        settings = Settings.model_validate({"data_dir": folder / "data"})
        embedded = EmbeddedPostgres(settings)
        advance("PostgreSQL starts")
        server = stack.enter_context(embedded)
        advance(f"history of {options.events} events in {options.runs} runs")
        full, catalog = _make_database(server, "full", settings, options.runs, options.events, until)
        empty, _ = _make_database(server, "empty", settings, 0, 0, until)
        lines = [f"- {name}: {text}" for name, text in machine.describe(full)]
        lines.append(f"- Command: `python -m tests.bench {' '.join(sys.argv[1:] if arguments is None else arguments)}`")
        _print("\n".join(lines))
        if {"panels", "alerts"} & set(options.only):
            _roll_up(full, settings, until, advance)
        if "panels" in options.only:
            # First of all, because it restarts the server.
            # A proof that it runs leaves the files that others have read where they are.
            forgets = panels.can_empty_caches() and not options.quick
            timings = panels.measure(embedded, full, _queries(options, until), advance, forgets_files=forgets)
            _print(report.panels(timings, are_cold=forgets))
        if "alerts" in options.only:
            _print(report.alerts(alerts.measure(full, until, sizes, advance)))
            _print(report.deliveries(deliveries.measure(empty, sizes, advance)))
        postmaster = embedded.pid()
        if postmaster is None:
            raise RuntimeError("PostgreSQL does not run")
        loader = stack.enter_context(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        bench = Bench(
            full=stack.enter_context(_serving(full)),
            empty=stack.enter_context(_serving(empty, is_rolled_up=False)),
            postmaster=postmaster,
            programs=programs(settings.embedded_version),
            folder=folder,
            loader=loader,
            stream=Stream(until, seed=1),
            pipeline_ids=catalog.pipeline_ids,
            sizes=sizes,
            advance=advance,
        )
        _measure(bench, options)


def _measure(bench: Bench, options: argparse.Namespace) -> None:
    """Measure what was asked for, printing each table as soon as it is there."""
    sizes = bench.sizes
    before = machine.storage(bench.full.dsn)
    if "batches" in options.only:
        sides = bench.batches()
        _print(report.batches(sides, runs=options.runs, events=options.events, connections=sizes.batch_connections))
    if "storage" in options.only:
        wal = bench.wal_per_event()
    if "singles" in options.only:
        _print(report.singles(*bench.singles(), sizes.single_connections))
    if "reads" in options.only:
        _print(report.reads(bench.reads(), sizes.read_users))
    if "storage" in options.only:
        after = machine.storage(bench.full.dsn)
        updates = after.run_updates - before.run_updates
        heap_only = (after.run_heap_only_updates - before.run_heap_only_updates) / updates if updates else 0.0
        pid = bench.full.server.process.pid
        memory = machine.memory_mb(pid, "VmRSS"), machine.memory_mb(pid, "VmHWM")
        _print(report.storage(wal, heap_only, _sizes(bench.full.dsn), memory))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=500_000, help="runs of history (default: %(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events of history, at most two per run")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this; may be repeated")
    parser.add_argument(
        "--queries", type=_pattern, default="", metavar="PATTERN", help="of panels, only queries whose name matches"
    )
    parser.add_argument("--quick", action="store_true", help="a proof that it runs, not a measurement")
    parser.add_argument("--dir", type=Path, help="where the database is made, and removed (20 million runs: 30 GB)")
    options = parser.parse_args(arguments)
    options.only = options.only or list(PARTS)
    options.events = min(options.events, 2 * options.runs)
    if not _queries(options, datetime.now(UTC)):
        parser.error(f"no query has a name that matches {options.queries.pattern}")
    return options


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text} is no regular expression: {error}") from error


def _queries(options: argparse.Namespace, until: datetime) -> dict[str, str]:
    """The queries of panels that were asked for, by name."""
    return {name: query for name, query in panels.statements(until).items() if options.queries.search(name)}


@contextlib.contextmanager
def _progress(options: argparse.Namespace, sizes: Sizes) -> Iterator[Callable[[str], None]]:
    """A bar on standard error; each call of what it gives begins the next step."""
    steps = {
        "batches": 3 * sizes.rounds,
        "storage": 2,
        "singles": 2 * sizes.rounds,
        "reads": 6,
        "panels": 2 + len(_queries(options, datetime.now(UTC))),
        "alerts": 6 + sizes.delivery_rounds,
    }
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=SETUP_STEPS + sum(steps[part] for part in options.only), completed=-1)
        yield lambda text: progress.update(task, advance=1, description=text)


def _make_database(
    server: str, name: str, settings: Settings, runs: int, events: int, until: datetime
) -> tuple[str, Catalog]:
    """A migrated database with clients, pipelines and history; its address."""
    dsn = create_database(server, name)
    migrate(dsn, settings)
    catalog = make_catalog(dsn)
    make_history(dsn, catalog, runs=runs, events=events, until=until)
    return dsn, catalog


def _roll_up(dsn: str, settings: Settings, until: datetime, advance: Callable[[str], None]) -> None:
    """Give the history slots, and compute all that is derived from it."""
    advance("slots")
    make_slots(dsn)
    advance("rollups")
    engine = make_engine(dsn, pool_size=2, application_name="bench")
    rollups.rebuild(engine, settings, until - SPAN, until + timedelta(hours=1), lambda _done, _total: None)
    engine.dispose()
    with psycopg.connect(dsn, autocommit=True) as connection:
        # The work was done client by client; what comes in day by day lies in order of time.
        for table in ("failing_span", "slot"):
            connection.execute(f"reindex table pulsewatch.{table}".encode())
        connection.execute("vacuum (analyze)")


@contextlib.contextmanager
def _serving(dsn: str, *, is_rolled_up: bool = True) -> Iterator[Place]:
    """The api on this database, with a worker: what comes in is rolled up meanwhile, as in use.

    The tables of the empty database are truncated between rounds, which a worker would be in the way of.
    """
    _, headers = make_key(dsn, Role.ADMIN)
    with serve(dsn) as server, contextlib.ExitStack() as stack:
        if is_rolled_up:
            worker = Command("worker", PULSEWATCH_DATABASE_URL=dsn, PULSEWATCH_LOG_LEVEL="error")
            stack.callback(worker.stop)
        yield Place(dsn, server, headers["Authorization"].removeprefix("Bearer "))


def _sizes(dsn: str) -> str:
    query = """
        select coalesce(parent.relname, child.relname), pg_size_pretty(sum(pg_total_relation_size(child.oid)))
        from pg_class as child
        left join pg_inherits on child.oid = pg_inherits.inhrelid
        left join pg_class as parent on pg_inherits.inhparent = parent.oid
        where child.relkind = 'r' and coalesce(parent.relname, child.relname) in ('run', 'run_event', 'dirty')
        group by 1 order by 1
    """
    with psycopg.connect(dsn) as connection:
        return ", ".join(f"{name} {size}" for name, size in connection.execute(query))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
