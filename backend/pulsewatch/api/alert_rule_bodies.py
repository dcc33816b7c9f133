"""Reads alert rules that people send, and says what is wrong with them: each field, and what is allowed there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, select

from pulsewatch import models
from pulsewatch.api.deps import Words
from pulsewatch.catalog import FieldFault, checked_text, json_type, printable, unknown_field
from pulsewatch.problems import FieldError
from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Kind, Levels
from pulsewatch.rules.selectors import Selector
from pulsewatch.rules.spec import RuleSpec

Place = tuple[int | str, ...]

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
    "literal_error": "unknown_value",
    "string_pattern_mismatch": "unknown_value",
    "value_error": "unknown_value",
}
# Fields that must have a form: what it is.
_FORMS = {
    "runbook_url": ("invalid_url", "An http or https address without spaces is expected."),
    "channels": ("not_a_slug", "The key of a channel has 1 to 100 letters, digits, dots, dashes and underscores."),
    "labels": ("unknown_value", "A name has 1 to 100 letters, digits and underscores, and begins with no digit."),
    "annotations": ("unknown_value", "A name has 1 to 100 letters, digits and underscores, and begins with no digit."),
}
SHOWN_CHANNELS = 20
# No body that gets so far has a field of this name.
TOO_MANY = "\0"


def read_spec(body: Words) -> tuple[RuleSpec | None, list[FieldError]]:
    """The rule, and what is wrong with it: one of the two is empty."""
    errors = list(unfit_texts(body, ()))
    if errors:
        # PostgreSQL and JSON cannot hold them: nothing else can be said.
        return None, errors
    kind = KINDS.get(str(body.get("kind")))
    params = body.get("params", {})
    if kind is not None and isinstance(params, Mapping):
        errors += _param_errors(kind, params)
        errors += _level_errors(kind, body.get("levels"))
    # What the rule says as a whole is looked at where each field is right. With a field too many none of that is said
    # again where params or levels are at fault already.
    asked = {**body, TOO_MANY: None} if errors else body
    try:
        return RuleSpec.model_validate_json(msgspec.json.encode(asked), strict=True), []
    except ValidationError as error:
        faults = error.errors(include_url=False)
    errors += [_error(RuleSpec, fault, ()) for fault in faults if fault["loc"] != (TOO_MANY,)]
    # A list whose items are at fault is not at fault itself.
    inner = [error.pointer for error in errors]
    return None, [error for error in errors if not any(other.startswith(f"{error.pointer}/") for other in inner)]


def unfit_texts(value: object, place: Place) -> Iterator[FieldError]:
    """Texts, and names of fields, that cannot be stored."""
    if isinstance(value, str):
        try:
            checked_text(value, len(value))
        except FieldFault as fault:
            yield FieldError(pointer(place), fault.code, str(fault))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from unfit_texts(name, (*place, name))
            yield from unfit_texts(inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from unfit_texts(inner, (*place, number))


def _param_errors(kind: Kind, params: Mapping[str, object]) -> list[FieldError]:
    try:
        kind.params.model_validate_json(msgspec.json.encode(params), strict=True)
    except ValidationError as error:
        return [_error(kind.params, fault, ("params",)) for fault in error.errors(include_url=False)]
    return []


def _level_errors(kind: Kind, levels: object) -> list[FieldError]:
    if not isinstance(levels, Mapping):
        return []
    errors = []
    for name in Levels.model_fields:
        level = levels.get(name)
        if isinstance(level, (int, float)) and not isinstance(level, bool):
            try:
                kind.check_level(level)
            except ValueError as error:
                errors.append(FieldError(f"/levels/{name}", "out_of_range", f"For {kind.name}: {error}."))
    return errors


def _error(model: type[BaseModel], fault: Mapping[str, Any], above: Place) -> FieldError:
    """One of Pydantic's findings as the error that PulseWatch gives. `above`: where the model stands in the body."""
    place = tuple(part for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        known = _fields(model, place[:-1])
        named = unknown_field(str(place[-1]), known)
        return replace(named, pointer=pointer((*above, *place[:-1])) + named.pointer)
    at = pointer((*above, *place))
    if fault["type"] == "string_pattern_mismatch" and place and place[0] in _FORMS:
        code, detail = _FORMS[str(place[0])]
        return FieldError(at, code, detail)
    reason = fault.get("ctx", {}).get("error")
    detail = str(fault["msg"] if reason is None else reason)
    code = _CODES.get(fault["type"], "wrong_type")
    if place == ("kind",) and code == "missing_field":
        detail = f"one of {', '.join(sorted(KINDS))} is needed"
    if place == ("levels",) and reason is not None:
        code = "missing_field"
    elif not place and reason is not None:
        at, code = "/levels/critical", "out_of_range"
    return FieldError(at, code, f"{detail[0].upper()}{detail[1:]}.")


def _fields(model: type[BaseModel], place: Place) -> list[str]:
    """The fields that there are at this place of the model."""
    inner: dict[Place, type[BaseModel]] = {("selector",): Selector, ("levels",): Levels}
    return list(inner.get(place, model).model_fields)


def pointer(place: Sequence[int | str]) -> str:
    """An RFC 6901 pointer to a place in the body."""
    return "".join("/" + printable(str(part), 100).replace("~", "~0").replace("/", "~1") for part in place)


def whose_errors(connection: Connection, client_id: int | None, spec: RuleSpec) -> list[FieldError]:
    """What is wrong with the rule for whom it is made: a client's reaches its own channels and those of the fleet.

    A channel of another client is not told apart from one that does not exist.
    """
    errors = []
    if client_id is not None and spec.definition.target == "fleet":
        errors.append(FieldError("/kind", "unknown_value", f"{spec.kind} is about all clients; leave out ?client=."))
    if not spec.channels:
        return errors
    channel = models.channel
    query = select(channel.c.key, channel.c.client_id).where(
        channel.c.deleted_at.is_(None), (channel.c.client_id == client_id) | channel.c.client_id.is_(None)
    )
    rows = list(connection.execute(query))
    known = {row.key for row in rows}
    # What the channels of all clients are called is not for one of them.
    own = sorted(row.key for row in rows if row.client_id == client_id)
    shown = ", ".join(own[:SHOWN_CHANNELS]) or "none"
    for number, key in enumerate(spec.channels):
        if key not in known:
            detail = f"There is no channel {key!r} for this rule. Known are: {shown}."
            errors.append(FieldError(f"/channels/{number}", "unknown_value", detail))
    return errors


def read_dry_run(body: Words) -> tuple[bool, list[FieldError]]:
    """Whether the rule is only to try."""
    errors = [unknown_field(name, ["is_dry_run"]) for name in body if name != "is_dry_run"]
    value = body.get("is_dry_run")
    if "is_dry_run" not in body:
        errors.append(FieldError("/is_dry_run", "missing_field", "Say true or false."))
    elif not isinstance(value, bool):
        errors.append(FieldError("/is_dry_run", "wrong_type", f"A boolean is expected, not {json_type(value)}."))
    return value is True, errors
