"""Identity and precedence: what ids look like, that they never change, and which event wins."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsewatch.events import (
    Parent,
    RunEvent,
    Status,
    canonical_time,
    dedupe_key,
    epoch_us,
    is_slug,
    pipeline_slug,
    run_id,
    state_key,
    time_prefix,
)
from pulsewatch.packing import content_digest

AT = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


def event(status: Status = Status.RUNNING, at: datetime = AT, **fields: Any) -> RunEvent:
    words = {"client": "acme", "pipeline": "nightly", "run": "r1"} | fields
    return RunEvent(status=status, occurred_at=at, **words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("acme", "", "nightly", "r1"), "1bb19255-4658-893f-b4b5-c13991ad3a1d"),
        (("acme", "", "nightly", "0199011e-7a10-7c3e-9f57-3f6d1a0c9b11"), "0199011e-7a10-8"),
        (("acme", "", "nightly", "01ARZ3NDEKTSV4RRFFQ69G5FAV"), "01563e3a-b5d3-8"),
    ],
)
def test_run_ids_are_the_same_for_ever(words: tuple[str, str, str, str], expected: str) -> None:
    # Changing these would give every stored run a second row.
    assert run_id(*words).startswith(expected)


word = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(word, word, word, st.one_of(word, st.uuids().map(str)))
def test_run_ids_are_valid_uuids_of_version_8(client: str, namespace: str, pipeline: str, external_id: str) -> None:
    identity = UUID(run_id(client, namespace, pipeline, external_id))
    assert (identity.version, identity.variant) == (8, "specified in RFC 4122")
    others = [
        run_id(client, pipeline, namespace, external_id + "x"),
        run_id(client + "x", namespace, pipeline, external_id),
    ]
    assert str(identity) not in others


@pytest.mark.parametrize(
    ("external_id", "prefix"),
    [
        ("0199011e-7a10-7c3e-9f57-3f6d1a0c9b11", "0199011e7a10"),
        ("0199011E-7A10-7C3E-9F57-3F6D1A0C9B11", "0199011e7a10"),
        ("0199011e-7a10-4c3e-9f57-3f6d1a0c9b11", None),
        ("0199011e-7a10-7c3e-cf57-3f6d1a0c9b11", None),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01563e3ab5d3"),
        ("81ARZ3NDEKTSV4RRFFQ69G5FAV", None),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAU", None),
        ("2026-11-20", None),
    ],
)
def test_time_is_taken_from_uuid7_and_ulid_alone(external_id: str, prefix: str | None) -> None:
    found = time_prefix(external_id)
    assert (found and found.hex()) == prefix


def test_run_ids_of_later_uuid7_sort_later() -> None:
    ids = [f"{0x0199011E7A10 + number:012x}" for number in range(50)]
    runs = [run_id("acme", "", "p", f"{head[:8]}-{head[8:]}-7c3e-9f57-3f6d1a0c9b11") for head in ids]
    assert runs == sorted(runs)


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        (event(Status.INFO, AT + timedelta(days=1), attempt=9), event(Status.QUEUED, AT)),
        (event(Status.QUEUED, AT + timedelta(days=1)), event(Status.RUNNING)),
        (event(Status.RUNNING, AT + timedelta(days=1)), event(Status.TIMED_OUT)),
        (event(Status.TIMED_OUT, AT + timedelta(days=1)), event(Status.SUCCEEDED)),
        (event(Status.FAILED), event(Status.SUCCEEDED, AT + timedelta(microseconds=1))),
        (event(Status.SUCCEEDED), event(Status.SKIPPED)),
        (event(Status.SKIPPED), event(Status.CANCELLED)),
        (event(Status.CANCELLED), event(Status.FAILED)),
        (event(Status.FAILED, attempt=None), event(Status.QUEUED, attempt=1)),
        (event(Status.FAILED, AT + timedelta(days=9), attempt=30), event(Status.QUEUED, attempt=31)),
    ],
)
def test_precedence(weaker: RunEvent, stronger: RunEvent) -> None:
    assert 0 <= state_key(weaker) < state_key(stronger) < 2**63


def test_state_keys_fit_a_bigint_for_centuries() -> None:
    last = event(Status.FAILED, datetime(2250, 1, 1, tzinfo=UTC), attempt=31)
    assert state_key(event(Status.FAILED, attempt=30)) < state_key(last) < 2**63


def test_statuses_know_whether_they_are_ends() -> None:
    assert [status for status in Status if status.is_terminal] == [
        "succeeded",
        "failed",
        "cancelled",
        "skipped",
        "timed_out",
    ]


def test_a_retry_has_the_same_identity_and_the_same_content() -> None:
    one = event(attempt=None, metrics={"b": 1.0, "a": 2.0}, parent=Parent("all", "p1"))
    again = event(attempt=0, metrics={"a": 2.0, "b": 1.0}, parent=Parent("all", "p1"), flags=1)
    assert (dedupe_key(one), content_digest(one)) == (dedupe_key(again), content_digest(again))


@pytest.mark.parametrize(
    "changed",
    [
        {"run": "r2"},
        {"pipeline": "hourly"},
        {"namespace": "prod"},
        {"attempt": 1},
        {"status": Status.FAILED},
        {"at": AT + timedelta(microseconds=1)},
        {"event_id": "e1"},
    ],
)
def test_identity_is_made_of_these(changed: dict[str, Any]) -> None:
    assert dedupe_key(event()) != dedupe_key(event(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"scheduled_at": AT},
        {"started_at": AT},
        {"duration_s": 0.0},
        {"message": ""},
        {"error_class": "E"},
        {"url": "https://x.example"},
        {"metrics": {"a": 1.0}},
        {"attributes": {"a": None}},
        {"parent": Parent("all", "p1")},
    ],
)
def test_content_is_made_of_these_and_identity_is_not(changed: dict[str, Any]) -> None:
    assert dedupe_key(event()) == dedupe_key(event(**changed))
    assert content_digest(event()) != content_digest(event(**changed))


def test_with_an_event_id_only_the_id_and_the_time_count() -> None:
    assert dedupe_key(event(event_id="e1")) == dedupe_key(event(Status.FAILED, event_id="e1", run="r2"))
    assert dedupe_key(event(event_id="e1")) != dedupe_key(event(event_id="e1", at=AT + timedelta(seconds=1)))


def test_one_instant_has_one_spelling() -> None:
    berlin = datetime.fromisoformat("2026-11-20T03:00:00+01:00")
    assert canonical_time(berlin) == canonical_time(AT) == "2026-11-20T02:00:00Z"
    assert canonical_time(AT + timedelta(microseconds=5)) == "2026-11-20T02:00:00.000005Z"
    assert epoch_us(berlin) == epoch_us(AT) == 1_795_140_000_000_000


@pytest.mark.parametrize(
    ("namespace", "name", "slug"),
    [
        ("", "nightly.load_orders-2", "nightly.load_orders-2"),
        ("", "Bücher laden", "B-cher-laden-"),
        ("prod", "nightly", "nightly-"),
        ("", "日本", "p-"),
        ("", "-x", "x-"),
        ("", "a" * 101, "a" * 91 + "-"),
    ],
)
def test_a_pipeline_slug_is_the_name_or_a_readable_part_of_it(namespace: str, name: str, slug: str) -> None:
    made = pipeline_slug(namespace, name)
    assert is_slug(made)
    assert made == slug or re.fullmatch(re.escape(slug) + "[0-9a-f]{8}", made)


@given(word, word)
def test_every_name_gets_a_slug_and_two_namespaces_two(namespace: str, name: str) -> None:
    assert is_slug(pipeline_slug(namespace, name))
    assert pipeline_slug(namespace, name) != pipeline_slug(namespace + "x", name)


@pytest.mark.parametrize("text", ["", "-a", ".a", "a b", "a/b", "ä", "a" * 101, "a\n", "a\0"])
def test_what_is_no_slug(text: str) -> None:
    assert not is_slug(text)
