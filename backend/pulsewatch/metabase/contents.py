"""What people see in Metabase: names and descriptions of columns, the collection, its questions and dashboards.

Ours are known by a marker in their description. Whatever has none was made by a person and is left alone.
"""

from collections.abc import Iterator
from functools import partial

from pulsewatch.metabase import render
from pulsewatch.metabase.render import Catalog, MissingColumn, Payload
from pulsewatch.metabase.rest import MetabaseError, Refused, Rest
from pulsewatch.metabase.server import Changes
from pulsewatch.metabase.specs import Column, Dashboard, Question, Specs

COLLECTION = {"name": "PulseWatch", "description": "What PulseWatch shows, kept up to date by it."}
COLLECTION_KEY = "collection"
OTHERWISE = "Metabase has stored the {} otherwise than it was sent; is this version supported?"
MODELS = ("card", "dataset", "metric", "dashboard")

Things = dict[str, Payload]


# -- tables and fields ------------------------------------------------------------------------------------------------


def describe(rest: Rest, specs: Specs, catalog: Catalog, changes: Changes) -> None:
    """Give tables and columns their names, descriptions, types and keys."""
    targets = {column.target.partition(".")[0] for column in specs.columns.values() if column.target is not None}

    def place(view: str) -> tuple[bool, int, str]:
        """A foreign key needs its target to be a key already: clients come before pipelines, these before runs."""
        keys = [column for column in specs.views()[view] if specs.columns.get(column, Column()).target is not None]
        return view not in targets, len(keys), view

    for view in sorted(specs.views(), key=place):
        if view in catalog.tables:
            _describe_table(rest, specs, catalog, view, changes)


def _describe_table(rest: Rest, specs: Specs, catalog: Catalog, view: str, changes: Changes) -> None:
    table = catalog.table(view)
    writes = []
    if different := _different(table, render.table_wishes(specs, view)):
        writes.append((f"/api/table/{table['id']}", different))
    for column in specs.views()[view]:
        try:
            field = catalog.field(view, column)
            wishes = render.field_wishes(specs, catalog, view, column)
        except MissingColumn:
            continue  # only in a plan; then the line that tells of reading the schema stands for it
        if different := _different(field, wishes):
            writes.append((f"/api/field/{field['id']}", different))
    if writes:
        count = len(writes)
        line = f"describe analytics.{view} ({count} {'change' if count == 1 else 'changes'})"
        changes.make(line, lambda: [rest.write("PUT", path, body) for path, body in writes])


def _different(found: Payload, wishes: Payload) -> Payload:
    changed = {name: value for name, value in wishes.items() if found.get(name) != value}
    # The target alone would be dropped: it belongs to the type.
    return changed | {"semantic_type": wishes["semantic_type"]} if "fk_target_field_id" in changed else changed


# -- the collection ---------------------------------------------------------------------------------------------------


def find_collection(rest: Rest) -> Payload | None:
    """Our collection, by its marker, whatever it is called; else one with its name."""
    query = {"exclude-other-user-collections": True}
    known = [each for each in rest.items("/api/collection", **query) if not each.get("archived")]
    for each in known:
        if (render.marker_of(each) or ("",))[0] == COLLECTION_KEY:
            return each
    for each in known:
        is_ordinary = each.get("namespace") is None and each.get("personal_owner_id") is None
        if each.get("name") == COLLECTION["name"] and each.get("location") == "/" and is_ordinary:
            return each
    return None


def make_collection(rest: Rest, changes: Changes) -> Payload | None:
    """Our collection. None in a plan that would make it."""
    wanted = render.marked(COLLECTION_KEY, dict(COLLECTION))
    found = find_collection(rest)
    if found is None:
        body = {**wanted, "parent_id": None}
        made: Payload | None = changes.make(
            f"create the collection {wanted['name']}", lambda: rest.write("POST", "/api/collection", body)
        )
        return made
    if render.marker_of(found) != render.marker_of(wanted):
        path = f"/api/collection/{found['id']}"
        changes.make(f"update the collection {wanted['name']}", lambda: rest.write("PUT", path, wanted))
    return found


def _items(rest: Rest, collection_id: int | str, *, archived: bool) -> Iterator[Payload]:
    query = {"models": [*MODELS, "collection"], "archived": archived}
    for item in rest.items(f"/api/collection/{collection_id}/items", **query):
        if item["model"] == "collection":
            if not archived:
                yield from _items(rest, item["id"], archived=archived)
        else:
            yield {**item, "archived": archived}


