"""What Metabase's API takes, as far as PulseWatch uses it: our own words about its documentation, from 0.58 to 0.65.

A request with a key that is not named here fails in the tests: a real Metabase would drop it without a word.
"""

import re
from typing import Any

# Of each request that has a body: the keys it may have; those with a `!` it must have.
BODIES = {
    "POST /api/setup": "token! user! prefs! database",
    "POST /api/session": "username! password! remember",
    "POST /api/database": "name! engine! details! is_full_sync is_on_demand schedules auto_run_queries"
    " connection_source",
    "PUT /api/database/:id": "name engine details schedules auto_run_queries description caveats points_of_interest"
    " refingerprint settings",
    "POST /api/database/:id/sync_schema": "",
    "PUT /api/table/:id": "display_name description entity_type visibility_type caveats points_of_interest"
    " show_in_getting_started field_order",
    "PUT /api/field/:id": "display_name description semantic_type fk_target_field_id coercion_strategy visibility_type"
    " has_field_values settings caveats points_of_interest nfc_path json_unfolding",
    "POST /api/collection": "name! description parent_id namespace authority_level",
    "PUT /api/collection/:id": "name description archived parent_id authority_level",
    "POST /api/card": "name! display! visualization_settings! dataset_query! type description collection_id"
    " collection_position parameters parameter_mappings result_metadata cache_ttl dashboard_id entity_id",
    "PUT /api/card/:id": "name display visualization_settings dataset_query type description collection_id"
    " collection_position parameters parameter_mappings result_metadata cache_ttl archived enable_embedding"
    " embedding_params",
    "POST /api/card/:id/query": "parameters ignore_cache dashboard_id",
    "POST /api/dashboard": "name! description parameters collection_id collection_position cache_ttl",
    "PUT /api/dashboard/:id": "name description caveats points_of_interest show_in_getting_started enable_embedding"
    " embedding_params parameters position width archived collection_id collection_position cache_ttl dashcards tabs"
    " auto_apply_filters",
    "PUT /api/setting/:key": "value",
}
USER = "email! password! password_confirm first_name last_name site_locale"
PREFS = "site_name! site_locale allow_tracking"
DETAILS = (
    "host! port! dbname! user! password! ssl ssl-mode tunnel-enabled schema-filters-type schema-filters-patterns"
    " advanced-options json-unfolding let-user-control-scheduling additional-options"
)
SCHEDULE = "schedule_type! schedule_minute schedule_hour schedule_day schedule_frame"
DASHCARD = (
    "id! size_x! size_y! row! col! card_id series visualization_settings parameter_mappings dashboard_tab_id action_id"
)
MAPPING = "parameter_id! card_id target!"
PARAMETER = (
    "id! type! name slug sectionId default required isMultiSelect filteringParameters values_query_type"
    " values_source_type values_source_config temporal_units"
)
TAG = "id! name! display-name! type! dimension widget-type required default options alias"
STAGES = {
    "mbql.stage/mbql": "lib/type! source-table aggregation breakout fields filters order-by limit expressions joins",
    "mbql.stage/native": "lib/type! native! template-tags collection",
}
DISPLAYS = {"table", "line", "bar", "row", "scalar", "smartscalar", "area", "pie", "combo", "progress", "gauge"}
SEMANTIC_TYPES = {f"type/{name}" for name in ("PK", "FK", "Category", "URL", "Percentage", "Owner", "Source", "Name")}
FIELD_VALUES = {"list", "search", "none", "auto-list"}
VISIBILITIES = {"normal", "details-only", "sensitive", "hidden", "retired"}
OPTIONS = {"lib/uuid", "name", "display-name", "temporal-unit", "include-current", "base-type"}


class Fault(Exception):
    """What a real Metabase would answer with 400, or would drop without a word."""


def check_keys(what: str, body: Any, known: str) -> None:
    if not isinstance(body, dict):
        raise Fault(f"{what} is no object")
    names = known.split()
    required = {name.removesuffix("!") for name in names if name.endswith("!")}
    allowed = {name.removesuffix("!") for name in names}
    if unknown := body.keys() - allowed:
        raise Fault(f"{what}: unknown keys {sorted(unknown)}")
    if lacking := required - body.keys():
        raise Fault(f"{what}: lacks {sorted(lacking)}")


