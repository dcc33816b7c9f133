"""Slack: blocks within its limits, nothing that others wrote is taken for markup, its errors are understood."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pulsewatch.channels import slack, words
from pulsewatch.channels.base import Message, Permanent, RunLink, Sent, Temporary
from pulsewatch.channels.slack import Config, Secrets, escape, payload
from pulsewatch.outbound import Outbound
from tests.channels.given import ALERT, EVIL_MESSAGE, FIRING, RESOLVED, RUN, message
from tests.channels.receivers import Receiver

LINKS = (
    f"<{ALERT}|Alert> · <https://wiki.example/failing?page=1&amp;part=2|Runbook>"
    f" · <https://pulse.example/v1/runs/0192f3a4|Run {RUN}>"
)


def blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    (attachment,) = body["attachments"]
    return [*body["blocks"], *attachment["blocks"]]


def texts(body: dict[str, Any]) -> list[str]:
    """All that Slack would show."""
    parts = [part for block in blocks(body) for part in (block.get("text"), *block.get("fields", [])) if part]
    return [body["text"], *(part["text"] for part in parts)]


def test_a_message_tells_how_it_stands_what_is_known_and_where_to_read_on() -> None:
    body = payload(FIRING)
    assert texts(body) == [
        "Warning: Failing again and again: acme / orders_load. 3 runs in a row have failed; the limit is 3.",
        "Warning: Failing again and again: acme / orders_load",
        "Warning since 2026-11-21 02:03:20 UTC.\n3 runs in a row have failed; the limit is 3.",
        "*Pipeline*\nacme / orders_load",
        "*Rule*\nFailing again and again (failing, version 3)",
        "*Value*\n3 runs",
        "*Threshold*\n3 runs",
        "*Firing since*\n2026-11-21 02:03:20 UTC",
        "*team*\ndata",
        "*description*\nCall the night shift.",
        LINKS,
    ]
    assert [block["type"] for block in blocks(body)] == ["header", "section", "section", "section"]


@pytest.mark.parametrize(("given_", "colour"), [(FIRING, words.AMBER), (RESOLVED, words.GREEN)])
def test_the_bar_has_the_colour_of_how_it_stands(given_: Message, colour: str) -> None:
    assert payload(given_)["attachments"][0]["color"] == colour


def test_nothing_that_others_wrote_is_markup_or_calls_the_channel() -> None:
    body = payload(EVIL_MESSAGE)
    told = "".join(text for text in texts(body) if "|Run " not in text)
    assert "<" not in told
    assert ">" not in told
    assert "&lt;!channel&gt;" in told
    sections = [part for block in blocks(body)[1:] for part in (block.get("text"), *block.get("fields", [])) if part]
    assert all(part["verbatim"] for part in sections)


def within_limits(body: dict[str, Any]) -> bool:
    head, *rest = blocks(body)
    fields = [field for block in rest for field in block.get("fields", [])]
    return (
        1 <= len(head["text"]["text"]) <= 150
        and len(body["text"]) <= 3000
        and all(1 <= len(block["text"]["text"]) <= 3000 for block in rest if "text" in block)
        and all(1 <= len(block["fields"]) <= 10 for block in rest if "fields" in block)
        and all(1 <= len(field["text"]) <= 2000 for field in fields)
        and len(rest) < 50
    )


def test_the_longest_message_stays_within_the_limits() -> None:
    long = "<&>" * 20_000
    labels = {f"label_{n}": long for n in range(1000)}
    runs = tuple(RunLink(id=RUN, url="https://pulse.example/?" + "&" * 1000 + str(n)) for n in range(10))
    body = payload(message(title=long, summary=long, rule_title=long, labels=labels, runs=runs))
    assert within_limits(body)
    assert len(blocks(body)) == 50


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=30))
def test_any_words_stay_within_the_limits(text: str, labels: dict[str, str]) -> None:
    assert within_limits(payload(message(title=text, summary=text, client=text or None, labels=labels)))


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("a < b & c > d", 100, "a &lt; b &amp; c &gt; d"),
        ("aaaa", 4, "aaaa"),
        ("aaaaa", 4, "aaa…"),
        ("aa&&", 6, "aa…"),
        ("aa&b", 6, "aa…"),
        ("&b&b", 8, "&amp;b…"),
    ],
)
def test_a_long_text_is_cut_between_signs(text: str, limit: int, expected: str) -> None:
    assert escape(text, limit) == expected


def send(outbound: Outbound, receiver: Receiver, given_: Message = FIRING) -> Sent:
    return slack.CHANNEL.send(given_, Config(), Secrets(url=receiver.url), outbound, None)


def test_what_arrives_is_the_message(outbound: Outbound, receiver: Receiver) -> None:
    assert send(outbound, receiver, EVIL_MESSAGE) == Sent(http_status=200)
    (got,) = receiver.got
    assert got.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(got.body) == payload(EVIL_MESSAGE)


def test_too_many_messages_are_sent_later_when_slack_says(outbound: Outbound, receiver: Receiver) -> None:
    receiver.answer = (429, {"Retry-After": "30"}, b"rate_limited")
    with pytest.raises(Temporary) as refused:
        send(outbound, receiver)
    assert (refused.value.retry_after_s, refused.value.http_status) == (30, 429)
    assert refused.value.detail == "Answered 429 Too Many Requests (rate_limited)."


@pytest.mark.parametrize(
    ("status", "word", "disables"),
    [
        (400, "invalid_payload", False),
        (400, "too_many_attachments", False),
        (403, "action_prohibited", False),
        (403, "invalid_token", True),
        (404, "channel_not_found", False),
        (404, "no_active_hooks", True),
        (404, "no_service", True),
        (404, "no_team", True),
        (404, "team_disabled", True),
        (410, "channel_is_archived", True),
    ],
)
def test_what_slack_refuses_is_permanent_and_a_webhook_that_is_gone_disables(
    outbound: Outbound, receiver: Receiver, status: int, word: str, disables: bool
) -> None:
    receiver.answer = (status, {}, word.encode())
    with pytest.raises(Permanent, match=word) as refused:
        send(outbound, receiver)
    assert (refused.value.http_status, refused.value.disables) == (status, disables)


@pytest.mark.parametrize("body", [b"rollup_error", b"", b"<html>private</html>", b"\xff\xfe"])
def test_an_error_of_slacks_own_is_worth_another_try(outbound: Outbound, receiver: Receiver, body: bytes) -> None:
    receiver.answer = (500, {}, body)
    with pytest.raises(Temporary) as refused:
        send(outbound, receiver)
    assert "private" not in refused.value.detail


@pytest.mark.parametrize("url", ["", "hooks.example.org", "javascript:alert(1)", "https://u:p@hooks.example.org/x"])
def test_an_address_that_is_none_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Secrets(url=url)
    assert "input_value" not in str(refused.value)
