"""What goes in and out about alerts and silences, for the OpenAPI document; bodies are read by it too."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pulsewatch.api.notification_schemas import Notification
from pulsewatch.api.schemas import Answer, Page
from pulsewatch.rules.matchers import Matchers

MAX_SNOOZE_S = 31 * 86_400
MAX_SILENCE_S = 400 * 86_400

Level = Literal["warning", "critical"]
AlertState = Literal["firing", "acknowledged", "snoozed", "resolved"]
StandingState = Literal["ok", "pending", "firing", "recovering", "no_data", "error"]
ResolveReason = Literal["recovered", "rule_changed", "rule_deleted", "rule_disabled", "target_removed"]
AlertEventKind = Literal[
    "pending",
    "pending_cleared",
    "fired",
    "level_changed",
    "recovering",
    "refired",
    "resolved",
    "no_data",
    "data_back",
    "error",
    "error_cleared",
    "acknowledged",
    "unacknowledged",
    "snoozed",
    "commented",
]
SilenceState = Literal["active", "pending", "expired"]
Comment = Annotated[str, StringConstraints(max_length=2000, pattern=r"\S")]


class Alert(Answer):
    """One episode of one rule on one target, from firing to resolved."""

    id: UUID = Field(description="The same however often the rules are evaluated.")
    client: str | None = Field(description="Slug of the client; null: all clients together.", examples=["acme"])
    pipeline: str | None = Field(description="Slug of the pipeline; null: the client as a whole.", examples=["nightly"])
    rule: str = Field(description="Key of the rule.", examples=["loads-fail"])
    rule_client: str | None = Field(description="The client whose rule it is; null: a rule of all.", examples=["acme"])
    rule_version: int = Field(description="The version that fired.", examples=[3])
    kind: str = Field(description="Kind of the rule, by that version.", examples=["consecutive_failures"])
    state: AlertState = Field(description="Where people stand with it; one that is not `resolved` is open.")
    level: Level = Field(description="How bad it is, or was when it was resolved.", examples=["critical"])
    max_level: Level = Field(description="How bad it was at its worst.", examples=["critical"])
    value: float | None = Field(description="What was measured when it last changed.", examples=[4])
    threshold: float | None = Field(description="The threshold of the level.", examples=[4])
    summary: str = Field(description="One sentence.", examples=["acme/nightly: 4 runs in a row have failed"])
    labels: dict[str, str] = Field(description="Labels of the rule.", examples=[{"team": "data"}])
    annotations: dict[str, str] = Field(
        description="Texts of the rule, filled in.", examples=[{"summary": "nightly of acme fails"}]
    )
    pending_at: datetime | None = Field(description="When the condition began to hold.")
    fired_at: datetime = Field(description="When it fired; lists sort and filter by it.")
    acknowledged_at: datetime | None = Field(description="When somebody took it on.")
    acknowledged_by: str | None = Field(description="Who: the name of the key.", examples=["ann"])
    snoozed_until: datetime | None = Field(description="Until then nobody is told again, unless it gets worse.")
    resolved_at: datetime | None = Field(description="When it ended; null while it is open.", examples=[None])
    resolve_reason: ResolveReason | None = Field(description="Why it ended.", examples=[None])
    is_backfill: bool = Field(description="Worked out afterwards; nobody was told that it fired.", examples=[False])
    is_dry_run: bool = Field(description="Of a rule that only tries; nobody is told.", examples=[False])


class AlertEvent(Answer):
    """Something that happened to an alert. Never changed, never deleted before its keep time."""

    seq: int = Field(description="Counts within the alert, from 1.", examples=[2])
    as_of: datetime = Field(description="The time that it speaks of.")
    kind: AlertEventKind = Field(description="What happened.", examples=["fired"])
    from_state: StandingState = Field(description="How the rule stood on the target before.", examples=["pending"])
    state: StandingState = Field(description="How it stood after.", examples=["firing"])
    prev_level: Level | None = Field(description="Level before; null: none.", examples=[None])
    level: Level | None = Field(description="Level after; null: none.", examples=["critical"])
    value: float | None = Field(description="What was measured.", examples=[4])
    threshold: float | None = Field(description="What it was held against.", examples=[4])
    rule_version: int = Field(description="By which version of the rule.", examples=[3])
    reason: str | None = Field(description="Why, where it was not what was measured.", examples=[None])
    evidence: dict[str, Any] | None = Field(
        description="What it rests on: runs, times, parameters, levels.",
        examples=[{"runs": ["0193e8a4-7c1e-8a55-9f0e-1d2c3b4a5968"], "levels": {"critical": 4}}],
    )
    actor: str | None = Field(description="Who did it: the name of a key; null: PulseWatch.", examples=[None])
    comment: str | None = Field(description="What they said.", examples=[None])
    known_at: datetime | None = Field(description="Events received before then were known.")
    recorded_at: datetime = Field(description="When it was written down.")
    is_backfill: bool = Field(description="Worked out afterwards.", examples=[False])


class AlertWithEvents(Alert):
    """An alert, what happened to it, and who was told."""

    events: list[AlertEvent] = Field(description="Oldest first, at most the last 1000.")
    has_all_events: bool = Field(description="False: there are more, older ones.", examples=[True])
    notifications: list[Notification] = Field(
        description="Oldest first, at most the last 100; `/v1/notifications?alert=` lists all."
    )


class AcknowledgeRequest(BaseModel):
    """What to say about it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"comment": "disk full, on it"}]}
    )

    comment: Comment | None = Field(None, description="What people should know.")


