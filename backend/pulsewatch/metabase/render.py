"""Metabase's payloads, made of the specs and of the ids that Metabase has given. Pure: values in, values out.

Queries are written in MBQL 5 (Metabase 0.57 and later): every clause is [name, options, arguments ...].
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulsewatch.metabase.specs import TAG, Aggregate, Card, Column, Condition, Dashboard, Filter, Question, Specs

Payload = dict[str, Any]

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "pulsewatch/metabase")
MARKER = re.compile(r"\[pulsewatch:([a-z][a-z0-9_]*)@([a-z0-9]+)\]")
# Stands for the hash of something that is not complete yet.
UNFINISHED = "unfinished"
# From these units on, a name that ends in them is told so.
UNITS = {"_s": " (s)", "_utc": " (UTC)"}
FORMATS: dict[str, Payload] = {
    "percent": {"number_style": "percent", "decimals": 1},
    "seconds": {"suffix": " s", "decimals": 1},
    "times": {"suffix": " times", "decimals": 1},
    "link": {"view_as": "link"},
}


class MissingColumn(LookupError):
    """Metabase does not know a table or column, yet or any more."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What Metabase knows of the database: its id, and tables (with their fields by name) by their names."""

    database_id: int
    tables: Mapping[str, Payload]

    @classmethod
    def of(cls, metadata: Payload, schema: str = "analytics") -> "Catalog":
        """From the answer of GET /api/database/:id/metadata."""
        tables = {}
        for table in metadata["tables"]:
            if table.get("schema") == schema:
                tables[table["name"]] = {**table, "fields": {field["name"]: field for field in table.get("fields", [])}}
        return cls(metadata["id"], tables)

    def table(self, name: str) -> Payload:
        if name not in self.tables:
            msg = f"analytics.{name}"
            raise MissingColumn(msg)
        return self.tables[name]

    def field(self, table: str, column: str) -> Payload:
        fields = self.table(table)["fields"]
        if column not in fields:
            msg = f"analytics.{table}.{column}"
            raise MissingColumn(msg)
        found: Payload = fields[column]
        return found

    def field_id(self, table: str, column: str) -> int:
        number: int = self.field(table, column)["id"]
        return number


# -- markers ----------------------------------------------------------------------------------------------------------


