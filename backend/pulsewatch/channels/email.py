"""The email channel: one mail over SMTP to all recipients, text and HTML, in one thread for each alert."""

import re
import smtplib
from collections.abc import Mapping
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address, HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pulsewatch.channels import base, email_text
from pulsewatch.channels.base import ChannelKind, Message, Partly, Permanent, Sent, Temporary
from pulsewatch.channels.words import one_line
from pulsewatch.outbound import AddressBlocked, Outbound, Unreachable

TIMEOUT_S = 30.0  # Mail servers let strangers wait for their greeting.
PORTS = {"none": 25, "starttls": 587, "tls": 465}
LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS = re.compile(rf"{LOCAL}@{LABEL}(\.{LABEL})*")
MESSAGE_ID = re.compile(r"<[^<>\s@\x00-\x1f\x7f-\U0010ffff]{1,200}@[A-Za-z0-9.-]{1,255}>")
# Read as a Message-ID is. Else Python would encode an id that does not fit into a line, and threads would break.
_headers = HeaderRegistry()
for _name in ("in-reply-to", "references"):
    _headers.map_to_type(_name, MessageIDHeader)  # type: ignore[arg-type]  # typeshed knows it as a mixin only
POLICY = policy.SMTP.clone(header_factory=_headers)

Refused = Mapping[str, tuple[int, bytes]]


def check_address(address: str) -> str:
    """The address, if mail can be sent to it as it stands. Raises ValueError."""
    if not ADDRESS.fullmatch(address) or len(address) > 254:
        raise ValueError("must be an address such as ops@example.org; hosts with other letters as xn--")
    return address


def check_login(word: str) -> str:
    """The word, if every way to log in can carry it. Raises ValueError."""
    if not word or not word.isascii() or not word.isprintable():
        raise ValueError("must be printable ASCII")
    return word


LoginWord = Annotated[str, AfterValidator(check_login)]
MailAddress = Annotated[str, AfterValidator(check_address)]


class Config(base.Config):
    DESTINATION = ("host", "port", "security")

    host: str = Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$", description="The SMTP server, without a port.")
    port: int | None = Field(None, ge=1, le=65535, description="Unset: 587 for starttls, 465 for tls, 25 for none.")
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: MailAddress = Field(description="The address that mails come from.")
    sender_name: str = Field("PulseWatch", max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    recipients: tuple[MailAddress, ...] = Field(min_length=1, max_length=50, description="They see each other.")


class Secrets(base.Secrets):
    user: LoginWord | None = Field(None, max_length=300)
    password: LoginWord | None = Field(None, max_length=1000)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        return self


def send(message: Message, config: Config, secrets: Secrets, outbound: Outbound, thread_ref: str | None) -> Sent:
    if secrets.user is not None and config.security == "none":
        raise Permanent("The password would be sent in the clear: set security to starttls or tls.")
    mail = compose(message, config, thread_ref, datetime.now(UTC))
    refused: Refused | None = None
    try:
        port = config.port or PORTS[config.security]
        with outbound.smtp(config.host, port, security=config.security, timeout_s=TIMEOUT_S) as smtp:
            if secrets.user is not None and secrets.password is not None:
                smtp.login(secrets.user, secrets.password)
            refused = smtp.sendmail(config.sender, config.recipients, mail.as_bytes())
    except (AddressBlocked, Unreachable, smtplib.SMTPException) as error:
        # Once the server has taken the mail, a goodbye that fails changes nothing.
        if refused is None:
            raise undelivered(error) from error
    for_good = {address: said for address, said in (refused or {}).items() if said[0] >= 500}
    sent = Sent(provider_ref=message_id(message, config), note=told(for_good))
    if refused and len(for_good) < len(refused):
        later = [address for address in config.recipients if address in refused and address not in for_good]
        raise Partly(told(refused) or "", {"recipients": later}, sent)
    return sent


def undelivered(error: Exception) -> Permanent | Temporary:
    """What the answer means: 4xx and broken connections pass, 5xx stays."""
    match error:
        case AddressBlocked():
            return Permanent(str(error))
        case Unreachable():
            return Temporary(str(error))
        case smtplib.SMTPNotSupportedError():
            return Permanent(f"The mail server cannot do what is asked: {one_line(str(error))[:200]}")
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            # Nobody has it yet, so trying again sends nothing twice.
            is_temporary = any(code < 500 for code, _ in refused.values())
            return (Temporary if is_temporary else Permanent)(told(refused) or "All recipients were refused.")
        case smtplib.SMTPAuthenticationError(smtp_code=code):
            # Its words are not told: some servers repeat what they were given.
            return (Permanent if code >= 500 else Temporary)(f"The mail server refused the login ({code}).")
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=said):
            return (Permanent if code >= 500 else Temporary)(f"The mail server answered {answer(code, said)}.")
    return Temporary(f"The talk with the mail server broke off: {one_line(str(error))[:200]}.")


def told(refused: Refused) -> str | None:
    """Who was refused, and why; None for nobody."""
    words = [f"{address} ({answer(*said)})" for address, said in sorted(refused.items())]
    return f"Refused: {', '.join(words)[:1000]}." if words else None


def answer(code: int, said: bytes | str) -> str:
    """Code and words; no words of what is no mail server, which might be something that is not to be read."""
    if code < 200:
        return "as no mail server does"
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return f"{code} {one_line(text)[:200]}".strip().rstrip(".")


def message_id(message: Message, config: Config) -> str:
    """The same for every try of a notification, so that mailboxes can drop what they have."""
    return f"<{message.notification_id.hex}@{config.sender.partition('@')[2]}>"


def compose(message: Message, config: Config, thread_ref: str | None, sent_at: datetime) -> EmailMessage:
    """The mail. thread_ref: the Message-ID of the alert's first mail, None for the first itself.

    Everything that others have written is made one line before it becomes a header, and addresses were checked when
    they were given: a line break can add none.
    """
    mail = EmailMessage(policy=POLICY)
    mail["From"] = Address(config.sender_name, addr_spec=config.sender)
    mail["To"] = tuple(Address(addr_spec=recipient) for recipient in config.recipients)
    mail["Subject"] = email_text.subject(message)
    mail["Date"] = format_datetime(sent_at)
    mail["Message-ID"] = message_id(message, config)
    if thread_ref and thread_ref != mail["Message-ID"] and MESSAGE_ID.fullmatch(thread_ref):
        mail["In-Reply-To"] = mail["References"] = thread_ref
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"  # the same for Exchange, which does not know it
    for name, value in filterable(message).items():
        mail[f"X-PulseWatch-{name}"] = one_line(value)
    mail.set_content(email_text.plain(message), cte="quoted-printable")
    mail.add_alternative(email_text.rich(message), subtype="html", cte="quoted-printable")
    return mail


def filterable(message: Message) -> dict[str, str]:
    """What a mailbox may sort by."""
    given = {
        "Status": message.status.value,
        "Level": message.level.value,
        "Reason": message.reason.value,
        "Client": message.client,
        "Pipeline": message.pipeline,
        "Rule": message.rule,
    }
    return {name: value for name, value in given.items() if value}


CHANNEL = ChannelKind("email", "Email", Config, Secrets, send)
