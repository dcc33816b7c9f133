"""Messages as alerting writes them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason, RunLink

FIRED_AT = datetime(2026, 11, 21, 2, 3, 20, tzinfo=UTC)
ALERT = "https://pulse.example/v1/alerts/0192f3a4-0000-7000-8000-00000000a1e7"
RUN = UUID("0192f3a4-5b6c-8d7e-9f00-112233445566")

FIRING = Message(
    notification_id=UUID("11111111-2222-4333-8444-555555555555"),
    alert_id=UUID("0192f3a4-0000-7000-8000-00000000a1e7"),
    reason=Reason.FIRED,
    status=MessageStatus.FIRING,
    level=MessageLevel.WARNING,
    client="acme",
    pipeline="orders_load",
    rule="failing",
    rule_title="Failing again and again",
    rule_version=3,
    kind="consecutive_failures",
    title="Failing again and again: acme / orders_load",
    summary="3 runs in a row have failed; the limit is 3.",
    value=3,
    threshold=3,
    unit="runs",
    fired_at=FIRED_AT,
    labels={"team": "data"},
    annotations={"description": "Call the night shift."},
    runbook_url="https://wiki.example/failing?page=1&part=2",
    url=ALERT,
    runs=(RunLink(id=RUN, url="https://pulse.example/v1/runs/0192f3a4"),),
)


def message(**changes: Any) -> Message:
    """The firing message with these fields changed."""
    return FIRING.model_copy(update=changes)


RESOLVED = message(
    notification_id=UUID("66666666-7777-4888-9999-aaaaaaaaaaaa"),
    reason=Reason.RESOLVED,
    status=MessageStatus.RESOLVED,
    level=MessageLevel.CRITICAL,
    summary="The last run has succeeded.",
    value=0.0,
    resolved_at=FIRED_AT + timedelta(minutes=12, seconds=5),
)
"""Of the same alert, which has been critical meanwhile."""

# What somebody might write into a name to get out of it.
EVIL = "x\r\nBcc: all@evil.example\n\n<script>alert(1)</script> <!channel> *a* & \u2028 \x00 \"q' |"
EVIL_MESSAGE = message(
    title=EVIL,
    summary=EVIL,
    rule_title=EVIL,
    client=EVIL,
    pipeline=EVIL,
    rule=EVIL,
    labels={EVIL: EVIL},
    annotations={EVIL: EVIL, "summary": EVIL},
    url="javascript:alert(1)",
    runbook_url="https://wiki.example/><script>",
)
