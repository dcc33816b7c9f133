"""The command: what it prints, how it fails, and that `up` keeps everything running and leaves nothing behind."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pulsewatch import supervisor
from pulsewatch.cli import cli
from pulsewatch.embedded import EmbeddedPostgres
from pulsewatch.settings import Settings
from tests.conftest import VERSION
from tests.running import ROOT, Command, command, is_alive, request, run, until

pytestmark = pytest.mark.any_postgresql
NEW = {"PULSEWATCH_EMBEDDED_VERSION": VERSION}


def invoke(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], env=NEW | environment)


def server_pid(data_dir: Path) -> int | None:
    settings = Settings.model_validate({"data_dir": data_dir, "embedded_version": VERSION})
    return EmbeddedPostgres(settings).pid()


def event(run: str = "r1") -> dict[str, Any]:
    return {
        "type": "run",
        "client": "acme",
        "pipeline": "load",
        "run": run,
        "status": "succeeded",
        "occurred_at": datetime.now(UTC).isoformat(),
    }


@pytest.fixture
def up(data_dir: Path) -> Iterator[Command]:
    with command("up", "--data-dir", data_dir, "--port", 0, **NEW) as started:
        started.url()
        yield started


# -- up -----------------------------------------------------------------------------------------------------


@pytest.mark.database
def test_up_takes_events_under_a_key_made_beside_it_and_leaves_nothing_running(up: Command, data_dir: Path) -> None:
    made = run("key", "create", "--role", "admin", "--data-dir", data_dir, **NEW)
    assert made.err == []
    assert re.fullmatch(r"pw_[A-Za-z0-9_-]{43}\n", "".join(made.out))
    key = made.out[0].strip()
    status, body = request(up.url(), "POST", "/v1/events", key=key, body=[event()])
    assert (status, body["accepted"]) == (200, 1)
    _, runs = request(up.url(), "GET", "/v1/runs", key=key)
    assert [item["external_id"] for item in runs["items"]] == ["r1"]
    children = up.children
    assert sorted(children) == ["api", "worker"]
    assert up.stop() == 0
    assert up.out == [f"ready {up.url()}\n"]
    assert {json.loads(line)["logger"] for line in up.err}.isdisjoint({"uvicorn.error", "pulsewatch.worker.life"})
    assert [name for name, pid in children.items() if is_alive(pid)] == []
    assert server_pid(data_dir) is None
    assert key not in "".join(up.err)
    assert all(json.loads(line)["message"] for line in up.err)


@pytest.mark.slow
def test_up_tells_its_children_where_the_key_of_the_secrets_lies_and_nobody_else_reads_it(
    up: Command, data_dir: Path
) -> None:
    key = data_dir / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    children = up.children
    for name in ("api", "worker"):
        environment = Path(f"/proc/{children[name]}/environ").read_text().split("\0")
        assert f"PULSEWATCH_SECRET_KEY_FILE={key}" in environment
        assert key.read_text().strip() not in "".join(environment)


@pytest.mark.slow
def test_a_second_up_on_the_same_folder_is_told_so_and_ctrl_c_stops_the_first(up: Command, data_dir: Path) -> None:
    second = run("up", "--data-dir", data_dir, "--port", 0, **NEW)
    assert second.process.returncode == 1
    assert second.out == []
    assert "".join(second.err) == (
        f"Error: PulseWatch already runs on {data_dir} (process {up.process.pid}); "
        "stop it, or choose another --data-dir\n"
    )
    assert request(up.url(), "GET", "/ready")[0] == 200
    assert up.stop(signal.SIGINT) == 0
    assert server_pid(data_dir) is None


@pytest.mark.slow
def test_whatever_dies_is_started_again_and_no_connection_is_refused(up: Command, data_dir: Path) -> None:
    url, before = up.url(), up.children
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    assert request(url, "GET", "/healthz")[0] == 200  # waits in the queue of the socket that `up` holds
    until(lambda: set(up.children) == {"api", "worker"} and not set(up.children.values()) & set(before.values()))
    postmaster = server_pid(data_dir)
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    until(lambda: server_pid(data_dir) not in {None, postmaster})
    until(lambda: request(url, "GET", "/ready")[0] == 200)
    assert up.stop() == 0


@pytest.mark.slow
def test_up_that_was_killed_takes_its_children_along_and_the_next_one_goes_on(up: Command, data_dir: Path) -> None:
    key = run("key", "create", "--role", "admin", "--data-dir", data_dir, **NEW).out[0].strip()
    request(up.url(), "POST", "/v1/events", key=key, body=[event()])
    children = up.children
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL
    with command("up", "--data-dir", data_dir, "--port", 0, **NEW) as again:
        url = again.url()
        assert [pid for pid in children.values() if is_alive(pid)] == []
        _, runs = request(url, "GET", "/v1/runs", key=key)
        assert [item["external_id"] for item in runs["items"]] == ["r1"]
    assert server_pid(data_dir) is None


@pytest.mark.slow
def test_up_runs_on_a_database_of_ones_own(empty_database: str, data_dir: Path) -> None:
    with command("up", "--port", 0, "--data-dir", data_dir, PULSEWATCH_DATABASE_URL=empty_database) as started:
        assert request(started.url(), "GET", "/ready")[0] == 200
        assert started.stop() == 0
    assert list(data_dir.iterdir()) == []
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select count(*) from pulsewatch.worker_heartbeat").fetchone() == (0,)


def test_a_port_that_is_taken_is_one_line(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("up", "--data-dir", data_dir, "--port", port, **NEW)
    assert refused.process.returncode == 1
    assert refused.err == [
        f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --port or --host\n"
    ]
    assert server_pid(data_dir) is None


@pytest.mark.slow
def test_up_stops_while_it_starts(data_dir: Path) -> None:
    with command("up", "--data-dir", data_dir, "--port", 0, **NEW) as started:
        until(lambda: (data_dir / "up.lock").exists())
        assert started.stop() == 0
    assert started.out == []
    assert server_pid(data_dir) is None


@pytest.mark.slow(20)
def test_up_gives_up_on_an_api_that_cannot_start(data_dir: Path, tmp_path: Path) -> None:
    # A module of the same name that cannot be imported, put before the real one in the api alone.
    (tmp_path / "httptools.py").write_text("raise ImportError('no httptools on this machine')")
    path = f"{tmp_path}:{ROOT / 'backend'}"
    with command("up", "--data-dir", data_dir, "--port", 0, PYTHONPATH=path, **NEW) as up:
        assert up.wait() == 1
    assert up.err[-1] == "Error: PulseWatch does not get ready: api above\n"
    assert server_pid(data_dir) is None


@pytest.mark.slow
def test_api_and_worker_run_apart_and_share_the_server(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (
        command("api", "--data-dir", data_dir, "--port", port, **NEW) as api,
        command("worker", "--data-dir", data_dir, **NEW) as worker,
    ):
        until(lambda: _is_ready(url))
        assert worker.stop() == 0
        assert request(url, "GET", "/healthz")[0] == 200
        assert api.stop() == 0
    assert server_pid(data_dir) is None


def _is_ready(url: str) -> bool:
    try:
        return request(url, "GET", "/ready")[0] == 200
    except OSError:
        return False


# -- the other commands ---------------------------------------------------------------------------------------


def test_help_tells_every_command() -> None:
    said = invoke("--help").output
    for name in ("api", "demo", "key", "migrate", "purge", "up", "worker"):
        assert re.search(rf"^  {name} +[A-Z]", said, re.MULTILINE)
        assert "--help" in invoke(name, "--help").output
    assert re.fullmatch(r"pulsewatch, version \d.*\n", invoke("--version").output)


def test_keys_are_made_listed_and_revoked(database: str) -> None:
    own = {"PULSEWATCH_DATABASE_URL": database}
    bound = invoke("key", "create", "--role", "ingest", "--client", "acme", "--name", "cron", "--expires-in", 3, **own)
    assert (bound.exit_code, bound.stderr) == (0, "")
    assert re.fullmatch(r"pw_[A-Za-z0-9_-]{43}\n", bound.stdout)
    invoke("key", "create", "--role", "read", **own)
    listed = [line.split("\t") for line in invoke("key", "list", **own).stdout.splitlines()]
    assert [(role, client, name, state) for _, role, client, name, *_, state in listed] == [
        ("read", "-", "-", "valid"),
        ("ingest", "acme", "cron", "valid"),
    ]
    assert listed[0][5] == "-"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", listed[1][5])
    assert bound.stdout.strip() not in invoke("key", "list", **own).stdout
    assert invoke("key", "revoke", listed[1][0], **own).exit_code == 0
    states = [line.split("\t")[-1] for line in invoke("key", "list", **own).stdout.splitlines()]
    assert states == ["valid", "revoked"]


def test_a_client_is_purged_only_when_it_is_named_twice(database: str) -> None:
    own = {"PULSEWATCH_DATABASE_URL": database}
    invoke("key", "create", "--role", "ingest", "--client", "acme", **own)
    refused = invoke("purge", "--client", "acme", "--confirm", "acne", **own)
    assert refused.exit_code == 2
    assert "'acne' is not 'acme'" in refused.stderr
    done = invoke("purge", "--client", "acme", "--confirm", "acme", **own)
    assert done.exit_code == 0
    assert "erased acme: 0 events, 0 runs, 0 pipelines, 1 keys" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("key", "revoke", "0d6e7b4e-5b3f-4d63-8f5c-5f2d7a9d3a11"), "there is no key 0d6e7b4e"),
        (("key", "create", "--role", "read", "--client", "a/b"), "client: A client's slug has 1 to 100"),
        (("purge", "--client", "acme", "--confirm", "acme"), "there is no client 'acme'"),
    ],
)
def test_what_cannot_be_done_is_one_line(database: str, words: tuple[str, ...], said: str) -> None:
    failed = invoke(*words, PULSEWATCH_DATABASE_URL=database)
    assert failed.exit_code == 1
    errors = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in failed.output


def test_a_fault_of_ours_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(**_: object) -> None:
        raise KeyError("unheard of")

    monkeypatch.setattr(cli.commands["up"], "callback", forget)
    assert isinstance(invoke("up").exception, KeyError)


@pytest.mark.database
def test_a_database_that_lacks_its_tables_is_not_changed_unasked(empty_database: str) -> None:
    own = {"PULSEWATCH_DATABASE_URL": empty_database}
    failed = invoke("key", "list", **own)
    assert failed.stderr == "Error: the database lacks the tables of this version; run `pulsewatch migrate`\n"
    migrated = invoke("migrate", **own)
    assert (migrated.exit_code, migrated.stdout, migrated.stderr) == (0, "", "migrated\n")
    assert invoke("key", "list", **own).exit_code == 0


@pytest.mark.database
def test_the_embedded_database_gets_its_tables_from_any_command(data_dir: Path) -> None:
    assert invoke("key", "list", "--data-dir", data_dir).exit_code == 0
    assert invoke("migrate", "--data-dir", data_dir).exit_code == 0
    assert server_pid(data_dir) is None


def test_a_database_that_does_not_answer_is_one_line() -> None:
    for words in (("key", "list"), ("migrate",)):
        failed = invoke(*words, PULSEWATCH_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
        assert failed.exit_code == 1
        assert failed.stderr.startswith("Error: ")
        assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["foo", "postgresql://u:secret@h:abc/d", "mysql://u:secret@h/d"])
def test_a_wrong_address_is_one_line_that_does_not_repeat_it(address: str) -> None:
    for name in ("PULSEWATCH_DATABASE_URL", "PULSEWATCH_OWNER_DATABASE_URL"):
        failed = invoke("key", "list", **{name: address})
        assert failed.exit_code == 1
        assert failed.stderr.startswith(f"Error: {name}: is not of the form postgresql://")
        assert failed.stderr.count("\n") == 1
        assert "secret" not in failed.output


@pytest.mark.database
def test_a_role_that_may_not_is_one_line(server: str, database: str) -> None:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("create role pulsewatch_test_stranger login password 'p'")
    stranger = f"postgresql://pulsewatch_test_stranger:p@{database.rsplit('@', 1)[1]}"
    try:
        failed = invoke("key", "list", PULSEWATCH_DATABASE_URL=stranger)
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute("drop role pulsewatch_test_stranger")
    assert failed.exit_code == 1
    assert failed.stderr == "Error: the database refuses: permission denied for schema pulsewatch\n"


@pytest.mark.slow
def test_a_command_that_is_terminated_stops_the_server_that_nobody_else_uses(data_dir: Path) -> None:
    settings = Settings.model_validate({"data_dir": data_dir, "embedded_version": VERSION})
    with contextlib.ExitStack() as ours:
        with EmbeddedPostgres(settings) as dsn:
            blocker = ours.enter_context(contextlib.closing(psycopg.connect(dsn)))
            blocker.execute("select pg_advisory_xact_lock(hashtext('pulsewatch.migrate'))")
            migrate = ours.enter_context(command("migrate", "--data-dir", data_dir, **NEW))
            waiting = "select count(*) from pg_locks where not granted"
            until(lambda: blocker.execute(waiting).fetchone() == (1,))
        assert server_pid(data_dir) is not None
        assert migrate.stop() == 1
    assert migrate.err == ["\n", "Aborted!\n"]
    assert server_pid(data_dir) is None


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    failed = invoke("migrate", PULSEWATCH_PORT="many", PULSEWATCH_POOL_SIZE="0")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: PULSEWATCH_PORT: Input should be a valid integer")
    assert "; PULSEWATCH_POOL_SIZE: Input should be greater than or equal to 1" in failed.stderr
    failed = invoke("migrate", PULSEWATCH_KEEP_RUNS_DAYS="3")
    assert failed.stderr.startswith("Error: PULSEWATCH_KEEP_RUNS_DAYS (3) must be at least")
    failed = invoke("migrate", "--data-dir", tmp_path, PULSEWATCH_EMBEDDED_USER="no-such-user")
    assert failed.exit_code == 1 or os.geteuid() != 0


# -- the supervisor's parts -----------------------------------------------------------------------------------------


def test_a_child_that_keeps_dying_is_started_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    child = supervisor.Child("broken", ("api",), ())
    pauses = []
    for _ in range(8):
        child.tend()
        assert child.process is not None
        child.process.wait()
        child.tend()
        pauses.append(child.next_start - clock[0])
        clock[0] = child.next_start
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    child.tend()
    assert child.process is not None
    clock[0] += supervisor.STEADY_AFTER_S + 1
    child.process.wait()
    child.tend()
    assert child.next_start - clock[0] == 0.5


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - closed again at once
        ("::1", "[::1]"),
        ("::", "[::1]"),
    ],
)
def test_the_address_shown_can_be_opened(host: str, shown: str) -> None:
    with supervisor.listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert supervisor._url(listener) == f"http://{shown}:{port}"


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(supervisor.UpError, match=r"cannot listen on no\.such\.host\.invalid port 0"):
        supervisor.listen("no.such.host.invalid", 0)
