"""The secrets of channels, as the API keeps them: what is given replaces what is stored, and nothing is shown."""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from fastapi import Request
from sqlalchemy import Row

from pulsewatch.api.errors import invalid
from pulsewatch.problems import FieldError, Problem
from pulsewatch.secretbox import SecretBox, SecretKeyError, SecretUnreadable, open_box
from pulsewatch.settings import PREFIX

log = logging.getLogger("pulsewatch.api")


class Vault:
    """Encrypts and decrypts the secrets of channels. The key is only asked for where there are secrets."""

    def __init__(self, request: Request) -> None:
        self._settings = request.app.state.settings
        self._box: SecretBox | None = None

    def _open(self) -> SecretBox:
        if self._box is None:
            self._box = open_box(self._settings)
        return self._box

    def read(self, row: Row[Any] | None) -> dict[str, Any] | None:
        """The secrets of a channel, by name; None where they cannot be read."""
        if row is None or row.secrets is None:
            return {}
        try:
            return dict(json.loads(self._open().decrypt(row.secrets)))
        except (SecretKeyError, SecretUnreadable) as error:
            log.warning("secrets of channel %s: %s", row.key, error)
            return None

    def seal(self, secrets: Mapping[str, Any]) -> bytes | None:
        """The secrets as they are stored; None for none. Raises Problem 409 where there is no key."""
        if not secrets:
            return None
        try:
            return self._open().encrypt(json.dumps(secrets).encode())
        except SecretKeyError as error:
            # Which file or setting is at fault is for whoever runs PulseWatch.
            log.error("%s", error)
            detail = f"Channel secrets cannot be kept: PulseWatch has no key for them ({PREFIX}SECRET_KEY)."
            raise Problem(409, "secret_key_missing", detail) from error


def merged(stored: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored with what is given over it; null takes away."""
    return {name: value for name, value in {**(stored or {}), **given}.items() if value is not None}


def refuse_kept(kept: Iterable[str], given: Collection[str], fields: Sequence[str]) -> None:
    """Raises Problem 422 where secrets would be kept although the channel is to lead elsewhere, by these fields.

    Else whoever may write, but never read them, could have them sent to himself.
    """
    detail = f"The channel leads elsewhere now ({', '.join(fields)}): give this secret again, or null to take it away."
    errors = [FieldError(f"/secrets/{name}", "missing_field", detail) for name in kept if name not in given]
    if errors:
        raise invalid(errors)
