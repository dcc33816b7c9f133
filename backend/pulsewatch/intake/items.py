"""Reading a body item by item, when the fast road is closed: every bad item gets its code, the good ones pass."""

import difflib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from pulsewatch.intake.base import Request
from pulsewatch.problems import Problem
from pulsewatch.submissions import Refusal

MAX_DEPTH = 32
# How much of a sender's own words is repeated in the answer, and kept with the reject.
SHOWN_NAME = 100
SHOWN_WORDS = 300

Struct = TypeVar("Struct", bound=msgspec.Struct)


class _Envelope(msgspec.Struct):
    events: list[msgspec.Raw]


_raw_items = msgspec.json.Decoder(list[msgspec.Raw])
_raw_envelope = msgspec.json.Decoder(_Envelope)


def refuse_too_many(count: int, request: Request) -> None:
    """Raises Problem where a request holds more items than one may."""
    if count > request.limits.max_events:
        raise Problem(413, "too_many", f"{count} items in one request; at most {request.limits.max_events} are taken.")


def texts_of(body: bytes, *, is_ndjson: bool) -> Callable[[int], bytes]:
    """A function from an item's place in the body to its text, for the rejects. Splits only when asked."""
    texts: list[bytes] = []

    def text_of(index: int) -> bytes:
        if not texts:
            texts.extend(split(body, is_ndjson=is_ndjson))
        return texts[index]

    return text_of


def split(body: bytes, *, is_ndjson: bool) -> list[bytes]:
    """The texts of the items in a body: lines, or the members of an array or envelope, or the one bare object.

    Raises Problem 400 where the body as a whole is not JSON. A line that is no JSON is left for its own reject.
    """
    if is_ndjson:
        # At \n alone, as the typed decoder does: a \r between two tokens is white space and ends no line.
        return [line for line in body.split(b"\n") if line.strip()]
    start = body.lstrip()[:1]
    try:
        if start == b"[":
            return [bytes(raw) for raw in _raw_items.decode(body)]
        if start == b"{" and is_envelope(_object(body)):
            return [bytes(raw) for raw in _raw_envelope.decode(body).events]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # What msgspec does not read (NaN, half surrogates) the standard library does, so that it can be named per item.
    value = load(body)
    if isinstance(value, dict) and is_envelope(value):
        value = value["events"]
        if not isinstance(value, list):
            raise Problem(400, "wrong_type", 'In {"events": ...} an array is expected.')
    elif isinstance(value, dict):
        return [body]
    if not isinstance(value, list):
        raise Problem(400, "wrong_type", "The body is an array of events, an object, or lines of objects (NDJSON).")
    return [json.dumps(item).encode() for item in value]


def is_envelope(value: dict[str, Any]) -> bool:
    """Whether an object is `{"events": [...]}` and not an event. Raises Problem where it is that and more."""
    if "events" not in value or "type" in value:
        return False
    unknown = sorted(value.keys() - {"events"})
    if unknown:
        name = unknown[0][:SHOWN_NAME]
        raise Problem(400, "unknown_field", f"Beside events, the envelope has {name!a}, which is not known.")
    return True


def _object(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, msgspec.Raw])


