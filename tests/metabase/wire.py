"""The manners of a Metabase that depend on no state: versions, requests and answers over HTTP."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg


@dataclass(frozen=True)
class Persona:
    """How a version answers."""

    tag: str
    text_404: bool = False
    tags_as_list: bool = False
    adds_uuids: bool = False


OLDEST = Persona("v0.58.15", text_404=True)
NEWEST = Persona("v0.65.1", tags_as_list=True, adds_uuids=True)


class Answer(Exception):
    """Ends a request with this status and body."""

    def __init__(self, status: int, body: Any = None) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


class Gone(Exception):
    """The connection breaks; what was asked may have been done."""


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    headers: dict[str, str]

    @property
    def is_write(self) -> bool:
        reads = r"/api/(session|card/\d+/query|dataset)$"
        return self.method != "GET" and not re.search(reads, self.path)


def handler(answer_to: Callable[[Request], tuple[int, Any]]) -> type[BaseHTTPRequestHandler]:
    """What an HTTP server needs to give these answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body leave together: apart, each answer would wait for the other side's acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            address = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, address.path, parse_qs(address.query), body, headers)
            try:
                status, answer = answer_to(request)
            except Gone:
                self.close_connection = True
                self.connection.close()
                return
            content = b"" if answer is None else _encode(answer)
            self.send_response(status)
            kind = "text/plain" if isinstance(answer, str) and status >= 400 else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - names that the library gives

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
            """Nothing: the requests are kept."""

    return Handler


def _encode(answer: Any) -> bytes:
    return answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()


BASE_TYPES = {
    "bigint": "type/BigInteger",
    "boolean": "type/Boolean",
    "double precision": "type/Float",
    "integer": "type/Integer",
    "smallint": "type/Integer",
    "text": "type/Text",
    "timestamp with time zone": "type/DateTimeWithLocalTZ",
    "uuid": "type/UUID",
}


def views_of(dsn: str) -> dict[str, list[tuple[str, str]]]:
    """The views of the schema analytics that the database really has, with their columns and Metabase's types."""
    query = (
        "select table_name, column_name, data_type from information_schema.columns"
        " where table_schema = 'analytics' order by table_name, ordinal_position"
    )
    found: dict[str, list[tuple[str, str]]] = {}
    with psycopg.connect(dsn) as connection:
        for table, column, kind in connection.execute(query):
            found.setdefault(table, []).append((column, BASE_TYPES[kind]))
    return found
