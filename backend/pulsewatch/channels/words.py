"""What messages say where people read them: mails and chats. Pure."""

import re
from datetime import UTC, datetime

from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason

GREEN, AMBER, RED, BLUE = "#2e7d32", "#b26a00", "#c62828", "#1565c0"
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


def colour(message: Message) -> str:
    """Blue for a test, green once it is over, else by the level."""
    if message.is_test:
        return BLUE
    if message.status is MessageStatus.RESOLVED:
        return GREEN
    return RED if message.level is MessageLevel.CRITICAL else AMBER


def standing(message: Message) -> str:
    """In a word: how it stands."""
    if message.is_test:
        return "Test"
    return "Resolved" if message.status is MessageStatus.RESOLVED else message.level.value.capitalize()


def news(message: Message) -> str:
    """In half a sentence: what is new."""
    level, since = message.level.value, moment(message.fired_at)
    if message.is_test:
        return "This is a test: the channel works"
    if message.status is MessageStatus.RESOLVED:
        if message.resolved_at is None:
            return "Resolved"
        lasted = duration((message.resolved_at - message.fired_at).total_seconds())
        return f"Resolved at {moment(message.resolved_at)}, after {lasted}"
    return {
        Reason.LEVEL_CHANGED: f"Now {level}, firing since {since}",
        Reason.REPEAT: f"Still {level}, firing since {since}",
        Reason.CATCH_UP: f"Held back until now: {level}, firing since {since}",
    }.get(message.reason, f"{level.capitalize()} since {since}")


def target(message: Message) -> str:
    """What it is about."""
    return " / ".join(slug for slug in (message.client, message.pipeline) if slug) or "all clients"


def facts(message: Message) -> list[tuple[str, str]]:
    """What is known, as names and values in the order of reading."""
    told = [
        ("Pipeline" if message.pipeline else "Client", target(message)),
        ("Rule", f"{message.rule_title} ({message.rule}, version {message.rule_version})"),
        ("Value", measure(message.value, message.unit)),
        ("Threshold", measure(message.threshold, message.unit)),
        ("Firing since", moment(message.fired_at)),
        ("Resolved", moment(message.resolved_at) if message.resolved_at else ""),
        *sorted(message.labels.items()),
        *((name, text) for name, text in sorted(message.annotations.items()) if name != "summary"),
    ]
    return [(one_line(name), text) for name, text in told if text]


def links(message: Message) -> list[tuple[str, str]]:
    """Where to read on, as titles and addresses."""
    runs = [(f"Run {run.id}", run.url) for run in message.runs]
    given = [("Alert", message.url), ("Runbook", message.runbook_url), *runs]
    return [(title, url) for title, url in given if url is not None and is_link(url)]


def is_link(url: str) -> bool:
    """Whether it may be put behind a word that people click on."""
    return re.fullmatch(r"https?://[^\s<>\"'|\\^`{}\x00-\x1f\x7f]+", url) is not None


def one_line(text: str) -> str:
    """Without line breaks and signs that are not seen, so that it can be a header or a title."""
    return UNSEEN.sub(" ", text).strip()


def moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def measure(value: float | None, unit: str) -> str:
    """A number with its unit; nothing for None."""
    if value is None:
        return ""
    if unit == "s":
        return duration(value)
    if unit == "share":
        return f"{number(value * 100)} %"
    return f"{number(value)} {unit}".strip()


def number(value: float) -> str:
    """Six digits that count, and no exponent where a person would write none."""
    short = f"{value:.6g}"
    return f"{value:.0f}" if "e+" in short and abs(value) < 1e15 else short


def duration(seconds: float) -> str:
    """The two greatest units that it needs: 1 d 4 h, 3 min 20 s, 0.4 s."""
    sign = "-" if seconds < 0 else ""
    left = abs(seconds)
    if left < 60:
        return f"{sign}{number(round(left, 3))} s"
    parts: list[str] = []
    whole = round(left)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return sign + " ".join(part for part in parts[:2] if part)
