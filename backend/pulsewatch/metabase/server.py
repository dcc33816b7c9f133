"""The way in: waits until Metabase serves, signs in, connects the database and waits until its views are known."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pulsewatch.metabase.render import Catalog, Payload
from pulsewatch.metabase.rest import MetabaseError, Refused, Rest, Unreachable
from pulsewatch.metabase.specs import Specs

OLDEST = 58
DATABASE = "PulseWatch"
# What an answer to GET shows in place of a password, and what is compared with what there should be.
COMPARED = ("host", "port", "dbname", "user", "ssl", "schema-filters-type", "schema-filters-patterns")
WRONG_PASSWORD = (400, 401)


@dataclass(frozen=True, slots=True)
class Access:
    """How Metabase is reached, and how Metabase reaches the database. `user` is the role that reads."""

    url: str
    email: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    host: str = "localhost"
    port: int = 5432
    dbname: str = "pulsewatch"
    user: str = "pulsewatch_metabase"
    reader_password: str | None = field(default=None, repr=False)
    ssl: bool = False
    is_homepage: bool = True
    timeout_s: float = 300.0


@dataclass(slots=True)
class Changes:
    """What is made different, line by line; in a plan it is only noted. `say` tells how it goes on.

    `is_forced`: what seems right already is written, too.
    """

    say: Callable[[str], None]
    is_plan: bool = False
    is_forced: bool = False
    lines: list[str] = field(default_factory=list)

    def make(self, line: str, write: Callable[[], Any]) -> Any:
        """Tell a change and make it. Returns what Metabase answers; None in a plan."""
        self.lines.append(line)
        if self.is_plan:
            return None
        self.say(line)
        return write()


# -- waiting ----------------------------------------------------------------------------------------------------------


def waits(rest: Rest, timeout_s: float, say: Callable[[str], None], what: str) -> Iterator[None]:
    """A turn now, and again and again after pauses that grow; ends when the time is over. Tells that it waits."""
    began = rest.clock.now()
    told, pause_s = 0.0, 1.0
    yield
    say(f"waiting for {what}")
    while (waited := rest.clock.now() - began) < timeout_s:
        if waited - told >= 10:
            told = waited
            say(f"waiting for {what}, {waited:.0f} s by now")
        rest.clock.pause(pause_s)
        pause_s = min(pause_s * 1.5, 5.0)
        yield


def wait_until_up(rest: Rest, timeout_s: float, say: Callable[[str], None]) -> Payload:
    """The properties of a Metabase, once it serves requests. Raises MetabaseError, also if it is too old."""
    trouble: MetabaseError | None = None
    for _ in waits(rest, timeout_s, say, f"Metabase at {rest.url}"):
        try:
            rest.get("/api/health")
            # Health is green a little before requests are really served.
            properties = rest.get("/api/session/properties")
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and error.status < 500:
                raise
            trouble = error
            continue
        if not isinstance(properties, dict) or "version" not in properties:
            msg = f"what answers at {rest.url} is no Metabase"
            raise MetabaseError(msg)
        _check_version(properties)
        return properties
    msg = f"no Metabase is ready at {rest.url} after {timeout_s:.0f} s: {trouble}"
    raise MetabaseError(msg) from trouble


def _check_version(properties: Payload) -> None:
    tag = str((properties.get("version") or {}).get("tag"))
    found = re.match(r"v\d+\.(\d+)", tag)
    # Builds between versions have no number; they are newer than all that have one.
    if found is not None and int(found[1]) < OLDEST:
        msg = f"Metabase {tag} is too old; PulseWatch needs 0.{OLDEST} or later"
        raise MetabaseError(msg)


# -- signing in -------------------------------------------------------------------------------------------------------


def needs_setup(properties: Payload) -> bool:
    return not properties.get("has-user-setup") and bool(properties.get("setup-token"))


def sign_in(rest: Rest, access: Access, properties: Payload, changes: Changes) -> bool:
    """Sign in, as the first administrator if there is none yet. False: a plan for a Metabase that was never set up."""
    if access.api_key is not None:
        rest.authenticate("X-API-Key", access.api_key)
    elif access.email is None or access.password is None:
        msg = "set PULSEWATCH_METABASE_API_KEY, or PULSEWATCH_METABASE_USER and PULSEWATCH_METABASE_ADMIN_PASSWORD"
        raise MetabaseError(msg)
    elif needs_setup(properties):
        session = changes.make(
            f"set up Metabase, with {access.email} as its administrator", lambda: _set_up(rest, access, properties)
        )
        if session is None:
            return False
        rest.authenticate("X-Metabase-Session", session)
        _refuse_tracking(rest)
    else:
        rest.authenticate("X-Metabase-Session", _log_in(rest, access))
    _check_administrator(rest, access)
    return True


def _set_up(rest: Rest, access: Access, properties: Payload) -> str:
    body = {
        "token": properties["setup-token"],
        "user": {
            "email": access.email,
            "password": access.password,
            "password_confirm": access.password,
            "first_name": "PulseWatch",
            "last_name": "Administrator",
        },
        "prefs": {"site_name": "PulseWatch", "site_locale": "en", "allow_tracking": False},
    }
    try:
        session: str = rest.write("POST", "/api/setup", body)["id"]
    except Refused as error:
        if error.status != 403:
            raise
        return _log_in(rest, access)  # somebody else was faster, or an earlier answer was lost
    return session


def _refuse_tracking(rest: Rest) -> None:
    """Setup switches it on whatever is asked. Where the environment sets it, this is refused, and that is right."""
    try:
        rest.write("PUT", "/api/setting/anon-tracking-enabled", {"value": False})
    except Refused as error:
        if error.status >= 500:
            raise


def _log_in(rest: Rest, access: Access) -> str:
    try:
        session: str = rest.ask("/api/session", {"username": access.email, "password": access.password})["id"]
    except Refused as error:
        if error.status not in WRONG_PASSWORD:
            raise
        msg = (
            f"Metabase refuses {access.email} with this password ({error.said}); PULSEWATCH_METABASE_USER and "
            "PULSEWATCH_METABASE_ADMIN_PASSWORD must be those of an administrator"
        )
        raise MetabaseError(msg) from None
    return session


def _check_administrator(rest: Rest, access: Access) -> None:
    whose = access.email if access.api_key is None else "PULSEWATCH_METABASE_API_KEY"
    try:
        user = rest.get("/api/user/current")
    except Refused as error:
        if error.status not in (401, 403):
            raise
        msg = f"Metabase refuses {whose}: {error.said}"
        raise MetabaseError(msg) from None
    if not user.get("is_superuser"):
        msg = f"{whose} is no administrator of Metabase; a key must belong to the group Administrators"
        raise MetabaseError(msg)


def sign_out(rest: Rest, access: Access) -> None:
    """End the session, if we began one. Whatever goes wrong, it ends by itself."""
    if access.api_key is None:
        try:
            rest.ask_delete("/api/session")
        except MetabaseError:
            return


# -- the database -----------------------------------------------------------------------------------------------------


def _connection(access: Access) -> Payload:
    return {
        "host": access.host,
        "port": access.port,
        "dbname": access.dbname,
        "user": access.user,
        "password": access.reader_password,
        "ssl": access.ssl,
        "ssl-mode": "require",
        "tunnel-enabled": False,
        "schema-filters-type": "inclusion",
        "schema-filters-patterns": "analytics",
        "advanced-options": True,
        "json-unfolding": False,
        "let-user-control-scheduling": True,
        "additional-options": "ApplicationName=metabase",
    }


def _schedules() -> Payload:
    """The views change with an upgrade of PulseWatch alone; values of filters are read once a day, at night."""
    unset = {"schedule_day": None, "schedule_frame": None}
    return {
        "metadata_sync": {"schedule_type": "hourly", "schedule_minute": 17, "schedule_hour": None, **unset},
        "cache_field_values": {"schedule_type": "daily", "schedule_minute": 7, "schedule_hour": 3, **unset},
    }


def connect_database(rest: Rest, access: Access, changes: Changes) -> int | None:
    """The id of the database PulseWatch in Metabase, connected as it should be. None in a plan that would add it."""
    known = next(
        (each for each in rest.items("/api/database") if (each["name"], each["engine"]) == (DATABASE, "postgres")), None
    )
    details = _connection(access)
    body: Payload = {"name": DATABASE, "engine": "postgres", "details": details, "schedules": _schedules()}
    if known is None:
        body |= {"is_full_sync": True, "is_on_demand": False, "auto_run_queries": True}
        made = changes.make(
            f"connect the database as {access.user}",
            lambda: _write_database(rest, access, "POST", "/api/database", body),
        )
        return None if made is None else int(made["id"])
    number = int(known["id"])
    path = f"/api/database/{number}"
    stored = rest.get(path).get("details") or {}
    if changes.is_forced or any(stored.get(name) != details[name] for name in COMPARED) or not _is_healthy(rest, path):
        changes.make(
            f"connect the database anew as {access.user}", lambda: _write_database(rest, access, "PUT", path, body)
        )
    return number


def _is_healthy(rest: Rest, path: str) -> bool:
    """Whether Metabase can reach the database now: the password may have changed, which no answer shows."""
    try:
        return bool((rest.get(f"{path}/healthcheck") or {}).get("status") == "ok")
    except Refused as error:
        return error.status == 404  # a Metabase that cannot tell


def _write_database(rest: Rest, access: Access, method: str, path: str, body: Payload) -> Any:
    if access.reader_password is None:
        msg = (
            f"set PULSEWATCH_METABASE_PASSWORD to the password of the role {access.user}; "
            "`pulsewatch role password metabase` sets it in the database"
        )
        raise MetabaseError(msg)
    try:
        return rest.write(method, path, body)
    except Refused as error:
        if error.status != 400:
            raise
        where = f"{access.host}:{access.port}/{access.dbname}"
        msg = f"Metabase cannot connect to the database {where} as {access.user}: {error.said}"
        raise MetabaseError(msg) from None


def read_catalog(rest: Rest, database_id: int) -> Catalog:
    return Catalog.of(rest.get(f"/api/database/{database_id}/metadata", include_hidden=True))


def missing(specs: Specs, catalog: Catalog) -> list[str]:
    """Views and columns of this version that Metabase does not know yet; a view stands for all of its columns."""
    found = []
    for view, columns in specs.views().items():
        if view not in catalog.tables:
            found.append(f"analytics.{view}")
        else:
            known = catalog.tables[view]["fields"]
            found += [f"analytics.{view}.{column}" for column in columns if column not in known]
    return found


def synchronise(rest: Rest, specs: Specs, access: Access, database_id: int, changes: Changes) -> Catalog:
    """What Metabase knows of the database, once that is all of it. In a plan, what it knows now."""
    catalog = read_catalog(rest, database_id)
    if not missing(specs, catalog):
        return catalog
    path = f"/api/database/{database_id}/sync_schema"
    changes.make("let Metabase read the schema analytics", lambda: rest.write("POST", path))
    if changes.is_plan:
        return catalog
    for _ in waits(rest, access.timeout_s, changes.say, "Metabase to read the schema analytics"):
        catalog = read_catalog(rest, database_id)
        if not missing(specs, catalog):
            return catalog
    lacking = missing(specs, catalog)
    names = ", ".join(lacking[:10]) + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
    msg = (
        f"Metabase does not see {names}. `pulsewatch migrate` makes the views and grants {access.user} "
        "SELECT on them and USAGE on the schema"
    )
    raise MetabaseError(msg)
