"""The pictures of the dashboards: what is written in them, and what they cannot draw."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from grafana.build import BOARDS, FOLDER
from grafana.kit import AGO
from grafana.pictures import DRAWN, INTERVALS, PAINT, UNITS, _lines, _longest, _ticks, draw_panel, words

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHOWN = (NOW - timedelta(days=1), NOW)
MOST_BYTES = 300_000


def panels() -> list[dict[str, Any]]:
    made = [json.loads((FOLDER / f"{name}.json").read_text()) for name in BOARDS]
    return [panel for one in made for panel in one["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (None, "s", ""),
        (0, "s", "0 s"),
        (0.25, "s", "250 ms"),
        (59.6, "s", "59.6 s"),
        (60, "s", "1 min"),
        (5400, "s", "1.5 h"),
        (-90, "s", "-1.5 min"),
        (172800, "s", "2 d"),
        (0.9485, "percentunit", "94.8%"),
        (-0.034, "percentunit", "-3.4%"),
        (0, "short", "0"),
        (999, "short", "999"),
        (1000, "short", "1 K"),
        (38100, "short", "38.1 K"),
        (999_999, "short", "1 Mil"),
        (2_500_000_000, "short", "2.5 Bil"),
        ("first line\nsecond", "short", "first line"),
        (NOW, "short", "2026-01-02 12:00"),
        (NOW - timedelta(hours=3), AGO, "3 h ago"),
        (None, AGO, ""),
    ],
)
def test_a_value_in_words(value: object, unit: str, expected: str) -> None:
    assert words(value, unit, NOW) == expected


def test_a_unit_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError):
        words(1, "furlong", NOW)


def test_every_type_unit_interval_and_color_of_the_dashboards_can_be_drawn() -> None:
    for panel in panels():
        assert panel["type"] in DRAWN
        assert panel["fieldConfig"]["defaults"].get("unit", "short") in UNITS
        text = json.dumps(panel)
        if panel["type"] == "timeseries":
            assert panel["interval"] in INTERVALS
        for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", ()):
            assert step["color"] in PAINT or step["color"].startswith("#"), text


def test_a_type_of_panel_that_is_not_known_is_an_error(dsn: str) -> None:
    figure = plt.figure()
    with psycopg.connect(dsn) as connection, pytest.raises(KeyError, match="news"):
        draw_panel(figure.add_axes((0, 0, 1, 1)), {"type": "news"}, connection.execute("select 1"), SHOWN)
    plt.close(figure)


@pytest.mark.parametrize("query", ["select 1 where false", "select null::integer"])
def test_a_panel_without_a_value_says_so(dsn: str, query: str) -> None:
    panel = next(panel for panel in panels() if panel["title"] == "Kinds of failure")
    figure = plt.figure()
    axes = figure.add_axes((0, 0, 1, 1))
    with psycopg.connect(dsn) as connection:
        draw_panel(axes, panel, connection.execute(query.encode()), SHOWN)
    assert [text.get_text() for text in axes.texts] == ["Kinds of failure", "nothing failed"]
    plt.close(figure)


def test_series_are_split_by_metric_and_gaps_stay_gaps() -> None:
    later = NOW + timedelta(minutes=5)
    rows = [(NOW, "b", 1), (later, "a", 2), (later, "b", 3)]
    assert _lines(["time", "metric", "value"], rows) == ([NOW, later], {"a": [None, 2], "b": [1, 3]})
    assert _lines(["time", "p50", "p95"], [(NOW, 1, 2)]) == ([NOW], {"p50": [1], "p95": [2]})


def test_the_longest_columns_of_a_table_are_cut_first() -> None:
    assert _longest([["ab", "abcdefghij"], ["abc", "a"]], 100) == [3, 10]
    assert _longest([["ab", "abcdefghij"], ["abc", "a"]], 12) == [3, 5]
    assert _longest([["", ""]], 1) == [0, 0]


@pytest.mark.parametrize(("unit", "most", "step"), [("s", 250, 60), ("s", 6000, 1200), ("short", 1, 1)])
def test_scales_are_marked_at_times_that_people_use_and_at_whole_runs(unit: str, most: float, step: float) -> None:
    marks = [float(mark) for mark in _ticks(unit, most).tick_values(0, most)]
    assert {round(later - earlier, 6) for earlier, later in pairwise(marks)} == {step}


@pytest.mark.parametrize("name", BOARDS)
def test_a_committed_picture_is_small_and_of_the_size_of_its_dashboard(name: str) -> None:
    path = IMAGES / f"{name}.png"
    assert path.stat().st_size < MOST_BYTES
    made = json.loads((FOLDER / f"{name}.json").read_text())
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"])
    with Image.open(path) as image:
        assert image.size[0] == 1360
        assert abs(image.size[1] - (bottom * 0.36 + 0.6) * 80) < 2, "run `make pictures`"
