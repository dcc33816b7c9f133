"""The slack channel: an incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat).

The address is the secret. The answers of Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import html
import json
import re
from typing import Any

from pydantic import Field, field_validator

from pulsewatch.channels import base, words
from pulsewatch.channels.base import ChannelKind, Message, Permanent, Sent, check_url
from pulsewatch.outbound import Outbound

# What Slack takes at most.
HEADER_CHARS = 150
SECTION_CHARS = 3000
FIELD_CHARS = 2000
FIELDS = 10
BLOCKS = 50

# The webhook is gone, and no message will ever pass.
GONE = {"no_active_hooks", "no_service", "no_team", "team_disabled", "channel_is_archived", "invalid_token"}


class Config(base.Config):
    """Nothing: Slack knows the workspace and the channel by the address."""


class Secrets(base.Secrets):
    url: str = Field(max_length=2000, description="The webhook URL that Slack shows.")

    _url = field_validator("url")(check_url)


def send(message: Message, config: Config, secrets: Secrets, outbound: Outbound, thread_ref: str | None) -> Sent:  # noqa: ARG001
    body = json.dumps(payload(message), ensure_ascii=False, separators=(",", ":")).encode()
    reply = base.exchange(outbound, secrets.url, {"Content-Type": "application/json; charset=utf-8"}, body)
    word = error_word(reply.body)
    if word in GONE:
        raise Permanent(f"Slack answered {reply.status} {word}: this webhook is no more.", reply.status, disables=True)
    base.refuse_answer(reply, word)
    return Sent(http_status=reply.status)


def error_word(body: bytes) -> str:
    """Slack's name for what is wrong, such as invalid_payload. What does not look like one is not told."""
    text = body[:100].decode("ascii", "replace").strip()
    return text if re.fullmatch(r"[a-z]+(_[a-z]+)+", text) else ""


def payload(message: Message) -> dict[str, Any]:
    """A header, and behind a bar in the colour of the level what is known."""
    title = f"{words.standing(message)}: {words.one_line(message.title)}"
    news = f"{words.news(message)}."
    return {
        # Read where blocks are not shown: in notifications, and to those who listen to the screen.
        "text": escape(f"{title}. {message.summary}", SECTION_CHARS),
        "blocks": [{"type": "header", "text": {"type": "plain_text", "text": escape(title, HEADER_CHARS)}}],
        "attachments": [
            {
                "color": words.colour(message),
                "blocks": [
                    section(f"{news}\n{message.summary}"),
                    *field_blocks(message),
                    *link_blocks(message),
                ][: BLOCKS - 1],
            }
        ],
    }


def field_blocks(message: Message) -> list[dict[str, Any]]:
    """The facts, ten to a block."""
    fields = [
        {"type": "mrkdwn", "text": f"*{escape(name, 200)}*\n{escape(text, FIELD_CHARS - 300)}", "verbatim": True}
        for name, text in words.facts(message)
    ]
    return [{"type": "section", "fields": fields[start : start + FIELDS]} for start in range(0, len(fields), FIELDS)]


def link_blocks(message: Message) -> list[dict[str, Any]]:
    """One line of links, as many as fit."""
    line = ""
    for title, url in words.links(message):
        link = f"<{html.escape(url, quote=False)}|{escape(title, 100)}>"
        longer = f"{line} · {link}" if line else link
        if len(longer) <= SECTION_CHARS:
            line = longer
    return [{"type": "section", "text": {"type": "mrkdwn", "text": line, "verbatim": True}}] if line else []


def section(text: str) -> dict[str, Any]:
    # verbatim: Slack looks for no links, channels and names in what a rule or a producer wrote.
    return {"type": "section", "text": {"type": "mrkdwn", "text": escape(text, SECTION_CHARS), "verbatim": True}}


def escape(text: str, limit: int) -> str:
    """The text with &, < and > escaped, cut so that it is at most `limit` long in Slack's count."""
    escaped = html.escape(text, quote=False)
    if len(escaped) <= limit:
        return escaped
    kept = html.escape(text[:limit], quote=False)[: limit - 1]
    return re.sub(r"&[a-z]*$", "", kept) + "…"


CHANNEL = ChannelKind("slack", "Slack", Config, Secrets, send)
