"""What is said about clients and pipelines: validation, and which of two statements stands."""

import math
import random
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Row

from pulsewatch import catalog
from pulsewatch.problems import FieldError, Problem
from tests.examples import examples

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)


def client_id(connection: Connection, slug: str = "acme") -> int:
    id_: int = catalog.upsert_client(connection, slug, {}, NOW).id
    return id_


def shown(row: Row[Any]) -> dict[str, Any]:
    return {field: row._mapping[field] for field in catalog.PIPELINE_FIELDS}


def test_absent_stays_and_null_clears(connection: Connection) -> None:
    catalog.upsert_client(connection, "acme", {"title": "Acme"}, NOW)

    assert catalog.upsert_client(connection, "acme", {}, LATER).title == "Acme"
    assert catalog.upsert_client(connection, "acme", {"title": None}, LATER).title is None


def test_an_earlier_statement_that_comes_late_changes_nothing(connection: Connection) -> None:
    late = catalog.upsert_client(connection, "acme", {"title": "later"}, LATER)
    early = catalog.upsert_client(connection, "acme", {"title": "earlier"}, NOW)

    assert early == late
    assert early.title == "later"


def test_a_cleared_field_stays_cleared_against_an_earlier_value(connection: Connection) -> None:
    catalog.upsert_client(connection, "acme", {"title": None}, LATER)
    assert catalog.upsert_client(connection, "acme", {"title": "earlier"}, NOW).title is None


def test_fields_are_decided_one_by_one(connection: Connection) -> None:
    id_ = client_id(connection)
    catalog.upsert_pipeline(connection, id_, "", "p", {"title": "later", "owner": "earlier"}, NOW)
    row = catalog.upsert_pipeline(connection, id_, "", "p", {"title": "even later"}, LATER)
    row = catalog.upsert_pipeline(connection, id_, "", "p", {"title": "x", "environment": "prod"}, NOW)

    assert (row.title, row.owner, row.environment) == ("even later", "earlier", "prod")


def test_of_two_statements_of_one_instant_the_greater_value_stands(connection: Connection) -> None:
    for slug, titles in (("a", ("x", "y")), ("b", ("y", "x"))):
        for title in titles:
            row = catalog.upsert_client(connection, slug, {"title": title}, NOW)
        assert row.title == "y"


def test_any_order_gives_the_same_row(connection: Connection) -> None:
    id_ = client_id(connection)
    statements: list[tuple[dict[str, Any], datetime]] = [
        ({"title": "a", "tags": ["x"], "start_grace_s": 60.0}, NOW),
        ({"title": None, "tags": []}, NOW),
        ({"title": "b", "start_grace_s": None}, LATER),
        ({"start_grace_s": 7.5, "tags": ["a", "b"]}, LATER),
    ]
    rows = []
    for number, order in enumerate(permutations(statements)):
        for changes, said_at in order:
            row = catalog.upsert_pipeline(connection, id_, "", f"p{number}", changes, said_at)
        rows.append((shown(row), row.said_at))
    assert all(row == rows[0] for row in rows)


VALUES = {
    "title": st.none() | st.sampled_from(["a", "b", "ü"]),
    "tags": st.lists(st.sampled_from("abc"), max_size=2, unique=True).map(sorted),
    "max_runtime_s": st.none() | st.sampled_from([1.0, 10.0, 2.5]),
}
STATEMENTS = st.lists(st.tuples(st.fixed_dictionaries({}, optional=VALUES), st.integers(0, 2)), min_size=1, max_size=6)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STATEMENTS, st.randoms(use_true_random=False))
def test_any_order_and_repetition_of_any_statements_gives_the_same_row(
    connection: Connection, statements: list[tuple[dict[str, Any], int]], chance: random.Random
) -> None:
    shuffled = statements + statements[:2]
    chance.shuffle(shuffled)
    rows = []
    with connection.begin_nested() as savepoint:
        id_ = client_id(connection)
        for name, order in (("one", statements), ("two", shuffled)):
            for changes, seconds in order:
                row = catalog.upsert_pipeline(connection, id_, "", name, changes, NOW + timedelta(seconds=seconds))
            rows.append((shown(row), row.said_at))
        savepoint.rollback()
    assert rows[0] == rows[1]


