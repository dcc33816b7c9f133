"""The Grafana dashboards as files: generated, well-formed, explained, linked."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.build import BOARDS, FOLDER, document
from grafana.kit import columns_of
from tests.dashboards import DOCUMENTS

UIDS = {made["uid"] for made in DOCUMENTS.values()}
PANELS = [
    pytest.param(board, panel, id=f"{board}-{panel['id']}")
    for board, made in DOCUMENTS.items()
    for panel in made["panels"]
    if panel["type"] != "row"
]


@pytest.mark.parametrize("name", BOARDS)
def test_the_committed_file_is_what_the_program_writes(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == document(BOARDS[name]), "run `make dashboards`"


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_reads_every_key_of_the_file(name: str) -> None:
    """Read with the types of Grafana's own schema and written again, nothing is lost: no key is misspelt."""
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DOCUMENTS[name])))

    def lost(given: Any, kept: Any, path: str) -> Iterator[str]:
        if isinstance(given, dict):
            for key, value in given.items():
                if not isinstance(kept, dict) or key not in kept:
                    yield f"{path}.{key}"
                else:
                    yield from lost(value, kept[key], f"{path}.{key}")
        elif isinstance(given, list):
            for place, value in enumerate(given):
                yield from lost(value, kept[place] if place < len(kept) else None, f"{path}[{place}]")

    # Queries are no part of the schema: each data source has its own.
    assert [
        path for path in lost(DOCUMENTS[name], again, name) if ".targets[" not in path and ".target." not in path
    ] == []


@pytest.mark.parametrize("name", BOARDS)
def test_lists_are_there_also_where_they_are_empty(name: str) -> None:
    made = DOCUMENTS[name]
    assert isinstance(made["annotations"]["list"], list)
    assert isinstance(made["templating"]["list"], list)
    # The migrations of Grafana 12 and later read these of tables without asking whether they are there.
    for panel in made["panels"]:
        if panel["type"] == "table":
            assert panel["fieldConfig"]["overrides"]
            assert panel["fieldConfig"]["defaults"]["custom"]


def test_what_only_newer_grafanas_know_is_left_out() -> None:
    for made in DOCUMENTS.values():
        assert made["schemaVersion"] <= 42
        for variable in made["templating"]["list"]:
            assert isinstance(variable["query"], str)
        assert [hidden for hidden in (*made["links"], *made["annotations"]["list"]) if "placement" in hidden] == []


def test_uids_titles_and_panel_ids_are_unique() -> None:
    assert len(UIDS) == len(DOCUMENTS)
    assert len({made["title"] for made in DOCUMENTS.values()}) == len(DOCUMENTS)
    for made in DOCUMENTS.values():
        ids = [panel["id"] for panel in made["panels"]]
        assert ids == sorted(set(ids))
        titles = [panel["title"] for panel in made["panels"] if panel["type"] != "row"]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", BOARDS)
