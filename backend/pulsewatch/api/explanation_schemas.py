"""What explanations of alerts and alert rules answer, for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from pulsewatch.api.alert_schemas import Alert, AlertEvent, Level, StandingState
from pulsewatch.api.notification_schemas import Notification
from pulsewatch.api.schemas import Answer, RunStatus
from pulsewatch.rules.base import Direction

NotWatched = Literal["rule_not_there", "rule_deleted", "rule_disabled", "selector", "archived", "not_yet"]
Frozen = Literal["ingestion", "worker_away", "catching_up"]
WaitsFor = Literal["new_target_grace", "for", "keep_firing", "recover_consecutive", "arrivals", "ingestion_gate"]


class ExplainedRule(Answer):
    """What a version of a rule says about when it fires."""

    key: str = Field(description="Key of the rule.", examples=["loads-fail"])
    client: str | None = Field(description="The client whose rule it is; null: a rule of all.", examples=["acme"])
    version: int = Field(description="The version.", examples=[3])
    kind: str = Field(description="What is looked at.", examples=["consecutive_failures"])
    title: str | None = Field(description="Name for people.", examples=["Loads that fail again and again"])
    unit: str = Field(description="What values and levels are measured in.", examples=["runs"])
    direction: Direction = Field(description="`above`: more is worse; `below`: less is.", examples=["above"])
    params: dict[str, Any] = Field(description="What the kind was told.", examples=[{"statuses": ["failed"]}])
    levels: dict[Level, float] = Field(
        description="From which value on it is that bad.", examples=[{"warning": 2, "critical": 4}]
    )
    for_s: float = Field(description="For how long it must be bad before it fires.", examples=[0])
    keep_firing_s: float = Field(description="For how long it must be good before it is resolved.", examples=[0])
    recover_consecutive: int = Field(description="So many good samples in a row resolve it.", examples=[1])
    on_no_data: Literal["keep", "ok", "no_data", "alert"] = Field(description="What no value means.")
    on_error: Literal["keep", "alert"] = Field(description="What it means that it cannot be evaluated.")
    evaluation_delay_s: float = Field(description="The time before so many seconds is looked at.", examples=[0])
    new_target_grace_s: float = Field(description="A new target does not fire before.", examples=[0])


class ExplainedRun(Answer):
    """A run that counted, as it is now."""

    id: UUID = Field(description="Its id.")
    href: str = Field(description="Where it is.", examples=["/v1/runs/0193e8a4-7c1e-8a55-9f0e-1d2c3b4a5968"])
    external_id: str = Field(description="What the producer calls it.", examples=["2026-01-31"])
    status: RunStatus = Field(description="Its status.", examples=["failed"])
    started_at: datetime | None = Field(description="When it started.")
    finished_at: datetime | None = Field(description="When it ended.")
    error_class: str | None = Field(description="The kind of failure.", examples=["TimeoutError"])
    message: str | None = Field(description="What it said at its end.", examples=["disk full"])
    url: str | None = Field(description="Where the producer shows it.", examples=["https://runs.example.com/1"])
    metrics: dict[str, float] = Field(description="Numbers that it reported.", examples=[{"rows": 1200}])


class ExplainedSilence(Answer):
    """A silence that holds."""

    id: UUID = Field(description="Its name in `/v1/silences/{id}`.")
    starts_at: datetime = Field(description="From then on.")
    ends_at: datetime = Field(description="Until then.")
    comment: str | None = Field(
        description="Why; null for a key bound to a client, where it is one of all clients.", examples=["it moves"]
    )


class ExplainedNotification(Notification):
    """A message, and what became of it."""

    because: str = Field(description="In words.", examples=["It was sent."])
    silence: ExplainedSilence | None = Field(description="The silence that held it back.", examples=[None])


class AlertExplanation(Answer):
    """Why an alert fired: what was known then, and what people were told."""

    alert: Alert = Field(description="The alert.")
    because: str = Field(
        description="Why it fired, in one sentence.", examples=["acme/nightly: 4 runs in a row have failed (limit 4)"]
    )
    rule: ExplainedRule = Field(description="The rule by the version that fired.")
    fired: AlertEvent | None = Field(description="The event that it fired with; null: kept no longer.")
    events: list[AlertEvent] = Field(description="All that happened, oldest first, at most the last 1000.")
    runs: list[ExplainedRun] = Field(description="The runs that these events rest on, latest evidence first.")
    notifications: list[ExplainedNotification] = Field(description="Who was told, and who was not, and why.")
    nobody_told_because: str | None = Field(
        description="Why there are no notifications; null: there are some.", examples=[None]
    )


class Waiting(Answer):
    """Something that has to happen before it fires, or before it is resolved."""

    wait: WaitsFor = Field(description="What is waited for.", examples=["for"])
    until: datetime | None = Field(description="When that is over if nothing changes; null: time does not end it.")
    detail: str = Field(description="In words.", examples=["It must have been bad for 600 s."])


class RuleExplanation(Answer):
    """Why a rule fires on a target, or does not."""

    rule: ExplainedRule = Field(description="The rule by the version that held then.")
    client: str | None = Field(description="Slug of the client; null: all clients together.", examples=["acme"])
    pipeline: str | None = Field(description="Slug of the pipeline; null: the client as a whole.", examples=["nightly"])
    as_of: datetime = Field(description="The time that is explained, by what had been received by then.")
    because: str = Field(
        description="In one sentence.", examples=["It does not fire: 1 is not at its lowest threshold of 2."]
    )
    is_watched: bool = Field(description="Whether the rule watched this target then.", examples=[True])
    not_watched_because: NotWatched | None = Field(
        description="Why not. `not_yet`: what it watches is found with the next tick.", examples=[None]
    )
    target_since: datetime | None = Field(description="Since when the rule has watched the target.")
    state: StandingState | None = Field(description="How it stood on the target; null: it did not watch it.")
    state_since: datetime | None = Field(description="Since when; null: from the beginning.")
    state_level: Level | None = Field(description="The level that was told.", examples=["warning"])
    alert_id: UUID | None = Field(description="The alert that is open, or would be.")
    value: float | None = Field(description="What is measured; null: there is nothing to measure.", examples=[1])
    threshold: float | None = Field(description="What it is held against: that of its level, else the lowest.")
    level: Level | None = Field(description="The level that the value reaches; null: none.", examples=[None])
    summary: str = Field(description="What is measured, in words.", examples=["acme/nightly: 1 run has failed"])
    sample_at: datetime | None = Field(description="The time of the newest sample that it rests on.")
    evidence: dict[str, Any] | None = Field(
        description="What the value was worked out from beside runs: counts, starts; null: nothing else.",
        examples=[{"run_count": 4, "failed_count": 4}],
    )
    changes_at: datetime | None = Field(
        description="The value may reach another level then although nothing arrives; null: it cannot."
    )
    looks_again_at: datetime | None = Field(
        description="The rule looks at it again then at the latest; sooner if something arrives."
    )
    waits: list[Waiting] = Field(description="What has to happen first.")
    frozen_because: Frozen | None = Field(
        description="Why rules that measure time are left as they were; null: they are not, or this is none.",
        examples=[None],
    )
    silences: list[ExplainedSilence] = Field(description="Silences in force that cover such an alert.")
    runs: list[ExplainedRun] = Field(description="The runs that it rests on, newest first.")
