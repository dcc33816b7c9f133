"""Errors as RFC 9457 problems, in one shape for everything that PulseWatch answers.

A problem is `type`, `title`, `status`, `detail` and, where fields are at fault,
`errors: [{"pointer", "code", "detail"}]`. `type` is a URN made of the problem's code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"
# Python 3.13 took on the names of RFC 9110; older versions have other ones.
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


def title(status: int) -> str:
    """The name of a status code after RFC 9110, the same on every Python."""
    return TITLES.get(status) or HTTPStatus(status).phrase


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field. `pointer` is an RFC 6901 JSON pointer into the body, or `?name`."""

    pointer: str
    code: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class Problem(Exception):
    """An answer that is an error. `code` is stable and machine-readable; `detail` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def body(self) -> dict[str, Any]:
        """The problem as the JSON object that is sent."""
        body: dict[str, Any] = {
            "type": f"urn:pulsewatch:problem:{self.code}",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [error.as_dict() for error in self.errors]
        return body | self.extra


def unavailable(detail: str, *, retry_after_s: int = 1) -> Problem:
    """503 with Retry-After: nothing is wrong with the request, it may be sent again as it is."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(retry_after_s)})