def test_the_panels_of_a_line_fill_it(name: str) -> None:
    lines: dict[int, list[dict[str, int]]] = {}
    for panel in DOCUMENTS[name]["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    assert {y: sum(place["w"] for place in line) for y, line in lines.items()} == dict.fromkeys(lines, 24)
    assert all(len({place["h"] for place in line}) == 1 for line in lines.values())


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_explains_itself(board: str, panel: dict[str, Any]) -> None:
    assert board in BOARDS
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["datasource"]["uid"] == "pulsewatch-pg"
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] in {"timeseries", "stat", "bargauge"}:
        assert defaults["unit"]
    if panel["type"] in {"stat", "bargauge"}:
        assert defaults["thresholds"]["steps"]
    if panel["type"] == "heatmap":
        # The unit of a cell is that of its count, not that of the scale beside it.
        assert "unit" not in defaults
        assert (panel["options"]["yAxis"]["unit"], panel["options"]["cellValues"]["unit"]) == ("s", "short")


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_columns_have_headings_for_people_and_units(board: str, panel: dict[str, Any]) -> None:
    if panel["type"] != "table":
        return
    told = {
        override["matcher"]["options"]: {part["id"]: part["value"] for part in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    columns = columns_of(panel["targets"][0]["rawSql"])
    assert list(told) == columns, board
    headings = [parts["displayName"] for parts in told.values()]
    assert len(set(headings)) == len(headings)
    assert [heading for heading in headings if "_" in heading] == []
    for column in columns:
        assert told[column].get("unit") == "s" or not re.search(r"_s$|_s_", column), column
        assert told[column].get("unit") == "percentunit" or not column.endswith("_rate"), column


def test_a_word_has_one_color_everywhere() -> None:
    painted: dict[str, set[str]] = {}
    for made in DOCUMENTS.values():
        for panel in made["panels"]:
            for word, color in colors_of(panel):
                painted.setdefault(word.replace("_", " "), set()).add(color)
    assert {word: colors for word, colors in painted.items() if len(colors) > 1} == {}
    assert {"ok", "failing", "late", "missed", "timed out", "skipped"} <= set(painted)


def colors_of(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The words that a panel paints: names of series, codes, and cells of tables."""
    config = panel.get("fieldConfig", {})
    mappings = list(config.get("defaults", {}).get("mappings", ()))
    for override in config.get("overrides", ()):
        for part in override["properties"]:
            if part["id"] == "color":
                yield override["matcher"]["options"], part["value"]["fixedColor"]
            if part["id"] == "mappings":
                mappings += part["value"]
    for mapping in mappings:
        for word, shown in mapping["options"].items():
            yield shown.get("text", word), shown["color"]


def test_the_dashboards_show_what_people_look_for() -> None:
    shown = {made["uid"]: {panel["type"] for panel in made["panels"]} for made in DOCUMENTS.values()}
    assert shown["pw-fleet"] >= {"stat", "table", "timeseries"}
    assert shown["pw-client"] >= {"stat", "table", "timeseries", "heatmap", "state-timeline", "bargauge"}
    assert shown["pw-pipeline"] >= {"stat", "table", "timeseries", "heatmap", "bargauge"}
    assert shown["pw-alerts"] >= {"stat", "table", "timeseries", "state-timeline"}
    for uid in ("pw-client", "pw-pipeline"):
        (made,) = (made for made in DOCUMENTS.values() if made["uid"] == uid)
        assert [mark["name"] for mark in made["annotations"]["list"]] == ["Deploys and notes", "Alerts"]
    assert [variable["name"] for variable in DOCUMENTS["pipeline"]["templating"]["list"]] == ["client", "pipeline"]


def test_a_variable_of_one_name_means_the_same_on_every_dashboard() -> None:
    """The menu carries variables along by name: all clients, or several, would break a dashboard of one."""
    kinds: dict[str, set[tuple[bool, bool]]] = {}
    for made in DOCUMENTS.values():
        for variable in made["templating"]["list"]:
            kind = bool(variable.get("multi")), bool(variable.get("includeAll"))
            kinds.setdefault(variable["name"], set()).add(kind)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", BOARDS)
def test_links_lead_to_dashboards_and_carry_time_and_variables(name: str) -> None:
    links = re.findall(r'"(/d/[^"]+)"', json.dumps(DOCUMENTS[name]))
    for link in links:
        uid, _, rest = link.removeprefix("/d/").partition("?")
        assert uid in UIDS
        assert rest.endswith("${__url_time_range}")
        target = next(made for made in DOCUMENTS.values() if made["uid"] == uid)
        declared = {variable["name"] for variable in target["templating"].get("list", ())}
        assert set(re.findall(r"var-(\w+)=", rest)) == declared
    (menu,) = DOCUMENTS[name]["links"]
    assert (menu["includeVars"], menu["keepTime"], menu["tags"]) == (True, True, ["pulsewatch"])


def test_columns_that_links_read_are_in_the_query() -> None:
    for board, made in DOCUMENTS.items():
        for panel in made["panels"]:
            text = json.dumps(panel)
            for column in set(re.findall(r"__data\.fields\.(\w+)", text)):
                assert re.search(rf"\b{column}\b", panel["targets"][0]["rawSql"]), (board, panel["title"], column)
