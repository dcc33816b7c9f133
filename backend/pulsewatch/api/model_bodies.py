"""Reads bodies that a Pydantic model describes, and says what is wrong with them, field by field."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from pulsewatch.api.alert_rule_bodies import Place, pointer, unfit_texts
from pulsewatch.api.deps import Words, read_object
from pulsewatch.api.errors import invalid
from pulsewatch.catalog import unknown_field
from pulsewatch.problems import FieldError

Model = TypeVar("Model", bound=BaseModel)

# Pydantic's types of error, as the codes that PulseWatch uses everywhere.
_CODES = {
    "missing": "missing_field",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "finite_number": "out_of_range",
    "string_too_long": "too_long",
    "too_long": "too_long",
    "string_too_short": "too_short",
    "too_short": "too_short",
    "timezone_aware": "naive_time",
    "literal_error": "unknown_value",
    "string_pattern_mismatch": "invalid_value",
    "value_error": "invalid_value",
}


def read_model(model: type[Model], body: object, above: Place = ()) -> tuple[Model | None, list[FieldError]]:
    """What the model makes of the body, and what is wrong with it: one of the two is empty.

    `above`: where it stands in the whole body.
    """
    errors = list(unfit_texts(body, above))
    if errors:
        # PostgreSQL and JSON cannot hold them: nothing else can be said.
        return None, errors
    try:
        return model.model_validate_json(msgspec.json.encode(body), strict=True), []
    except ValidationError as error:
        return None, [_error(model, fault, above) for fault in error.errors(include_url=False, include_input=False)]


def read_body(model: type[Model], body: object) -> Model:
    """What the model makes of the whole body. Raises Problem 422."""
    read, errors = read_model(model, body)
    if read is None:
        raise invalid(errors)
    return read


def _error(model: type[BaseModel], fault: Mapping[str, Any], above: Place) -> FieldError:
    """One of Pydantic's findings as the error that PulseWatch gives."""
    place = tuple(part for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        named = unknown_field(str(place[-1]), list(_model_at(model, place[:-1]).model_fields))
        return replace(named, pointer=pointer((*above, *place[:-1])) + named.pointer)
    reason = fault.get("ctx", {}).get("error")
    detail = str(fault["msg"] if reason is None else reason)
    code = _CODES.get(fault["type"], "wrong_type")
    return FieldError(pointer((*above, *place)), code, f"{detail[0].upper()}{detail[1:]}.")


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    """The model of a field, however deep; where a field is no model, the one that it belongs to."""
    for name in place:
        field = model.model_fields.get(str(name))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return model


async def _read_optional(request: Request) -> Words:
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return {}
    return await read_object(request)


OptionalBody = Annotated[Words, Depends(_read_optional)]
"""The body as one JSON object; an empty one where there is none."""
