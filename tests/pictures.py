"""Draws docs/images from two weeks of the demo: `make pictures`."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from grafana.pictures import save
from tests.conftest import running_server
from tests.grafana_sql import ALL, Choice, Range, expand
from tests.shown import shown_database

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHOSEN = {
    "clients": Choice((ALL,), "'__all__'"),
    "client": Choice(("acme-retail",)),
    "pipeline": Choice(("ingest_orders",)),
}


def _open(folder: str) -> Path:
    """A folder within it that the server's own user reaches."""
    Path(folder).chmod(0o711)
    return Path(folder) / "server"


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(_open(folder)) as server,
        shown_database(server, "pictures") as dsn,
        psycopg.connect(dsn) as connection,
    ):
        connection.execute("set timezone to 'UTC'")
        connection.execute(b"set role pulsewatch_grafana")

        def statement_of(sql: str, shown: tuple[datetime, datetime]) -> str:
            return expand(sql, Range(*shown), CHOSEN)

        for path in save(IMAGES, connection, statement_of, datetime.now(UTC)):
            print(path.relative_to(IMAGES.parents[1]))  # noqa: T201 - a command


if __name__ == "__main__":
    main()
