"""Secrets at rest: who makes the key, which key is asked for, and how it is changed."""

import logging
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pulsewatch.secretbox import SecretBox, SecretKeyError, SecretUnreadable, ensure_key_file, key_setting, open_box
from pulsewatch.settings import Settings
from tests.running import ROOT

OLD, NEW = "o" * 32, "n" * 44


def test_what_is_encrypted_decrypts_and_cannot_be_read() -> None:
    box = SecretBox(OLD)
    encrypted = box.encrypt(b"password")
    assert box.decrypt(encrypted) == b"password"
    assert b"password" not in encrypted
    assert box.encrypt(b"password") != encrypted


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    encrypted = SecretBox(OLD).encrypt(b"a")
    both = SecretBox(f"{NEW}, {OLD}")
    assert both.decrypt(encrypted) == b"a"
    assert SecretBox(NEW).decrypt(both.encrypt(b"b")) == b"b"


@pytest.mark.parametrize("damage", [lambda token: token[:-4] + b"AAAA", lambda token: token[:20], lambda _: b""])
def test_what_was_damaged_or_is_another_keys_is_told(damage: object) -> None:
    assert callable(damage)
    told = r"^was encrypted with another key: add that one behind the first of PULSEWATCH_SECRET_KEY, or enter it anew$"
    with pytest.raises(SecretUnreadable, match=told):
        SecretBox(OLD).decrypt(damage(SecretBox(OLD).encrypt(b"a")))
    with pytest.raises(SecretUnreadable, match=told):
        SecretBox(NEW).decrypt(SecretBox(OLD).encrypt(b"a"))


def test_no_key_shows_in_repr(tmp_path: Path) -> None:
    settings = Settings.model_validate({"secret_key": OLD, "data_dir": tmp_path})
    assert OLD not in repr(settings) + repr(open_box(settings)) + str(vars(open_box(settings)))


def test_without_a_key_the_data_folder_gets_one_that_stays(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path / "new" / "data"})
    encrypted = open_box(settings).encrypt(b"a")
    path = tmp_path / "new" / "data" / "secret.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", path.read_text())
    assert [entry.name for entry in path.parent.iterdir()] == ["secret.key"]
    assert open_box(settings).decrypt(encrypted) == b"a"


def test_a_given_key_stands_before_the_file(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "secret_key": OLD})
    assert SecretBox(OLD).decrypt(open_box(settings).encrypt(b"a")) == b"a"
    assert list(tmp_path.iterdir()) == []


def test_with_a_database_of_the_users_own_the_key_must_be_given(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "database_url": "postgresql://u:p@h/d"})
    with pytest.raises(SecretKeyError) as missing:
        open_box(settings)
    assert str(missing.value) == (
        "channel secrets need a key: set PULSEWATCH_SECRET_KEY or PULSEWATCH_SECRET_KEY_FILE, the same for the api and "
        "each worker; make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_that_the_error_names_makes_a_key(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "database_url": "postgresql://u:p@h/d"})
    with pytest.raises(SecretKeyError) as missing:
        open_box(settings)
    (code,) = re.findall(r"python3 -c '(.*)'$", str(missing.value))
    made = subprocess.run((sys.executable, "-c", code), check=True, capture_output=True, text=True).stdout.strip()
    box = open_box(Settings.model_validate({"database_url": "postgresql://u:p@h/d", "secret_key": made}))
    assert box.decrypt(box.encrypt(b"a")) == b"a"


def test_whoever_is_told_of_the_embedded_database_is_told_of_its_key(tmp_path: Path) -> None:
    embedded = Settings.model_validate({"data_dir": tmp_path})
    assert key_setting(embedded) == {"secret_key_file": tmp_path / "secret.key"}
    assert (tmp_path / "secret.key").exists()
    assert key_setting(Settings.model_validate({"data_dir": tmp_path, "secret_key": OLD})) == {}
    assert key_setting(Settings.model_validate({"data_dir": tmp_path, "database_url": "postgresql://h/d"})) == {}


def test_processes_that_start_together_take_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pulsewatch.secretbox import ensure_key_file; "
        "sys.stdin.readline(); print(ensure_key_file(Path(sys.argv[1])).read_text().strip())"
    )
    started = [
        subprocess.Popen(
            (sys.executable, "-c", code, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    keys = {process.communicate()[0].strip() for process in started}
    assert keys == {(tmp_path / "secret.key").read_text().strip()}
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 64])
def test_a_damaged_key_file_is_told_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret.key").write_bytes(content)
    with pytest.raises(SecretKeyError, match=r"secret.key cannot be read or holds no key: put it back, or remove it"):
        open_box(Settings.model_validate({"data_dir": tmp_path}))
    assert (tmp_path / "secret.key").read_bytes() == content


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretKeyError, match=r"^cannot make .*/secret.key: .*; or set PULSEWATCH_SECRET_KEY$"):
        ensure_key_file(tmp_path / "file" / "data")


@pytest.mark.parametrize("keys", ["short", f"{OLD},short", f"{OLD},", " " * 40])
def test_a_key_that_is_easy_to_guess_is_refused_and_not_repeated(keys: str) -> None:
    with pytest.raises(ValidationError, match="must be at least 32 random characters") as refused:
        Settings.model_validate({"secret_key": keys})
    assert OLD not in str(refused.value)


def test_nothing_of_it_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        open_box(Settings.model_validate({"data_dir": tmp_path})).encrypt(b"password")
    assert caplog.text == ""
