"""Mail over a real SMTP server: one thread for each alert, no header that a rule could add, refusals told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pulsewatch.channels import email
from pulsewatch.channels.base import Message, Partly, Permanent, Sent, Temporary
from pulsewatch.channels.email import Config, Secrets, compose
from pulsewatch.outbound import Outbound, _tls
from tests.channels.certificates import Authority
from tests.channels.given import EVIL_MESSAGE, FIRING, RESOLVED, RUN, message
from tests.channels.receivers import Postbox, closed_port, mail_server

SENT_AT = datetime(2026, 11, 21, 2, 3, 22, tzinfo=UTC)
FIRST_ID = "<11111111222243338444555555555555@pulse.example>"
NEXT_ID = "<66666666777748889999aaaaaaaaaaaa@pulse.example>"


def config(**given: Any) -> Config:
    told = {
        "host": "127.0.0.1",
        "security": "none",
        "sender": "alerts@pulse.example",
        "recipients": ["ops@acme.example", "night@acme.example"],
    }
    return Config.model_validate(told | given)


def send(
    outbound: Outbound, postbox: Postbox, given: Message = FIRING, thread_ref: str | None = None, **told: Any
) -> Sent:
    return email.CHANNEL.send(given, config(port=postbox.port, **told), Secrets(), outbound, thread_ref)


# What arrives


def test_a_mail_arrives_as_text_and_html(outbound: Outbound, postbox: Postbox) -> None:
    assert send(outbound, postbox) == Sent(provider_ref=FIRST_ID)
    (got,) = postbox.got
    assert (got.sender, got.recipients) == ("alerts@pulse.example", ["ops@acme.example", "night@acme.example"])
    told = {name: value for name, value in got.mail.items() if name not in ("Date", "Content-Type")}
    assert told == {
        "From": "PulseWatch <alerts@pulse.example>",
        "To": "ops@acme.example, night@acme.example",
        "Subject": "Failing again and again: acme / orders_load",
        "Message-ID": FIRST_ID,
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "X-PulseWatch-Status": "firing",
        "X-PulseWatch-Level": "warning",
        "X-PulseWatch-Reason": "fired",
        "X-PulseWatch-Client": "acme",
        "X-PulseWatch-Pipeline": "orders_load",
        "X-PulseWatch-Rule": "failing",
        "MIME-Version": "1.0",
    }
    assert got.mail.get_content_type() == "multipart/alternative"
    assert abs((got.mail["Date"].datetime - datetime.now(UTC)).total_seconds()) < 60
    assert got.part("plain") == (
        "Warning since 2026-11-21 02:03:20 UTC.\n"
        "\n"
        "3 runs in a row have failed; the limit is 3.\n"
        "\n"
        "Pipeline:     acme / orders_load\n"
        "Rule:         Failing again and again (failing, version 3)\n"
        "Value:        3 runs\n"
        "Threshold:    3 runs\n"
        "Firing since: 2026-11-21 02:03:20 UTC\n"
        "team:         data\n"
        "description:  Call the night shift.\n"
        "\n"
        "Alert: https://pulse.example/v1/alerts/0192f3a4-0000-7000-8000-00000000a1e7\n"
        "Runbook: https://wiki.example/failing?page=1&part=2\n"
        f"Run {RUN}: https://pulse.example/v1/runs/0192f3a4\n"
    )


def test_the_html_says_the_same_and_loads_nothing(outbound: Outbound, postbox: Postbox) -> None:
    send(outbound, postbox)
    html = postbox.got[0].part("html")
    for said in ("Warning since 2026-11-21", "3 runs in a row have failed", "acme / orders_load", "night shift"):
        assert said in html
    assert html.count("<a href=") == 3
    assert 'href="https://wiki.example/failing?page=1&amp;part=2"' in html
    assert not [tag for tag in ("<img", "<link", "<script", "url(") if tag in html]


def test_lines_are_as_short_as_mail_must_be_and_ascii(outbound: Outbound, postbox: Postbox) -> None:
    send(outbound, postbox, message(title="ä" * 300, summary="ü" * 5000, pipeline="ö" * 300))
    lines = postbox.got[0].raw.split(b"\r\n")
    assert max(len(line) for line in lines) <= 100
    assert postbox.got[0].raw.isascii()
    assert "ü" * 5000 in postbox.got[0].part("plain")


# Threads


def test_all_mails_of_an_alert_are_one_thread(outbound: Outbound, postbox: Postbox) -> None:
    first = send(outbound, postbox)
    assert send(outbound, postbox, RESOLVED, first.provider_ref) == Sent(provider_ref=NEXT_ID)
    fired, resolved = (got.mail for got in postbox.got)
    assert (fired["In-Reply-To"], fired["References"]) == (None, None)
    assert (resolved["In-Reply-To"], resolved["References"], resolved["Message-ID"]) == (FIRST_ID, FIRST_ID, NEXT_ID)
    assert fired["Subject"] == resolved["Subject"]


def test_a_second_try_is_the_same_mail(outbound: Outbound, postbox: Postbox) -> None:
    first = send(outbound, postbox)
    assert send(outbound, postbox, thread_ref=first.provider_ref) == first
    assert [got.mail["Message-ID"] for got in postbox.got] == [FIRST_ID, FIRST_ID]
    assert postbox.got[1].mail["In-Reply-To"] is None


def test_long_ids_are_written_as_they_are() -> None:
    domain = ".".join(["abcdefghij" * 5] * 4)
    first = f"<11111111222243338444555555555555@{domain}>"
    raw = compose(RESOLVED, config(sender=f"a@{domain}"), first, SENT_AT).as_bytes()
    assert f"References: {first}".encode() in raw.replace(b"\r\n ", b" ").replace(b":  ", b": ")
    assert b"=?" not in raw
    read = message_from_bytes(raw, policy=policy.default)
    assert (read["References"].strip(), read["In-Reply-To"].strip()) == (first, first)


@pytest.mark.parametrize("ref", ["", "no id", "<a@b>\r\nBcc: all@evil.example", "<a b@c>", "<@>", "1732154602.000100"])
def test_what_is_no_message_id_starts_no_thread(ref: str) -> None:
    mail = compose(RESOLVED, config(), ref, SENT_AT)
    assert (mail["In-Reply-To"], mail["References"], mail["Bcc"]) == (None, None, None)


# Nothing that others wrote becomes a header or markup

NAMES = {name.lower() for name in compose(RESOLVED, config(), FIRST_ID, SENT_AT).keys()}  # noqa: SIM118 (repeats count)


def test_line_breaks_add_no_header_and_tags_no_markup(outbound: Outbound, postbox: Postbox) -> None:
    send(outbound, postbox, EVIL_MESSAGE)
    (got,) = postbox.got
    assert got.recipients == ["ops@acme.example", "night@acme.example"]
    assert {name.lower() for name in got.mail.keys()} <= NAMES  # noqa: SIM118
    assert got.mail["Subject"].strip().startswith("x Bcc: all@evil.example <script>")
    html = got.part("html")
    assert "<script" not in html
    assert "javascript:" not in html
    assert html.count("<a href=") == 1


@given(st.text())
def test_no_words_add_a_header(text: str) -> None:
    told = dict.fromkeys(("title", "summary", "client", "pipeline", "rule", "rule_title"), text)
    raw = compose(message(**told, labels={text: text}), config(), text, SENT_AT).as_bytes()
    read = message_from_bytes(raw, policy=policy.default)
    assert {name.lower() for name in read.keys()} <= NAMES  # noqa: SIM118
    assert read.get_content_type() == "multipart/alternative"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ops",
        "ops@",
        "@acme.example",
        "a@b@c",
        "ops@acme.example\r\nBcc: x@y.example",
        "ops@acme.example, x@y.example",
        "Ops <ops@acme.example>",
        "ops @acme.example",
        "öps@acme.example",
        "ops@äcme.example",
        "ops@-acme.example",
        ".ops@acme.example",
        "ops@acme..example",
        "ops@acme.example\n",
        "o" * 250 + "@a.example",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    for told in ({"sender": address}, {"recipients": [address]}):
        with pytest.raises(ValidationError):
            config(**told)


@pytest.mark.parametrize("name", ["a\r\nBcc: x@y.example", "a\x00", "a" * 101])
def test_a_name_of_the_sender_with_a_line_break_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        config(sender_name=name)


def test_a_name_of_the_sender_may_have_any_letters() -> None:
    raw = compose(FIRING, config(sender_name='Ü "Nacht", <Wache>'), None, SENT_AT).as_bytes()
    read = message_from_bytes(raw, policy=policy.default)
    (address,) = read["From"].addresses
    assert (address.display_name, address.addr_spec) == ('Ü "Nacht", <Wache>', "alerts@pulse.example")


# Refusals


@pytest.mark.parametrize("step", ["to_sender", "to_data"])
@pytest.mark.parametrize(("code", "error"), [(421, Temporary), (451, Temporary), (550, Permanent), (554, Permanent)])
def test_4xx_is_worth_another_try_and_5xx_is_not(
    outbound: Outbound, postbox: Postbox, step: str, code: int, error: type[Exception]
) -> None:
    setattr(postbox, step, f"{code} not today")
    with pytest.raises(error, match=rf"^The mail server answered {code} not today\.$"):
        send(outbound, postbox)
    assert postbox.got == []


def test_one_recipient_that_is_refused_is_told_and_the_others_have_their_mail(
    outbound: Outbound, postbox: Postbox
) -> None:
    postbox.to_recipient = {"night@acme.example": "550 nobody here"}
    sent = send(outbound, postbox)
    assert sent == Sent(provider_ref=FIRST_ID, note="Refused: night@acme.example (550 nobody here).")
    assert [got.recipients for got in postbox.got] == [["ops@acme.example"]]


def test_recipients_that_are_refused_for_now_are_left_for_another_try(outbound: Outbound, postbox: Postbox) -> None:
    postbox.to_recipient = {"ops@acme.example": "450 later", "night@acme.example": "550 nobody here"}
    with pytest.raises(Partly) as partly:
        send(outbound, postbox, recipients=["night@acme.example", "ops@acme.example", "boss@acme.example"])
    assert partly.value.detail == "Refused: night@acme.example (550 nobody here), ops@acme.example (450 later)."
    assert partly.value.rest == {"recipients": ["ops@acme.example"]}
    assert partly.value.sent == Sent(provider_ref=FIRST_ID, note="Refused: night@acme.example (550 nobody here).")
    assert [got.recipients for got in postbox.got] == [["boss@acme.example"]]


@pytest.mark.parametrize(("code", "error"), [(550, Permanent), (450, Temporary)])
def test_when_all_recipients_are_refused_one_4xx_is_enough_to_try_again(
    outbound: Outbound, postbox: Postbox, code: int, error: type[Exception]
) -> None:
    postbox.to_recipient = {"ops@acme.example": f"{code} a", "night@acme.example": "550 b"}
    with pytest.raises(error, match=rf"^Refused: night@acme.example \(550 b\), ops@acme.example \({code} a\)\.$"):
        send(outbound, postbox)


def test_nobody_there_is_worth_another_try(outbound: Outbound) -> None:
    with pytest.raises(Temporary):
        email.CHANNEL.send(FIRING, config(port=closed_port()), Secrets(), outbound, None)


def test_the_words_of_what_is_no_mail_server_are_not_told(outbound: Outbound) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-private words\r\n")
                connection.recv(100)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(Temporary, match=r"^The mail server answered as no mail server does\.$"):
            email.CHANNEL.send(FIRING, config(port=server.getsockname()[1]), Secrets(), outbound, None)
        speaker.join()


def test_a_private_mail_server_is_not_asked(postbox: Postbox) -> None:
    with pytest.raises(Permanent):
        send(Outbound(allow=[]), postbox)
    assert postbox.got == []


# Passwords and TLS


def test_a_password_is_not_sent_in_the_clear(outbound: Outbound, postbox: Postbox) -> None:
    with pytest.raises(Permanent, match="in the clear"):
        email.CHANNEL.send(FIRING, config(port=postbox.port), Secrets(user="pulse", password="s3cret"), outbound, None)
    assert postbox.logins == []


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """An authority that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    _tls.cache_clear()
    yield authority
    _tls.cache_clear()


