"""The roles that read: one for Grafana, one for Metabase, and one for each client that is given its own.

They belong to the server, not to the database: their names begin with a prefix. What they need is told by
sql/roles.sql, which compares what there is with what there should be. Functions here run as the role that migrates.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.errors import (
    DependentObjectsStillExist,
    DuplicateObject,
    InsufficientPrivilege,
    UndefinedObject,
    UniqueViolation,
)
from sqlalchemy import Connection, text

# The first is what we may not; the others follow from it, or from another database that makes the same roles now.
PASSED_OVER = (InsufficientPrivilege, UndefinedObject, DuplicateObject, UniqueViolation)


class RoleError(Exception):
    """A role cannot be made or changed. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A role that reads. `sees` is the slug of its client, `all clients`, or `nothing` once its client is erased."""

    name: str
    sees: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Readers:
    """The readers of one database. `app` is the role of api and worker, where it is another than the owner."""

    connection: Connection
    query: str
    prefix: str
    app: str | None = None

    def missing(self, client_ids: Sequence[int] = ()) -> list[str]:
        """The statements that are to be run, in order; none once all is there.

        Those for a reader of each of these clients are among them.
        """
        values = {"prefix": self.prefix, "app": self.app, "client_ids": list(client_ids)}
        return list(self.connection.execute(text(self.query), values).scalars())

    def complete(self, client_ids: Sequence[int] = ()) -> list[str]:
        """Run what is missing, as far as we may, and return what is missing still."""
        for statement in self.missing(client_ids):
            with contextlib.suppress(*PASSED_OVER):
                self._run(statement)
        return self.missing(client_ids)

    def create(self, slug: str) -> str:
        """Make the reader of this client and return its name. Raises LookupError, and RoleError if we may not."""
        query = text("select id from pulsewatch.client where slug = :slug")
        client_id = self.connection.execute(query, {"slug": slug}).scalar_one_or_none()
        if client_id is None:
            msg = f"there is no client '{slug}'"
            raise LookupError(msg)
        name = f"{self.prefix}_client_{client_id}"
        if name in {reader.name for reader in self.known()}:
            msg = f"client '{slug}' has its reader already: {name}"
            raise RoleError(msg)
        if self._exists(name):
            # It may be somebody's who shall not see this client: the reader of another database.
            msg = (
                f"the server has a role {name} that is not of this database; if no other one uses it, "
                f'run "drop role {name}", else set another PULSEWATCH_ROLE_PREFIX for this one'
            )
            raise RoleError(msg)
        # The caller's transaction ends with an error: then all of this is to be done by somebody else.
        wanted = self.missing([client_id])
        if any(re.search(rf"\b{name}\b", statement) for statement in self.complete([client_id])):
            raise RoleError(_instead(wanted))
        return name

    def known(self) -> list[Reader]:
        """All readers that this database knows, those of clients by their policies."""
        fleet = [f"{self.prefix}_grafana", f"{self.prefix}_metabase"]
        query = text(
            "select written.polname as name, coalesce(client.slug, 'nothing') as sees from pg_policy as written"
            " left join pulsewatch.client on client.id = cast(substring(written.polname from '[0-9]+$') as bigint)"
            " where written.polrelid = 'pulsewatch.client'::regclass"
            " and written.polname ~ ('^' || :prefix || '_client_[0-9]+$') order by client.id, written.polname"
        )
        found = [(row.name, row.sees) for row in self.connection.execute(query, {"prefix": self.prefix})]
        names = [*((name, "all clients") for name in fleet), *found]
        return [Reader(name, sees, self._exists(name)) for name, sees in names]

    def drop(self, name: str) -> None:
        """Drop the reader of a client, and what it was allowed.

        Raises LookupError for any other role, RoleError if we may not or it is used elsewhere.
        """
        if not any(reader.name == name and reader.sees != "all clients" for reader in self.known()):
            msg = f"{name} is not the reader of a client"
            raise LookupError(msg)
        query = text("select polrelid::regclass::text from pg_policy where polname = :name order by 1")
        tables = self.connection.execute(query, {"name": name}).scalars()
        self._demand([*(f"drop policy {name} on {table}" for table in tables), f"drop role if exists {name}"])

    def set_password(self, name: str, password: str) -> None:
        """Set the password of a reader. Raises LookupError for any other role, RoleError if we may not.

        The server is told what it stores (SCRAM-SHA-256) and not the password, which so appears in no log of its.
        """
        reader = next((reader for reader in self.known() if reader.name == name), None)
        if reader is None or not reader.exists:
            way = "`pulsewatch role list` names them" if reader is None else "`pulsewatch migrate` makes it"
            msg = f"there is no reader {name}; {way}"
            raise LookupError(msg)
        if not password or "\0" in password:
            msg = "the password holds a NUL character" if password else "the password is empty"
            raise RoleError(msg)
        driver = _driver(self.connection)
        stored = driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        statement = sql.SQL("alter role {} password {}").format(sql.Identifier(name), stored).as_string(driver)
        self._demand([statement])

    def _exists(self, name: str) -> bool:
        query = text("select exists (select from pg_roles where rolname = :name)")
        return bool(self.connection.execute(query, {"name": name}).scalar_one())

    def _demand(self, statements: Sequence[str]) -> None:
        """Run all of them. Raises RoleError, which tells what to run instead, if we may not."""
        try:
            for statement in statements:
                self._run(statement)
        except InsufficientPrivilege as error:
            raise RoleError(_instead(statements)) from error
        except DependentObjectsStillExist as error:
            msg = f"{error.diag.message_primary}: {error.diag.message_detail}"
            raise RoleError(msg) from error

    def _run(self, statement: str) -> None:
        with self.connection.begin_nested():
            # By psycopg itself, which without parameters reads no % in names.
            _driver(self.connection).execute(statement.encode())


def read_query(folder: Path) -> str:
    """The query that tells what is missing, from the folder `sql`."""
    return (folder / "roles.sql").read_text(encoding="utf-8")


def script(statements: Sequence[str]) -> Iterator[str]:
    """The statements as psql takes them."""
    return (f"{statement};" for statement in statements)


def _instead(statements: Sequence[str]) -> str:
    return "\n".join(("this role may not; run it as one that may:", *script(statements)))


def _driver(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - narrows the type; make_engine knows no other driver
    return driver
