"""The expander of Grafana's macros and variables that the tests of the dashboards use."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tests.grafana_sql import ALL, Choice, QueryError, Range, expand, rfc3339

A_DAY = Range(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("$__timeFilter(at)", "at BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-02T00:00:00Z'"),
        ("$__timeFilter( run.at )", "run.at BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-02T00:00:00Z'"),
        ("$__timeFrom()::timestamptz", "'2026-01-01T00:00:00Z'::timestamptz"),
        ("$__timeTo()", "'2026-01-02T00:00:00Z'"),
        ("'$__interval' $__interval_ms", "'1h' 3600000"),
        ("$__time(at)", 'at AS "time"'),
        ("$__timeEpoch(at)", 'extract(epoch from at) as "time"'),
        ("$__timeGroup(at, $__interval) as time", "floor(extract(epoch from at)/3600)*3600 as time"),
        ("$__timeGroup(at,'5m') as time", "floor(extract(epoch from at)/300)*300 as time"),
        ("$__timeGroupAlias(at, 1d)", 'floor(extract(epoch from at)/86400)*86400 AS "time"'),
        ("$__unixEpochFilter(at_s)", "at_s >= 1767225600 AND at_s <= 1767312000"),
        ("$__unixEpochFrom() $__unixEpochTo()", "1767225600 1767312000"),
        ("$__unixEpochNanoFilter(n)", "n >= 1767225600000000000 AND n <= 1767312000000000000"),
        ("$__unixEpochGroup(at_s, 1h)", "floor((at_s)/3600)*3600"),
        ("$__unixEpochGroupAlias(at_s, 1h)", 'floor((at_s)/3600)*3600 AS "time"'),
        ("${one:sqlstring}", "'a'"),
        ("(${two:sqlstring})", "('a','b''c')"),
        ("${all:sqlstring}", "'__all__'"),
    ],
)
def test_the_expander_does_what_grafana_does(sql: str, expected: str) -> None:
    given = {"one": Choice(("a",)), "two": Choice(("a", "b'c")), "all": Choice((ALL,), "'__all__'")}
    assert expand(sql, A_DAY, given) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "$__timeFilter(date_trunc('hour', at))",
        "$__timeGroup(at, '1h'), sum(n)",
        "$__timeGroup(at, '1h', 0) as time",
        "$__timeGroup(at, 'hour') as time",
        "$__timeFilter()",
        "$__timeFrom(at)",
        "$__unknown(at)",
        "select 1 -- why",
        "select /* why */ 1",
        "${one}",
        "$one",
        "[[one]]",
        "${one:raw}",
        "${nothing:sqlstring}",
        "${macro:sqlstring}",
        "${one:csv}",
        "${one:singlequote}",
        "${missing:sqlstring}",
        "${quoted:sqlstring}",
        "${everything:sqlstring}",
    ],
)
def test_the_expander_refuses_what_means_different_things(sql: str) -> None:
    given = {"one": Choice(("a",)), "quoted": Choice(('a"b',)), "everything": Choice((ALL,))}
    given |= {"nothing": Choice(()), "macro": Choice(("$__timeFrom()",))}
    with pytest.raises(QueryError):
        expand(sql, A_DAY, given)


@pytest.mark.parametrize(
    ("microsecond", "expected"),
    [(0, "00Z"), (500000, "00.5Z"), (123000, "00.123Z"), (1, "00.000001Z")],
)
def test_times_are_written_as_go_writes_them(microsecond: int, expected: str) -> None:
    at = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))).replace(microsecond=microsecond)
    assert rfc3339(at) == f"2026-01-01T00:00:{expected}"


@pytest.mark.parametrize(
    ("interval_ms", "expected"), [(200, "200ms"), (1000, "1s"), (90_000, "1m"), (300_000, "5m"), (86_400_000, "1d")]
)
def test_an_interval_is_written_in_its_largest_unit(interval_ms: int, expected: str) -> None:
    assert expand("$__interval", A_DAY, {}, interval_ms=interval_ms) == expected
