"""What is sent to Metabase: payloads as they were written down, markers, names, and ids that stay."""

import json
from typing import Any

import pytest

from pulsewatch.metabase import render
from pulsewatch.metabase.render import Catalog, MissingColumn
from pulsewatch.metabase.specs import Specs
from tests.metabase.conftest import GOLDEN
from tests.metabase.mbql import catalog_of


@pytest.fixture(scope="module")
def catalog(specs: Specs) -> Catalog:
    return catalog_of(specs)


def written(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


QUESTIONS = [
    "runs", "success_rate", "outcomes_daily", "failing_now", "failures_by_pipeline", "slowest_pipelines",
    "late_or_missed", "error_classes", "alerts_daily", "alert_times",
]  # fmt: skip


@pytest.mark.parametrize("key", QUESTIONS)
def test_a_question_is_sent_as_it_was_written_down(specs: Specs, catalog: Catalog, key: str) -> None:
    assert render.card(specs.question(key), catalog, 5) == written(key)


@pytest.mark.parametrize("key", ["pipeline_health", "alert_quality"])
def test_a_dashboard_is_sent_as_it_was_written_down(specs: Specs, catalog: Catalog, key: str) -> None:
    card_ids = {question.key: 1000 + place for place, question in enumerate(specs.questions)}
    (dashboard,) = (dashboard for dashboard in specs.dashboards if dashboard.key == key)
    assert render.dashboard(specs, dashboard, catalog, card_ids) == written(key)


def test_fields_get_names_descriptions_types_and_keys(specs: Specs, catalog: Catalog) -> None:
    def wishes(table: str, column: str) -> Any:
        return render.field_wishes(specs, catalog, table, column)

    assert wishes("runs", "run_id") == {
        "display_name": "Run",
        "description": "Identity of the run; the same in any order of arrival.",
        "semantic_type": "type/PK",
        "has_field_values": "none",
    }
    assert wishes("slots", "run_id")["semantic_type"] == "type/FK"
    assert wishes("slots", "run_id")["fk_target_field_id"] == catalog.field_id("runs", "run_id")
    assert wishes("runs_daily", "success_rate") == {
        "display_name": "Success rate",
        "description": "succeeded / (succeeded + failed + timed_out), from 0 to 1; null where there is none.",
        "semantic_type": "type/Percentage",
    }
    assert wishes("runs", "message")["visibility_type"] == "details-only"
    # A list of its values would be read from every run, every night.
    assert wishes("runs", "status")["has_field_values"] == "none"
    assert wishes("pipelines_now", "health")["has_field_values"] == "list"
    assert render.table_wishes(specs, "slots")["display_name"] == "Expected starts"


@pytest.mark.parametrize(
    ("column", "title"),
    [
        ("duration_p95_s", "Duration p95 (s)"),
        ("day_utc", "Day (UTC)"),
        ("is_late", "Is late"),
        ("started_at", "Started at"),
        ("rows", "Rows"),
    ],
)
def test_a_column_is_called_by_words(column: str, title: str) -> None:
    assert render.title_of(column) == title


def test_a_column_that_metabase_does_not_know_is_named(specs: Specs, catalog: Catalog) -> None:
    poorer = Catalog(catalog.database_id, {name: table for name, table in catalog.tables.items() if name != "runs"})
    with pytest.raises(MissingColumn, match=r"analytics\.runs"):
        render.card(specs.question("failed_runs"), poorer, 5)
    with pytest.raises(MissingColumn, match=r"analytics\.clients\.nope"):
        catalog.field_id("clients", "nope")


def test_a_marker_is_found_again_whatever_people_write_around_it() -> None:
    payload = render.marked("runs", {"name": "Runs", "description": "How many."})
    assert render.marker_of(payload) == ("runs", render.digest({"name": "Runs", "description": "How many."}))
    changed = {"description": f"Ours! {payload['description']} (see the wiki)"}
    assert render.marker_of(changed) == render.marker_of(payload)
    assert render.marker_of({"description": None}) is None
    assert render.marker_of({"description": "[pulsewatch]"}) is None


def test_whatever_differs_in_a_payload_changes_its_digest(specs: Specs, catalog: Catalog) -> None:
    question = specs.question("failing_now")
    digests = {
        render.marker_of(render.card(changed, catalog, collection))
        for changed, collection in (
            (question, 5),
            (question, 6),
            (question.model_copy(update={"limit": 7}), 5),
            (question.model_copy(update={"name": "Failing"}), 5),
        )
    }
    assert len(digests) == 4


def test_dashcards_keep_their_ids() -> None:
    def dashcard(card_id: int | None, text: str | None = None, **more: int) -> dict[str, Any]:
        return {"card_id": card_id, "visualization_settings": {"text": text} if text else {}, **more}

    wanted = [dashcard(None, "Now"), dashcard(5), dashcard(6), dashcard(5), dashcard(None, "Then")]
    existing = [dashcard(5, id=50), dashcard(None, "Then", id=51), dashcard(8, id=52)]
    assert [each["id"] for each in render.with_ids(wanted, existing)] == [-1, 50, -2, -3, 51]


@pytest.mark.parametrize(
    "query",
    [
        {"stages": [{"template-tags": {"a": {"name": "a"}, "b": {"name": "b"}}}]},
        {"stages": [{"template-tags": [{"name": "a"}, {"name": "b"}]}]},
        {"native": {"query": "select 1", "template-tags": {"a": {}, "b": {}}}},
    ],
    ids=["map", "list", "legacy"],
)
def test_tags_are_read_in_every_form(query: dict[str, Any]) -> None:
    assert render.tags_of(query) == {"a", "b"}