def secure_server(authority: Authority, security: str) -> AbstractContextManager[Postbox]:
    context = authority.server_context("127.0.0.1")
    if security == "tls":
        return mail_server(ssl_context=context, auth_require_tls=False)
    return mail_server(tls_context=context, require_starttls=True)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_user_logs_in_over_tls(outbound: Outbound, trusted: Authority, security: str) -> None:
    with secure_server(trusted, security) as postbox:
        postbox.users = {b"pulse": b"s3cret"}
        told = config(port=postbox.port, security=security)
        sent = email.CHANNEL.send(FIRING, told, Secrets(user="pulse", password="s3cret"), outbound, None)
        assert sent == Sent(provider_ref=FIRST_ID)
        assert postbox.logins == [b"pulse"]


def test_a_wrong_password_is_permanent_and_not_told(outbound: Outbound, trusted: Authority) -> None:
    with secure_server(trusted, "starttls") as postbox:
        told = config(port=postbox.port, security="starttls")
        with pytest.raises(Permanent, match=r"^The mail server refused the login \(535\)\.$"):
            email.CHANNEL.send(FIRING, told, Secrets(user="pulse", password="wr0ng"), outbound, None)
        assert postbox.got == []


def test_a_certificate_that_nobody_vouches_for_gets_no_password(outbound: Outbound, authority: Authority) -> None:
    with secure_server(authority, "starttls") as postbox:
        told = config(port=postbox.port, security="starttls")
        with pytest.raises(Temporary, match="certificate"):
            email.CHANNEL.send(FIRING, told, Secrets(user="pulse", password="s3cret"), outbound, None)
        assert (postbox.logins, postbox.got) == ([], [])


def test_a_server_without_starttls_gets_nothing(outbound: Outbound, postbox: Postbox) -> None:
    with pytest.raises(Permanent, match="cannot do what is asked"):
        send(outbound, postbox, security="starttls")
    assert postbox.got == []


@pytest.mark.parametrize(
    "given",
    [
        {"user": "a"},
        {"password": "s3cret"},
        {"user": "", "password": "s3cret"},
        {"user": "a", "password": "s3cret\n"},
        {"user": "ä", "password": "s3cret"},
    ],
)
def test_user_and_password_go_together_in_ascii(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Secrets.model_validate(given)
    assert "s3cret" not in str(refused.value)
