"""Pictures of the dashboards for people without Grafana: `make pictures` draws them into docs/images.

Each panel is drawn from the very query in its dashboard's file, run on a database with the demo's history. It is a
sketch of what Grafana shows, in its colours and order, not a copy of Grafana's own drawing.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psycopg
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import Locator, MaxNLocator, MultipleLocator
from matplotlib.transforms import Bbox
from PIL import Image

from grafana.build import BOARDS, FOLDER
from grafana.kit import AGO

mpl.use("Agg")
PAPER, PANEL, INK, FAINT, LINE = "#111217", "#181b1f", "#ccccdc", "#8e8e98", "#2c2f36"
PAINT = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
}
OTHERS = ("#5794f2", "#b877d9", "#73bf69", "#ff9830", "#f2495c", "#6e9fff", "#96d98d", "#ffb357")
WIDE = 17.0  # inches
UNIT_HIGH = 0.36  # inches for one of Grafana's units of height
HEAD = 0.34  # inches of a panel above what it shows: its title
ROW_HIGH = 0.23  # inches for a line of a table
TILES = (8, 5)  # tiles in a line, and lines
LETTERS = 13.5  # in an inch of a table
MOST_TICKS = 5
STEPS_S = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    1200,
    1800,
    3600,
    7200,
    14400,
    43200,
    86400,
    172800,
    432000,
)
INTERVALS = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "1h": timedelta(hours=1)}
# How far back a picture goes. All events of the demo's history arrive within a minute.
SPAN = timedelta(days=7)
SPANS = {"ingestion": timedelta(hours=1)}

Rows = Sequence[tuple[Any, ...]]
Shown = tuple[datetime, datetime]


def draw(
    name: str, connection: psycopg.Connection, statement_of: Callable[[str, Shown], str], until: datetime
) -> Figure:
    """One dashboard as a figure. `statement_of` makes of a panel's query what PostgreSQL is sent."""
    shown = until - SPANS.get(name, SPAN), until
    made = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"])
    high = bottom * UNIT_HIGH + 0.6
    figure = plt.figure(figsize=(WIDE, high), facecolor=PAPER)
    figure.text(0.01, 1 - 0.35 / high, made["title"], color=INK, fontsize=17, weight="bold")
    for panel in made["panels"]:
        place = panel["gridPos"]
        under = high - 0.6 - (place["y"] + place["h"]) * UNIT_HIGH
        if panel["type"] == "row":
            figure.text(0.01, (under + 0.1) / high, panel["title"], color=FAINT, fontsize=11)
            continue
        axes = figure.add_axes(
            (place["x"] / 24 + 0.004, (under + 0.04) / high, place["w"] / 24 - 0.008, _inches(panel) / high),
            facecolor=PANEL,
        )
        draw_panel(axes, panel, connection.execute(statement_of(panel["targets"][0]["rawSql"], shown).encode()), shown)
    return figure


def draw_panel(axes: Axes, panel: Mapping[str, Any], cursor: psycopg.Cursor[Any], shown: Shown) -> None:
    """A panel from the rows of its query. Raises KeyError for a type of panel that is not known."""
    drawn = DRAWN[panel["type"]]
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(LINE)
    axes.text(
        0.12 / _wide(panel), 1 - 0.17 / _inches(panel), panel["title"], color=INK, fontsize=10, weight="bold",
        va="center", transform=axes.transAxes,
    )  # fmt: skip
    rows = cursor.fetchall()
    if any(value is not None for row in rows for value in row):
        drawn(axes, panel, [column.name for column in cursor.description or ()], rows, shown)
    else:
        said = panel["fieldConfig"]["defaults"]["noValue"]
        axes.text(0.5, 0.45, said, color=FAINT, ha="center", transform=axes.transAxes)


def _inches(panel: Mapping[str, Any]) -> float:
    """Height of a panel."""
    return float(panel["gridPos"]["h"]) * UNIT_HIGH - 0.08


