"""A small compiler from the MBQL that PulseWatch writes to SQL, as Metabase itself would read it.

Any clause that is not known here is an error. Times are bound as Metabase binds them: whole units, half-open.
"""

import re
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from pulsewatch.metabase import render
from pulsewatch.metabase.render import Catalog
from pulsewatch.metabase.specs import Question, Specs


def sql_of(query: dict[str, Any], names: Mapping[int, str], values: Mapping[str, str] | None = None) -> Composed:
    """SQL of a dataset_query. `names` gives tables and fields by id; `values` those of the tags of a native query."""
    (stage,) = query["stages"]
    if stage["lib/type"] == "mbql.stage/native":
        return native(stage["native"], values or {})
    return _Stage(stage, names).sql()


def statement(specs: Specs, question: Question, **values: str) -> Composed:
    """SQL of a question of the specs; `values` are those of its variables."""
    names: dict[int, str] = {}
    for view, columns in specs.views().items():
        for name in (f"analytics.{view}", *(f"analytics.{view}.{column}" for column in columns)):
            names[crc32(name.encode())] = name
    return sql_of(render.dataset_query(question, catalog_of(specs)), names, values)


def catalog_of(specs: Specs) -> Catalog:
    """Every object of the specs, with ids that follow from its name: new objects change no others'."""
    tables = [
        {
            "id": crc32(f"analytics.{view}".encode()),
            "name": view,
            "schema": "analytics",
            "fields": [{"id": crc32(f"analytics.{view}.{column}".encode()), "name": column} for column in columns],
        }
        for view, columns in specs.views().items()
    ]
    return Catalog.of({"id": 7, "tables": [*tables, {"id": 99, "name": "run", "schema": "pulsewatch", "fields": []}]})


def native(text: str, values: Mapping[str, str]) -> Composed:
    """SQL of a native query: optional parts whose tags have no value are dropped."""

    def keep(match: re.Match[str]) -> str:
        return match[1] if set(re.findall(r"\{\{\s*(\w+)\s*\}\}", match[1])) <= values.keys() else ""

    parts = re.split(r"\{\{\s*(\w+)\s*\}\}", re.sub(r"\[\[(.*?)\]\]", keep, text, flags=re.DOTALL))
    pieces: list[Composable] = []
    for place, part in enumerate(parts):
        pieces.append(Literal(values[part]) if place % 2 else SQL(part))
    return Composed(pieces)


class _Stage:
    def __init__(self, stage: dict[str, Any], names: Mapping[int, str]) -> None:
        self.stage, self.names = stage, names

    def sql(self) -> Composed:
        stage = self.stage
        known = {
            "lib/type", "source-table", "filters", "aggregation", "breakout", "fields", "order-by", "limit",
        }  # fmt: skip
        assert stage.keys() <= known, stage.keys() - known
        groups = [self.expression(clause) for clause in stage.get("breakout", [])]
        shown = [
            SQL("{} as {}").format(self.expression(clause), Identifier(self.name(clause)))
            for part in ("breakout", "aggregation", "fields")
            for clause in stage.get(part, [])
        ]
        schema, _, table = self.names[stage["source-table"]].partition(".")
        query = SQL("select {} from {}").format(SQL(", ").join(shown), Identifier(schema, table))
        if stage.get("filters"):
            query += SQL(" where ") + SQL(" and ").join(self.condition(clause) for clause in stage["filters"])
        if groups:
            query += SQL(" group by ") + SQL(", ").join(groups)
        # Metabase orders by the groups where nothing else is said.
        order = [self.order(clause) for clause in stage.get("order-by", [])] or groups
        if order:
            query += SQL(" order by ") + SQL(", ").join(order)
        return query + SQL(" limit {}").format(Literal(stage.get("limit", 2000)))

    def name(self, clause: list[Any]) -> str:
        if clause[0] == "field":
            return self.names[clause[2]].rpartition(".")[2]
        named: str = clause[1]["name"]
        return named

    def expression(self, clause: list[Any]) -> Composable:
        kind, options, *arguments = clause
        if kind == "field":
            column = Identifier(self.names[arguments[0]].rpartition(".")[2])
            unit = options.get("temporal-unit")
            return SQL("date_trunc({}, {})").format(Literal(unit), column) if unit else column
        if kind == "count":
            return SQL("count(*)")
        if kind in ("sum", "max", "avg"):
            return SQL("{}({})").format(SQL(kind), self.expression(arguments[0]))
        if kind == "median":
            return SQL("percentile_cont(0.5) within group (order by {})").format(self.expression(arguments[0]))
        assert kind == "/", kind
        part, whole = (self.expression(argument) for argument in arguments)
        return SQL("cast({} as double precision) / nullif({}, 0)").format(part, whole)

    def condition(self, clause: list[Any]) -> Composable:
        kind, options, field, *values = clause
        column = self.expression(field)
        if kind == "=":
            return SQL("{} in ({})").format(column, SQL(", ").join(map(Literal, values)))
        if kind == ">":
            return SQL("{} > {}").format(column, Literal(values[0]))
        assert kind == "time-interval", kind
        amount, unit = values
        now = SQL("date_trunc({}, current_timestamp)").format(Literal(unit))
        end = 1 if options.get("include-current") else 0
        step = SQL("cast({} as interval)").format(Literal(f"1 {unit}"))
        return SQL("{0} >= {1} + {2} * {3} and {0} < {1} + {4} * {3}").format(
            column, now, Literal(amount), step, Literal(end)
        )

    def order(self, clause: list[Any]) -> Composable:
        direction, _, what = clause
        if what[0] == "aggregation":
            (found,) = [each for each in self.stage["aggregation"] if each[1]["lib/uuid"] == what[2]]
            expression: Composable = Identifier(self.name(found))
        else:
            expression = self.expression(what)
        return SQL("{} {}").format(expression, SQL("desc nulls last" if direction == "desc" else "asc"))