class SnoozeRequest(BaseModel):
    """For how long: one of `until` and `for_s`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"for_s": 7200, "comment": "after the release"}]},
    )

    until: AwareDatetime | None = Field(None, description="Until then; RFC 3339 with an offset, 31 days ahead at most.")
    for_s: float | None = Field(None, gt=0, le=MAX_SNOOZE_S, description="For so many seconds from now on.")
    comment: Comment | None = Field(None, description="What people should know.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.until is None) == (self.for_s is None):
            raise ValueError("give either until or for_s")
        return self


class CommentRequest(BaseModel):
    """What to write down."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"comment": "the vendor is told"}]}
    )

    comment: Comment = Field(description="What people should know.")


class SilenceMatchers(Matchers):
    """Which alerts: all that are given must match, of each list any one. `*` stands for any characters."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pipelines": ["load-*"], "tags": ["dwh"], "levels": ["warning"]}]}
    )


class SilenceRequest(BaseModel):
    """Which alerts nobody is to be told of, and when."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "matchers": {"pipelines": ["load-*"], "environments": ["prod"]},
                    "starts_at": "2026-01-31T20:00:00Z",
                    "ends_at": "2026-01-31T23:00:00Z",
                    "comment": "the warehouse moves",
                }
            ]
        },
    )

    matchers: SilenceMatchers = Field(description="Which alerts.")
    starts_at: AwareDatetime | None = Field(None, description="From then on; left out, or past: from now on.")
    ends_at: AwareDatetime | None = Field(None, description="Until then; 400 days ahead at most.")
    for_s: float | None = Field(None, gt=0, le=MAX_SILENCE_S, description="Instead of `ends_at`: for so many seconds.")
    comment: Comment = Field(description="Why.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ends_at is None) == (self.for_s is None):
            raise ValueError("give either ends_at or for_s")
        return self


class PreviewRequest(BaseModel):
    """Matchers to be tried."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"matchers": {"pipelines": ["load-*"]}}]}
    )

    matchers: SilenceMatchers = Field(description="Which alerts.")


class Silence(Answer):
    """A time in which some alerts are written down but not told."""

    id: UUID = Field(description="Its name in URLs.")
    client: str | None = Field(description="The one client whose alerts it is about; null: any.", examples=["acme"])
    matchers: dict[str, list[str]] = Field(
        description="Which alerts: of each list any one must match.", examples=[{"pipelines": ["load-*"]}]
    )
    state: SilenceState = Field(description="`pending`: it begins later.", examples=["active"])
    starts_at: datetime = Field(description="From then on.")
    ends_at: datetime = Field(description="Until then.")
    comment: str = Field(description="Why.", examples=["the warehouse moves"])
    author: str | None = Field(description="Who made it: the name of the key.", examples=["ann"])
    created_at: datetime = Field(description="When it was made.")
    updated_at: datetime = Field(description="Last change.")


class SilencePreview(Answer):
    """What a silence would be about."""

    count: int = Field(description="How many open alerts it would be about now.", examples=[1])
    items: list[Alert] = Field(description="They, newest first, at most 100.")


class AlertPage(Page[Alert]):
    """Part of the list."""


class SilencePage(Page[Silence]):
    """Part of the list."""


BODIES = (AcknowledgeRequest, SnoozeRequest, CommentRequest, SilenceRequest, PreviewRequest)