def _wide(panel: Mapping[str, Any]) -> float:
    return WIDE * (float(panel["gridPos"]["w"]) / 24 - 0.008)


def _stat(axes: Axes, panel: Mapping[str, Any], columns: Sequence[str], rows: Rows, shown: Shown) -> None:
    if panel["options"]["reduceOptions"]["values"]:
        _tiles(axes, panel, rows)
        return
    for place, (name, value) in enumerate(zip(columns, rows[0], strict=True)):
        at = (place + 0.5) / len(columns)
        axes.text(
            at, 0.42, words(value, _unit(panel), shown[1]), color=_color_at(panel, value), fontsize=21, ha="center",
            va="center", transform=axes.transAxes,
        )  # fmt: skip
        if len(columns) > 1:
            axes.text(at, 0.14, name, color=FAINT, fontsize=9, ha="center", va="center", transform=axes.transAxes)


def _tiles(axes: Axes, panel: Mapping[str, Any], rows: Rows) -> None:
    across, down = TILES
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    top = 1 - HEAD / _inches(panel)
    wide, high = 0.99 / across, (top - 0.02) / down
    for place, (client, pipeline, code) in enumerate(rows[: across * down]):
        left, under = 0.005 + place % across * wide, top - (place // across + 1) * high
        state = options[str(code)]
        paint = PAINT.get(state["color"], state["color"])
        box = Rectangle((left, under), wide * 0.97, high * 0.93, color=paint, transform=axes.transAxes)
        axes.add_patch(box)
        for text, at, size in ((client, 0.75, 8), (pipeline, 0.5, 8), (state["text"], 0.2, 9)):
            axes.text(
                left + wide * 0.485, under + high * 0.93 * at, text[:26], color=PAPER, fontsize=size, ha="center",
                va="center", transform=axes.transAxes,
            )  # fmt: skip


def _inner(axes: Axes, panel: Mapping[str, Any], *, left: float = 0.75) -> Axes:
    """Room for a drawing within a panel, with its axes; `left` inches for the names of what goes up."""
    wide, high = _wide(panel), _inches(panel)
    inner: Axes = axes.inset_axes(
        (left / wide, 0.5 / high, 1 - (left + 0.2) / wide, 1 - (HEAD + 0.6) / high), facecolor=PANEL
    )
    inner.tick_params(colors=FAINT, labelsize=8, length=0)
    inner.grid(color=LINE, linewidth=0.6)
    inner.set_axisbelow(True)
    for side in inner.spines.values():
        side.set_visible(False)
    return inner


def _day(at: datetime) -> float:
    """A time as a number of days, as the axes count."""
    return float(date2num(at))  # type: ignore[no-untyped-call]  # matplotlib's dates carry no types


def _time_across(inner: Axes, shown: Shown) -> None:
    inner.set_xlim(_day(shown[0]), _day(shown[1]))
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]  # the same
    inner.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]  # the same
    inner.xaxis.set_major_formatter(formatter)


def _series(axes: Axes, panel: Mapping[str, Any], columns: Sequence[str], rows: Rows, shown: Shown) -> None:
    inner = _inner(axes, panel)
    _time_across(inner, shown)
    colors = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"].get("overrides", ())
    }
    times, lines = _lines(columns, rows)
    is_stacked = panel["fieldConfig"]["defaults"]["custom"].get("drawStyle") == "bars"
    width = min((later - earlier for earlier, later in pairwise(times)), default=INTERVALS[panel["interval"]])
    under = [0.0] * len(times)
    for place, (label, values) in enumerate(lines.items()):
        paint = colors.get(label, OTHERS[place % len(OTHERS)])
        paint = PAINT.get(paint, paint)
        if is_stacked:
            heights = [float(value or 0) for value in values]
            days, wide = [_day(at) for at in times], width / timedelta(days=1)
            inner.bar(days, heights, width=wide * 0.9, bottom=under, color=paint, label=label)
            under = [one + other for one, other in zip(under, heights, strict=True)]
        else:
            known = [(at, value) for at, value in zip(times, values, strict=True) if value is not None]
            # A line of one or two points would not be seen.
            mark = "o" if len(known) < 3 else ""
            inner.plot(
                [_day(at) for at, _ in known],
                [value for _, value in known],
                color=paint, linewidth=1.4, marker=mark, label=label,
            )  # fmt: skip
    most = panel["fieldConfig"]["defaults"].get("max")
    unit = _unit(panel)
    if unit == "short" and most is None and inner.get_ylim()[1] < 1:
        most = 1
    inner.set_ylim(bottom=0, top=most)
    inner.yaxis.set_major_locator(_ticks(unit, inner.get_ylim()[1]))
    inner.yaxis.set_major_formatter(lambda value, _place: words(value, unit, shown[1]))
    inner.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=8, frameon=False, fontsize=8, labelcolor=INK,
        handlelength=1,
    )  # fmt: skip


