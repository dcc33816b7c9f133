"""The only reader of the environment.

Every setting is an environment variable with the prefix `PULSEWATCH_`. Every secret may also be given as the
path of a file, in the variable of the same name with `_FILE` behind it (Docker and Kubernetes secrets).
"""

import os
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "PULSEWATCH_"
ADDRESSES = ("database_url", "owner_database_url")
SECRETS = (
    *ADDRESSES,
    "secret_key",
    "grafana_password",
    "metabase_password",
    "metabase_admin_password",
    "metabase_api_key",
)

SECRET_KEY_CHARS = 32
NEW_SECRET_KEY = "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"  # noqa: S105 (a hint)


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a list separated by commas. Raises ValueError, which names the wrong one."""
    return tuple(ip_network(item.strip()) for item in text.split(",") if item.strip())


class Settings(BaseSettings):
    """All settings, read once and frozen. Durations and sizes carry their unit in the name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # it may be a password
    )

    database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host:port/name. Unset: the embedded PostgreSQL in data_dir.",
    )
    owner_database_url: SecretStr | None = Field(
        None, description="The role that owns the tables; only `migrate` uses it. Unset: database_url."
    )

    role_prefix: str = Field(
        "pulsewatch",
        pattern=r"^[a-z][a-z0-9_]{0,29}$",
        description="How the names of the readers' roles begin; another one for each PulseWatch on one server.",
    )
    grafana_password: SecretStr | None = Field(
        None, description="Password of the role that Grafana reads with, for `pulsewatch role password grafana`."
    )
    metabase_password: SecretStr | None = Field(
        None, description="Password of the role that Metabase reads with, for `pulsewatch role password metabase`."
    )

    metabase_url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$",
        description="Address of Metabase, such as http://localhost:3001.",
    )
    metabase_user: str | None = Field(
        None, description="Email of an administrator of Metabase; a new Metabase gets its first one under it."
    )
    metabase_admin_password: SecretStr | None = Field(None, description="Password of that administrator.")
    metabase_api_key: SecretStr | None = Field(
        None, description="A key of Metabase's group Administrators; it stands for user and password."
    )
    metabase_database_host: str = Field("localhost", description="Host of the database, as Metabase reaches it.")
    metabase_database_port: int = Field(5432, ge=1, le=65535, description="Port of the database, likewise.")
    metabase_database_name: str = Field("pulsewatch", description="Name of the database.")
    metabase_database_user: str | None = Field(
        None, description="Role that Metabase reads with. Unset: role_prefix with _metabase behind it."
    )
    metabase_database_ssl: bool = Field(False, description="Whether Metabase demands TLS of the database.")
    metabase_homepage: bool = Field(
        True, description="Show Pipeline health when people open Metabase, unless something else was chosen there."
    )

    data_dir: Path = Field(Path(".pulsewatch"), description="Where the embedded PostgreSQL keeps its data.")
    embedded_port: int = Field(
        0, ge=0, le=65535, description="Port of the embedded PostgreSQL; 0 takes a free one and remembers it."
    )
    embedded_user: str | None = Field(
        None, description="Started as root, PostgreSQL runs as this user. Unset: postgres, else nobody."
    )
    embedded_version: Literal["18", "16"] = Field("18", description="Major version of a new embedded server.")

    secret_key: SecretStr | None = Field(
        None,
        description="What channel secrets are encrypted with: 32 random characters or more. Several, separated by "
        "commas, while it is changed: the first encrypts. Unset: data_dir/secret.key; needed with database_url.",
    )
    outbound_allow: str = Field(
        "",
        description="Networks that alert channels may reach although they are not public, as CIDR, separated by "
        "commas: 10.20.0.0/16,127.0.0.1/32.",
    )

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the API listens on.")

    max_events: int = Field(10_000, ge=1, description="Events in one request, at most.")
    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="A request body, unpacked, at most.")
    max_pipelines: int = Field(10_000, ge=1, description="Pipelines of one client, at most.")
    ingest_writers: int = Field(
        3, ge=1, le=32, description="Connections that write batches, in each process; small ones share one more."
    )
    ingest_queue_events: int = Field(
        50_000,
        ge=1,
        description="Events (of 1 KiB; a larger one counts as several) that may wait for a writer; then it is 503.",
    )

    pool_size: int = Field(10, ge=1, le=200, description="Connections for reads and management, at most.")

    keep_events_days: int = Field(400, ge=1, le=3650, description="How long run events are kept.")
    keep_runs_days: int = Field(400, ge=1, le=3650, description="How long runs are kept (>= events).")
    keep_hours_days: int = Field(
        400, ge=1, le=3650, description="How long the numbers of each hour are kept (>= runs); those of days stay."
    )
    keep_slots_days: int = Field(400, ge=1, le=3650, description="How long expected starts are kept (>= runs).")
    keep_alerts_days: int = Field(
        400,
        ge=1,
        le=3650,
        description="How long past alerts, their events and messages, and silences are kept.",
    )
    keep_rejects_days: int = Field(14, ge=1, le=365, description="How long rejected items are kept.")

    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: readable on a terminal, JSON lines elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level logged.")

    @model_validator(mode="before")
    @classmethod
    def read_secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take each secret that is not given directly from the file that `..._FILE` names."""
        for name in SECRETS:
            path = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
            if path and not values.get(name):
                try:
                    values[name] = Path(path).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    msg = f"{PREFIX}{name.upper()}_FILE names a file that cannot be read: {error}"
                    raise ValueError(msg) from error
        return values

    @field_validator(*ADDRESSES)
    @classmethod
    def is_postgresql_url(cls, address: SecretStr | None) -> SecretStr | None:
        """Refuse what is no address of a PostgreSQL, without repeating it: it may hold a password."""
        try:
            driver = "postgresql" if address is None else make_url(address.get_secret_value()).drivername
        except (ArgumentError, ValueError):  # the latter for a port that is no number
            driver = ""
        if driver not in {"postgresql", "postgres"}:
            msg = "is not of the form postgresql://user:password@host:port/name (characters such as @ in %40 form)"
            raise ValueError(msg)
        return address

    @field_validator("secret_key")
    @classmethod
    def is_hard_to_guess(cls, keys: SecretStr | None) -> SecretStr | None:
        """Refuse what is too short to be random, without repeating it."""
        for key in [] if keys is None else keys.get_secret_value().split(","):
            if len(key.strip()) < SECRET_KEY_CHARS:
                msg = f"must be at least {SECRET_KEY_CHARS} random characters, each of several; {NEW_SECRET_KEY}"
                raise ValueError(msg)
        return keys

    @field_validator("outbound_allow")
    @classmethod
    def is_networks(cls, text: str) -> str:
        """Refuse what is no list of networks when the program starts, not when an alert has to go out."""
        parse_networks(text)
        return text

    @property
    def outbound_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`outbound_allow`, read."""
        return parse_networks(self.outbound_allow)

    @model_validator(mode="after")
    def runs_outlive_their_events(self) -> Self:
        """A run without events is history; an event without its run would be an orphan."""
        if self.keep_runs_days < self.keep_events_days:
            msg = (
                f"{PREFIX}KEEP_RUNS_DAYS ({self.keep_runs_days}) must be at least "
                f"{PREFIX}KEEP_EVENTS_DAYS ({self.keep_events_days})"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def what_is_worked_out_outlives_the_runs(self) -> Self:
        """Gone before the runs, it would be worked out anew from those that are left, wrongly."""
        for name in ("keep_hours_days", "keep_slots_days"):
            days = getattr(self, name)
            if days < self.keep_runs_days:
                msg = f"{PREFIX}{name.upper()} ({days}) must be at least {PREFIX}KEEP_RUNS_DAYS ({self.keep_runs_days})"
                raise ValueError(msg)
        return self


@cache
def get_settings() -> Settings:
    """The settings of this process, read from the environment at the first call."""
    return Settings()


def export(changes: Mapping[str, object]) -> Settings:
    """Lay what the command line said over the environment, for this process and for those it starts."""
    for name, value in changes.items():
        os.environ[PREFIX + name.upper()] = str(value)
    get_settings.cache_clear()
    return get_settings()
