"""What goes in and out about channels and notifications, for the OpenAPI document; bodies are read by it too."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from pulsewatch.api.schemas import Answer, Page, Slug

MAX_RATE_PER_MIN = 6000

NotificationReason = Literal["fired", "level_changed", "repeat", "resolved", "catch_up", "test"]
NotificationStatus = Literal["held", "pending", "leased", "sent", "superseded", "dead", "dropped"]
HeldBy = Literal["silence", "acknowledged", "snoozed", "dry_run", "backfill", "channel_disabled", "untold"]
Outcome = Literal["sent", "retry", "permanent", "lost"]


class ChannelRequest(BaseModel):
    """What to set of a channel. A field that is absent stays; `title` null is cleared."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "kind": "webhook",
                    "title": "Data team",
                    "config": {"url": "https://hooks.example.com/pulsewatch"},
                    "secrets": {"headers": {"Authorization": "Bearer ..."}},
                    "rate_per_min": 60,
                }
            ]
        },
    )

    kind: str | None = Field(None, max_length=100, description="Needed for a new one; `/v1/channel-kinds` lists them.")
    title: str | None = Field(None, max_length=200, description="Name for people.")
    config: dict[str, Any] | None = Field(
        None, description="What the kind must be told, whole; needed for a new one and for another kind."
    )
    secrets: dict[str, Any] | None = Field(
        None,
        description="What of it is secret, by name: what is absent stays as it is stored, null takes it away. Stored "
        "encrypted, never shown again.",
    )
    rate_per_min: int | None = Field(None, ge=1, le=MAX_RATE_PER_MIN, description="Messages a minute, at most; 60.")
    is_enabled: bool | None = Field(None, description="False: messages wait. True: back in use, whatever put it out.")


class Channel(Answer):
    """Where people are told."""

    key: Slug = Field(
        description="Name in URLs and rules, unique in its client; never changes.", examples=["data-team"]
    )
    client: str | None = Field(description="The one client whose rules use it; null: all.", examples=["acme"])
    kind: str = Field(description="webhook, email, slack ...", examples=["webhook"])
    title: str | None = Field(description="Name for people.", examples=["Data team"])
    config: dict[str, Any] = Field(
        description="What the kind was told that is no secret.",
        examples=[{"url": "https://hooks.example.com/pulsewatch"}],
    )
    secrets_set: list[str] | None = Field(
        description="Names of the secrets that are stored; null: the key that they were encrypted with is not there.",
        examples=[["headers"]],
    )
    rate_per_min: int = Field(description="Messages a minute, at most.", examples=[60])
    is_enabled: bool = Field(description="False: messages to it wait.", examples=[True])
    disabled_reason: str | None = Field(description="Why PulseWatch itself put it out of use.", examples=[None])
    created_at: datetime = Field(description="When it was made.")
    updated_at: datetime = Field(description="Last change.")


class ChannelKind(Answer):
    """A kind of channel."""

    name: str = Field(description="What `kind` of a channel says.", examples=["webhook"])
    title: str = Field(description="For people.", examples=["Webhook"])
    config: dict[str, Any] = Field(description="JSON Schema of `config`.", examples=[{"type": "object"}])
    secrets: dict[str, Any] = Field(description="JSON Schema of `secrets`.", examples=[{"type": "object"}])


class Notification(Answer):
    """One message to one channel."""

    id: UUID = Field(description="The receiver sees it too, the same at every attempt.")
    client: str | None = Field(description="Whose alert it tells of; null: all clients'.", examples=["acme"])
    alert_id: UUID | None = Field(description="The alert that it tells of; null: a test.")
    channel: str = Field(description="Key of the channel.", examples=["data-team"])
    channel_client: str | None = Field(
        description="The client whose channel it is; null: one of all.", examples=["acme"]
    )
    reason: NotificationReason = Field(description="Why it is sent.", examples=["fired"])
    status: NotificationStatus = Field(
        description="`leased`: it is being sent. `superseded`: a newer one says more. `dead`: given up. `dropped`: "
        "nobody is to be told any more.",
        examples=["sent"],
    )
    held_by: HeldBy | None = Field(description="What held it back.", examples=[None])
    silence_id: UUID | None = Field(description="The silence that held it back.", examples=[None])
    attempt_count: int = Field(description="Attempts so far.", examples=[1])
    next_attempt_at: datetime | None = Field(description="Not before then; null: there will be none.", examples=[None])
    expires_at: datetime = Field(description="From then on it is given up.")
    created_at: datetime = Field(description="When it was written; lists sort and filter by it.")
    sent_at: datetime | None = Field(description="When the receiver took it.")
    last_error: str | None = Field(
        description="Why the last attempt failed. A key that is bound to a client learns it of its own channels.",
        examples=[None],
    )


class Attempt(Answer):
    """One attempt to send a message."""

    n: int = Field(description="Counts from 1.", examples=[1])
    started_at: datetime = Field(description="When it began.")
    latency_s: float = Field(description="How long it took, in seconds.", examples=[0.12])
    outcome: Outcome = Field(description="`retry`: worth another try. `lost`: nobody knows.", examples=["sent"])
    http_status: int | None = Field(description="Status of the answer, where there was one.", examples=[200])
    error: str | None = Field(description="What went wrong; see `last_error`.", examples=[None])
    retry_after_s: float | None = Field(
        description="For how long the receiver asked to be left alone.", examples=[None]
    )


class NotificationWithAttempts(Notification):
    """A message and how its attempts went."""

    message: dict[str, Any] = Field(
        description="What it says.", examples=[{"title": "Loads fail: acme/nightly", "status": "firing"}]
    )
    attempts: list[Attempt] = Field(description="Oldest first, at most the last 100.")


class ChannelPage(Page[Channel]):
    """Part of the list."""


class ChannelKindPage(Page[ChannelKind]):
    """The list."""


class NotificationPage(Page[Notification]):
    """Part of the list."""


BODIES = (ChannelRequest,)
