"""The hand-written OpenAPI part says what the decoder does."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from pulsewatch import catalog
from pulsewatch.auth import Caller, Role
from pulsewatch.events import Status
from pulsewatch.intake import native, native_openapi
from pulsewatch.intake.base import Limits, Request


def decoder_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """What the decoder itself says it takes."""
    (_, components) = msgspec.json.schema_components([struct], ref_template="{name}")
    return cast("dict[str, Any]", components[struct.__name__])


@pytest.mark.parametrize(
    ("documented", "struct"),
    [(native_openapi.RUN_EVENT, native.RunItem), (native_openapi.PARENT, native.ParentItem)],
)
def test_fields_limits_and_what_is_required_are_those_of_the_decoder(
    documented: dict[str, Any], struct: type[msgspec.Struct]
) -> None:
    decoded = decoder_schema(struct)
    assert documented["properties"].keys() == decoded["properties"].keys()
    assert set(documented["required"]) == set(decoded["required"])
    for name, said in documented["properties"].items():
        real = decoded["properties"][name]
        real = next((kind for kind in real.get("anyOf", []) if kind.get("type") != "null"), real)
        limits = ("maxLength", "minLength", "maximum", "minimum", "maxProperties")
        if name != "client":  # checked against the pattern of a slug, not by the decoder
            assert {limit: said[limit] for limit in limits if said.get(limit)} == {
                limit: real[limit] for limit in limits if real.get(limit)
            }, name


def test_statuses_are_all_but_the_reserved_one() -> None:
    documented = native_openapi.RUN_EVENT["properties"]["status"]["enum"]
    assert set(documented) == {status.value for status in Status} - {"timed_out"}


def test_catalog_events_have_the_fields_of_the_catalog() -> None:
    head = {"type", "client", "occurred_at"}
    assert native_openapi.CLIENT_EVENT["properties"].keys() == head | catalog.CLIENT_FIELDS.keys()
    assert native_openapi.PIPELINE_EVENT["properties"].keys() == (
        head | {"pipeline", "namespace"} | catalog.PIPELINE_FIELDS.keys()
    )


@pytest.mark.parametrize("example", native_openapi.EXAMPLES.values(), ids=native_openapi.EXAMPLES.keys())
def test_the_examples_are_taken(example: object) -> None:
    request = Request(
        "/v1/events",
        {},
        "application/json",
        json.dumps(example).encode(),
        Caller(UUID(int=1), Role.INGEST, None, None),
        datetime(2026, 11, 21, tzinfo=UTC),
        Limits(10, timedelta(days=400)),
    )
    submission = native.NativeWire().parse(request)
    assert not submission.rejected
    assert len(submission.items) == (len(example) if isinstance(example, list) else 1)
