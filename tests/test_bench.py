"""The bench still runs, all its parts and queries; what it finds is not judged here."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.bench import __main__, panels
from tests.bench.history import client_slug, pipeline_name
from tests.bench.measures import percentile
from tests.running import unmeasured
from tests.serving import BACKEND

ROOT = Path(__file__).parents[1]

# One of each sort: its own of the fleet and of a client, Grafana's, Metabase's.
SOME_QUERIES = "^fleet: clients now$|^client: latest runs$|^Grafana fleet: Success rate$|^Metabase Duration drift$"


@pytest.mark.slow(50)
def test_a_tiny_bench_prints_every_table(open_folder: Path) -> None:
    sizes = ("--quick", "--runs", "2000", "--events", "4000", "--queries", SOME_QUERIES)
    with unmeasured():
        done = subprocess.run(
            (sys.executable, "-m", "tests.bench", *sizes, "--dir", open_folder),
            check=False,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
        )

    assert done.returncode == 0, done.stderr
    rows = {line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines() if line.startswith("| ")}
    assert rows >= {
        "HTTP, 4 connections, history of 4 000 events in 2 000 runs",
        "COPY of the same rows, 1 writer, same table",
        "HTTP, 4 connections, empty tables",
        "HTTP / COPY",
        "rate with history / rate when empty",
        "single posts, 8 connections",
        "Healthchecks pings, pgbench, 8 connections",
        "single posts / pings",
        "`mixed`",
        "updates of `run` that were heap-only",
        "tick, all 10000 pipelines touched",
        "tick, 500 pipelines touched",
        "50 notifications delivered",
        "fleet: clients now",
        "client: latest runs",
        "Grafana fleet: Success rate",
        "Metabase Duration drift",
    }
    assert re.search(r"memory of the api process, now / at most \| \d+ / \d+ MB", done.stdout)


def test_every_query_of_the_bench_is_answered(dsn: str) -> None:
    """By the role that the bench asks as, on a database that knows the client and the pipeline it asks about."""
    with psycopg.connect(dsn) as session:
        session.execute("set local timezone to 'UTC'")
        session.execute("insert into pulsewatch.client (slug) values (%s)", (client_slug(7),))
        session.execute(
            "insert into pulsewatch.pipeline (client_id, slug, name, identity_digest)"
            " select id, %(name)s, %(name)s, gen_random_uuid() from pulsewatch.client where slug = %(client)s",
            {"client": client_slug(7), "name": pipeline_name(7)},
        )
        session.execute("set local role pulsewatch_grafana")
        queries = panels.statements(datetime.now(UTC))
        answered = {name for name, query in queries.items() if session.execute(query.encode()).description}
        session.rollback()
    assert answered == set(queries)


def test_only_queries_that_are_asked_for_are_measured_and_some_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    options = __main__._options(["--queries", "^client: latest runs$"])
    assert list(__main__._queries(options, datetime.now(UTC))) == ["client: latest runs"]
    assert len(__main__._queries(__main__._options([]), datetime.now(UTC))) > 100
    for pattern, said in (("no such name", "no query has a name that matches"), ("(", "is no regular expression")):
        with pytest.raises(SystemExit):
            __main__._options(["--queries", pattern])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0], 50, 1.0),
        (list(range(1, 101)), 99, 99),
        ([5.0], 99, 5.0),
        ([5.0], 1, 5.0),
    ],
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected
