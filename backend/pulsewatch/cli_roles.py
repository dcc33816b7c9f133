"""The commands `pulsewatch role`: who may look into the database, and with which password."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import click

from pulsewatch.cli_base import migrated, options, settings_with
from pulsewatch.db import make_engine
from pulsewatch.migrate import readers
from pulsewatch.roles import Readers, RoleError
from pulsewatch.settings import Settings

password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File that holds the password.  [default: a new one is made and printed]",
)


@contextlib.contextmanager
def _readers(data_dir: Path | None) -> Iterator[tuple[Readers, Settings]]:
    """The readers' roles, as the role that migrates; all that is done here commits together."""
    settings = settings_with(data_dir=data_dir)
    with migrated(settings) as dsn:
        owner = settings.owner_database_url
        address = owner.get_secret_value() if owner else dsn
        engine = make_engine(address, pool_size=1, application_name="pulsewatch role")
        try:
            with engine.begin() as connection:
                yield readers(connection, dsn, settings), settings
        finally:
            engine.dispose()


def _password(file: Path | None, setting: str | None = None) -> tuple[str, bool]:
    """The password, and whether it is a new one, which somebody has to be told."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip(), False
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{file} is not to be read as text in UTF-8"
            raise RoleError(msg) from error
    if setting is not None:
        return setting, False
    return secrets.token_urlsafe(32), True


@click.group()
def role() -> None:
    """Make, list and drop the roles that read the database."""


@role.command("password")
@click.argument("name")
@password_file
@options("data_dir")
def role_password(name: str, password_file: Path | None, data_dir: Path | None) -> None:
    """Set the password of a role that reads: grafana, metabase, or one that `role list` names.

    Without a file, those of grafana and metabase come from PULSEWATCH_GRAFANA_PASSWORD and
    PULSEWATCH_METABASE_PASSWORD, where they are set. The server never sees the password itself.
    """
    with _readers(data_dir) as (known, settings):
        given = {"grafana": settings.grafana_password, "metabase": settings.metabase_password}
        full_name = f"{known.prefix}_{name}" if name in given else name
        secret = given.get(full_name.removeprefix(f"{known.prefix}_"))
        password, is_new = _password(password_file, secret.get_secret_value() if secret else None)
        known.set_password(full_name, password)
    if is_new:
        click.echo(password)


@role.command("create")
@click.option("--client", required=True, help="Slug of the one client that it sees.")
@password_file
@options("data_dir")
def role_create(client: str, password_file: Path | None, data_dir: Path | None) -> None:
    """Make a role that reads the data of one client. Prints its name, and the password if that is a new one."""
    password, is_new = _password(password_file)
    with _readers(data_dir) as (known, _):
        name = known.create(client)
        known.set_password(name, password)
    click.echo("\t".join((name, password) if is_new else (name,)))


@role.command("list")
@options("data_dir")
def role_list(data_dir: Path | None) -> None:
    """List the roles that read: name, what it sees, state. Columns are separated by tabs."""
    with _readers(data_dir) as (known, _):
        found = known.known()
    for reader in found:
        click.echo("\t".join((reader.name, reader.sees, "exists" if reader.exists else "missing")))


@role.command("drop")
@click.argument("name")
@options("data_dir")
def role_drop(name: str, data_dir: Path | None) -> None:
    """Drop the role of a client, by the name that `role list` shows."""
    with _readers(data_dir) as (known, _):
        known.drop(name)