def load(body: bytes) -> object:
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Problem(400, "invalid_json", f"The body is not UTF-8: byte {error.start} is out of place.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, "invalid_json", f"The body is not JSON: {error.msg} at {where}.") from error
    except RecursionError as error:
        raise Problem(400, "too_deep", f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise Problem(400, "out_of_range", "The body holds a number of too many digits.") from error


def read_object(text: bytes) -> dict[str, Any] | Refusal:
    """One item as a plain object of values that can be stored, or why not."""
    try:
        value = load(text)
    except Problem as problem:
        return Refusal(problem.code, "", problem.detail.replace("body", "item"))
    if not isinstance(value, dict):
        return Refusal("wrong_type", "", "An event is a JSON object.")
    return refuse_text(value, "") or value


def refuse_text(value: object, pointer: str, depth: int = 1) -> Refusal | None:
    """The first thing in a value that PostgreSQL's JSON cannot hold, or that is nested too deep."""
    refused = _refuse_value(value, depth)
    if refused is None:
        return None
    whole = pointer + refused.pointer
    if refused.code == "too_deep":
        whole = "/".join(whole.split("/")[:2])
    return replace(refused, pointer=whole)


def _refuse_value(value: object, depth: int) -> Refusal | None:
    """The same, with the pointer from this value on.

    It is put together on the way back: on the way down each member would cost as much as the names above it are long.
    """
    if isinstance(value, str):
        return _refuse_string(value)
    if isinstance(value, float) and not math.isfinite(value):
        return Refusal("not_finite", "", "A number must be finite, and fit a double.")
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            return Refusal("too_deep", "", f"Nested deeper than {MAX_DEPTH} levels.")
        for name, member in value.items() if isinstance(value, dict) else enumerate(value):
            refused = _refuse_string(name) if isinstance(name, str) else None
            if refused:
                return refused
            refused = _refuse_value(member, depth + 1)
            if refused:
                return replace(refused, pointer=f"/{escape(str(name)[:SHOWN_NAME])}{refused.pointer}")
    return None


def _refuse_string(text: str) -> Refusal | None:
    if "\0" in text:
        return Refusal("nul_character", "", "The NUL character cannot be stored.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return Refusal("lone_surrogate", "", "The text holds half a surrogate pair, which is no character.")
    return None


def escape(name: str) -> str:
    """A name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def convert(value: dict[str, Any], to: type[Struct]) -> Struct | Refusal:
    """The object as the struct, or what is wrong with it, in our words and with a JSON pointer."""
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as error:
        return _explain(str(error), value, to)


# msgspec's words, and the code each of them gets.
_CODES = (
    (re.compile(r"missing required field `(?P<name>.+?)`"), "missing_field"),
    (re.compile(r"contains unknown field `(?P<name>.*?)`", re.DOTALL), "unknown_field"),
    (re.compile(r"Expected `\w+` of length <="), "too_long"),
    (re.compile(r"Expected `\w+` of length >="), "too_short"),
    (re.compile(r"Expected `\w+` (<|<=|>|>=) "), "out_of_range"),
    (re.compile(r"Integer value out of range|Number out of range"), "out_of_range"),
    (re.compile(r"matching regex"), "invalid_format"),
    (re.compile(r"Invalid RFC3339"), "invalid_time"),
    (re.compile(r"Invalid enum value"), "unknown_value"),
    (re.compile(r"Expected `"), "wrong_type"),
)
_BY_FIELD = {
    ("unknown_value", "/status"): ("unknown_status", "queued, running, succeeded, failed, cancelled, skipped or info."),
    ("invalid_format", "/url"): ("invalid_url", "An http or https address without spaces is expected."),
}


def _explain(message: str, value: dict[str, Any], to: type[msgspec.Struct]) -> Refusal:
    words, _, path = message.partition(" - at `$")
    pointer = _pointer(path.removesuffix("`"), value)
    for pattern, code in _CODES:
        found = pattern.search(words)
        if not found:
            continue
        name = found.groupdict().get("name")
        if code == "missing_field" and name:
            return Refusal(code, f"{pointer}/{name}", f"{name} is missing.")
        if code == "unknown_field" and name is not None:
            name = name[:SHOWN_NAME]
            nearest = difflib.get_close_matches(name, to.__struct_encode_fields__, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest and not pointer else ""
            return Refusal(code, f"{pointer}/{escape(name)}", f"{name!a} is not a known field.{hint}")
        if (code, pointer) in _BY_FIELD:
            code, words = _BY_FIELD[code, pointer]
        words = words[:SHOWN_WORDS]
        return Refusal(code, pointer, words if words.endswith(".") else f"{words}.")
    return Refusal("wrong_type", pointer, f"{words}.")


def _pointer(path: str, value: dict[str, Any]) -> str:
    """msgspec's path (`.parent.run`, `.metrics[...]`) as a JSON pointer; a member that it leaves open is sought."""
    pointer = ""
    for step in re.findall(r"\.([^.\[]+)|\[(\.\.\.|\d+)\]", path):
        name = step[0] or step[1]
        if name == "...":
            members = value.get(pointer[1:])
            name = (
                next(
                    (
                        key
                        for key, member in members.items()
                        if isinstance(member, bool) or not isinstance(member, int | float)
                    ),
                    "",
                )
                if isinstance(members, dict)
                else ""
            )
            if not name:
                continue
        pointer += f"/{escape(name[:SHOWN_NAME])}"
    return pointer
