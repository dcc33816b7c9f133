"""The embedded PostgreSQL, really started: who joins, who stops it, and what it survives."""

import multiprocessing
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from pulsewatch import embedded
from pulsewatch.embedded import EmbeddedError, EmbeddedPostgres, database_url
from pulsewatch.settings import Settings
from tests.conftest import VERSION
from tests.running import ROOT

pytestmark = pytest.mark.any_postgresql
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")


def make(data_dir: Path, **more: object) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings(data_dir, **more))


def settings(data_dir: Path, **more: object) -> Settings:
    return Settings.model_validate({"data_dir": data_dir, "embedded_version": VERSION} | more)


def answer(dsn: str, query: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def test_the_first_starts_it_others_join_and_the_last_one_stops_it(data_dir: Path) -> None:
    first, second = make(data_dir), make(data_dir)
    with first as dsn:
        with second as same:
            assert same == dsn
            started_by_first = first.pid()
        assert first.pid() == started_by_first is not None
    assert first.pid() is None
    with pytest.raises(psycopg.OperationalError):
        answer(dsn, "select 1")


@pytest.mark.database
def test_data_and_address_outlive_a_restart(data_dir: Path) -> None:
    with make(data_dir) as dsn, psycopg.connect(dsn) as connection:
        connection.execute("create table kept as select 42 as number")
    with make(data_dir) as same:
        assert same == dsn
        assert answer(same, "select number from kept") == "42"


@pytest.mark.slow
def test_many_at_once_on_a_new_folder_share_one_server(data_dir: Path) -> None:
    seen: list[tuple[str, str]] = []
    together = threading.Barrier(4)

    def go() -> None:
        with make(data_dir) as dsn:
            seen.append((dsn, answer(dsn, "select pg_postmaster_start_time()")))
            together.wait(60)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert make(data_dir).pid() is None


@pytest.mark.database
def test_it_is_closed_to_all_but_those_with_the_password(data_dir: Path) -> None:
    with make(data_dir) as dsn:
        password = data_dir / "postgres.password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        secret = password.read_text()
        assert len(secret) >= 40
        for wrong in (dsn.replace(secret, "guess"), dsn.replace(f":{secret}", "")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(wrong)
        assert answer(dsn, "show listen_addresses") == "127.0.0.1"
        assert answer(dsn, "show unix_socket_directories") == ""
        methods = "select string_agg(distinct auth_method, ' ') from pg_hba_file_rules"
        assert answer(dsn, methods) == "scram-sha-256"
        assert answer(dsn, "select left(rolpassword, 14) from pg_authid where rolname = current_user") == (
            "SCRAM-SHA-256$"
        )
        assert answer(dsn, "select current_setting('data_checksums') || current_setting('server_encoding')") == "onUTF8"


def test_its_port_can_be_chosen(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port} is taken; choose another PULSEWATCH_EMBEDDED_PORT"):
            make(data_dir, embedded_port=port).__enter__()
    with make(data_dir, embedded_port=port) as dsn:
        assert answer(dsn, "show port") == str(port)


@pytest.mark.slow
def test_a_remembered_port_that_somebody_took_is_given_up(data_dir: Path) -> None:
    with make(data_dir) as dsn:
        port = int(answer(dsn, "show port"))
    with socket.create_server(("127.0.0.1", port)), make(data_dir) as other:
        assert answer(other, "show port") != str(port)


@pytest.mark.slow
@pytest.mark.database
def test_a_server_that_was_killed_recovers_what_was_committed(data_dir: Path) -> None:
    server = make(data_dir)
    with server as dsn, psycopg.connect(dsn) as connection:
        connection.execute("create table kept as select 42 as number")
        connection.commit()
        pid = server.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            pass
    with make(data_dir) as again:
        assert answer(again, "select number from kept") == "42"


@pytest.mark.slow
def test_it_is_revived_under_its_users(data_dir: Path) -> None:
    server = make(data_dir)
    with server as dsn:
        assert not server.revive()
        server.stop("immediate")
        assert server.revive()
        assert answer(dsn, "select 1") == "1"


def test_its_port_is_none_that_the_system_gives_to_connections(data_dir: Path) -> None:
    with make(data_dir) as dsn:
        assert int(answer(dsn, "show port")) in embedded.PORTS
    # The default of Linux; other systems deal out higher ones.
    assert embedded.PORTS.stop <= 32768


@pytest.mark.slow
def test_it_is_revived_under_the_same_address_as_soon_as_its_port_is_free(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make(data_dir)
    with server as dsn:
        server.stop("immediate")
        taken = socket.create_server(("127.0.0.1", server._remembered_port()))
        pause = time.sleep

        def give_back(seconds: float) -> None:
            taken.close()
            pause(seconds)

        monkeypatch.setattr(time, "sleep", give_back)
        assert server.revive()
        assert answer(dsn, "select 1") == "1"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["revived", "joined"])
def test_it_does_not_come_back_under_another_address_while_others_know_the_old_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(embedded, "PORT_TIMEOUT_S", 0)
    server = make(data_dir)
    with server as dsn:
        server.stop("immediate")
        port = server._remembered_port()
        with socket.create_server(("127.0.0.1", port)), pytest.raises(EmbeddedError, match=f"port {port} is taken"):
            server.revive() if how == "revived" else make(data_dir).__enter__()
        assert server.revive()
        assert answer(dsn, "select 1") == "1"


IN_ANOTHER_CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc")
CAN_UNSHARE = shutil.which("unshare") and subprocess.run((*IN_ANOTHER_CONTAINER, "true"), check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not CAN_UNSHARE, reason="this system lets nobody make a namespace of processes")
def test_a_server_in_another_container_is_never_joined_by_a_second_one_on_its_data(data_dir: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom pulsewatch import embedded\nfrom tests.test_embedded import make\n"
        "embedded.GONE_TIMEOUT_S = 0\nmake(Path(sys.argv[1])).__enter__()\n"
    )
    server = make(data_dir)
    with server as dsn, psycopg.connect(dsn) as connection:
        connection.execute("create table kept as select 42 as number")
        connection.commit()
        other = subprocess.run(
            (*IN_ANOTHER_CONTAINER, sys.executable, "-c", script, str(data_dir)),
            check=False,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'backend'}:{ROOT}"},
            capture_output=True,
            text=True,
        )
        assert "a PostgreSQL that is not seen from here runs on" in other.stderr
        assert "PULSEWATCH_DATABASE_URL" in other.stderr
        assert (data_dir / "postgres" / "postmaster.pid").exists()
        assert connection.execute("select number from kept").fetchone() == (42,)
    assert server.pid() is None
    with make(data_dir) as dsn:
        assert answer(dsn, "select number from kept") == "42"


def test_the_number_of_another_process_in_its_pid_file_does_not_stop_it(data_dir: Path) -> None:
    server = make(data_dir)
    with server:
        pid_file = (data_dir / "postgres" / "postmaster.pid").read_text()
    (data_dir / "postgres" / "postmaster.pid").write_text(re.sub(r"^\d+", str(os.getpid()), pid_file))
    assert server.pid() is None
    with server as dsn:
        assert answer(dsn, "select 1") == "1"


def _join_and_be_killed(data_dir: Path) -> None:
    make(data_dir).__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_leaves_the_server_to_the_next_one(data_dir: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_join_and_be_killed, args=(data_dir,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    server = make(data_dir)
    left = server.pid()
    assert left is not None
    with server as dsn:
        assert server.pid() == left
        assert answer(dsn, "select 1") == "1"
    assert server.pid() is None


def test_a_server_that_is_still_on_its_way_up_is_waited_for(data_dir: Path) -> None:
    server = make(data_dir)
    with server:
        server.stop("immediate")
    # As a process would leave it that was killed right after it had started the server: nobody waited for it.
    arguments = ("-D", data_dir / "postgres", "-W", "-o", f"-p {server._choose_port()} -h 127.0.0.1 -k ''", "start")
    server._run("pg_ctl", arguments)
    with make(data_dir) as dsn:
        assert answer(dsn, "select 1") == "1"
    assert server.pid() is None


def test_a_half_made_data_directory_is_made_anew(data_dir: Path) -> None:
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    with make(data_dir) as dsn:
        assert answer(dsn, "select 1") == "1"


def test_data_without_their_password_are_refused(data_dir: Path) -> None:
    with make(data_dir):
        pass
    (data_dir / "postgres.password").unlink()
    with pytest.raises(EmbeddedError, match=r"postgres\.password is missing: put it back"):
        make(data_dir).__enter__()


@pytest.mark.database
def test_a_broken_configuration_is_told_with_the_servers_words(data_dir: Path) -> None:
    with make(data_dir):
        pass
    with (data_dir / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_parameter = 1\n")
    with pytest.raises(EmbeddedError, match="does not start") as failure:
        make(data_dir).__enter__()
    assert "no_such_parameter" in str(failure.value)


@pytest.mark.slow
def test_another_major_version_is_refused_with_commands_that_upgrade_it(data_dir: Path) -> None:
    with make(data_dir, embedded_version="16") as dsn, psycopg.connect(dsn) as connection:
        connection.execute("create table kept as select 42 as number")
    new = make(data_dir, embedded_version="18")
    with pytest.raises(EmbeddedError, match="holds the data of PostgreSQL 16, but PostgreSQL 18") as failure:
        new.__enter__()
    assert "PULSEWATCH_EMBEDDED_VERSION=16" in str(failure.value)
    commands = [line.strip() for line in str(failure.value).splitlines()[1:]]
    owner = (data_dir / "postgres").stat()
    if os.geteuid() == 0:
        # As the message says: the user who owns the data runs them, and needs the folder and the password.
        os.chown(data_dir, owner.st_uid, owner.st_gid)
        os.chown(data_dir / "postgres.password", owner.st_uid, owner.st_gid)
    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join(commands)],
        check=False,
        cwd="/",
        capture_output=True,
        text=True,
        **({"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}),  # type: ignore[call-overload] # a mapping of keywords
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with make(data_dir, embedded_version="18") as dsn:
        assert answer(dsn, "select number from kept") == "42"
        assert answer(dsn, "show server_version").startswith("18.")


@AS_ROOT
def test_as_root_it_runs_as_another_user(data_dir: Path) -> None:
    server = make(data_dir)
    with server:
        assert Path(f"/proc/{server.pid()}").stat().st_uid == (data_dir / "postgres").stat().st_uid != 0


@AS_ROOT
def test_as_root_a_folder_the_other_user_cannot_enter_is_named_with_the_cure(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError) as failure:
        make(closed / "data").__enter__()
    assert f"cannot enter {closed}" in str(failure.value)
    assert f"chmod o+x {closed}" in str(failure.value)


@pytest.mark.slow
@AS_ROOT
def test_as_root_programs_the_other_user_cannot_enter_are_copied(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    package = embedded.programs(VERSION).parents[1]
    subprocess.run(["cp", "-r", package, package.with_name(f"{package.name}.libs"), closed], check=True)
    hidden = closed / package.name / embedded.programs(VERSION).relative_to(package)
    monkeypatch.setattr(embedded, "programs", lambda _major: hidden)
    with make(data_dir / "data") as dsn:
        assert answer(dsn, "select 1") == "1"
    with make(data_dir / "data") as dsn:
        assert answer(dsn, "select 1") == "1"


@AS_ROOT
@pytest.mark.parametrize("name", ["no-such-user", "root"])
def test_as_root_a_user_who_cannot_run_it_is_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(EmbeddedError, match=f"no user '{name}' to run it as; set PULSEWATCH_EMBEDDED_USER"):
        make(data_dir, embedded_user=name).__enter__()


def _use_as_normal_user(data_dir: Path, uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    server = make(data_dir)
    with server as dsn:
        assert answer(dsn, "select 1") == "1"
        assert Path(f"/proc/{server.pid()}").stat().st_uid == uid
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    os._exit(0)  # what the parent's process set up for its own end is not ours to run


@AS_ROOT
def test_a_normal_user_runs_it_himself(data_dir: Path) -> None:
    if not all(folder.stat().st_mode & 0o001 for folder in embedded.programs(VERSION).parents):
        pytest.skip("a normal user cannot enter where the programs are installed")
    os.chown(data_dir, 65534, 65534)
    process = multiprocessing.get_context("fork").Process(target=_use_as_normal_user, args=(data_dir / "own", 65534))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_folder_that_is_a_file_is_refused(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot use the data folder"):
        make(data_dir / "file" / "below").__enter__()


def test_without_the_package_the_cure_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedError, match=r"is not installed .* or set PULSEWATCH_DATABASE_URL"):
        make(data_dir)


def test_a_database_that_is_set_is_used_and_nothing_started(data_dir: Path) -> None:
    address = "postgresql://u@h/d"
    with database_url(settings(data_dir, database_url=address)) as dsn:
        assert dsn == address
    assert list(data_dir.iterdir()) == []
