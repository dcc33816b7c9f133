"""Every route against its own OpenAPI document: no server errors, and every answer as documented."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from pulsewatch.auth import Role
from tests.running import unmeasured
from tests.serving import make_key, serve

pytestmark = pytest.mark.any_postgresql
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
LEAST_CASES = 1000


@pytest.mark.slow(40)
def test_every_answer_is_as_the_openapi_document_says(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database) as connection:
        # As if a worker ran, for as long as this takes: without one /ready rightly answers 503.
        connection.execute("insert into pulsewatch.worker_heartbeat values ('tests', now(), now() + interval '1 hour')")
    _, headers = make_key(database, Role.ADMIN)
    with unmeasured(), serve(database) as server:
        command = (sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run")
        options = {
            "--header": f"Authorization: {headers['Authorization']}",
            "--checks": ",".join(CHECKS),
            "--phases": "examples,coverage,fuzzing",
            "--max-examples": "6",
            "--seed": "1",
            "--suppress-health-check": "all",
            "--request-timeout": "20",
        }
        words = [word for option in options.items() for word in option]
        done = subprocess.run(
            (*command, f"{server.url}/openapi.json", *words, "--continue-on-failure", "--no-color"),
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None
    assert int(found[1]) > LEAST_CASES, done.stdout
