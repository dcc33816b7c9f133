"""The table that the demo shows once its history is there."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine

from pulsewatch.db import make_engine
from pulsewatch.demo_fleet import MOST_CLIENTS, await_numbers, table
from tests.rollup_steps import catch_up, ended, put

EMPTY = dict.fromkeys(("finished_count", "failed_count", "timed_out_count", "late_count", "missed_count"), 0)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


def numbers(**given: Any) -> dict[str, Any]:
    return EMPTY | {"success_rate": None, "duration_p50_s": None, "duration_p95_s": None} | given


def shown(answer: dict[str, Any], **how: bool) -> list[list[str]]:
    out = StringIO()
    Console(file=out, width=100).print(table(answer, **how))
    return [line.split() for line in out.getvalue().splitlines() if line.strip()]


def test_the_worst_client_comes_first_and_one_without_runs_last() -> None:
    good = numbers(client="good", finished_count=2000, success_rate=1.0, duration_p50_s=3.0, duration_p95_s=600.0)
    bad = numbers(client="bad", finished_count=4, failed_count=1, timed_out_count=2, success_rate=0.25, late_count=1)
    idle = numbers(client="idle")
    lines = shown({"clients": [good, idle, bad], "totals": numbers(finished_count=2004, success_rate=0.995)})
    assert lines[3:] == [
        ["bad", "4", "25.0%", "3", "1", "0"],
        ["good", "2,000", "100.0%", "0", "0", "0", "3.0", "s", "10.0", "min"],
        ["idle", "0", "0", "0", "0"],
        ["all", "2,004", "99.5%", "0", "0", "0"],
    ]


def test_a_long_list_says_how_much_is_left_out() -> None:
    clients = [numbers(client=f"c{place}", success_rate=place / 100) for place in range(MOST_CLIENTS + 3)]
    lines = shown({"clients": clients, "totals": numbers()})
    assert ["...", "3", "more"] in lines
    assert [f"c{MOST_CLIENTS}"] not in [line[:1] for line in lines]


def test_numbers_that_are_not_all_there_are_called_so() -> None:
    answer = {"clients": [], "totals": numbers()}
    whole, rest = (
        " ".join(word for line in shown(answer, is_whole=is_whole) for word in line) for is_whole in (True, False)
    )
    assert "still working these out" not in whole
    assert "still working these out" in rest


def test_the_demo_waits_for_the_worker_but_not_for_ever(engine: Engine) -> None:
    put(engine, ended("r1", 10))
    turns: list[int] = []

    def work() -> None:
        turns.append(1)
        if len(turns) == 3:
            catch_up(engine)

    assert not await_numbers(engine, lambda: None, lambda: False, patience_s=0.1)
    assert await_numbers(engine, work, lambda: False)
    assert len(turns) == 3
    assert await_numbers(engine, work, lambda: False)
    assert len(turns) == 3
