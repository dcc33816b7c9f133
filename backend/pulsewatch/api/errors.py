"""Every error that leaves the API leaves it as an RFC 9457 problem."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy import exc
from starlette.exceptions import HTTPException

from pulsewatch.catalog import printable
from pulsewatch.problems import FieldError, Problem, unavailable
from pulsewatch.telemetry import problem_answer

log = logging.getLogger("pulsewatch.api")

# SQLSTATE 57014: our own statement_timeout ended the query.
QUERY_CANCELED = "57014"
LOCK_NOT_AVAILABLE = "55P03"


def install(app: FastAPI) -> None:
    """Give the application its error handlers."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(exc.SQLAlchemyError, _on_database_error)


def respond(problem: Problem) -> Response:
    """The problem as a response."""
    headers, body = problem_answer(problem)
    response = Response(body, status_code=problem.status)
    response.raw_headers = headers
    return response


def not_found(what: str, name: str) -> Problem:
    """404 for something that does not exist, or that the caller may not see: both look the same."""
    return Problem(404, "not_found", f"There is no {what} {printable(name, 100)!r}.")


def invalid(errors: list[FieldError]) -> Problem:
    """422 that names what is wrong with which fields."""
    if len(errors) == 1:
        return Problem(422, "invalid", f"{errors[0].pointer or 'The body'}: {errors[0].detail}", errors=errors)
    return Problem(422, "invalid", f"{len(errors)} fields are not valid.", errors=errors)


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - Starlette promises it; this narrows the type
    return respond(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such route, wrong method, and the like."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    path = printable(request.url.path, 200)
    if error.status_code == 404:
        return respond(Problem(404, "not_found", f"There is nothing at {path!r}."))
    if error.status_code == 405:
        allowed = ", ".join(sorted(allowed_methods(request.app, request.scope)))
        detail = f"{request.method} is not possible at {path!r}; {allowed} is."
        return respond(Problem(405, "method_not_allowed", detail, headers={"Allow": allowed}))
    return respond(Problem(error.status_code, "http_error", str(error.detail), headers=error.headers))


def allowed_methods(app: FastAPI, scope: Mapping[str, Any]) -> set[str]:
    """All methods at this path. Starlette's own answer names those of one route only."""
    return {
        method
        for route in app.state.api_routes
        if isinstance(route, APIRoute) and route.path_regex.match(scope["path"])
        for method in route.methods or ()
    }


# Pydantic's types of error, as the codes that PulseWatch uses everywhere.
_CODES = {
    "missing": "missing_field",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
    "string_too_long": "too_long",
    "enum": "unknown_value",
    "literal_error": "unknown_value",
}


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    """FastAPI's findings on query and path parameters; bodies are read by our own decoder."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    errors = []
    for found in error.errors():
        place, *names = found["loc"]
        name = printable(str(names[0]), 100) if names else ""
        pointer = f"?{name}" if place == "query" else f"{{{name}}}" if place == "path" else name
        errors.append(FieldError(pointer, _CODES.get(found["type"], "wrong_type"), str(found["msg"])))
    return respond(invalid(errors))


async def _on_database_error(request: Request, error: Exception) -> Response:
    """503 while the database is away or busy; anything else is our own fault and goes up to become a 500."""
    if not is_passing(error):
        raise error
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state == QUERY_CANCELED:
        detail = "The query took too long. Narrow it, for example by client, from and to."
    elif state == LOCK_NOT_AVAILABLE:
        detail = "Somebody else is changing the same just now. Send it again."
    else:
        detail = "The database does not answer just now."
    # The cause goes to the log alone: it names hosts and users.
    log.warning("%s %s: %s", request.method, request.url.path, getattr(error, "orig", None) or error)
    return respond(unavailable(detail, retry_after_s=2))


def is_passing(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)):
        return True
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated
