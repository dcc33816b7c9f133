"""A Metabase that keeps what it is told, over real HTTP: its routes and manners, without its program.

Tables and fields are those of a real database, queries are asked of it as the role that reads. Requests that a real
Metabase would refuse, or whose keys it would silently drop, are answered with 400 and noted in `faults`.
"""

import copy
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any, Self

from tests.metabase import contract
from tests.metabase.contents import Contents
from tests.metabase.wire import NEWEST, Answer, Gone, Persona, Request, handler, views_of

EMAIL, PASSWORD, READER_PASSWORD = "admin@acme.test", "correct horse 1", "of-the-reader-7"
API_KEY = "mb_0123456789"


class Fake(Contents):
    """The server. `dsn` is the database whose views it finds; `reader_dsn` asks queries as the role that reads."""

    def __init__(self, dsn: str, reader_dsn: str, persona: Persona = NEWEST) -> None:
        super().__init__(reader_dsn, persona)
        self.views = views_of(dsn)
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.hidden_views: set[str] = set()
        self.polls_until_synced = 2
        self.starting = 0
        self.troubles: list[tuple[str, int]] = []
        self.breaks_after_writes: int | None = None
        self.reader_password = READER_PASSWORD
        self.environment: set[str] = set()
        self.says_it_needs_setup = False
        self._polls: int | None = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self.answer))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def writes(self) -> list[str]:
        """Requests that changed something, in order."""
        return [f"{request.method} {request.path}" for request in self.requests if request.is_write]

    def set_up(self) -> None:
        """As a Metabase that people use already."""
        self.state.token = None
        self.state.users[EMAIL] = PASSWORD
        self.state.administrators.add(EMAIL)

    # -- one request --------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[int, Any]:
        with self._lock:
            self.requests.append(request)
            self._fail()
            try:
                return 200, self._route(request)
            except Answer as answer:
                return answer.status, answer.body
            except contract.Fault as fault:
                self.faults.append(f"{request.method} {request.path}: {fault}")
                return 400, {"message": str(fault)}
            finally:
                if request.is_write and self.breaks_after_writes is not None:
                    self.breaks_after_writes -= 1
                    if self.breaks_after_writes <= 0:
                        raise Gone

    def _fail(self) -> None:
        if self.breaks_after_writes is not None and self.breaks_after_writes <= 0:
            raise Gone

    def _route(self, request: Request) -> Any:
        for place, (pattern, status) in enumerate(self.troubles):
            if re.search(pattern, f"{request.method} {request.path}"):
                del self.troubles[place]
                raise Answer(status, {"message": "trouble that was asked for"})
        if self.starting > 0:
            self.starting -= 1
            raise Answer(503, {"status": "initializing"})
        for pattern, reply in ROUTES:
            found = re.fullmatch(pattern, f"{request.method} {request.path}")
            if found is not None:
                operation = re.sub(r"/\d+", "/:id", f"{request.method} {request.path}")
                operation = re.sub(r"/api/setting/.*", "/api/setting/:key", operation)
                if request.method in ("POST", "PUT"):
                    contract.check_body(operation, request.body)
                if not re.match(r"\S+ /api/(health|session|setup)", f"{request.method} {request.path}"):
                    self._authenticate(request)
                return reply(self, request, *found.groups())
        self.faults.append(f"{request.method} {request.path}: no such route")
        raise Answer(404, "API endpoint does not exist.")

    def _authenticate(self, request: Request) -> str:
        if request.headers.get("x-api-key") == API_KEY:
            return EMAIL
        user = self.state.sessions.get(request.headers.get("x-metabase-session", ""))
        if user is None:
            raise Answer(401, "Unauthenticated")
        return user

    # -- session ------------------------------------------------------------------------------------------------------

    def health(self, _: Request) -> Any:
        return {"status": "ok"}

    def properties(self, _: Request) -> Any:
        return {
            "version": {"tag": self.persona.tag},
            "has-user-setup": bool(self.state.users) and not self.says_it_needs_setup,
            "setup-token": self.state.token,
        }

    def setup(self, request: Request) -> Any:
        if self.state.users:
            raise Answer(403, "The /api/setup route can only be used to create the first user.")
        if request.body["token"] != self.state.token:
            raise Answer(400, {"errors": {"token": "Token does not match the setup token."}})
        user = request.body["user"]
        if len(user["password"]) < 8:
            raise Answer(400, {"errors": {"password": "password is too common."}})
        self.state.users[user["email"]] = user["password"]
        self.state.administrators.add(user["email"])
        self.state.token = None
        self.state.settings["anon-tracking-enabled"] = True
        return {"id": self._session(user["email"])}

    def login(self, request: Request) -> Any:
        if self.state.users.get(request.body["username"]) != request.body["password"]:
            raise Answer(401, {"errors": {"password": "did not match stored password"}})
        return {"id": self._session(request.body["username"])}

    def _session(self, email: str) -> str:
        session = str(uuid.uuid4())
        self.state.sessions[session] = email
        return session

    def logout(self, request: Request) -> Any:
        self.state.sessions.pop(request.headers.get("x-metabase-session", ""), None)
        raise Answer(204)

    def current_user(self, request: Request) -> Any:
        email = self._authenticate(request)
        return {"email": email, "is_superuser": email in self.state.administrators or not self.state.users}

    # -- database -----------------------------------------------------------------------------------------------------

    def databases(self, _: Request) -> Any:
        listed = [{name: base[name] for name in ("id", "name", "engine")} for base in self.state.databases.values()]
        return {"data": listed, "total": len(listed)}

    def database(self, _: Request, number: str) -> Any:
        base = copy.deepcopy(self._get(self.state.databases, number))
        base["details"]["password"] = "**MetabasePass**"
        return base

    def _connect(self, body: dict[str, Any]) -> None:
        if body["details"]["password"] != self.reader_password:
            said = f'FATAL: password authentication failed for user "{body["details"]["user"]}"'
            raise Answer(400, {"message": said, "errors": {"password": said}})

    def add_database(self, request: Request) -> Any:
        self._connect(request.body)
        number = self.state.new_id()
        self.state.databases[number] = {"id": number, **copy.deepcopy(request.body)}
        return self.database(request, str(number))

    def change_database(self, request: Request, number: str) -> Any:
        base = self._get(self.state.databases, number)
        if "details" in request.body:
            self._connect(request.body)
        base |= copy.deepcopy(request.body)
        return self.database(request, number)

    def healthcheck(self, _: Request, number: str) -> Any:
        is_well = self._get(self.state.databases, number)["details"]["password"] == self.reader_password
        return {"status": "ok"} if is_well else {"status": "error", "message": "cannot connect"}

    def sync(self, _: Request, number: str) -> Any:
        self._get(self.state.databases, number)
        self._polls = 0
        return {"status": "ok"}

    def metadata(self, _: Request, number: str) -> Any:
        base = self._get(self.state.databases, number)
        if self._polls is not None:
            self._polls += 1
            if self._polls >= self.polls_until_synced:
                self._sync(int(number))
                self._polls = None
        tables = [
            {**table, "fields": [each for each in self.state.fields.values() if each["table_id"] == table["id"]]}
            for table in self.state.tables.values()
        ]
        return {"id": base["id"], "name": base["name"], "tables": tables}

    def _sync(self, database_id: int) -> None:
        for view, columns in self.views.items():
            if view in self.hidden_views:
                continue
            table = next((each for each in self.state.tables.values() if each["name"] == view), None)
            if table is None:
                number = self.state.new_id()
                table = self.state.tables[number] = {
                    "id": number, "db_id": database_id, "schema": "analytics", "name": view, "description": None,
                    "display_name": view.replace("_", " ").title(), "visibility_type": None,
                }  # fmt: skip
            known = {each["name"] for each in self.state.fields.values() if each["table_id"] == table["id"]}
            for column, base_type in columns:
                if column not in known:
                    number = self.state.new_id()
                    self.state.fields[number] = {
                        "id": number, "table_id": table["id"], "name": column, "base_type": base_type,
                        "display_name": column.replace("_", " ").title(), "description": None, "semantic_type": None,
                        "fk_target_field_id": None, "has_field_values": "none", "visibility_type": "normal",
                    }  # fmt: skip

    def change_table(self, request: Request, number: str) -> Any:
        table = self._get(self.state.tables, number)
        table |= request.body
        return table

    def change_field(self, request: Request, number: str) -> Any:
        found = self._get(self.state.fields, number)
        target = request.body.get("fk_target_field_id")
        if target is not None and target not in self.state.fields:
            raise Answer(400, {"errors": {"fk_target_field_id": "Invalid target field"}})
        if target is not None and self.state.fields[target]["semantic_type"] != "type/PK":
            raise contract.Fault("the target of a foreign key is no key")
        before = found["semantic_type"]
        found |= request.body
        if before == "type/FK" and found["semantic_type"] != "type/FK":
            found["fk_target_field_id"] = None
        return found

    # -- settings -----------------------------------------------------------------------------------------------------

    def setting(self, _: Request, key: str) -> Any:
        if self.state.settings.get(key) is None:
            raise Answer(204)
        return self.state.settings[key]

    def change_setting(self, request: Request, key: str) -> Any:
        if key in self.environment:
            raise Answer(400, f"You cannot update the value of {key} using the API.")
        self.state.settings[key] = request.body["value"]
        raise Answer(204)


ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"GET /api/health", Fake.health),
    (r"GET /api/session/properties", Fake.properties),
    (r"POST /api/setup", Fake.setup),
    (r"POST /api/session", Fake.login),
    (r"DELETE /api/session", Fake.logout),
    (r"GET /api/user/current", Fake.current_user),
    (r"GET /api/database", Fake.databases),
    (r"POST /api/database", Fake.add_database),
    (r"GET /api/database/(\d+)", Fake.database),
    (r"PUT /api/database/(\d+)", Fake.change_database),
    (r"GET /api/database/(\d+)/healthcheck", Fake.healthcheck),
    (r"POST /api/database/(\d+)/sync_schema", Fake.sync),
    (r"GET /api/database/(\d+)/metadata", Fake.metadata),
    (r"PUT /api/table/(\d+)", Fake.change_table),
    (r"PUT /api/field/(\d+)", Fake.change_field),
    (r"GET /api/collection", Fake.collections),
    (r"POST /api/collection", Fake.add_collection),
    (r"GET /api/collection/trash", Fake.trash),
    (r"PUT /api/collection/(\d+)", Fake.change_collection),
    (r"GET /api/collection/(\d+)/items", Fake.items),
    (r"POST /api/card", Fake.add_card),
    (r"GET /api/card/(\d+)", Fake.card),
    (r"PUT /api/card/(\d+)", Fake.change_card),
    (r"POST /api/card/(\d+)/query", Fake.query_card),
    (r"POST /api/dashboard", Fake.add_dashboard),
    (r"GET /api/dashboard/(\d+)", Fake.dashboard),
    (r"PUT /api/dashboard/(\d+)", Fake.change_dashboard),
    (r"GET /api/dashboard/(\d+)/params/(\w+)/values", Fake.parameter_values),
    (r"GET /api/setting/([\w-]+)", Fake.setting),
    (r"PUT /api/setting/([\w-]+)", Fake.change_setting),
]


def things(fake: Fake) -> Iterator[str]:
    """Everything people would see, by name."""
    for kept in (fake.state.collections, fake.state.cards, fake.state.dashboards):
        yield from sorted(thing["name"] for thing in kept.values() if not thing.get("archived"))
