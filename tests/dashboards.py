"""The committed Grafana dashboards, and each query in them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grafana.build import BOARDS, FOLDER

DOCUMENTS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in BOARDS}


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a dashboard, and how its result is used."""

    board: str
    title: str
    kind: str
    shape: str
    sql: str

    @property
    def name(self) -> str:
        return f"{self.board}: {self.title}"


def queries(board: str, made: dict[str, Any]) -> Iterator[Query]:
    for panel in made["panels"]:
        for target in panel.get("targets", ()):
            yield Query(board, panel["title"], panel["type"], target["format"], target["rawSql"])
    for variable in made["templating"].get("list", ()):
        yield Query(board, variable["label"], "variable", "table", variable["query"])
    for note in made["annotations"].get("list", ()):
        yield Query(board, note["name"], "annotation", "table", note["target"]["rawSql"])


QUERIES = [query for board, made in DOCUMENTS.items() for query in queries(board, made)]


def names(query: Query) -> str:
    return query.name
