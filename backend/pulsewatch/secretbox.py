"""The secrets of channels, encrypted where they are stored.

The key is `secret_key`. Without it, and on the embedded PostgreSQL, it is the file `secret.key` of the data folder,
which whoever needs it first makes. A database of the user's own outlives this machine, so there the key must be given.

To change the key, put the new one before the old one. New secrets are encrypted with the first; the others still
decrypt.
"""

import base64
import contextlib
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pulsewatch.settings import NEW_SECRET_KEY, PREFIX, SECRET_KEY_CHARS, Settings

KEY_FILE = "secret.key"
PURPOSE = b"pulsewatch channel secrets"


class SecretKeyError(Exception):
    """There is no usable key. The message names the setting and the cure."""


class SecretUnreadable(Exception):
    """What is stored was encrypted with another key, or is damaged."""


class SecretBox:
    """Encrypts and decrypts with the given keys, separated by commas: the first encrypts, all decrypt."""

    def __init__(self, keys: str) -> None:
        self._fernet = MultiFernet([_fernet(key.strip()) for key in keys.split(",")])

    def __repr__(self) -> str:
        return "SecretBox(...)"

    def encrypt(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def decrypt(self, encrypted: bytes) -> bytes:
        """Raises SecretUnreadable."""
        try:
            return self._fernet.decrypt(bytes(encrypted))
        except InvalidToken:
            msg = (
                f"was encrypted with another key: add that one behind the first of {PREFIX}SECRET_KEY, or enter it anew"
            )
            raise SecretUnreadable(msg) from None


def open_box(settings: Settings) -> SecretBox:
    """The box of this PulseWatch; makes the key file where there is none yet. Raises SecretKeyError."""
    if settings.secret_key is not None:
        return SecretBox(settings.secret_key.get_secret_value())
    if settings.database_url is not None:
        msg = (
            f"channel secrets need a key: set {PREFIX}SECRET_KEY or {PREFIX}SECRET_KEY_FILE, the same for the api and "
            f"each worker; {NEW_SECRET_KEY}"
        )
        raise SecretKeyError(msg)
    return SecretBox(_read(ensure_key_file(settings.data_dir)))


def key_setting(settings: Settings) -> dict[str, Path]:
    """What goes into the environment together with the address of the embedded PostgreSQL.

    Whoever reads that address would take the database for the user's own and ask for a key. Raises SecretKeyError.
    """
    if settings.secret_key is not None or settings.database_url is not None:
        return {}
    return {"secret_key_file": ensure_key_file(settings.data_dir)}


def ensure_key_file(data_dir: Path) -> Path:
    """The key file of the data folder, made if there is none. Raises SecretKeyError.

    Whoever comes first makes it; whoever comes at the same time takes that one.
    """
    path = data_dir.expanduser().absolute() / KEY_FILE
    part = path.with_name(f"{KEY_FILE}.{secrets.token_hex(8)}.part")
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())  # what it encrypts is committed, so it must not be lost first
            # A link never replaces what is there, unlike a rename.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(part)
            part.unlink()
            _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        msg = f"cannot make {path}: {error.strerror or error}; or set {PREFIX}SECRET_KEY"
        raise SecretKeyError(msg) from error
    return path


def _read(path: Path) -> str:
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        key = ""
    if len(key) < SECRET_KEY_CHARS:
        # Never made anew: what it has encrypted would be lost without a word.
        msg = f"{path} cannot be read or holds no key: put it back, or remove it and enter the channel secrets anew"
        raise SecretKeyError(msg)
    return key


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fernet(key: str) -> Fernet:
    # Keys are random, so one round is enough; the purpose keeps other uses of the same key apart.
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
