"""What a schedule and a time zone may look like."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsewatch.schedules import validate_schedule, validate_timezone


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
