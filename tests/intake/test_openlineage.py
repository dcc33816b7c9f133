"""Reading OpenLineage events, without a database: what Airflow, dbt and Spark send, and what nobody should."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pulsewatch.auth import Caller
from pulsewatch.events import Flag, Parent, RunEvent, Status, canonical_json, dedupe_key
from pulsewatch.intake import openlineage_openapi
from pulsewatch.intake.base import Reply
from pulsewatch.packing import content_digest
from pulsewatch.problems import Problem
from pulsewatch.submissions import CatalogStatement, Receipt, Refusal, Rejected
from tests.intake import openlineage_payloads as payloads
from tests.intake.openlineage_payloads import (
    BOUND,
    TEN,
    UNBOUND,
    WIRE,
    minimal,
    parse,
    request,
    run_event,
    with_job_facets,
)


def refusal(event: object) -> tuple[str, str]:
    """Code and pointer of the refusal that one event gets."""
    submission = parse(event)
    assert submission.items == []
    (rejected,) = submission.rejected
    return rejected.refusal.code, rejected.refusal.pointer


# What producers send


def test_an_airflow_task_that_starts_gives_a_run_and_the_owner_and_tags_of_its_pipeline() -> None:
    submission = parse(payloads.AIRFLOW_START)
    event, statement = submission.items
    assert isinstance(event, RunEvent)
    assert event == RunEvent(
        client="acme",
        namespace="default",
        pipeline="nightly.load_orders",
        run=payloads.TASK_RUN,
        status=Status.RUNNING,
        occurred_at=datetime(2026, 11, 21, 2, 0, 3, 120431, tzinfo=UTC),
        scheduled_at=datetime(2026, 11, 20, 2, 0, tzinfo=UTC),
        parent=Parent("nightly", payloads.DAG_RUN, "default"),
        attributes={
            "processing_type": "BATCH",
            "integration": "AIRFLOW",
            "job_type": "TASK",
            "engine": "Airflow",
            "engine_version": "3.1.0",
            "adapter_version": "2.7.0",
        },
        event_id=event.event_id,
    )
    assert statement == CatalogStatement(
        "acme",
        {"owner": "orders, data", "tags": ["finance", "tier:gold"]},
        event.occurred_at,
        "nightly.load_orders",
        "default",
    )
    assert submission.indexes == [0, 0]


def test_an_airflow_task_that_fails_tells_the_message_and_the_class_of_the_exception() -> None:
    event = run_event(payloads.AIRFLOW_FAIL)
    assert (event.status, event.message, event.error_class) == (
        Status.FAILED,
        "relation orders does not exist",
        "psycopg.errors.UndefinedTable",
    )


def test_a_dbt_model_tells_rows_assertions_and_its_parent_and_nanoseconds_are_cut() -> None:
    event = run_event(payloads.DBT_COMPLETE)
    assert event.status is Status.SUCCEEDED
    assert event.occurred_at == datetime(2026, 11, 21, 3, 0, 9, 123456, tzinfo=UTC)
    assert event.metrics == {"rows": 1200.0, "assertions_passed": 1.0, "assertions_failed": 2.0}
    assert event.attributes is not None
    assert event.attributes["failed_assertions"] == ["unique(id)", "known_status"]
    assert event.parent == Parent("dbt-run-shop", payloads.DAG_RUN, "dbt")


def test_a_time_without_a_zone_is_taken_as_utc_and_flagged() -> None:
    event = run_event(payloads.DBT_ABORT)
    assert (event.status, event.flags) == (Status.CANCELLED, Flag.ASSUMED_UTC)
    assert event.occurred_at == datetime(2026, 11, 21, 3, 0, 9, 500000, tzinfo=UTC)


def test_statistics_of_a_spark_job_are_summed_over_its_datasets() -> None:
    event = run_event(payloads.spark("COMPLETE", "2026-11-21T04:00:00.001Z"))
    assert event.metrics == {"rows": 15.0, "bytes": 1500.0, "input_rows": 15.0, "input_bytes": 100.0}
    assert event.attributes == {
        "processing_type": "BATCH",
        "integration": "SPARK",
        "job_type": "SQL_JOB",
        "engine": "spark",
        "engine_version": "3.5.1",
        "adapter_version": "1.40.0",
    }


def test_repeated_starts_of_spark_are_one_event_and_those_that_say_more_are_others() -> None:
    at = "2026-11-21T04:00:00.001Z"
    same, longer_plan = (run_event(payloads.spark("START", at, plan_nodes=nodes)) for nodes in (3, 9_000))
    without_inputs = run_event(payloads.spark("START", at, inputs=[]))
    assert dedupe_key(same) == dedupe_key(longer_plan) != dedupe_key(without_inputs)
    assert content_digest(same) == content_digest(longer_plan)


def test_two_info_events_of_one_instant_are_no_conflict() -> None:
    one = run_event(minimal(eventType="OTHER"))
    other = run_event(minimal(eventType="OTHER", run={"runId": "r1", "facets": {"tags": {"tags": [{"key": "a"}]}}}))
    assert dedupe_key(one) != dedupe_key(other)


# Kinds of events


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("START", Status.RUNNING),
        ("RUNNING", Status.RUNNING),
        ("COMPLETE", Status.SUCCEEDED),
        ("FAIL", Status.FAILED),
        ("ABORT", Status.CANCELLED),
        ("OTHER", Status.INFO),
        (None, Status.INFO),
        (..., Status.INFO),
    ],
)
def test_every_event_type_has_its_status(kind: object, status: Status) -> None:
    assert run_event(minimal(eventType=kind)).status is status


def test_what_is_not_read_may_be_missing() -> None:
    assert run_event(minimal(producer=..., schemaURL=..., eventType=...)).status is Status.INFO


def test_a_job_event_makes_the_pipeline_known_with_what_its_facets_say() -> None:
    said = minimal(eventType=..., run=..., schemaURL=payloads.SPEC.replace("RunEvent", "JobEvent"))
    assert parse(said).items == [CatalogStatement("acme", {}, TEN, "nightly", "prod")]
    said["job"]["facets"] = {"ownership": {"owners": [{"name": "team:orders"}]}, "tags": {"_deleted": True}}
    assert parse(said).items == [CatalogStatement("acme", {"owner": "team:orders", "tags": []}, TEN, "nightly", "prod")]
    said["job"]["facets"] = {"ownership": {"_deleted": True}}
    assert parse(said).items == [CatalogStatement("acme", {"owner": None}, TEN, "nightly", "prod")]


def test_a_dataset_event_is_accepted_and_nothing_is_stored() -> None:
    event = {"eventTime": "2026-11-21T10:00:00Z", "dataset": {"namespace": "db", "name": "orders"}}
    submission = parse(event)
    assert (submission.items, submission.rejected) == ([], [])
    assert WIRE.reply(request(event), Receipt()) == Reply(201)


@pytest.mark.parametrize("kind", ["RUNNING", "COMPLETE", "FAIL", "ABORT", "OTHER", None])
def test_only_a_start_speaks_of_the_pipeline(kind: str | None) -> None:
    assert len(parse(payloads.AIRFLOW_START | {"eventType": kind}).items) == 1


def test_of_equal_statements_in_a_request_the_latest_is_kept() -> None:
    times = ["2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z", "2026-11-21T09:00:00Z"]
    owner = {"ownership": {"owners": [{"name": "orders"}]}}
    submission = parse([with_job_facets(**owner) | {"eventTime": at} for at in times])
    statements = [item for item in submission.items if isinstance(item, CatalogStatement)]
    assert [(said.changes, said.occurred_at) for said in statements] == [
        ({"owner": "orders"}, TEN + timedelta(hours=1))
    ]
    assert submission.indexes == [0, 1, 2, 1]


# Times and bad events


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-21T10:00:00.123456789Z", TEN.replace(microsecond=123456)),
        ("2026-11-21T12:00:00+02:00", TEN),
        ("2026-11-21T12:00:00+02:00[Europe/Paris]", TEN),
        ("2026-11-21T12:00:00+0200", TEN),
        (" 2026-11-21 10:00:00Z", TEN),
    ],
)
def test_times_are_read_as_clients_write_them(written: str, read: datetime) -> None:
    event = run_event(minimal(eventTime=written))
    assert (event.occurred_at, event.flags) == (read, 0)


@pytest.mark.parametrize(
    ("event", "code", "pointer"),
    [
        ({}, "missing_field", "/eventTime"),
        (minimal(eventTime=...), "missing_field", "/eventTime"),
        (minimal(eventTime=1_700_000_000), "wrong_type", "/eventTime"),
        (minimal(eventTime="yesterday"), "invalid_time", "/eventTime"),
        (minimal(eventTime="0001-01-01T00:00:00+09:00"), "invalid_time", "/eventTime"),
        (minimal(eventTime="2026-11-21T12:11:00Z"), "in_future", "/eventTime"),
        (minimal(eventTime="2024-11-21T12:00:00Z"), "too_old", "/eventTime"),
        (minimal(eventType="DONE"), "unknown_status", "/eventType"),
        (minimal(eventType=["START"]), "wrong_type", "/eventType"),
        (minimal(run=...), "missing_field", "/run"),
        (minimal(run=..., eventType=...), "missing_field", "/run"),
        (minimal(run="r1"), "wrong_type", "/run"),
        (minimal(run={}), "missing_field", "/run/runId"),
        (minimal(run={"runId": 7}), "wrong_type", "/run/runId"),
        (minimal(run={"runId": ""}), "too_short", "/run/runId"),
        (minimal(run={"runId": "x" * 256}), "too_long", "/run/runId"),
        (minimal(job=...), "missing_field", "/job"),
        (minimal(job={"name": "nightly"}), "missing_field", "/job/namespace"),
        (minimal(job={"namespace": "prod"}), "missing_field", "/job/name"),
        (minimal(job={"namespace": "prod", "name": "x" * 513}), "too_long", "/job/name"),
        ({"eventTime": "2026-11-21T10:00:00Z", "dataset": {"name": "x"}}, "missing_field", "/dataset/namespace"),
    ],
)
def test_an_event_that_lacks_what_is_needed_is_refused_with_a_code(event: object, code: str, pointer: str) -> None:
    assert refusal(event) == (code, pointer)


def answer(body: object, rejected: list[Rejected], **options: Any) -> Reply:
    return WIRE.reply(request(body, **options), Receipt(rejected=rejected, received=parse(body, **options).received))


def test_a_single_bad_event_is_a_400_that_names_the_field() -> None:
    event = minimal(run={})
    with pytest.raises(Problem) as raised:
        answer(event, parse(event).rejected)
    problem = raised.value
    assert (problem.status, problem.code) == (400, "missing_field")
    assert [error.pointer for error in problem.errors] == ["/run/runId"]


@pytest.mark.parametrize("path", ["/api/v1/lineage", "/api/v1/lineage/"])
def test_an_array_is_taken_and_a_bad_event_in_it_is_named(path: str) -> None:
    events = [minimal(), minimal(run={}), 3]
    submission = parse(events, path=path)
    assert submission.indexes == [0]
    assert [json.loads(submission.text_of(index)) for index in range(3)] == events
    reply = answer(events, submission.rejected, path=path)
    assert (reply.status, json.loads(reply.body)["summary"]["failed"]) == (200, 2)
    with pytest.raises(Problem) as raised:
        answer([minimal(run={})], parse([minimal(run={})]).rejected, path=path)
    assert (raised.value.status, raised.value.errors[0].pointer) == (400, "/0/run/runId")


@pytest.mark.parametrize("path", ["/api/v1/lineage/batch", "/api/v1/lineage/batch/"])
def test_a_batch_answers_204_or_what_failed(path: str) -> None:
    assert answer([minimal()], [], path=path) == Reply(204)
    events = [minimal(), minimal(run={}), minimal(eventTime="x")]
    limit = Rejected(0, Refusal("pipeline_limit", "/pipeline", "It is full."))
    rejected = [limit, limit, *parse(events, path=path).rejected]
    assert json.loads(answer(events, rejected, path=path).body) == {
        "status": "partial_success",
        "summary": {"received": 3, "successful": 0, "failed": 3, "retriable": 0, "non_retriable": 3},
        "failed_events": [
            {"index": 0, "reason": "pipeline_limit at /pipeline: It is full.", "retriable": False},
            {"index": 1, "reason": "missing_field at /run/runId: run.runId is missing.", "retriable": False},
            {
                "index": 2,
                "reason": "invalid_time at /eventTime: The time is not ISO 8601, such as 2026-09-01T02:00:03.120Z.",
                "retriable": False,
            },
        ],
    }


@pytest.mark.parametrize(
    ("body", "path", "status", "code"),
    [
        (b"", "/api/v1/lineage", 400, "invalid_json"),
        (b"{", "/api/v1/lineage", 400, "invalid_json"),
        (b'"\xed\xa0\x80"', "/api/v1/lineage", 400, "invalid_json"),
        (b"[" * 100_000, "/api/v1/lineage", 400, "too_deep"),
        (b"7", "/api/v1/lineage", 400, "wrong_type"),
        (minimal(), "/api/v1/lineage/batch", 400, "wrong_type"),
        ([{}] * 101, "/api/v1/lineage/batch", 413, "too_many"),
    ],
)
def test_what_is_no_event_at_all_is_a_problem(body: object, path: str, status: int, code: str) -> None:
    with pytest.raises(Problem) as raised:
        parse(body, path=path)
    assert (raised.value.status, raised.value.code) == (status, code)


# Whose events they are


@pytest.mark.parametrize(
    ("caller", "query", "client"),
    [
        (BOUND, {}, "acme"),
        (BOUND, {"client": "acme"}, "acme"),
        (UNBOUND, {"client": "globex"}, "globex"),
    ],
)
def test_the_client_is_that_of_the_key_or_of_the_url(caller: Caller, query: dict[str, str], client: str) -> None:
    assert [item.client for item in parse(minimal(), caller=caller, **query).items] == [client]


@pytest.mark.parametrize(
    ("caller", "query", "status", "code", "words"),
    [
        (UNBOUND, {}, 403, "client_unknown", "?client=SLUG"),
        (BOUND, {"client": "globex"}, 403, "forbidden_client", "'acme'"),
        (UNBOUND, {"client": "no slug"}, 400, "not_a_slug", "A client is"),
    ],
)
def test_without_a_client_or_with_another_one_the_cure_is_named(
    caller: Caller, query: dict[str, str], status: int, code: str, words: str
) -> None:
    with pytest.raises(Problem) as raised:
        parse(minimal(), caller=caller, **query)
    assert (raised.value.status, raised.value.code) == (status, code)
    assert words in raised.value.detail


# Anything at all

texts = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(
    ["START", "FAIL", "2026-11-21T10:00:00Z", "2026-11-21T10:00", "r1", "\0", "\ud800", "9999-12-31T23:59:59-09:00"]
)
NAMES = """
    eventType eventTime run job dataset runId facets namespace name inputs outputs inputFacets outputFacets
    outputStatistics rowCount size dataQualityAssertions assertions success nominalTime nominalStartTime
    errorMessage message stackTrace parent tags key value ownership owners _deleted schemaURL