def test_updated_at_moves_only_when_something_shown_changes(connection: Connection) -> None:
    first = catalog.upsert_client(connection, "acme", {"title": "a"}, NOW)
    connection.exec_driver_sql("update pulsewatch.client set updated_at = '2020-01-01' where id = %s", (first.id,))

    same = catalog.upsert_client(connection, "acme", {"title": "a"}, LATER)
    assert same.updated_at == datetime(2020, 1, 1, tzinfo=UTC)
    other = catalog.upsert_client(connection, "acme", {"title": "b"}, LATER + timedelta(seconds=1))
    assert other.updated_at == first.updated_at


def test_pipelines_of_one_name_in_two_namespaces_are_two(connection: Connection) -> None:
    id_ = client_id(connection)
    native = catalog.upsert_pipeline(connection, id_, "", "load", {}, NOW)
    spark = catalog.upsert_pipeline(connection, id_, "spark", "load", {}, NOW)

    assert native.slug == "load"
    assert spark.slug.startswith("load-")
    assert native.id != spark.id
    assert catalog.upsert_pipeline(connection, id_, "spark", "load", {}, NOW).id == spark.id


def test_a_slug_that_another_pipeline_has_is_a_problem(connection: Connection) -> None:
    id_ = client_id(connection)
    spark = catalog.upsert_pipeline(connection, id_, "spark", "load", {}, NOW)

    with pytest.raises(Problem) as refusal:
        catalog.upsert_pipeline(connection, id_, "", spark.slug, {}, NOW)
    assert (refusal.value.status, refusal.value.code) == (409, "slug_taken")


def test_valid_changes_come_back_in_one_form() -> None:
    raw = {"tags": ["b", "a", "b"], "start_grace_s": 60, "max_runtime_s": 2.5, "schedule": "@daily", "owner": None}
    changes, errors = catalog.validate_pipeline_changes(raw)

    assert errors == []
    assert changes == {
        "tags": ["a", "b"],
        "start_grace_s": 60.0,
        "max_runtime_s": 2.5,
        "schedule": "@daily",
        "owner": None,
    }
    assert isinstance(changes["start_grace_s"], float)
    assert catalog.validate_pipeline_changes({"tags": None})[0] == {"tags": []}
    assert catalog.validate_client_changes({"title": "x"}) == ({"title": "x"}, [])


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("title", "\ud800", "lone_surrogate"),
        ("title", "a\0", "nul_character"),
        ("title", "x" * 201, "too_long"),
        ("title", {}, "wrong_type"),
        ("start_grace_s", math.nan, "out_of_range"),
        ("start_grace_s", math.inf, "out_of_range"),
        ("start_grace_s", "60", "wrong_type"),
        ("max_runtime_s", 0, "out_of_range"),
        ("max_runtime_s", 31_622_401, "out_of_range"),
        ("max_runtime_s", False, "wrong_type"),
        ("tags", [None], "wrong_type"),
        ("tags", {"a": 1}, "wrong_type"),
        ("schedule", "nonsense", "invalid_schedule"),
        ("timezone", "nonsense", "invalid_timezone"),
    ],
)
def test_a_value_that_is_not_valid_has_its_code(field: str, value: object, code: str) -> None:
    changes, errors = catalog.validate_pipeline_changes({field: value, "owner": "me"})
    assert changes == {"owner": "me"}
    assert [(error.pointer, error.code) for error in errors] == [(f"/{field}", code)]


def test_a_number_at_the_edge_is_valid() -> None:
    raw = {"start_grace_s": 0, "max_runtime_s": 31_622_400}
    assert catalog.validate_pipeline_changes(raw) == ({"start_grace_s": 0.0, "max_runtime_s": 31_622_400.0}, [])


def test_names_that_the_caller_reads_himself_are_left_alone_and_offered() -> None:
    raw = {"occurred_at": "...", "occured_at": "..."}
    changes, errors = catalog.validate_client_changes(raw, also_known={"occurred_at"})
    assert changes == {}
    assert errors == [
        FieldError("/occured_at", "unknown_field", "There is no field 'occured_at'. Did you mean 'occurred_at'?")
    ]


def test_an_unknown_name_is_repeated_cut_and_escaped() -> None:
    error = catalog.unknown_field("a/b~" + "x" * 200 + "\ud800", ["title"])
    assert error.pointer == "/a~1b~0" + "x" * 96
    assert "Known are: title." in error.detail
    assert catalog.unknown_field("\ud800", [], query=True).pointer == "??"