def check_body(operation: str, body: Any) -> None:
    """Raises Fault for a body that the operation does not take."""
    if operation not in BODIES:
        raise Fault(f"{operation} takes no body that we know of")
    check_keys(operation, body or {}, BODIES[operation])
    body = body or {}
    if "description" in body and not (body["description"] or "").strip() and operation.startswith("POST"):
        raise Fault("description must not be blank")
    if operation == "POST /api/setup":
        check_keys("user", body["user"], USER)
        check_keys("prefs", body["prefs"], PREFS)
    if "details" in body:
        check_keys("details", body["details"], DETAILS)
        if "engine" not in body:
            raise Fault("details need their engine")
        for schedule in body.get("schedules", {}).values():
            check_keys("schedule", schedule, SCHEDULE)
    for parameter in body.get("parameters") or []:
        check_keys("parameter", parameter, PARAMETER)
    if "dashcards" in body:
        _check_dashcards(body)
    if "/api/card" in operation and "dataset_query" in body:
        _check_card(body)
    if operation == "PUT /api/field/:id":
        _check_field(body)


def _check_dashcards(body: dict[str, Any]) -> None:
    ids = [dashcard.get("id") for dashcard in body["dashcards"]]
    if len(ids) != len(set(ids)):
        raise Fault("dashcards: ids must be unique")
    for dashcard in body["dashcards"]:
        check_keys("dashcard", dashcard, DASHCARD)
        if body.get("tabs") and not dashcard.get("dashboard_tab_id"):
            raise Fault("every dashcard needs its tab")
        if min(dashcard["row"], dashcard["col"]) < 0 or min(dashcard["size_x"], dashcard["size_y"]) < 1:
            raise Fault("a dashcard lies outside the grid")
        for mapping in dashcard.get("parameter_mappings", []):
            check_keys("mapping", mapping, MAPPING)


def _check_field(body: dict[str, Any]) -> None:
    allowed = (
        ("semantic_type", SEMANTIC_TYPES), ("has_field_values", FIELD_VALUES), ("visibility_type", VISIBILITIES),
    )  # fmt: skip
    for name, values in allowed:
        if body.get(name) is not None and body[name] not in values:
            raise Fault(f"{name}: {body[name]} is none of {sorted(values)}")
    for name in ("display_name", "description"):
        if name in body and not (body[name] or "").strip():
            raise Fault(f"{name} must not be blank")


def _check_card(body: dict[str, Any]) -> None:
    if body.get("display") not in DISPLAYS:
        raise Fault(f"no display {body.get('display')}")
    check_query(body["dataset_query"])
    (stage,) = body["dataset_query"]["stages"]
    if body.get("type") == "metric" and (
        stage["lib/type"] != "mbql.stage/mbql" or len(stage.get("aggregation", [])) != 1 or "fields" in stage
    ):
        raise Fault("a metric is one aggregation over a table")


def check_query(query: dict[str, Any]) -> None:
    check_keys("dataset_query", query, "lib/type! database! stages! lib/uuid")
    if query["lib/type"] != "mbql/query" or len(query["stages"]) != 1:
        raise Fault("dataset_query is not of the form that is used here")
    (stage,) = query["stages"]
    check_keys("stage", stage, STAGES[stage["lib/type"]])
    if stage["lib/type"] == "mbql.stage/native":
        tags = stage.get("template-tags", {})
        for name, tag in tags.items():
            check_keys("tag", tag, TAG)
            if tag["name"] != name:
                raise Fault(f"tag {name} is called {tag['name']}")
        if set(re.findall(r"\{\{\s*(\w+)\s*\}\}", stage["native"])) != set(tags):
            raise Fault("the SQL and its tags do not agree")
        return
    for part in ("aggregation", "breakout", "fields", "filters", "order-by"):
        for clause in stage.get(part, []):
            check_clause(clause)
    named = {clause[1].get("lib/uuid") for clause in stage.get("aggregation", [])}
    for _, _, what in stage.get("order-by", []):
        if what[0] == "aggregation" and what[2] not in named:
            raise Fault("order-by names an aggregation that is not there")


def check_clause(clause: Any) -> None:
    """A clause is [name, options, arguments ...]."""
    if (
        not isinstance(clause, list)
        or len(clause) < 2
        or not isinstance(clause[0], str)
        or not isinstance(clause[1], dict)
    ):
        raise Fault(f"{clause} is no clause")
    if unknown := clause[1].keys() - OPTIONS:
        raise Fault(f"{clause[0]}: unknown options {sorted(unknown)}")
    for argument in clause[2:]:
        if isinstance(argument, list):
            check_clause(argument)
