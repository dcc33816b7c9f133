"""Whatever is posted to the OpenLineage wire is answered without a server error, and again in the same way."""

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_any_body import NOW, Poster, poster, values, written

__all__ = ["poster"]  # the fixture

WHOLE: dict[str, Any] = {
    "eventType": "COMPLETE",
    "eventTime": NOW.isoformat(),
    "run": {
        "runId": "0199011e-7a10-7c3e-9f57-3f6d1a0c9b11",
        "facets": {
            "nominalTime": {"nominalStartTime": NOW.isoformat()},
            "errorMessage": {"message": "boom", "programmingLanguage": "python", "stackTrace": "here"},
            "parent": {"run": {"runId": "r"}, "job": {"namespace": "n", "name": "parent"}},
            "tags": {"tags": [{"key": "team", "value": "data", "source": "dag"}]},
        },
    },
    "job": {
        "namespace": "airflow",
        "name": "nightly",
        "facets": {
            "jobType": {"processingType": "BATCH", "integration": "SPARK", "jobType": "TASK"},
            "ownership": {"owners": [{"name": "team", "type": "MAINTAINER"}]},
            "tags": {"tags": [{"key": "tier", "value": "1"}]},
        },
    },
    "inputs": [{"namespace": "db", "name": "in", "inputFacets": {"dataQualityAssertions": {"assertions": [{}]}}}],
    "outputs": [{"namespace": "db", "name": "out", "outputFacets": {"outputStatistics": {"rowCount": 1, "size": 2}}}],
    "producer": "https://example.org/producer",
    "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
}
Path = tuple[str | int, ...]


def paths(value: object, above: Path = ()) -> list[Path]:
    """Where something stands in the event, at any depth."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for name, member in members for path in ((*above, name), *paths(member, (*above, name)))]


@st.composite
def lineage_events(draw: st.DrawFn) -> dict[str, Any]:
    """A whole event in which up to three things are gone, or are any JSON."""
    event = copy.deepcopy(WHOLE)
    for path in draw(st.lists(st.sampled_from(paths(WHOLE)), max_size=3)):
        at: Any = event
        with contextlib.suppress(KeyError, IndexError, TypeError):  # what stood there may be something else by now
            for name in path[:-1]:
                at = at[name]
            if draw(st.booleans()):
                del at[path[-1]]
            else:
                at[path[-1]] = draw(values)
    return event


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(lineage_events(), min_size=1, max_size=3), form=st.sampled_from(["object", "array", "batch"]))
def test_any_lineage_is_answered_and_again_in_the_same_way(
    poster: Poster,
    events: list[dict[str, Any]],
    form: str,
) -> None:
    path = "/api/v1/lineage/batch" if form == "batch" else "/api/v1/lineage"
    body = written(events[0] if form == "object" else events, is_ascii=True)
    first, second = (poster.post(body, to=f"{path}?client=acme", content_type="application/json") for _ in range(2))
    assert first.status_code < 500, first.text
    if first.content:
        json.loads(first.content.decode("utf-8"), parse_constant=lambda constant: pytest.fail(constant))
    assert second.status_code == first.status_code
