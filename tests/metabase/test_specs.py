"""The specs fit the real views: columns, comments, types, the grid of the dashboards, and what each query reads."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Connection, text

from pulsewatch.metabase.render import title_of
from pulsewatch.metabase.specs import Card, Question, SpecError, Specs, read_specs
from pulsewatch.migrate import data_folder
from tests.running import ROOT

pytestmark = pytest.mark.unmeasured

COLUMNS = """
    select class.relname, attribute.attname, format_type(attribute.atttypid, attribute.atttypmod),
        col_description(class.oid, attribute.attnum), obj_description(class.oid, 'pg_class')
    from pg_attribute as attribute
    join pg_class as class on class.oid = attribute.attrelid
    where class.relnamespace = 'analytics'::regnamespace and attribute.attnum > 0 and not attribute.attisdropped
    order by class.relname, attribute.attnum
"""
NUMBERS = {"bigint", "integer", "smallint", "double precision"}
# Objects that are small or read by index; the others hold a row for each run or event, and are for lists alone.
WORKED_OUT = {
    "client_daily", "clients", "duration_drift", "fleet_daily", "pipelines", "pipelines_now", "runs_daily", "slots",
    "alerts", "alert_rules_now", "notifications", "rule_quality",
}  # fmt: skip


@pytest.fixture
def types(connection: Connection) -> dict[tuple[str, str], str]:
    return {(table, column): kind for table, column, kind, *_ in connection.execute(text(COLUMNS))}


def questions(specs: Specs) -> Iterator[Question]:
    yield from (question for question in specs.questions if question.table is not None)


def test_views_columns_and_descriptions_are_those_of_the_database(connection: Connection, specs: Specs) -> None:
    found: dict[str, str] = {}
    columns: dict[str, list[str]] = {}
    for table, column, _, comment, about in connection.execute(text(COLUMNS)):
        found[table] = " ".join(about.split())
        found[f"{table}.{column}"] = " ".join(comment.split())
        columns.setdefault(table, []).append(column)
    assert specs.descriptions == found
    assert {view: sorted(names) for view, names in specs.views().items()} == {
        view: sorted(names) for view, names in columns.items()
    }


def test_every_view_has_a_title(specs: Specs) -> None:
    assert set(specs.tables) == set(specs.views())
    titles = [table.title for table in specs.tables.values()]
    assert len(titles) == len(set(titles))


def test_keys_and_meanings_are_of_columns_that_exist(specs: Specs) -> None:
    views = specs.views()
    everywhere = {column for columns in views.values() for column in columns}
    assert set(specs.columns) - everywhere == set()
    assert [name for name, table in specs.tables.items() if table.key and table.key not in views[name]] == []
    targets = [column.target.split(".") for column in specs.columns.values() if column.target is not None]
    assert [target for target in targets if specs.tables[target[0]].key != target[1]] == []


def test_no_two_columns_of_a_table_bear_the_same_name(specs: Specs) -> None:
    for view, columns in specs.views().items():
        titles = [
            specs.columns[name].title or title_of(name) if name in specs.columns else title_of(name) for name in columns
        ]
        assert len(titles) == len(set(titles)), view


def test_no_column_is_taken_for_a_place_on_a_map(specs: Specs) -> None:
    """Metabase guesses by the names."""
    names = {column for columns in specs.views().values() for column in columns}
    assert [name for name in names if name.endswith(("_lat", "_lon", "_lng", "_long")) or name in ("lat", "lon")] == []


def test_questions_sum_numbers_and_look_back_over_times(specs: Specs, types: dict[tuple[str, str], str]) -> None:
    for question in questions(specs):
        assert question.table is not None
        for number in question.numbers.values():
            for column in (number.sum, number.max, number.mean, number.median, *(number.share or ())):
                assert column is None or types[question.table, column] in NUMBERS, (question.key, column)
        for condition in question.where:
            kind = types[question.table, condition.column]
            if condition.last is not None:
                assert kind == "timestamp with time zone", (question.key, condition)
            if condition.above is not None:
                assert kind in NUMBERS, (question.key, condition)
            if isinstance(condition.equals, bool):
                assert kind == "boolean", (question.key, condition)
        for by in question.by:
            column, _, unit = by.partition(".")
            assert bool(unit) == (types[question.table, column] == "timestamp with time zone"), (question.key, by)


def test_only_lists_read_runs(specs: Specs) -> None:
    readers = {question.key for question in questions(specs) if question.table not in WORKED_OUT}
    assert readers == {"failed_runs"}
    assert specs.question("failed_runs").columns != []


def test_what_reads_much_looks_back_over_a_bounded_time(specs: Specs) -> None:
    for question in questions(specs):
        assert question.table is not None
        if specs.tables[question.table].big:
            assert any(condition.last is not None for condition in question.where), question.key
            assert question.limit is not None, question.key


def test_percentiles_are_never_added_up_or_averaged(specs: Specs) -> None:
    for question in questions(specs):
        for number in question.numbers.values():
            assert "_p" not in (number.sum or ""), question.key


def test_names_are_told_apart(specs: Specs) -> None:
    names = [question.name for question in specs.questions] + [dashboard.name for dashboard in specs.dashboards]
    assert len(names) == len(set(names))


def test_formats_and_orders_are_of_columns_that_are_shown(specs: Specs) -> None:
    for question in questions(specs):
        shown = question.result_columns()
        assert set(question.formats) <= set(shown), question.key
        assert {name.removeprefix("-") for name in question.order} <= set(shown), question.key


# -- dashboards -------------------------------------------------------------------------------------------------------


def cells(card: Card) -> set[tuple[int, int]]:
    (row, col), (width, height) = card.at, card.size
    return {(row + down, col + right) for down in range(height) for right in range(width)}


def test_cards_lie_in_the_grid_side_by_side_and_fill_its_width(specs: Specs) -> None:
    for dashboard in specs.dashboards:
        for card in dashboard.cards:
            assert card.at[1] + card.size[0] <= 24, card
        for one, other in combinations(dashboard.cards, 2):
            assert not cells(one) & cells(other), (one, other)
        taken = set().union(*(cells(card) for card in dashboard.cards))
        last = max(row for row, _ in taken)
        assert taken == {(row, col) for row in range(last + 1) for col in range(24)}


def test_every_filter_goes_somewhere_and_fits_what_it_filters(specs: Specs, types: dict[tuple[str, str], str]) -> None:
    families = {"date/all-options": "timestamp with time zone", "string/=": "text"}
    for dashboard in specs.dashboards:
        known = {each.key: each for each in dashboard.filters}
        used = {key for card in dashboard.cards for key in card.filters}
        assert used == set(known)
        for card in dashboard.cards:
            question = specs.question(card.question) if card.question is not None else None
            for key, column in card.filters.items():
                assert question is not None, card
                if question.table is None:
                    assert column in question.variables, card
                    # A variable takes one value.
                    assert known[key].single, card
                else:
                    assert types[question.table, column] == families[known[key].type], (card, key)
        for each in dashboard.filters:
            if each.question is not None:
                source = specs.question(each.question)
                assert each.column in source.columns, each


def test_a_window_of_a_questions_own_is_told_in_its_name_and_not_filtered_again(specs: Specs) -> None:
    windows = {
        (7, "day", True): "last 7 days", (24, "hour", True): "last 24 hours", (3, "hour", True): "last 3 hours",
        (1, "day", False): "yesterday",
    }  # fmt: skip
    for question in questions(specs):
        for condition in question.where:
            if condition.last is not None and condition.unit is not None:
                assert windows[condition.last, condition.unit, condition.current] in question.name
                cards = [card for dashboard in specs.dashboards for card in dashboard.cards]
                assert all("when" not in card.filters for card in cards if card.question == question.key)


# -- what is refused --------------------------------------------------------------------------------------------------


def spoiled(folder: Path, name: str, change: Any) -> Path:
    for path in (ROOT / "metabase/specs").glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        if path.name == name:
            change(content)
        (folder / path.name).write_text(yaml.safe_dump(content))
    return folder


def first_question(content: Any) -> Any:
    return content["questions"][0]


def number(content: Any) -> Any:
    return first_question(content)["numbers"]["success_rate"]


def card(content: Any, place: int) -> Any:
    return content["dashboards"][0]["cards"][place]


ONE_THING = "must say one of equals, above, in, and last with its unit"
METRIC = {"type": "metric", "numbers": {}, "columns": ["client"]}
FAULTS = [
    ("questions.yaml", lambda content: first_question(content).update(table="nothing"), "analytics.nothing, which"),
    ("questions.yaml", lambda content: first_question(content).update(by=["nope.day"]), "client_daily.nope, which"),
    ("questions.yaml", lambda content: first_question(content).update(key="runs"), "two things have the key runs"),
    ("questions.yaml", lambda content: first_question(content).update(native="select 1"), "either a table or SQL"),
    ("questions.yaml", lambda content: first_question(content).update(colour="red"), "Extra inputs are not permitted"),
    ("questions.yaml", lambda content: first_question(content).update(columns=["client"]), "either numbers or columns"),
    ("questions.yaml", lambda content: first_question(content).update(METRIC), "is a metric, which is one number"),
    (
        "questions.yaml",
        lambda content: number(content).update(sum="failed_count"),
        "count, sum, max, mean, median and share",
    ),
    ("questions.yaml", lambda content: first_question(content).update(where=[{"column": "day_utc"}]), ONE_THING),
    ("tables.yaml", lambda content: content["tables"].update(nothing={"title": "Nothing"}), "analytics.nothing, which"),
    ("dashboards.yaml", lambda content: card(content, 1).update(question="nope"), "shows nope, which is not there"),
    ("dashboards.yaml", lambda content: card(content, 0).update(question="runs"), "either a question or a heading"),
]


@pytest.mark.parametrize(("name", "change", "said"), FAULTS, ids=[said for *_, said in FAULTS])
def test_a_spec_that_contradicts_itself_is_refused(tmp_path: Path, name: str, change: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_specs(spoiled(tmp_path, name, change), data_folder("sql") / "analytics")


def test_a_native_question_defines_the_variables_that_it_uses(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        (native,) = [question for question in content["questions"] if "native" in question]
        native["variables"]["other"] = {"title": "Other"}

    with pytest.raises(SpecError, match="variables that its SQL uses"):
        read_specs(spoiled(tmp_path, "questions.yaml", change), data_folder("sql") / "analytics")


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    spoiled(tmp_path, "", None)
    (tmp_path / "tables.yaml").write_text("tables: [")
    with pytest.raises(SpecError, match=r"tables\.yaml"):
        read_specs(tmp_path, data_folder("sql") / "analytics")