"""
names = st.sampled_from(NAMES.split())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=6),
    max_leaves=30,
)
facet_values = st.dictionaries(names, values, max_size=6)
nearly_events = st.fixed_dictionaries(
    {
        "eventTime": st.just("2026-11-21T10:00:00Z") | values,
        "run": st.fixed_dictionaries({"runId": st.just("r1") | texts, "facets": facet_values}) | values,
        "job": st.fixed_dictionaries({"namespace": texts, "name": st.just("j") | texts, "facets": facet_values}),
    },
    optional={"eventType": st.sampled_from(["START", "FAIL", "OTHER"]) | values, "inputs": values, "outputs": values},
)


@given(
    st.one_of(values, nearly_events, st.lists(nearly_events, max_size=3)).map(lambda v: json.dumps(v).encode())
    | st.binary(max_size=40),
    st.sampled_from(WIRE.paths),
)
@example(b'[{"a": ' + b"[" * 900 + b"]" * 900 + b', "b": NaN}]', "/api/v1/lineage")
def test_any_json_at_all_is_read_or_a_problem_of_the_caller(body: bytes, path: str) -> None:
    try:
        submission = parse(body, path=path)
    except Problem as problem:
        is_callers_fault = 400 <= problem.status < 500
    else:
        for item in submission.items:
            assert b"\\u0000" not in canonical_json(item)
        is_callers_fault = all(submission.text_of(rejected.index) for rejected in submission.rejected)
    assert is_callers_fault


# Documentation


@pytest.mark.parametrize("kind", openlineage_openapi.examples())
def test_the_examples_of_the_documentation_are_taken(kind: str) -> None:
    submission = parse(openlineage_openapi.examples("2026-11-21T10:00:00Z")[kind])
    assert submission.rejected == []
    assert len(submission.items) == (0 if kind == "dataset" else 1)


def test_both_paths_are_documented() -> None:
    assert WIRE.openapi_paths().keys() == {path.rstrip("/") for path in WIRE.paths}
