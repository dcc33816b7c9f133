"""What the dashboards are made of: one look for every panel, and queries that name columns and filter, no more.

Built on the Grafana Foundation SDK, which knows every panel but no SQL query; hence `Sql`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from grafana_foundation_sdk.builders import (
    bargauge,
    heatmap,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import (
    common as commons,
)
from grafana_foundation_sdk.builders import (
    dashboard as boards,
)
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common, dashboard

# The data source is provisioned under this uid; older Grafanas call its type `postgres` and go by the uid alone.
DATASOURCE_TYPE = "grafana-postgresql-datasource"
DATASOURCE = dashboard.DataSourceRef(type_val=DATASOURCE_TYPE, uid="pulsewatch-pg")

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "#808080"
# The colour of each word that tells how something went or is going, the same on every dashboard.
WORDS = {
    "ok": GREEN,
    "succeeded": GREEN,
    "on_time": GREEN,
    "running": PURPLE,
    "queued": PURPLE,
    "skipped": BLUE,
    "cancelled": GREY,
    "unknown": GREY,
    "late": YELLOW,
    "missed": ORANGE,
    "timed_out": ORANGE,
    "failing": RED,
    "failed": RED,
    "warning": YELLOW,
    "critical": RED,
    "firing": RED,
    "recovering": PURPLE,
    "pending": YELLOW,
    "sent": GREEN,
    "held": BLUE,
    "superseded": GREY,
    "dropped": GREY,
    "leased": PURPLE,
    "dead": RED,
    "no_data": GREY,
    "error": ORANGE,
}
# The same words as the names of series.
OUTCOMES = {word.replace("_", " "): color for word, color in WORDS.items()}
PIPELINE_URL = (
    "/d/pw-pipeline?var-client=${__data.fields.client}&var-pipeline=${__data.fields.pipeline}&${__url_time_range}"
)
CLIENT_URL = "/d/pw-client?var-client=${__data.fields.client}&${__url_time_range}"
# Headings of columns whose own name says too little, or too much; the others lose their unit and their underscores.
HEADINGS = {
    "consecutive_failures": "failures in a row",
    "slot_at": "expected",
    "last_slot_at": "last expected",
    "next_slot_at": "next expected",
    "last_slot_status": "last start",
    "first_at": "began",
    "external_id": "run",
    "run_id": "id of the run",
    "duration_p50_s": "p50",
    "duration_p95_s": "p95",
    "lag_s_avg": "mean lag",
    "lag_s_max": "longest lag",
    "bucket_at": "five minutes from",
    "failure_count": "failures",
    "pipeline_count": "pipelines",
    "fired_count": "alerts",
    "brief_rate": "over in 5 min",
    "acknowledged_rate": "acknowledged",
    "acknowledge_avg_s": "time to acknowledge",
    "resolve_avg_s": "time to resolve",
    "snoozed_until_at": "snoozed until",
    "rule_title": "rule",
    "channel_title": "channel",
    "notification_count": "messages",
    "sent_rate": "share sent",
    "send_p50_s": "median time",
    "send_p95_s": "p95 time",
    "occurred_at": "at",
    "run_url": "its run",
    "runbook_url": "runbook",
}
AGO = "dateTimeFromNow"

Panel = Any  # the builders share their methods, but no class


class SqlQuery(variants.Dataquery):
    """A query as the PostgreSQL data source takes it."""

    def __init__(self, sql: str, shape: str, ref_id: str) -> None:
        self.sql, self.shape, self.ref_id = sql, shape, ref_id

    def to_json(self) -> dict[str, object]:
        return {
            "refId": self.ref_id,
            "datasource": DATASOURCE,
            "format": self.shape,
            "editorMode": "code",
            "rawQuery": True,
            "rawSql": self.sql,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(data["rawSql"], data["format"], data["refId"])


class Sql(cog.Builder[SqlQuery]):
    """Builds a query; `shape` is table or time_series."""

    def __init__(self, sql: str, shape: str = "table", ref_id: str = "A") -> None:
        self._query = SqlQuery(" ".join(sql.split()), shape, ref_id)

    def build(self) -> SqlQuery:
        return self._query


def thresholds(*steps: tuple[float | None, str]) -> boards.ThresholdsConfig:
    """Colours from these values on; the first value is None."""
    made = [dashboard.Threshold(value=value, color=color) for value, color in steps]
    return boards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def _dress(panel: Panel, title: str, description: str, span: int, height: int, no_value: str) -> Panel:
    return (
        panel.title(title).description(description).datasource(DATASOURCE).span(span).height(height).no_value(no_value)
    )


def number(
    title: str,
    description: str,
    sql: str,
    *,
    unit: str = "short",
    steps: Sequence[tuple[float | None, str]] = ((None, BLUE),),
    span: int = 4,
    no_value: str = "no runs",
    decimals: int | None = None,
) -> Panel:
    """A number in large print, or several: one for each column."""
    panel = _dress(stat.Panel(), title, description, span, 4, no_value).unit(unit).thresholds(thresholds(*steps))
    if decimals is not None:
        panel = panel.decimals(decimals)
    return (
        panel.reduce_options(commons.ReduceDataOptions().values(False).calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .with_target(Sql(sql))
    )


def series(
    title: str,
    description: str,
    sql: str,
    *,
    unit: str = "short",
    span: int = 12,
    height: int = 8,
    bars: bool = False,
    colors: Mapping[str, str] = OUTCOMES,
    most: float | None = None,
    interval: str = "1h",
    no_value: str = "nothing in this time",
) -> Panel:
    """Lines or stacked bars over time; `interval` is the time between two rows.

    The query gives `time` and one column for each of them, or `time`, `metric` (whose) and `value`.
    """
    panel = _dress(timeseries.Panel(), title, description, span, height, no_value).unit(unit).min(0)
    panel = panel.interval(interval).legend(_legend())
    panel = panel.tooltip(
        commons.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    if bars:
        panel = panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80).line_width(0)
        panel = panel.stacking(commons.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    else:
        panel = panel.draw_style(common.GraphDrawStyle.LINE).line_width(2).fill_opacity(8).span_nulls(True)
        panel = panel.show_points(common.VisibilityMode.AUTO)
    if most is not None:
        panel = panel.max(most)
    for name, color in colors.items():
        if f'"{name}"' in sql or f" as {name}" in sql:
            panel = panel.override_by_name(name, [_fixed(color)])
    return panel.with_target(Sql(sql, "time_series"))


def _legend() -> commons.VizLegendOptions:
    return (
        commons.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )


def _fixed(color: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def listing(
    title: str,
    description: str,
    sql: str,
    *,
    span: int = 24,
    height: int = 8,
    units: Mapping[str, str] | None = None,
    links: Mapping[str, tuple[str, str]] | None = None,
    statuses: Sequence[str] = (),
    hidden: Sequence[str] = (),
    no_value: str = "nothing in this time",
) -> Panel:
    """A table. `units` by column; `links` by column: title and address; `statuses` are coloured by their words."""
    panel = _dress(table.Panel(), title, description, span, height, no_value)
    panel = panel.cell_height(common.TableCellHeight.SM).filterable(True)
    for column in columns_of(sql):
        told: list[tuple[str, object]] = [("displayName", heading(column))]
        if unit := (units or {}).get(column):
            told.append(("unit", unit))
        if link := (links or {}).get(column):
            told.append(("links", [{"title": link[0], "url": link[1]}]))
        if column in statuses:
            told += [("custom.cellOptions", {"type": "color-text"}), ("mappings", [_words_to_colors()])]
        if column in hidden:
            told.append(("custom.hidden", True))
        panel = panel.override_by_name(
            column, [dashboard.DynamicConfigValue(id_val=name, value=value) for name, value in told]
        )
    return panel.with_target(Sql(sql))


def columns_of(sql: str) -> list[str]:
    """What a query selects, where that is plain names."""
    return [name.strip() for name in " ".join(sql.split()).removeprefix("select ").partition(" from ")[0].split(",")]


def heading(column: str) -> str:
    """What stands above a column: `last_success_at` becomes `last success`."""
    return HEADINGS.get(column) or re.sub(r"_(at|s|count)$", "", column).replace("_", " ")


def _words_to_colors() -> dict[str, object]:
    options = {word: {"color": color, "index": place} for place, (word, color) in enumerate(WORDS.items())}
    return {"type": "value", "options": options}


def bars(
    title: str,
    description: str,
    sql: str,
    *,
    unit: str = "short",
    span: int = 8,
    height: int = 8,
    steps: Sequence[tuple[float | None, str]] = ((None, BLUE),),
    most: float | None = None,
    no_value: str = "nothing in this time",
) -> Panel:
    """One horizontal bar a row; the query gives `metric` and `value`."""
    panel = _dress(bargauge.Panel(), title, description, span, height, no_value).unit(unit).min(0)
    if most is not None:
        panel = panel.max(most)
    return (
        panel.thresholds(thresholds(*steps))
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .value_mode(common.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .reduce_options(commons.ReduceDataOptions().values(True).calcs(["lastNotNull"]))
        .with_target(Sql(sql))
    )


def states(
    title: str, description: str, sql: str, codes: Mapping[int, tuple[str, str]], *, span: int = 24, height: int = 9
) -> Panel:
    """Coloured spans over time; the query gives `time`, `metric` (whose), `value` (a code of `codes`)."""
    panel = _dress(statetimeline.Panel(), title, description, span, height, "nothing in this time")
    return (
        panel.interval("1m")
        .mappings([_codes_to_words(codes)])
        .merge_values(True)
        .span_nulls(True)
        .row_height(0.85)
        .show_value(common.VisibilityMode.NEVER)
        .fill_opacity(85)
        .line_width(0)
        .legend(_legend())
        .with_target(Sql(sql, "time_series"))
    )


def _codes_to_words(codes: Mapping[int, tuple[str, str]]) -> dashboard.ValueMap:
    return dashboard.ValueMap(
        options={
            str(code): dashboard.ValueMappingResult(text=words, color=color, index=place)
            for place, (code, (words, color)) in enumerate(codes.items())
        }
    )


def tiles(
    title: str,
    description: str,
    sql: str,
    codes: Mapping[int, tuple[str, str]],
    *,
    most: int,
    height: int = 10,
    no_value: str = "nothing in this time",
) -> Panel:
    """A coloured tile a row; the query gives `client`, `pipeline` and `value` (a code of `codes`), at most `most`."""
    link = [{"title": "Open the pipeline", "url": PIPELINE_URL}]
    return (
        _dress(stat.Panel(), title, description, 24, height, no_value)
        .unit("short")
        .thresholds(thresholds((None, GREY)))
        .mappings([_codes_to_words(codes)])
        .reduce_options(commons.ReduceDataOptions().values(True).limit(most).calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .text(commons.VizTextDisplayOptions().title_size(11).value_size(14))
        .override_by_name("value", [dashboard.DynamicConfigValue(id_val="links", value=link)])
        .with_target(Sql(sql))
    )


def heat(title: str, description: str, sql: str, *, span: int = 12, height: int = 8) -> Panel:
    """Runs by duration over time; the query gives `time` and a column for each bucket, named by its upper end."""
    return (
        _dress(heatmap.Panel(), title, description, span, height, "nothing in this time")
        .calculate(False)
        .interval("1h")
        .rows_frame(heatmap.RowsHeatmapOptions().layout(common.HeatmapCellLayout.LE))
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .cell_values(heatmap.CellValues().unit("short"))
        .with_target(Sql(sql, "time_series"))
    )


def chosen(name: str, label: str, sql: str, *, all_too: bool = False) -> boards.QueryVariable:
    """A variable of which people choose one value, by its name or, with `all_too`, all: '__all__' in the queries.

    The texts must be unique, as Grafana drops those that it has seen: slugs, not titles.
    """
    variable = (
        boards.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(" ".join(sql.split()))
        .definition(" ".join(sql.split()))
        .refresh(dashboard.VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(dashboard.VariableSort.DISABLED)
    )
    if all_too:
        everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
        variable = variable.include_all(True).all_value("'__all__'").current(everything)
    return variable


def annotations(name: str, color: str, sql: str) -> boards.AnnotationQuery:
    """Marks over time; the query gives `time`, `timeend`, `text`, `tags`."""
    return (
        boards.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .target(Sql(sql, ref_id="Anno"))
    )
