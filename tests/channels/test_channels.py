"""What holds for every channel."""

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pulsewatch import channels
from pulsewatch.channels import CHANNELS
from pulsewatch.channels.base import ChannelKind, Permanent, Temporary, refuse_answer, retry_after_s
from pulsewatch.outbound import Reply

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def test_every_channel_is_listed_under_its_name() -> None:
    assert list(CHANNELS) == ["webhook", "email", "slack"]
    assert [kind.name for kind in CHANNELS.values()] == list(CHANNELS)


@pytest.mark.parametrize("kind", CHANNELS.values(), ids=list(CHANNELS))
def test_an_unknown_field_is_refused(kind: ChannelKind[Any, Any]) -> None:
    for form in (kind.Config, kind.Secrets):
        assert form.model_config.get("extra") == "forbid"
        assert form.model_config.get("frozen")
    assert kind.Secrets.model_config.get("hide_input_in_errors")


def test_channels_reach_the_network_by_the_one_way_out_and_know_no_database() -> None:
    """Of the standard library too: nothing that opens a connection, but the words for what a mail server answers."""
    (folder,) = channels.__path__
    trees = [ast.parse(path.read_text()) for path in Path(folder).glob("*.py")]
    imported = {
        name.split(".")[0] if not name.startswith("pulsewatch") else name
        for tree in trees
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    ours = {name for name in imported if name.startswith("pulsewatch") and not name.startswith("pulsewatch.channels")}
    assert ours == {"pulsewatch.outbound", "pulsewatch.problems"}
    assert not imported & {"requests", "httpx", "urllib3", "socket", "sqlalchemy", "psycopg", "fastapi", "starlette"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("0", 0),
        (" 120 ", 120),
        ("1.5", None),
        ("-5", None),
        ("²", None),
        ("Sat, 21 Nov 2026 02:00:30 GMT", 30),
        ("Sat, 21 Nov 2026 02:00:30 -0000", 30),
        ("Sat, 21 Nov 2026 01:00:00 GMT", 0),
        ("Sat, 99 Nov 2026 01:00:00 GMT", None),
        ("Sat, 99999999999999999999 Nov 2026 01:00:00 GMT", None),
        ("Sat, 21 Nov 2026 01:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, NOW) == expected


def test_the_answer_tells_when_to_come_back() -> None:
    at = datetime.now(UTC) + timedelta(minutes=5)
    with pytest.raises(Temporary) as refused:
        refuse_answer(Reply(503, {"Retry-After": f"{at:%a, %d %b %Y %H:%M:%S} GMT"}, b""))
    assert refused.value.retry_after_s == pytest.approx(299, abs=2)
    assert refused.value.detail == "Answered 503 Service Unavailable."


@pytest.mark.parametrize(("status", "detail"), [(404, "Answered 404 Not Found."), (499, "Answered 499.")])
def test_a_status_is_told_with_its_words_if_it_has_some(status: int, detail: str) -> None:
    with pytest.raises(Permanent) as refused:
        refuse_answer(Reply(status, {}, b""))
    assert refused.value.detail == detail
