"""Settings: one frozen class, secrets from files, and a documentation that tells all of them."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pulsewatch.settings import ADDRESSES, PREFIX, SECRETS, Settings, export, get_settings

ROOT = Path(__file__).parents[1]


def test_the_example_file_documents_every_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    documented = dict(re.findall(r"^#(PULSEWATCH_\w+)=(.*)$", text, re.MULTILINE))
    fields = Settings.model_fields
    expected = {
        PREFIX + name.upper(): "" if field.default is None else str(field.default) for name, field in fields.items()
    }
    expected |= {f"{PREFIX}{name.upper()}_FILE": "" for name in SECRETS}
    assert documented == expected


def test_the_example_file_says_of_every_setting_what_the_code_says() -> None:
    words = " ".join(line.removeprefix("# ") for line in (ROOT / ".env.example").read_text().splitlines())
    assert [name for name, field in Settings.model_fields.items() if (field.description or "?") not in words] == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSEWATCH_PORT", "9999")
    monkeypatch.setenv("PULSEWATCH_MAX_EVENTS", "")
    assert get_settings().port == 9999
    assert get_settings().max_events == 10_000  # empty is unset


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc] # the very thing that must fail


def test_a_secret_is_read_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:p@h/d\n")
    monkeypatch.setenv("PULSEWATCH_DATABASE_URL_FILE", str(secret))
    settings = Settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://u:p@h/d"
    assert "u:p" not in repr(settings)


def test_a_secret_given_directly_stands_before_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSEWATCH_DATABASE_URL_FILE", "/no/such/file")
    monkeypatch.setenv("PULSEWATCH_DATABASE_URL", "postgresql://direct/d")
    settings = Settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://direct/d"


def test_a_secret_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSEWATCH_OWNER_DATABASE_URL_FILE", "/no/such/file")
    with pytest.raises(ValidationError, match="PULSEWATCH_OWNER_DATABASE_URL_FILE names a file that cannot be read"):
        Settings()


def test_a_secret_file_that_is_no_text_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xffsecret")
    monkeypatch.setenv("PULSEWATCH_GRAFANA_PASSWORD_FILE", str(tmp_path / "secret"))
    with pytest.raises(ValidationError, match="PULSEWATCH_GRAFANA_PASSWORD_FILE names a file that cannot be read"):
        Settings()


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "address", ["secret", "postgresql://u:secret@h:abc/d", "mysql://u:secret@h/d", "postgresql+psycopg2://u:secret@h/d"]
)
def test_what_is_no_address_of_a_postgresql_is_refused_and_not_repeated(name: str, address: str) -> None:
    with pytest.raises(ValidationError, match="is not of the form postgresql://") as failure:
        Settings.model_validate({name: address})
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    "address", ["postgresql://u:p@h:5432/d?sslmode=require", "postgres://h/d", "postgresql://u:p%40q@[::1]:5432/d"]
)
def test_addresses_of_a_postgresql_are_taken(address: str) -> None:
    settings = Settings.model_validate({"database_url": address})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == address


def test_runs_are_kept_at_least_as_long_as_their_events() -> None:
    with pytest.raises(ValidationError, match=r"KEEP_RUNS_DAYS \(30\) must be at least PULSEWATCH_KEEP_EVENTS_DAYS"):
        Settings(keep_events_days=31, keep_runs_days=30)
    assert Settings(keep_events_days=30, keep_runs_days=30).keep_runs_days == 30


def test_what_the_command_line_said_stands_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSEWATCH_PORT", "1")
    assert get_settings().port == 1
    assert export({"port": 2}).port == 2
    assert get_settings().port == 2


@pytest.mark.parametrize("name", ["keep_hours_days", "keep_slots_days"])
def test_hours_and_slots_are_kept_at_least_as_long_as_the_runs(name: str) -> None:
    times = {"keep_events_days": 30, "keep_runs_days": 60, "keep_hours_days": 60, "keep_slots_days": 60}
    assert Settings.model_validate(times).keep_hours_days == 60
    with pytest.raises(
        ValidationError, match=rf"{name.upper()} \(59\) must be at least PULSEWATCH_KEEP_RUNS_DAYS \(60\)"
    ):
        Settings.model_validate(times | {name: 59})


def test_networks_are_read_from_a_list() -> None:
    assert Settings().outbound_networks == ()
    settings = Settings.model_validate({"outbound_allow": "10.20.0.0/16, 127.0.0.1,fd00::/8,"})
    assert [str(network) for network in settings.outbound_networks] == ["10.20.0.0/16", "127.0.0.1/32", "fd00::/8"]


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "localhost", "*", "10.0.0.0/8;127.0.0.1"])
def test_what_is_no_network_is_refused_when_the_program_starts(text: str) -> None:
    with pytest.raises(ValidationError, match="outbound_allow"):
        Settings.model_validate({"outbound_allow": text})
