"""What people read: numbers, times and what is new."""

import pytest

from pulsewatch.channels import words
from pulsewatch.channels.base import Message, MessageLevel, Reason
from tests.channels.given import EVIL_MESSAGE, FIRING, RESOLVED, RUN, message


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.4, "0.4 s"),
        (59.5, "59.5 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3605, "1 h"),
        (3660, "1 h 1 min"),
        (86400, "1 d"),
        (100800, "1 d 4 h"),
        (1e7, "115 d 17 h"),
        (-90, "-1 min 30 s"),
    ],
)
def test_a_duration_is_told_in_its_two_greatest_units(seconds: float, expected: str) -> None:
    assert words.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (3, "runs", "3 runs"),
        (0.25, "share", "25 %"),
        (1 / 3, "share", "33.3333 %"),
        (5400, "s", "1 h 30 min"),
        (12345678, "", "12345678"),
        (1e30, "", "1e+30"),
        (0.00001, "", "1e-05"),
        (None, "runs", ""),
    ],
)
def test_a_value_is_told_with_its_unit(value: float | None, unit: str, expected: str) -> None:
    assert words.measure(value, unit) == expected


SINCE = "2026-11-21 02:03:20 UTC"


@pytest.mark.parametrize(
    ("given", "standing", "news"),
    [
        (FIRING, "Warning", f"Warning since {SINCE}"),
        (
            message(reason=Reason.LEVEL_CHANGED, level=MessageLevel.CRITICAL),
            "Critical",
            f"Now critical, firing since {SINCE}",
        ),
        (message(reason=Reason.REPEAT), "Warning", f"Still warning, firing since {SINCE}"),
        (message(reason=Reason.CATCH_UP), "Warning", f"Held back until now: warning, firing since {SINCE}"),
        (RESOLVED, "Resolved", "Resolved at 2026-11-21 02:15:25 UTC, after 12 min 5 s"),
        (RESOLVED.model_copy(update={"resolved_at": None}), "Resolved", "Resolved"),
        (message(reason=Reason.TEST, is_test=True), "Test", "This is a test: the channel works"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_reason_says_what_is_new(given: Message, standing: str, news: str) -> None:
    assert (words.standing(given), words.news(given)) == (standing, news)


def test_the_colour_tells_how_it_stands() -> None:
    tested = message(is_test=True)
    critical = message(level=MessageLevel.CRITICAL)
    assert [words.colour(given) for given in (FIRING, critical, RESOLVED, tested)] == [
        words.AMBER,
        words.RED,
        words.GREEN,
        words.BLUE,
    ]


def test_the_facts_stand_in_the_order_of_reading() -> None:
    assert words.facts(RESOLVED) == [
        ("Pipeline", "acme / orders_load"),
        ("Rule", "Failing again and again (failing, version 3)"),
        ("Value", "0 runs"),
        ("Threshold", "3 runs"),
        ("Firing since", SINCE),
        ("Resolved", "2026-11-21 02:15:25 UTC"),
        ("team", "data"),
        ("description", "Call the night shift."),
    ]


def test_a_target_without_a_pipeline_is_a_client_and_without_both_all() -> None:
    assert words.facts(message(pipeline=None))[0] == ("Client", "acme")
    assert words.facts(message(pipeline=None, client=None))[0] == ("Client", "all clients")


def test_only_web_addresses_become_links() -> None:
    assert [title for title, _ in words.links(FIRING)] == ["Alert", "Runbook", f"Run {RUN}"]
    assert [title for title, _ in words.links(EVIL_MESSAGE)] == [f"Run {RUN}"]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://a.example/|b", "https://a.example/ b", "//a", "", "http://"]
)
def test_what_is_no_web_address_is_none(url: str) -> None:
    assert not words.is_link(url)


def test_one_line_is_one_line() -> None:
    assert words.one_line(" a\r\n b\x00\u2028c\td ") == "a b c d"
