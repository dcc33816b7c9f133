"""What a schedule and a time zone may look like, and when a start is expected."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsewatch.schedules import occurrences, validate_schedule, validate_timezone


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "30 2 * * *",
        "*/15 6-18 * * 1-5",
        "0 0 1,15 * *",
        "0 9 * JAN-MAR MON",
        "0 0 L * *",
        "0 0 LW * *",
        "0 0 * * 5L",
        "0 0 * * MON#1",
        "0 0 29 2 *",
        "@hourly",
        "@daily",
        "@midnight",
        "@weekly",
        "@monthly",
        "@yearly",
        "@annually",
        "every 10s",
        "every 15m",
        "every 6h",
        "every 1d",
        "every 366d",
    ],
)
def test_a_schedule_of_the_three_forms_is_valid(schedule: str) -> None:
    validate_schedule(schedule)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("0 * * * * *", "has 6 fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("0 0 32 * *", "bad day-of-month"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * 13 *", "bad month"),
        ("0 0 * * 8", "bad day-of-week"),
        ("a b c d e", "bad minute"),
        ("@reboot", "is not one of @annually"),
        ("@Daily", "is not one of @annually"),
        ("every 9s", "out of range"),
        ("every 367d", "out of range"),
        ("every 0m", "out of range"),
        ("every 15 minutes", "write 'every 30s'"),
        ("every", "write 'every 30s'"),
        ("Every 15m", "write 'every 30s'"),
        ("every ٣m", "write 'every 30s'"),
        ("*" * 201, "at most 200 characters"),
    ],
)
def test_anything_else_is_refused_with_the_reason(schedule: str, reason: str) -> None:
    with pytest.raises(ValueError, match="(?i)" + reason):
        validate_schedule(schedule)


FIELD = st.text("0123456789*/-,#LWMONJAN²", min_size=1, max_size=8)


@given(st.one_of(st.text(max_size=30), st.lists(FIELD, min_size=5, max_size=5).map(" ".join)))
def test_any_text_is_either_valid_or_refused_with_a_value_error(schedule: str) -> None:
    with suppress(ValueError):
        validate_schedule(schedule)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Asia/Kolkata"])
def test_an_iana_zone_is_valid(name: str) -> None:
    validate_timezone(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("europe/berlin", "Did you mean 'Europe/Berlin'?"),
        ("Europe/Berln", "Did you mean 'Europe/Berlin'?"),
        ("nonsense", "Write it as in"),
        ("", "Write it as in"),
        ("../../etc/passwd", "is not an IANA time zone"),
        ("/etc/localtime", "is not an IANA time zone"),
        ("localtime", "is not an IANA time zone"),
        ("x" * 10_000, "Write it as in"),
    ],
)
def test_what_is_no_zone_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="is not an IANA time zone") as refusal:
        validate_timezone(name)
    assert hint in str(refusal.value)
    assert len(str(refusal.value)) < 250


# -- when a start is expected ------------------------------------------------------------------------------------


def expected(schedule: str, zone: str | None, after: str, until: str) -> list[str]:
    """Expected starts as local times with their offset, such as `03-29 03:00 +02`."""
    found = occurrences(schedule, zone, datetime.fromisoformat(after), datetime.fromisoformat(until))
    return [f"{at.astimezone(ZoneInfo(zone or 'UTC')):%m-%d %H:%M %z}"[:-2] for at in found]


SPRING = ("2026-03-28T12:00Z", "2026-03-30T10:00Z")
AUTUMN = ("2026-10-24T12:00Z", "2026-10-26T10:00Z")


@pytest.mark.parametrize(
    ("schedule", "span", "starts"),
    [
        # 02:00 to 03:00 is skipped: a fixed time in it comes at the first minute there is, and once.
        ("30 2 * * *", SPRING, ["03-29 03:00 +02", "03-30 02:30 +02"]),
        ("0,30 1-3 * * 0", SPRING, ["03-29 01:00 +01", "03-29 01:30 +01", "03-29 03:00 +02", "03-29 03:30 +02"]),
        # One that follows elapsed time has nothing in the skipped hour.
        ("*/30 2 * * *", SPRING, ["03-30 02:00 +02", "03-30 02:30 +02"]),
        ("@daily", SPRING, ["03-29 00:00 +01", "03-30 00:00 +02"]),
        # 02:00 to 03:00 comes twice: a fixed time counts at the first of the two, elapsed time at both.
        ("30 2 * * *", AUTUMN, ["10-25 02:30 +02", "10-26 02:30 +01"]),
        ("*/30 2 * * 0", AUTUMN, ["10-25 02:00 +02", "10-25 02:30 +02", "10-25 02:00 +01", "10-25 02:30 +01"]),
        ("@daily", AUTUMN, ["10-25 00:00 +02", "10-26 00:00 +01"]),
    ],
)
def test_both_changes_of_the_clocks_are_followed(schedule: str, span: tuple[str, str], starts: list[str]) -> None:
    assert expected(schedule, "Europe/Berlin", *span) == starts


@pytest.mark.parametrize("span", [SPRING, AUTUMN])
def test_an_hourly_start_comes_each_hour_through_both_changes_of_the_clocks(span: tuple[str, str]) -> None:
    after, until = map(datetime.fromisoformat, span)
    found = list(occurrences("@hourly", "Europe/Berlin", after, until))
    assert found == [after + timedelta(hours=number) for number in range(1, 47)]


def test_a_fixed_time_is_not_expected_again_within_the_hour_that_comes_twice() -> None:
    # 02:15 for the second time: the 02:30 that counts is over.
    found = expected("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15Z", "2026-10-26T10:00Z")
    assert found == ["10-26 02:30 +01"]


def test_a_midnight_that_does_not_exist_is_expected_at_the_first_minute_of_the_day() -> None:
    found = expected("0 0 * * *", "America/Santiago", "2026-09-05T12:00Z", "2026-09-07T12:00Z")
    assert found == ["09-06 01:00 -03", "09-07 00:00 -03"]


@pytest.mark.parametrize(
    ("schedule", "starts"),
    [
        ("@midnight", ["01-01 00:00 +00"]),
        ("@weekly", []),
        ("@monthly", ["01-01 00:00 +00"]),
        ("@annually", ["01-01 00:00 +00"]),
        ("every 7h", ["12-31 14:00 +00", "12-31 21:00 +00", "01-01 04:00 +00", "01-01 11:00 +00"]),
        ("every 1d", ["01-01 00:00 +00"]),
        ("30 23 L 12 *", ["12-31 23:30 +00"]),
    ],
)
def test_each_form_has_its_starts(schedule: str, starts: list[str]) -> None:
    assert expected(schedule, None, "2026-12-31T12:00Z", "2027-01-01T12:00Z") == starts


def test_an_interval_counts_from_1970_in_utc_whatever_the_zone() -> None:
    span = ("2026-11-10T00:00Z", "2026-11-10T12:00Z")
    after, until = map(datetime.fromisoformat, span)
    found = list(occurrences("every 6h", "Asia/Kolkata", after, until))
    assert found == [after + timedelta(hours=6), after + timedelta(hours=12)]
    assert all(at.timestamp() % (6 * 3600) == 0 for at in found)


SCHEDULES = st.sampled_from(
    ["30 2 * * *", "*/20 * * * *", "5 */2 * * *", "0,30 1-3 * * *", "@hourly", "@daily", "every 7m", "0 0 * * MON#1"]
)
ZONES = st.sampled_from([None, "UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Santiago"])
MINUTES_OF_2026 = st.integers(0, 365 * 24 * 60)


@given(SCHEDULES, ZONES, MINUTES_OF_2026, st.lists(st.integers(0, 4000), min_size=1, max_size=4))
def test_starts_ascend_and_are_the_same_however_the_time_is_cut(
    schedule: str, zone: str | None, begin: int, pieces: list[int]
) -> None:
    at = first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=begin)
    found: list[datetime] = []
    for piece in pieces:
        found += occurrences(schedule, zone, at, at + timedelta(minutes=piece))
        at += timedelta(minutes=piece)
    assert found == list(occurrences(schedule, zone, first, at))
    assert found == sorted(set(found))


@pytest.mark.parametrize(("schedule", "zone"), [("0 0 * * *", "Mars/Olympus"), ("nonsense", None), ("every now", None)])
def test_what_cannot_be_worked_out_is_a_value_error(schedule: str, zone: str | None) -> None:
    with pytest.raises(ValueError, match=r"(?i)mars|nonsense|every now"):
        list(occurrences(schedule, zone, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))