def ours(rest: Rest, collection_id: int, wanted: set[str]) -> Things:
    """What we have made in the collection and below it, by key; what was put into the trash is found there."""
    found = _by_key(_items(rest, collection_id, archived=False))
    if wanted - found.keys():
        try:
            found = _by_key(_items(rest, collection_id, archived=True)) | found
            trash = rest.get("/api/collection/trash")
            found = _by_key(_items(rest, trash["id"], archived=True)) | found
        except Refused as error:
            if error.status not in (400, 403, 404):
                raise
    return found


def _by_key(items: Iterator[Payload]) -> Things:
    found: Things = {}
    for item in items:
        marker = render.marker_of(item)
        if marker is not None:
            found.setdefault(marker[0], {**item, "digest": marker[1]})
    return found


# -- questions and dashboards -----------------------------------------------------------------------------------------


def _is_current(found: Payload, payload: Payload, changes: Changes) -> bool:
    marker = render.marker_of(payload)
    is_same = marker is not None and found["digest"] == marker[1]
    return is_same and not found["archived"] and not changes.is_forced


def make_question(
    rest: Rest, question: Question, payload: Payload | None, found: Payload | None, changes: Changes
) -> int:
    """The id of the question, which is as it should be; 0 in a plan that would create it.

    `payload` is None in a plan for a database that Metabase does not know yet.
    """
    if found is None:
        made = changes.make(
            f"create the {question.type} {question.name}", lambda: rest.write("POST", "/api/card", payload)
        )
        number = 0 if made is None else int(made["id"])
    else:
        number = int(found["id"])
        if payload is not None and _is_current(found, payload, changes):
            return number
        body = {**(payload or {}), "archived": False}
        changes.make(
            f"update the {question.type} {question.name}", lambda: rest.write("PUT", f"/api/card/{number}", body)
        )
    if not changes.is_plan:
        check_stored(rest, question, number)
    return number


def check_stored(rest: Rest, question: Question, card_id: int) -> None:
    """Raises MetabaseError if Metabase understood the question otherwise than it was meant."""
    stored = rest.get(f"/api/card/{card_id}").get("dataset_query") or {}
    if render.tags_of(stored) != render.wanted_tags(question):
        raise MetabaseError(OTHERWISE.format(f"question {question.name}"))


def make_dashboard(
    rest: Rest,
    wanted: Dashboard,
    payload: Payload | None,
    found: Payload | None,
    collection_id: int,
    changes: Changes,
) -> int:
    """The id of the dashboard, which is as it should be; 0 in a plan that would create it."""
    if found is not None and payload is not None and _is_current(found, payload, changes):
        return int(found["id"])

    def write() -> int:
        assert payload is not None  # noqa: S101 - only a plan has none
        if found is None:
            # Empty at first: the marker says so, should the next request never be sent.
            start = render.marked(
                wanted.key, {"name": wanted.name, "description": wanted.description}, state=render.UNFINISHED
            )
            made = rest.write("POST", "/api/dashboard", {**start, "collection_id": collection_id})
            number = int(made["id"])
        else:
            number = int(found["id"])
        path = f"/api/dashboard/{number}"
        dashcards = render.with_ids(payload["dashcards"], rest.get(path).get("dashcards") or [])
        body = {**payload, "dashcards": dashcards, "collection_id": collection_id, "archived": False}
        rest.write("PUT", path, body)
        if len(rest.get(path)["dashcards"]) != len(dashcards):
            raise MetabaseError(OTHERWISE.format(f"dashboard {wanted.name}"))
        return number

    line = f"{'create' if found is None else 'update'} the dashboard {wanted.name}"
    number = changes.make(line, write)
    return int(number or 0)


def archive_leftovers(rest: Rest, found: Things, wanted: set[str], changes: Changes) -> None:
    """Put into the trash what an earlier version of PulseWatch has made and this one does not."""
    for key in sorted(found.keys() - wanted):
        thing = found[key]
        if not thing["archived"]:
            kind = "dashboard" if thing["model"] == "dashboard" else "card"
            archive = partial(rest.write, "PUT", f"/api/{kind}/{thing['id']}", {"archived": True})
            changes.make(f"archive {thing['name']}", archive)


def make_homepage(rest: Rest, dashboard_id: int, name: str, changes: Changes) -> None:
    """Show the dashboard when people open Metabase, unless a person has chosen something else."""
    if rest.get("/api/setting/custom-homepage"):
        return

    def write() -> None:
        try:
            rest.write("PUT", "/api/setting/custom-homepage-dashboard", {"value": dashboard_id})
            rest.write("PUT", "/api/setting/custom-homepage", {"value": True})
        except Refused as error:
            if error.status >= 500:
                raise
            changes.say(f"the homepage stays as it is: {error.said}")  # the environment of Metabase decides it

    changes.make(f"make {name} the homepage", write)
