"""plan, apply and check: a Metabase is brought to what the specs say, as often as wished, from whatever state."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from pulsewatch.metabase import contents, render
from pulsewatch.metabase.render import Catalog, MissingColumn, Payload
from pulsewatch.metabase.rest import Clock, MetabaseError, Refused, Rest
from pulsewatch.metabase.server import (
    Access,
    Changes,
    connect_database,
    missing,
    sign_in,
    sign_out,
    synchronise,
    wait_until_up,
)
from pulsewatch.metabase.specs import Question, Specs, read_specs
from pulsewatch.migrate import data_folder
from pulsewatch.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of trying one thing; `trouble` is None if it is well."""

    name: str
    trouble: str | None


def load_specs() -> Specs:
    """The specs of this version: inside the installed package, else in the checkout around it."""
    return read_specs(data_folder("metabase") / "specs", data_folder("sql") / "analytics")


def access_of(settings: Settings, timeout_s: float) -> Access:
    """How Metabase is reached. Raises MetabaseError if no setting says where it is."""
    if settings.metabase_url is None:
        msg = "set PULSEWATCH_METABASE_URL to the address of Metabase"
        raise MetabaseError(msg)

    def told(secret: SecretStr | None) -> str | None:
        return None if secret is None else secret.get_secret_value()

    return Access(
        url=settings.metabase_url,
        email=settings.metabase_user,
        password=told(settings.metabase_admin_password),
        api_key=told(settings.metabase_api_key),
        host=settings.metabase_database_host,
        port=settings.metabase_database_port,
        dbname=settings.metabase_database_name,
        user=settings.metabase_database_user or f"{settings.role_prefix}_metabase",
        reader_password=told(settings.metabase_password),
        ssl=settings.metabase_database_ssl,
        is_homepage=settings.metabase_homepage,
        timeout_s=timeout_s,
    )


@contextmanager
def _rest(access: Access, clock: Clock | None) -> Iterator[Rest]:
    secrets = [secret for secret in (access.password, access.api_key, access.reader_password) if secret]
    rest = Rest(access.url, secrets, clock)
    try:
        yield rest
    finally:
        rest.close()


def plan(access: Access, specs: Specs, say: Say, *, clock: Clock | None = None) -> list[str]:
    """What `apply` would change, line by line; nothing is written. Raises MetabaseError."""
    with _rest(access, clock) as rest:
        return _bring(rest, access, specs, Changes(say, is_plan=True))


def apply(access: Access, specs: Specs, say: Say, *, is_forced: bool = False, clock: Clock | None = None) -> list[str]:
    """Bring Metabase to what the specs say and return what was changed. Raises MetabaseError.

    Wherever it breaks off, the next one carries on. `is_forced` writes what seems right already, too.
    """
    with _rest(access, clock) as rest:
        return _bring(rest, access, specs, Changes(say, is_forced=is_forced))


def _bring(rest: Rest, access: Access, specs: Specs, changes: Changes) -> list[str]:
    properties = wait_until_up(rest, access.timeout_s, changes.say)
    if not sign_in(rest, access, properties, changes):
        changes.lines.append(f"connect the database as {access.user}")
        changes.lines += [f"describe analytics.{view}" for view in specs.views()]
        changes.lines.append(f"create the collection {contents.COLLECTION['name']}")
        _fill(rest, access, specs, None, None, changes)
        return changes.lines
    try:
        database_id = connect_database(rest, access, changes)
        catalog = None if database_id is None else synchronise(rest, specs, access, database_id, changes)
        if catalog is not None:
            contents.describe(rest, specs, catalog, changes)
        _fill(rest, access, specs, catalog, contents.make_collection(rest, changes), changes)
    finally:
        sign_out(rest, access)
    return changes.lines


def _fill(
    rest: Rest,
    access: Access,
    specs: Specs,
    catalog: Catalog | None,
    collection: Payload | None,
    changes: Changes,
) -> None:
    """Questions first, then the dashboards that show them. Without a collection, everything is yet to be made."""
    collection_id = 0 if collection is None else int(collection["id"])
    found = contents.ours(rest, collection_id, specs.keys()) if collection is not None else {}
    card_ids = {}
    for question in specs.questions:
        card_ids[question.key] = contents.make_question(
            rest,
            question,
            _card(question, catalog, collection_id),
            found.get(question.key),
            changes,
        )
    for dashboard in specs.dashboards:
        payload = None
        if catalog is not None and not missing(specs, catalog):
            payload = render.dashboard(specs, dashboard, catalog, card_ids)
        dashboard_id = contents.make_dashboard(
            rest, dashboard, payload, found.get(dashboard.key), collection_id, changes
        )
        if dashboard.homepage and access.is_homepage and collection is not None:
            contents.make_homepage(rest, dashboard_id, dashboard.name, changes)
    contents.archive_leftovers(rest, found, specs.keys(), changes)


def _card(question: Question, catalog: Catalog | None, collection_id: int) -> Payload | None:
    try:
        return None if catalog is None else render.card(question, catalog, collection_id)
    except MissingColumn:
        return None  # only in a plan: `synchronise` has waited for every column


def check(access: Access, specs: Specs, say: Say, *, clock: Clock | None = None) -> list[Outcome]:
    """Ask every question and fetch the values of every filter. Raises MetabaseError if there is no way in."""
    with _rest(access, clock) as rest:
        if not sign_in(rest, access, wait_until_up(rest, access.timeout_s, say), Changes(say, is_plan=True)):
            msg = "this Metabase was never set up; run `pulsewatch metabase apply`"
            raise MetabaseError(msg)
        try:
            return list(_outcomes(rest, specs))
        finally:
            sign_out(rest, access)


def _outcomes(rest: Rest, specs: Specs) -> Iterator[Outcome]:
    collection = contents.find_collection(rest)
    found = contents.ours(rest, int(collection["id"]), specs.keys()) if collection is not None else {}
    there = {key: int(thing["id"]) for key, thing in found.items() if not thing["archived"]}
    for question in specs.questions:
        yield Outcome(question.name, _trouble(rest, question, there.get(question.key)))
    for dashboard in specs.dashboards:
        number = there.get(dashboard.key)
        yield Outcome(dashboard.name, "it is not there; run `pulsewatch metabase apply`" if number is None else None)
        for each in dashboard.filters if number is not None else ():
            if each.question is not None:
                yield Outcome(f"{dashboard.name}: {each.title}", _values_trouble(rest, number, each.key))


def _trouble(rest: Rest, question: Question, card_id: int | None) -> str | None:
    if card_id is None:
        return "it is not there; run `pulsewatch metabase apply`"
    try:
        contents.check_stored(rest, question, card_id)
        # Metabase answers 202 to a query that has failed, too.
        answer = rest.ask(f"/api/card/{card_id}/query", {"parameters": []}) or {}
    except MetabaseError as error:
        return str(error)
    if answer.get("status") == "completed":
        return None
    return " ".join(rest.without_secrets(str(answer.get("error") or f"its status is {answer.get('status')}")).split())


def _values_trouble(rest: Rest, dashboard_id: int | None, parameter: str) -> str | None:
    try:
        rest.get(f"/api/dashboard/{dashboard_id}/params/{parameter}/values")
    except Refused as error:
        return str(error)
    return None
