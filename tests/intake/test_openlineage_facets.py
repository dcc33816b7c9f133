"""What the facets of OpenLineage events become; nothing that a facet holds makes its event fail."""

import json
from datetime import UTC, datetime

import pytest

from pulsewatch.events import Flag
from pulsewatch.submissions import CatalogStatement
from tests.intake.openlineage_payloads import (
    minimal,
    parse,
    run_event,
    with_job_facets,
    with_run_facets,
)


@pytest.mark.parametrize(
    ("message", "trace", "found"),
    [
        ("ValueError: boom", None, "ValueError"),
        ("KeyError('x')", None, "KeyError"),
        ("google.api_core.exceptions.ServerError", None, "google.api_core.exceptions.ServerError"),
        ("Database Error in model orders", None, None),
        ("Error: boom", None, None),
        ("boom", "no trace", None),
        ("x" * 400 + "Error", None, None),
        ("boom", "java.io.IOException: gone\n\tat org.acme.Load.run(Load.java:3)\n", "java.io.IOException"),
        (
            "boom",
            'Exception in thread "main" org.acme.A$B: x\n  at org.acme.A.main(A.java:1)\nCaused by: c.D: y\n',
            "org.acme.A$B",
        ),
        (
            "boom",
            'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\nKeyError: 1',
            "KeyError",
        ),
        ("boom", 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>', None),
        ("ValueError: boom", {"not": "a text"}, "ValueError"),
    ],
)
def test_the_class_of_an_error_is_given_where_it_is_plainly_there(
    message: str, trace: object, found: str | None
) -> None:
    said = {"message": message, "programmingLanguage": "python", "stackTrace": trace}
    event = run_event(with_run_facets(errorMessage=said))
    assert (event.message, event.error_class) == (message, found)


def test_a_message_is_cut_to_what_is_kept() -> None:
    message = run_event(with_run_facets(errorMessage={"message": "x" * 20_000})).message
    assert message == "x" * 9_999 + "…"


def test_nul_and_half_surrogates_are_replaced() -> None:
    body = json.dumps(with_run_facets(errorMessage={"message": "a\0b\ud800c"}, x={"\0": "\udfff"}))
    body = body.replace('"nightly"', '"night\\u0000ly\\udc00"')
    event = run_event(body.encode())
    assert (event.message, event.pipeline) == ("a\ufffdb\ufffdc", "night\ufffdly\ufffd")


def test_a_nominal_time_that_cannot_be_is_dropped_and_flagged() -> None:
    event = run_event(with_run_facets(nominalTime={"nominalStartTime": "1970-01-01T00:00:00Z"}))
    assert (event.scheduled_at, event.flags) == (None, Flag.SCHEDULED_AT_IGNORED)
    event = run_event(with_run_facets(nominalTime={"nominalStartTime": "2026-11-21T02:00:00"}))
    assert (event.scheduled_at, event.flags) == (datetime(2026, 11, 21, 2, 0, tzinfo=UTC), Flag.ASSUMED_UTC)


def test_the_results_of_tests_count_as_assertions_and_skipped_ones_do_not() -> None:
    tests = [{"name": "a", "status": "pass"}, {"name": "b", "status": "fail"}, {"name": "c", "status": "skip"}]
    event = run_event(with_run_facets(test={"tests": tests}))
    assert event.metrics == {"assertions_passed": 1.0, "assertions_failed": 1.0}
    assert event.attributes == {"failed_assertions": ["b"]}


def test_tags_of_the_run_are_kept_with_the_run() -> None:
    tags = [{"key": "team", "value": "data"}, {"key": "nightly", "value": "true"}, {"key": "late"}, {"key": 3}, 4]
    event = run_event(with_run_facets(tags={"tags": tags}))
    assert event.attributes == {"tags": ["late", "nightly", "team:data"]}


def test_more_tags_and_owners_than_are_kept_are_cut() -> None:
    facets = {
        "ownership": {"owners": [{"name": f"{number:03}" * 30} for number in range(9)]},
        "tags": {"tags": [{"key": f"{number:03}"} for number in range(99)] + [{"key": "k" * 99, "value": "v"}]},
    }
    statement = parse(with_job_facets(**facets)).items[1]
    assert isinstance(statement, CatalogStatement)
    assert statement.changes == {
        "owner": f"{'000' * 30}, {'001' * 30}",
        "tags": [f"{number:03}" for number in range(50)],
    }


ODD_VALUES: tuple[object, ...] = (None, True, 1, -1, 1.5, "", "x", [], {}, [[]], [{}], [None], {"facets": 1}, 10**400)


@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda odd: repr(odd)[:20])
def test_a_facet_of_the_wrong_type_is_passed_over(odd: object) -> None:
    plain = run_event(minimal())
    fields = {
        "nominalTime": "nominalStartTime",
        "parent": "run",
        "parentRun": "job",
        "test": "tests",
        "tags": "tags",
    }
    assert run_event(with_run_facets(**{name: {field: odd} for name, field in fields.items()})) == plain
    assert run_event(with_run_facets(**dict.fromkeys([*fields, "errorMessage", "processing_engine"], odd))) == plain
    assert run_event(with_job_facets(**dict.fromkeys(["jobType", "ownership", "tags"], odd))) == plain
    assert run_event(minimal(inputs=odd, outputs=odd, run={"runId": "r1", "facets": odd})) == plain


@pytest.mark.parametrize("odd", [None, True, -1, "1", [1], {}, 10**400], ids=lambda odd: repr(odd)[:20])
def test_a_statistic_or_assertion_that_is_none_is_passed_over(odd: object) -> None:
    facets = {"outputStatistics": {"rowCount": odd}, "dataQualityAssertions": {"assertions": [odd, {"success": odd}]}}
    if odd is True:
        del facets["dataQualityAssertions"]
    assert run_event(minimal(outputs=[{"outputFacets": facets}, odd])) == run_event(minimal())


def test_numbers_that_are_none_are_passed_over() -> None:
    body = json.dumps(minimal(outputs=[{"outputFacets": {"outputStatistics": {"rowCount": 1, "size": 2}}}]))
    for number in ("NaN", "Infinity", "1e999999", "1" * 400):
        event = run_event(body.replace('"size": 2', f'"size": {number}').encode())
        assert event.metrics == {"rows": 1.0}