def _ticks(unit: str, most: float) -> Locator:
    """Where a scale up to `most` is marked: at times that people use, and never at a part of a run."""
    if unit == "s":
        return MultipleLocator(next((step for step in STEPS_S if most / step <= MOST_TICKS), most / MOST_TICKS))
    return MaxNLocator(MOST_TICKS, integer=unit == "short")


def _lines(columns: Sequence[str], rows: Rows) -> tuple[list[datetime], dict[str, list[Any]]]:
    """Times, and the values of each series at them."""
    if list(columns) == ["time", "metric", "value"]:
        times = sorted({row[0] for row in rows})
        at = {row[:2]: row[2] for row in rows}
        return times, {name: [at.get((time, name)) for time in times] for name in sorted({row[1] for row in rows})}
    return [row[0] for row in rows], {
        name: [row[place] for row in rows] for place, name in enumerate(columns) if place > 0
    }


def _heat(axes: Axes, panel: Mapping[str, Any], columns: Sequence[str], rows: Rows, shown: Shown) -> None:
    inner = _inner(axes, panel)
    _time_across(inner, shown)
    times = [_day(row[0]) for row in rows]
    counts = [[row[place] or float("nan") for row in rows] for place in range(1, len(columns))]
    inner.pcolormesh(times, range(len(counts)), counts, cmap="plasma", norm=LogNorm(), shading="nearest")
    names = [words(float(name), "s", shown[1]) if name != "+Inf" else "longer" for name in columns[1:]]
    inner.set_yticks(range(len(counts)), names)


def _states(axes: Axes, panel: Mapping[str, Any], _columns: Sequence[str], rows: Rows, shown: Shown) -> None:
    inner = _inner(axes, panel, left=1.9)
    _time_across(inner, shown)
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    whose = sorted({row[1] for row in rows}, reverse=True)
    for place, one in enumerate(whose):
        changes = [(row[0], row[2]) for row in rows if row[1] == one]
        ends = [at for at, _ in changes[1:]] + [shown[1]]
        for (at, code), end in zip(changes, ends, strict=True):
            color = options[str(int(code))]["color"]
            inner.barh(place, end - at, left=at, height=0.75, color=PAINT.get(color, color))
    inner.set_yticks(range(len(whose)), [name[:26] for name in whose])


def _bars(axes: Axes, panel: Mapping[str, Any], _columns: Sequence[str], rows: Rows, shown: Shown) -> None:
    inner = _inner(axes, panel, left=1.6)
    inner.grid(visible=False)
    ranked = list(reversed(rows))
    paints = [_color_at(panel, value) for _, value in ranked]
    inner.barh(range(len(ranked)), [value for _, value in ranked], color=paints)
    inner.set_yticks(range(len(ranked)), [str(name)[:24] for name, _ in ranked])
    inner.set_xticks([])
    inner.set_xlim(right=1.15 * max(value for _, value in ranked))
    for place, (_, value) in enumerate(ranked):
        said = words(value, _unit(panel), shown[1])
        inner.text(value, place, f" {said}", color=INK, va="center", fontsize=8)