def digest(payload: Payload) -> str:
    """Eight hex digits of what a thing should be like."""
    canonical = json.dumps(payload, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def marked(key: str, payload: Payload, *, state: str | None = None) -> Payload:
    """The payload with a marker in its description, by which it is found again; `state` stands for its digest."""
    return {**payload, "description": f"{payload['description']} [pulsewatch:{key}@{state or digest(payload)}]"}


def marker_of(thing: Payload) -> tuple[str, str] | None:
    """Key and digest in the marker of something in Metabase; None if it is not ours."""
    found = MARKER.search(thing.get("description") or "")
    return (found[1], found[2]) if found else None


# -- tables and fields ------------------------------------------------------------------------------------------------


def title_of(name: str) -> str:
    """A column's name in words: `duration_p95_s` is Duration p95 (s)."""
    for ending, unit in UNITS.items():
        if name.endswith(ending):
            return title_of(name.removesuffix(ending)) + unit
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def table_wishes(specs: Specs, table: str) -> Payload:
    known = specs.tables.get(table)
    return {
        "display_name": known.title if known else title_of(table),
        "description": specs.descriptions[table],
    }


def field_wishes(specs: Specs, catalog: Catalog, table: str, column: str) -> Payload:
    """How a field should be; what is not in it is left to Metabase. Raises MissingColumn for the target of a key."""
    meaning = specs.columns.get(column, Column())
    wishes: Payload = {
        "display_name": meaning.title or title_of(column),
        "description": specs.descriptions[f"{table}.{column}"],
    }
    known = specs.tables.get(table)
    if known is not None and known.key == column:
        wishes["semantic_type"] = "type/PK"
    elif meaning.target is not None:
        wishes["semantic_type"] = "type/FK"
        wishes["fk_target_field_id"] = catalog.field_id(*meaning.target.split("."))
    elif meaning.type is not None:
        wishes["semantic_type"] = f"type/{meaning.type}"
    elif column.endswith("_rate"):
        wishes["semantic_type"] = "type/Percentage"
    is_big = known is not None and known.big
    if meaning.values is not None:
        wishes["has_field_values"] = "none" if is_big else meaning.values
    if meaning.detail:
        wishes["visibility_type"] = "details-only"
    return wishes


# -- questions --------------------------------------------------------------------------------------------------------


def _id(*parts: str) -> str:
    """The same id for the same thing, on every server."""
    return str(uuid.uuid5(NAMESPACE, "/".join(parts)))


class _Query:
    """Clauses over one table."""

    def __init__(self, question: Question, catalog: Catalog) -> None:
        assert question.table is not None  # noqa: S101 - narrows the type; SQL takes another way
        self.question, self.catalog, self.table = question, catalog, question.table

    def field(self, column: str, **options: str) -> list[Any]:
        return ["field", {name.replace("_", "-"): value for name, value in options.items()}, self._field_id(column)]

    def _field_id(self, column: str) -> int:
        return self.catalog.field_id(self.table, column)

    def filter(self, condition: Condition) -> list[Any]:
        column = self.field(condition.column)
        if condition.last is not None:
            options = {"include-current": True} if condition.current else {}
            return ["time-interval", options, column, -condition.last, condition.unit]
        if condition.above is not None:
            return [">", {}, column, condition.above]
        values = condition.in_ if condition.in_ is not None else [condition.equals]
        return ["=", {}, column, *values]

    def aggregation(self, name: str, number: Aggregate) -> list[Any]:
        options = {"lib/uuid": _id(self.question.key, name), "name": name, "display-name": number.title}
        if number.share is not None:
            return ["/", options, *(["sum", {}, self.field(column)] for column in number.share)]
        if number.sum is not None:
            return ["sum", options, self.field(number.sum)]
        if number.max is not None:
            return ["max", options, self.field(number.max)]
        if number.mean is not None:
            return ["avg", options, self.field(number.mean)]
        if number.median is not None:
            return ["median", options, self.field(number.median)]
        return ["count", options]

    def breakout(self, by: str) -> list[Any]:
        column, _, unit = by.partition(".")
        return self.field(column, temporal_unit=unit) if unit else self.field(column)

    def order(self, by: str) -> list[Any]:
        name = by.removeprefix("-")
        ours = name in self.question.numbers
        what = ["aggregation", {}, _id(self.question.key, name)] if ours else self.field(name)
        return ["desc" if by.startswith("-") else "asc", {}, what]

    def stage(self) -> Payload:
        question = self.question
        parts: Payload = {
            "filters": [self.filter(condition) for condition in question.where],
            "aggregation": [self.aggregation(name, number) for name, number in question.numbers.items()],
            "breakout": [self.breakout(by) for by in question.by],
            "fields": [self.field(column) for column in question.columns],
            "order-by": [self.order(by) for by in question.order],
            "limit": question.limit,
        }
        source = {"lib/type": "mbql.stage/mbql", "source-table": self.catalog.table(self.table)["id"]}
        return source | {name: part for name, part in parts.items() if part}


def dataset_query(question: Question, catalog: Catalog) -> Payload:
    """The query of a question. Raises MissingColumn."""
    stage = _Query(question, catalog).stage() if question.table is not None else _native_stage(question)
    return {"lib/type": "mbql/query", "database": catalog.database_id, "stages": [stage]}


def _native_stage(question: Question) -> Payload:
    tags = {
        name: {"id": _id(question.key, name), "name": name, "display-name": variable.title, "type": "text"}
        for name, variable in question.variables.items()
    }
    return {"lib/type": "mbql.stage/native", "native": question.native, "template-tags": tags}


def tags_of(query: Payload) -> set[str]:
    """The names of the tags of a query that Metabase has answered: a map, or from 0.63 on a list."""
    found: set[str] = set()
    for stage in query.get("stages", [query.get("native", {})]):
        tags = stage.get("template-tags") or {}
        found |= set(tags) if isinstance(tags, dict) else {tag["name"] for tag in tags}
    return found


def wanted_tags(question: Question) -> set[str]:
    return set(TAG.findall(question.native or ""))


def _settings(question: Question) -> Payload:
    settings: Payload = {}
    dimensions = question.dimension_columns() or question.dimensions
    measures = list(question.numbers) or question.measures
    if question.display in ("line", "bar", "row"):
        settings |= {"graph.dimensions": dimensions, "graph.metrics": measures}
    if question.display == "scalar":
        settings["scalar.field"] = measures[0]
    if question.stacked:
        settings["stackable.stack_type"] = "stacked"
    colours = {name: {"color": number.colour} for name, number in question.numbers.items() if number.colour}
    colours |= {name: {"color": colour} for name, colour in question.colours.items()}
    if colours:
        settings["series_settings"] = colours
    if question.formats:
        settings["column_settings"] = {
            json.dumps(["name", name], separators=(",", ":")): FORMATS[style]
            for name, style in question.formats.items()
        }
    return settings


def card(question: Question, catalog: Catalog, collection_id: int) -> Payload:
    """What to POST or PUT for a question or metric, with its marker. Raises MissingColumn."""
    return marked(
        question.key,
        {
            "name": question.name,
            "description": question.description,
            "type": question.type,
            "display": question.display,
            "collection_id": collection_id,
            "visualization_settings": _settings(question),
            "dataset_query": dataset_query(question, catalog),
        },
    )


# -- dashboards -------------------------------------------------------------------------------------------------------


def _parameter(specs: Specs, each: Filter, catalog: Catalog, card_ids: Mapping[str, int]) -> Payload:
    parameter: Payload = {
        "id": each.key,
        "name": each.title,
        "slug": each.key,
        "type": each.type,
        "sectionId": each.type.partition("/")[0],
    }
    if each.default is not None:
        parameter["default"] = each.default
    if each.single:
        parameter["isMultiSelect"] = False
    if each.question is not None and each.column is not None:
        # A list of a question's instead of values that Metabase would gather from every table that is filtered.
        table = specs.question(each.question).table
        assert table is not None  # noqa: S101 - narrows the type; the linter of the specs holds it
        source = {"card_id": card_ids[each.question], "value_field": _reference(catalog, table, each.column)}
        parameter |= {"values_query_type": "list", "values_source_type": "card", "values_source_config": source}
    return parameter


def _reference(catalog: Catalog, table: str, column: str) -> list[Any]:
    """A column in the form that parameters still use, older than that of queries."""
    return ["field", catalog.field_id(table, column), None]


def _mapping(question: Question, catalog: Catalog, card_id: int, filter_key: str, goes_to: str) -> Payload:
    target: list[Any]
    if question.table is None:
        target = ["variable", ["template-tag", goes_to]]
    else:
        target = ["dimension", _reference(catalog, question.table, goes_to), {"stage-number": 0}]
    return {"parameter_id": filter_key, "card_id": card_id, "target": target}


def _dashcard(specs: Specs, place: Card, catalog: Catalog, card_ids: Mapping[str, int]) -> Payload:
    (row, col), (width, height) = place.at, place.size
    dashcard: Payload = {"card_id": None, "row": row, "col": col, "size_x": width, "size_y": height, "series": []}
    if place.question is None:
        virtual: Payload = {
            "name": None, "display": "heading", "visualization_settings": {}, "dataset_query": {}, "archived": False,
        }  # fmt: skip
        settings = {"virtual_card": virtual, "text": place.heading}
        return dashcard | {"visualization_settings": settings, "parameter_mappings": []}
    question, card_id = specs.question(place.question), card_ids[place.question]
    mappings = [_mapping(question, catalog, card_id, *pair) for pair in place.filters.items()]
    return dashcard | {"card_id": card_id, "visualization_settings": {}, "parameter_mappings": mappings}


def dashboard(specs: Specs, wanted: Dashboard, catalog: Catalog, card_ids: Mapping[str, int]) -> Payload:
    """What to PUT for a dashboard, with its marker; its dashcards have no ids yet (see with_ids)."""
    return marked(
        wanted.key,
        {
            "name": wanted.name,
            "description": wanted.description,
            "width": "full",
            "collection_position": 1,
            "parameters": [_parameter(specs, each, catalog, card_ids) for each in wanted.filters],
            "tabs": [],
            "dashcards": [_dashcard(specs, place, catalog, card_ids) for place in wanted.cards],
        },
    )


def with_ids(dashcards: list[Payload], existing: list[Payload]) -> list[Payload]:
    """The dashcards with the ids of those that exist, so that links to them stay; new ones count down from -1."""
    free = {_identity(dashcard): dashcard["id"] for dashcard in reversed(existing)}
    new = iter(range(-1, -len(dashcards) - 1, -1))
    return [{"id": free.pop(_identity(each), None) or next(new), **each} for each in dashcards]


def _identity(dashcard: Payload) -> tuple[int | None, str | None]:
    text = (dashcard.get("visualization_settings") or {}).get("text")
    return dashcard.get("card_id"), text
