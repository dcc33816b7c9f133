"""What a Metabase keeps, and the part of it that people see: collections, questions, dashboards."""

import copy
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.metabase import contract, mbql
from tests.metabase.wire import Answer, Persona, Request

TRASH = 9999


@dataclass
class State:
    """What a Metabase keeps."""

    token: str | None = "setup-token-1"
    users: dict[str, str] = field(default_factory=dict)
    administrators: set[str] = field(default_factory=set)
    sessions: dict[str, str] = field(default_factory=dict)
    databases: dict[int, dict[str, Any]] = field(default_factory=dict)
    tables: dict[int, dict[str, Any]] = field(default_factory=dict)
    fields: dict[int, dict[str, Any]] = field(default_factory=dict)
    collections: dict[int, dict[str, Any]] = field(default_factory=dict)
    cards: dict[int, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[int, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    last_id: int = 100

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id


class Contents:
    """Collections, questions and dashboards, and the answers about them."""

    def __init__(self, reader_dsn: str, persona: Persona) -> None:
        self.reader_dsn, self.persona = reader_dsn, persona
        self.state = State()

    def _not_found(self) -> Answer:
        return Answer(404, "Not found." if self.persona.text_404 else {"message": "Not found."})

    def _get(self, things: dict[int, dict[str, Any]], number: str) -> dict[str, Any]:
        if int(number) not in things:
            raise self._not_found()
        return things[int(number)]

    # -- collections --------------------------------------------------------------------------------------------------

    def collections(self, _: Request) -> Any:
        root = {"id": "root", "name": "Our analytics"}
        return [root, *(each for each in self.state.collections.values() if not each["archived"])]

    def add_collection(self, request: Request) -> Any:
        number = self.state.new_id()
        made = {"id": number, "location": "/", "namespace": None, "personal_owner_id": None, "archived": False}
        self.state.collections[number] = made | request.body
        return self.state.collections[number]

    def change_collection(self, request: Request, number: str) -> Any:
        found = self._get(self.state.collections, number)
        found |= request.body
        return found

    def trash(self, _: Request) -> Any:
        return {"id": TRASH, "name": "Trash", "type": "trash"}

    def items(self, request: Request, number: str) -> Any:
        """In pages of five, so that whoever reads only the first one loses things."""
        is_archived = request.query.get("archived") == ["true"]
        models = request.query.get("models", [])
        found = []
        for card in self.state.cards.values():
            model = {"question": "card", "metric": "metric"}[card["type"]]
            found.append((model, card))
        found += [("dashboard", each) for each in self.state.dashboards.values()]
        found += [("collection", each) for each in self.state.collections.values()]
        wanted = [
            {"id": each["id"], "model": model, "name": each["name"], "description": each.get("description")}
            for model, each in found
            if model in models and each.get("archived", False) == is_archived
            and (is_archived if int(number) == TRASH else self._parent(model, each) == int(number) and not is_archived)
        ]  # fmt: skip
        offset = int(request.query.get("offset", ["0"])[0])
        return {"data": wanted[offset : offset + 5], "total": len(wanted), "models": models}

    def _parent(self, model: str, thing: dict[str, Any]) -> int | None:
        parent: int | None = thing.get("parent_id" if model == "collection" else "collection_id")
        return parent

    # -- cards and dashboards -----------------------------------------------------------------------------------------

    def _check_fields(self, query: dict[str, Any]) -> None:
        (stage,) = query["stages"]
        if query["database"] not in self.state.databases:
            raise contract.Fault(f"no database {query['database']}")
        if "source-table" not in stage:
            return
        for number in re.findall(r'\["field", \{[^}]*\}, (\d+)\]', json.dumps(stage)):
            if self.state.fields.get(int(number), {}).get("table_id") != stage["source-table"]:
                raise contract.Fault(f"field {number} is not of table {stage['source-table']}")

    def add_card(self, request: Request) -> Any:
        self._check_fields(request.body["dataset_query"])
        number = self.state.new_id()
        self.state.cards[number] = {"id": number, "archived": False, **copy.deepcopy(request.body)}
        return self.card(request, str(number))

    def card(self, _: Request, number: str) -> Any:
        card = copy.deepcopy(self._get(self.state.cards, number))
        for stage in card["dataset_query"]["stages"]:
            if self.persona.adds_uuids:
                stage["lib/uuid"] = str(uuid.uuid4())
            if self.persona.tags_as_list and "template-tags" in stage:
                stage["template-tags"] = list(stage["template-tags"].values())
        return card

    def change_card(self, request: Request, number: str) -> Any:
        card = self._get(self.state.cards, number)
        if "dataset_query" in request.body:
            self._check_fields(request.body["dataset_query"])
        card |= copy.deepcopy(request.body)
        return self.card(request, number)

    def query_card(self, _: Request, number: str) -> Any:
        query = self._get(self.state.cards, number)["dataset_query"]
        names = {each["id"]: f"analytics.{each['name']}" for each in self.state.tables.values()}
        names |= {each["id"]: f"{names[each['table_id']]}.{each['name']}" for each in self.state.fields.values()}
        try:
            with psycopg.connect(self.reader_dsn) as connection:
                rows = connection.execute(mbql.sql_of(query, names)).fetchall()
        except psycopg.Error as error:
            raise Answer(202, {"status": "failed", "error": str(error), "data": {"rows": []}}) from error
        raise Answer(202, {"status": "completed", "row_count": len(rows), "data": {"rows": []}})

    def add_dashboard(self, request: Request) -> Any:
        number = self.state.new_id()
        made = {"id": number, "archived": False, "dashcards": [], "tabs": [], "parameters": []}
        self.state.dashboards[number] = made | copy.deepcopy(request.body)
        return self.state.dashboards[number]

    def dashboard(self, _: Request, number: str) -> Any:
        return self._get(self.state.dashboards, number)

    def change_dashboard(self, request: Request, number: str) -> Any:
        dashboard = self._get(self.state.dashboards, number)
        body = copy.deepcopy(request.body)
        if "dashcards" in body:
            known = {dashcard["id"] for dashcard in dashboard["dashcards"]}
            for dashcard in body["dashcards"]:
                if dashcard["card_id"] is not None and dashcard["card_id"] not in self.state.cards:
                    raise contract.Fault(f"no card {dashcard['card_id']}")
                if dashcard["id"] < 0:
                    dashcard["id"] = self.state.new_id()
                elif dashcard["id"] not in known:
                    raise contract.Fault(f"no dashcard {dashcard['id']}")
        dashboard |= body
        return dashboard

    def parameter_values(self, _: Request, number: str, parameter: str) -> Any:
        dashboard = self._get(self.state.dashboards, number)
        (found,) = [each for each in dashboard["parameters"] if each["id"] == parameter]
        source = found["values_source_config"]
        table = self._get(self.state.cards, str(source["card_id"]))["dataset_query"]["stages"][0]["source-table"]
        if self.state.fields[source["value_field"][1]]["table_id"] != table:
            raise Answer(400, "the field is not of the card")
        return {"values": [], "has_more_values": False}