def _table(axes: Axes, panel: Mapping[str, Any], columns: Sequence[str], rows: Rows, shown: Shown) -> None:
    told: dict[str, dict[str, Any]] = {
        override["matcher"]["options"]: {part["id"]: part["value"] for part in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    seen = [place for place, name in enumerate(columns) if not told.get(name, {}).get("custom.hidden")]
    heads = [told.get(columns[place], {}) for place in seen]
    most = int((_inches(panel) - HEAD) / ROW_HIGH) - 1
    cells = [
        [words(row[place], head.get("unit", "short"), shown[1]) for place, head in zip(seen, heads, strict=True)]
        for row in rows[:most]
    ]
    titles = [head.get("displayName", columns[place]) for place, head in zip(seen, heads, strict=True)]
    longest = _longest([titles, *cells], int(_wide(panel) * LETTERS))
    high = ROW_HIGH * (len(cells) + 1) / _inches(panel)
    table = axes.table(
        cellText=[[text[:most] for text, most in zip(line, longest, strict=True)] for line in cells],
        colLabels=titles,
        colWidths=[(letters + 2) / sum(longest, 2 * len(longest)) for letters in longest],
        cellLoc="left",
        colLoc="left",
        bbox=Bbox.from_bounds(0.005, 1 - HEAD / _inches(panel) - high, 0.99, high),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (line, place), cell in table.get_celld().items():
        cell.set_facecolor(PANEL)
        cell.set_edgecolor(LINE)
        cell.visible_edges = "B"
        cell.PAD = 0.04
        text = cell.get_text()
        options = heads[place]["mappings"][0]["options"] if "mappings" in heads[place] else {}
        color = options.get(text.get_text(), {}).get("color", "")
        text.set_color(PAINT.get(color, color or INK) if line else FAINT)


def _longest(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Letters of each column, so that all of them fit into the room: the longest are cut first."""
    needed = [max(len(text) for text in column) for column in zip(*lines, strict=True)]
    most = max(needed)
    while most > 1 and sum(min(length, most) + 2 for length in needed) > room:
        most -= 1
    return [min(length, most) for length in needed]


DRAWN = {
    "stat": _stat,
    "timeseries": _series,
    "heatmap": _heat,
    "state-timeline": _states,
    "bargauge": _bars,
    "table": _table,
}


def _unit(panel: Mapping[str, Any]) -> str:
    return str(panel["fieldConfig"]["defaults"].get("unit", "short"))


def _color_at(panel: Mapping[str, Any], value: float) -> str:
    color = INK
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step.get("value") is None or value >= step["value"]:
            color = PAINT.get(step["color"], step["color"])
    return color


def words(value: Any, unit: str, now: datetime) -> str:
    """A value as Grafana would write it, nearly. Raises KeyError for a unit that is not known."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return _length((now - value).total_seconds()) + " ago" if unit == AGO else f"{value:%Y-%m-%d %H:%M}"
    if not isinstance(value, int | float):
        return str(value).split("\n")[0]
    return UNITS[unit](value)


def _length(seconds: float) -> str:
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds * 1000:.3g} ms" if seconds else "0 s"


def _short(value: float) -> str:
    for size, name in ((1e9, "Bil"), (1e6, "Mil"), (1e3, "K")):
        # Grafana rounds before it chooses: 999.9 thousand are a million.
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value * 100:.1f}%"


UNITS = {"s": _length, "short": _short, "percentunit": _percent}


def save(
    folder: Path, connection: psycopg.Connection, statement_of: Callable[[str, Shown], str], until: datetime
) -> list[Path]:
    """Draw every dashboard as it is at `until` into this folder; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in BOARDS:
        figure = draw(name, connection, statement_of, until)
        path = folder / f"{name}.png"
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=80, facecolor=PAPER)
        plt.close(figure)
        # Few colours make a small file, and flat areas need no more.
        Image.open(drawn).convert("RGB").quantize(256, kmeans=1).save(path, optimize=True)
        written.append(path)
    return written
