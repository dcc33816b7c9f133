"""Reading POST /v1/events, without a database: what each body says, and the code of everything that is wrong."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from pulsewatch.auth import Caller, Role
from pulsewatch.events import Flag, Parent, RunEvent, Status
from pulsewatch.intake.base import Limits, Request
from pulsewatch.intake.native import MAX_ATTRIBUTES_BYTES, NDJSON_TYPES, NativeWire
from pulsewatch.problems import Problem
from pulsewatch.submissions import CatalogStatement, Receipt, Refusal, Rejected, Submission

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WIRE = NativeWire()
UNBOUND = Caller(UUID(int=1), Role.INGEST, None, None)
BOUND = Caller(UUID(int=2), Role.INGEST, 7, "acme")


def parse(
    body: object, caller: Caller = UNBOUND, content_type: str = "application/json", max_events: int = 100
) -> Submission:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    limits = Limits(max_events, timedelta(days=400))
    return WIRE.parse(Request("/v1/events", {}, content_type, text, caller, NOW, limits))


def run_item(**fields: Any) -> dict[str, Any]:
    item = {
        "type": "run",
        "client": "acme",
        "pipeline": "nightly",
        "run": "r1",
        "status": "running",
        "occurred_at": "2026-11-21T10:00:00Z",
    }
    return {name: value for name, value in (item | fields).items() if value is not ...}


def test_every_field_of_a_run_event_is_read() -> None:
    submission = parse(
        run_item(
            namespace="prod",
            status="failed",
            occurred_at="2026-11-21T10:00:00.000001+02:00",
            event_id="e1",
            scheduled_at="2026-11-21T07:00:00Z",
            started_at="2026-11-21T07:30:00Z",
            duration_s=1800,
            attempt=2,
            message="boom",
            error_class="ValueError",
            metrics={"rows": 3},
            attributes={"host": "w1", "deep": [{"a": None}]},
            url="https://ci.example/1",
            parent={"pipeline": "all", "run": "p1"},
        )
    )
    assert not submission.rejected
    assert submission.items == [
        RunEvent(
            client="acme",
            pipeline="nightly",
            run="r1",
            namespace="prod",
            status=Status.FAILED,
            occurred_at=datetime(2026, 11, 21, 8, 0, 0, 1, tzinfo=UTC),
            event_id="e1",
            scheduled_at=datetime(2026, 11, 21, 7, 0, tzinfo=UTC),
            started_at=datetime(2026, 11, 21, 7, 30, tzinfo=UTC),
            duration_s=1800.0,
            attempt=2,
            message="boom",
            error_class="ValueError",
            metrics={"rows": 3.0},
            attributes={"host": "w1", "deep": [{"a": None}]},
            url="https://ci.example/1",
            parent=Parent("all", "p1"),
        )
    ]


ONE, TWO = run_item(), run_item(run="r2")
LINES = b"\n".join(json.dumps(item).encode() for item in (ONE, TWO))


@pytest.mark.parametrize(
    ("body", "content_type", "runs"),
    [
        (ONE, "application/json", ["r1"]),
        ([ONE, TWO], "application/json", ["r1", "r2"]),
        ({"events": [ONE, TWO]}, "application/json", ["r1", "r2"]),
        (LINES, "application/x-ndjson", ["r1", "r2"]),
        (LINES + b"\n\n", "application/jsonl", ["r1", "r2"]),
        ([], "application/json", []),
        ({"events": []}, "application/json", []),
        (b"", "application/x-ndjson", []),
        (b" \n\t[" + json.dumps(ONE).encode() + b"]", "application/json", ["r1"]),
    ],
)
def test_each_form_of_body_is_read(body: object, content_type: str, runs: list[str]) -> None:
    submission = parse(body, content_type=content_type)
    assert not submission.rejected
    assert [item.run for item in submission.items if isinstance(item, RunEvent)] == runs
    # A catalog event closes the fast road: the slow one reads the same.
    if body and isinstance(body, list):
        slow = parse([*body, {"type": "client", "client": "acme", "occurred_at": "2026-11-21T10:00:00Z"}])
        assert slow.items[:-1] == submission.items


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


BAD_FIELDS = [
    ({"type": ...}, "missing_field", "/type"),
    ({"type": "job"}, "unknown_type", "/type"),
    ({"type": None}, "unknown_type", "/type"),
    ({"type": ["run"]}, "unknown_type", "/type"),
    ({"client": ...}, "missing_field", "/client"),
    ({"client": 7}, "wrong_type", "/client"),
    ({"client": "a/b"}, "not_a_slug", "/client"),
    ({"client": ""}, "not_a_slug", "/client"),
    ({"client": "a" * 101}, "not_a_slug", "/client"),
    ({"client": "acme\n"}, "not_a_slug", "/client"),
    ({"pipeline": ...}, "missing_field", "/pipeline"),
    ({"pipeline": ""}, "too_short", "/pipeline"),
    ({"pipeline": "p" * 513}, "too_long", "/pipeline"),
    ({"pipeline": {"name": "x"}}, "wrong_type", "/pipeline"),
    ({"namespace": "n" * 513}, "too_long", "/namespace"),
    ({"run": ...}, "missing_field", "/run"),
    ({"run": 17}, "wrong_type", "/run"),
    ({"run": "r" * 256}, "too_long", "/run"),
    ({"run": ..., "scheduled_at": "1999-12-31T23:59:59Z"}, "missing_field", "/run"),
    ({"status": ...}, "missing_field", "/status"),
    ({"status": "success"}, "unknown_status", "/status"),
    ({"status": 1}, "wrong_type", "/status"),
    ({"status": "timed_out"}, "reserved_status", "/status"),
    ({"occurred_at": ...}, "missing_field", "/occurred_at"),
    ({"occurred_at": None}, "wrong_type", "/occurred_at"),
    ({"occurred_at": 1763719200}, "wrong_type", "/occurred_at"),
    ({"occurred_at": "yesterday"}, "invalid_time", "/occurred_at"),
    ({"occurred_at": "2026-11-21T10:00:00"}, "naive_time", "/occurred_at"),
    ({"occurred_at": "2025-10-17T11:59:59Z"}, "too_old", "/occurred_at"),
    ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "too_old", "/occurred_at"),
    ({"occurred_at": "2026-11-21T12:10:00.000001Z"}, "in_future", "/occurred_at"),
    ({"occurred_at": "9999-12-31T23:59:59-12:00"}, "in_future", "/occurred_at"),
    ({"started_at": "2026-11-21T10:00:00"}, "naive_time", "/started_at"),
    ({"started_at": "2025-01-01T00:00:00Z"}, "too_old", "/started_at"),
    ({"started_at": "2026-11-22T00:00:00Z"}, "in_future", "/started_at"),
    ({"scheduled_at": "2026-11-21T10:00:00"}, "naive_time", "/scheduled_at"),
    ({"attempt": -1}, "out_of_range", "/attempt"),
    ({"attempt": 32}, "out_of_range", "/attempt"),
    ({"attempt": 1.5}, "wrong_type", "/attempt"),
    ({"attempt": True}, "wrong_type", "/attempt"),
    ({"duration_s": -0.1}, "out_of_range", "/duration_s"),
    ({"duration_s": 1e12}, "out_of_range", "/duration_s"),
    ({"duration_s": "5"}, "wrong_type", "/duration_s"),
    ({"event_id": ""}, "too_short", "/event_id"),
    ({"message": "m" * 10_001}, "too_long", "/message"),
    ({"message": "nul \0"}, "nul_character", "/message"),
    ({"run": "nul \0"}, "nul_character", "/run"),
    ({"error_class": "E" * 256}, "too_long", "/error_class"),
    ({"url": "javascript:alert(1)"}, "invalid_url", "/url"),
    ({"url": "https://" + "a" * 2048}, "too_long", "/url"),
    ({"url": "https://a.example/x\n"}, "invalid_url", "/url"),
    ({"metrics": {"rows": "many"}}, "wrong_type", "/metrics/rows"),
    ({"metrics": {"rows": True}}, "wrong_type", "/metrics/rows"),
    ({"metrics": {"rows": None}}, "wrong_type", "/metrics/rows"),
    ({"metrics": [1]}, "wrong_type", "/metrics"),
    ({"metrics": {f"m{number}": 1 for number in range(101)}}, "too_long", "/metrics"),
    ({"metrics": {"nul\0": 1}}, "nul_character", "/metrics"),
    ({"attributes": "x"}, "wrong_type", "/attributes"),
    ({"attributes": {"a": "x" * MAX_ATTRIBUTES_BYTES}}, "too_long", "/attributes"),
    ({"attributes": {"a": deep(40)}}, "too_deep", "/attributes"),
    ({"attributes": {"a/b": {"~": "nul \0"}}}, "nul_character", "/attributes/a~1b/~0"),
    ({"parent": {"pipeline": "all"}}, "missing_field", "/parent/run"),
    ({"parent": {"pipeline": "all", "run": "1", "job": 1}}, "unknown_field", "/parent/job"),
    ({"parent": "all"}, "wrong_type", "/parent"),
    ({"statsu": "running"}, "unknown_field", "/statsu"),
]


@pytest.mark.parametrize(("fields", "code", "pointer"), BAD_FIELDS)
def test_each_bad_field_is_named_and_its_neighbours_pass(fields: dict[str, Any], code: str, pointer: str) -> None:
    submission = parse([ONE, run_item(**fields), TWO])
    assert submission.indexes == [0, 2]
    (rejected,) = submission.rejected
    assert (rejected.index, rejected.refusal.code, rejected.refusal.pointer) == (1, code, pointer)
    assert rejected.refusal.detail.endswith((".", "?"))
    assert json.loads(submission.text_of(1)) == run_item(**fields)


# What Python's json cannot write.
BAD_TEXTS = [
    (b'"metrics": {"rows": NaN}', "not_finite", "/metrics/rows"),
    (b'"metrics": {"rows": Infinity}', "not_finite", "/metrics/rows"),
    (b'"metrics": {"rows": 1e999999}', "not_finite", "/metrics/rows"),
    (b'"attributes": {"a": [-1e999999]}', "not_finite", "/attributes/a/0"),
    (b'"message": "half \\ud800 pair"', "lone_surrogate", "/message"),
    (b'"attributes": {"\\udc00": 1}', "lone_surrogate", "/attributes"),
]


@pytest.mark.parametrize(("text", "code", "pointer"), BAD_TEXTS)
def test_what_json_should_not_hold_is_named_per_item(text: bytes, code: str, pointer: str) -> None:
    good = json.dumps(ONE).encode()
    submission = parse(b"[" + good[:-1] + b", " + text + b"}, " + good + b"]")
    assert submission.indexes == [1]
    assert [(rejected.refusal.code, rejected.refusal.pointer) for rejected in submission.rejected] == [(code, pointer)]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"hello", 400, "invalid_json"),
        (b'[{"type": "run"', 400, "invalid_json"),
        (b'{"a": "\xff"}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "too_deep"),
        (b'{"events": ' + b"[" * 100_000, 400, "too_deep"),
        (b"1" * 5000, 400, "out_of_range"),
        (b"17", 400, "wrong_type"),
        (b'"run"', 400, "wrong_type"),
        (b"null", 400, "wrong_type"),
        (b'{"events": {}}', 400, "wrong_type"),
        (b'{"events": [], "client": "acme"}', 400, "unknown_field"),
        (json.dumps([ONE] * 101).encode(), 413, "too_many"),
        (json.dumps([ONE] * 100 + [{}]).encode(), 413, "too_many"),
    ],
)
def test_a_body_that_cannot_be_read_at_all_is_a_problem(body: bytes, status: int, code: str) -> None:
    with pytest.raises(Problem) as raised:
        parse(body)
    assert (raised.value.status, raised.value.code) == (status, code)


def test_nesting_is_limited_alike_on_both_roads() -> None:
    allowed = [run_item(attributes={"a": deep(30)})]
    refused = [run_item(attributes={"a": deep(31)})]
    catalog_event = {"type": "client", "client": "acme", "occurred_at": "2026-11-21T10:00:00Z"}
    for body in (allowed, [*allowed, catalog_event]):
        assert not parse(body).rejected
    for body in (refused, [*refused, catalog_event]):
        assert [rejected.refusal.code for rejected in parse(body).rejected] == ["too_deep"]


@pytest.mark.parametrize("item", [17, None, "run", [], [ONE]])
def test_an_item_that_is_no_object_is_a_reject(item: object) -> None:
    submission = parse([item, ONE])
    assert [(rejected.index, rejected.refusal.code) for rejected in submission.rejected] == [(0, "wrong_type")]
    assert submission.indexes == [1]


def test_a_line_that_is_no_json_is_a_reject() -> None:
    submission = parse(b"nonsense\n" + LINES, content_type=NDJSON_TYPES[0])
    assert [(rejected.index, rejected.refusal.code) for rejected in submission.rejected] == [(0, "invalid_json")]
    assert submission.indexes == [1, 2]


def test_a_misspelt_field_gets_the_nearest_name() -> None:
    (rejected,) = parse([run_item(ocurred_at="x")]).rejected
    assert rejected.refusal.detail == "'ocurred_at' is not a known field. Did you mean 'occurred_at'?"


def test_a_bound_key_needs_no_client_and_may_name_no_other() -> None:
    submission = parse([run_item(client=...), run_item(), run_item(client="globex")], caller=BOUND)
    assert [item.client for item in submission.items] == ["acme", "acme"]
    (rejected,) = submission.rejected
    assert (rejected.index, rejected.refusal.code, rejected.client) == (2, "forbidden_client", "globex")


@pytest.mark.parametrize(("at", "kept"), [("2000-01-01T00:00:00Z", True), ("1999-12-31T23:59:59Z", False)])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_scheduled_at_out_of_bounds_is_dropped_and_flagged(at: str, *, kept: bool, ahead: bool) -> None:
    if ahead:
        at = (NOW + timedelta(days=400, seconds=0 if kept else 1)).isoformat()
    (event,) = parse(run_item(scheduled_at=at)).items
    assert isinstance(event, RunEvent)
    assert event.flags == (0 if kept else Flag.SCHEDULED_AT_IGNORED)
    assert event.scheduled_at == (datetime.fromisoformat(at) if kept else None)
    assert event.ignored_scheduled_at == (None if kept else datetime.fromisoformat(at))


def test_the_scheduled_time_names_the_run_where_nothing_else_does() -> None:
    first, second = parse(
        [
            run_item(run=..., scheduled_at="2026-11-21T10:00:00+02:00"),
            run_item(run=..., scheduled_at="2026-11-21T08:00:00.000Z"),
        ]
    ).items
    assert isinstance(first, RunEvent)
    assert isinstance(second, RunEvent)
    assert first.run == second.run == "2026-11-21T08:00:00Z"


def test_nulls_and_empty_objects_say_nothing() -> None:
    said = parse(run_item(metrics={}, attributes={}, message=None, parent=None, event_id=None)).items
    assert said == parse(run_item()).items


def test_client_and_pipeline_events_tell_absent_from_null() -> None:
    at = "2026-11-21T10:00:00Z"
    submission = parse(
        [
            {"type": "client", "client": "acme", "occurred_at": at, "title": "Acme"},
            {
                "type": "pipeline",
                "client": "acme",
                "pipeline": "x y",
                "occurred_at": at,
                "schedule": None,
                "tags": ["b"],
            },
        ],
        caller=BOUND,
    )
    occurred_at = datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert submission.items == [
        CatalogStatement("acme", {"title": "Acme"}, occurred_at),
        CatalogStatement("acme", {"schedule": None, "tags": ["b"]}, occurred_at, "x y", ""),
    ]


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"schedule": "61 * * * *"}, "invalid_schedule", "/schedule"),
        ({"timezone": "Europe/Berln"}, "invalid_timezone", "/timezone"),
        ({"start_grace_s": -1}, "out_of_range", "/start_grace_s"),
        ({"max_runtime_s": 0}, "out_of_range", "/max_runtime_s"),
        ({"tags": "etl"}, "wrong_type", "/tags"),
        ({"title": "t" * 201}, "too_long", "/title"),
        ({"scedule": "@daily"}, "unknown_field", "/scedule"),
        ({"occurred_at": "2026-11-21T10:00:00"}, "naive_time", "/occurred_at"),
        ({"occurred_at": ...}, "missing_field", "/occurred_at"),
        ({"client": "a b"}, "not_a_slug", "/client"),
        ({"pipeline": ...}, "missing_field", "/pipeline"),
    ],
)
def test_each_bad_field_of_a_pipeline_event_is_named(fields: dict[str, Any], code: str, pointer: str) -> None:
    item = {"type": "pipeline", "client": "acme", "pipeline": "p", "occurred_at": "2026-11-21T10:00:00Z"} | fields
    item = {name: value for name, value in item.items() if value is not ...}
    (rejected,) = parse([item]).rejected
    assert (rejected.refusal.code, rejected.refusal.pointer) == (code, pointer)


def receipt(*codes: str, accepted: int = 0, duplicates: int = 0) -> Receipt:
    rejected = [Rejected(index, Refusal(code, "/x", "Why.")) for index, code in enumerate(codes)]
    return Receipt(accepted, duplicates, rejected)


REQUEST = Request("/v1/events", {}, "application/json", b"", UNBOUND, NOW, Limits(1, timedelta(1)))


def test_the_answer_counts_and_names_what_was_rejected() -> None:
    reply = WIRE.reply(REQUEST, receipt("too_old", accepted=2, duplicates=1))
    assert reply.status == 200
    assert msgspec.json.decode(reply.body) == {
        "accepted": 2,
        "duplicates": 1,
        "rejected": [{"index": 0, "code": "too_old", "pointer": "/x", "detail": "Why."}],
    }


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        (["too_old"], 422),
        (["forbidden_client", "too_old"], 422),
        (["forbidden_client", "forbidden_client"], 403),
    ],
)
def test_nothing_good_at_all_is_a_problem_that_still_tells_all(codes: list[str], status: int) -> None:
    with pytest.raises(Problem) as raised:
        WIRE.reply(REQUEST, receipt(*codes))
    body = raised.value.body()
    assert (body["status"], body["accepted"], body["duplicates"]) == (status, 0, 0)
    assert [rejected["code"] for rejected in body["rejected"]] == codes


def test_an_empty_batch_and_one_of_duplicates_are_fine() -> None:
    assert WIRE.reply(REQUEST, receipt()).status == 200
    assert WIRE.reply(REQUEST, receipt("too_old", duplicates=1)).status == 200
