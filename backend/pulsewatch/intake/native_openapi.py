"""The OpenAPI part of POST /v1/events; a test holds it against the decoder."""

from typing import Any

PATHS: dict[str, Any] = {}
