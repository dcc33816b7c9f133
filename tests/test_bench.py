"""The bench still runs, whole; what it finds is not judged here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.measures import percentile
from tests.serving import BACKEND

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_tiny_bench_prints_every_table(open_folder: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "tests.bench", "--quick", "--runs", "2000", "--events", "4000", "--dir", open_folder),
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
        "1000 notifications delivered",
    }
    assert re.search(r"memory of the api process, now / at most \| \d+ / \d+ MB", done.stdout)


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
