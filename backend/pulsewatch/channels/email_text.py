"""What a mail says: the same as text and as HTML. Pure."""

from html import escape

from pulsewatch.channels import words
from pulsewatch.channels.base import Message

FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
TABLE = 'role="presentation" cellpadding="0" cellspacing="0" width="100%"'


def subject(message: Message) -> str:
    """The same for all messages of an alert: mail programs thread by it. How it stands, the first line tells."""
    return words.one_line(message.title)[:200]


def plain(message: Message) -> str:
    """For those who read text."""
    facts, links = words.facts(message), words.links(message)
    width = min(24, max(len(name) for name, _ in facts))
    lines = [
        f"{words.news(message)}.",
        "",
        words.one_line(message.summary),
        "",
        *(f"{name + ':':<{width + 1}} {words.one_line(text)}" for name, text in facts),
        "",
        *(f"{title}: {url}" for title, url in links),
    ]
    return "\n".join(lines).rstrip() + "\n"


def rich(message: Message) -> str:
    """For those who read HTML: one table, styles at the elements, nothing loaded from anywhere."""
    colour = words.colour(message)
    rows = "\n".join(_row(name, text) for name, text in words.facts(message))
    title = escape(subject(message))
    links = " &nbsp; ".join(
        f'<a href="{escape(url)}" style="color:#1565c0">{escape(name)}</a>' for name, url in words.links(message)
    )
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
</head>
<body style="margin:0;padding:24px 12px;background:#f3f4f6;{FONT};color:#1f2933">
<table {TABLE} style="max-width:600px;margin:0 auto;background:#ffffff;border-top:6px solid {colour}">
<tr><td style="padding:20px 24px 4px;font-size:13px;font-weight:600;color:{colour}">
{escape(words.news(message))}
</td></tr>
<tr><td style="padding:0 24px;font-size:20px;line-height:1.3;font-weight:600">{title}</td></tr>
<tr><td style="padding:12px 24px;font-size:15px;line-height:1.5">{escape(message.summary)}</td></tr>
<tr><td style="padding:4px 24px">
<table {TABLE}>
{rows}
</table>
</td></tr>
<tr><td style="padding:16px 24px 24px;font-size:14px;line-height:1.8">{links}</td></tr>
</table>
</body>
</html>
"""


def _row(name: str, text: str) -> str:
    cell = "padding:6px 12px 6px 0;font-size:14px;line-height:1.4;vertical-align:top;border-top:1px solid #e5e7eb"
    return (
        f'<tr><td style="{cell};color:#616e7c;white-space:nowrap">{escape(name)}</td>'
        f'<td style="{cell};width:100%;word-break:break-word">{escape(text)}</td></tr>'
    )
