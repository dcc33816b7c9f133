"""What goes in and out about alert rules, for the OpenAPI document. The tests hold these against real answers."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pulsewatch.api.schemas import Answer, Page, Slug
from pulsewatch.rulebook import Change
from pulsewatch.rules.base import Target
from pulsewatch.rules.spec import RuleSpec

EXAMPLE: dict[str, JsonValue] = {
    "title": "Loads that fail again and again",
    "kind": "consecutive_failures",
    "params": {"statuses": ["failed", "timed_out"]},
    "selector": {"clients": [], "pipelines": ["load-*"], "tags": ["dwh"], "owners": [], "environments": ["prod"]},
    "levels": {"warning": 2, "critical": 4},
    "for_s": 0,
    "keep_firing_s": 0,
    "recover_consecutive": 1,
    "on_no_data": "keep",
    "on_error": "keep",
    "evaluation_delay_s": 0,
    "new_target_grace_s": 0,
    "repeat_s": 14400,
    "channels": ["data-team"],
    "runbook_url": "https://wiki.example.com/runbooks/loads",
    "labels": {"team": "data"},
    "annotations": {"summary": "{{ pipeline }} of {{ client }} fails"},
    "is_enabled": True,
    "is_dry_run": False,
}


class AlertRuleSpec(RuleSpec):
    """What an alert rule says, whole: what is left out has its default."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})


class AlertRule(Answer):
    """A versioned condition over pipelines."""

    key: Slug = Field(description="Name in URLs, unique in its client; never changes.", examples=["loads-fail"])
    client: str | None = Field(description="The one client it watches; null: all clients.", examples=["acme"])
    version: int = Field(description="The version that holds; also the ETag.", examples=[3])
    spec: AlertRuleSpec = Field(description="What it says. PUT takes the same.")
    change: Change = Field(description="What made this version.", examples=["changed"])
    author: str | None = Field(description="Who did: the name of the key.", examples=["terraform"])
    comment: str | None = Field(description="Why, in their words.", examples=["two were too nervous"])
    created_at: datetime = Field(description="When its first version was made.")
    updated_at: datetime = Field(description="When this version was made.")


class AlertRuleVersion(Answer):
    """What an alert rule said, from one change to the next."""

    version: int = Field(description="Counts from 1.", examples=[3])
    change: Change = Field(description="What was done.", examples=["changed"])
    spec: AlertRuleSpec = Field(description="What the rule said from then on.")
    author: str | None = Field(description="Who did it: the name of the key.", examples=["terraform"])
    comment: str | None = Field(description="Why, in their words.", examples=["two were too nervous"])
    created_at: datetime = Field(description="When.")


class AlertRuleTarget(Answer):
    """Something that a rule watches, or would."""

    client: str | None = Field(description="Slug of the client; null: all clients together.", examples=["acme"])
    pipeline: str | None = Field(description="Slug of the pipeline; null: the client as a whole.", examples=["load-a"])
    tags: list[str] = Field(description="Its tags.", examples=[["dwh"]])
    owner: str | None = Field(description="Who looks after it.", examples=["data-team@example.com"])
    environment: str | None = Field(description="prod, staging ...", examples=["prod"])


class AlertRuleKind(Answer):
    """A kind of condition."""

    name: str = Field(description="What `kind` of a rule says.", examples=["consecutive_failures"])
    title: str = Field(description="For people.", examples=["Failures in a row"])
    unit: Literal["runs", "starts", "share", "s", ""] = Field(
        description="What levels are measured in: `share` is from 0 to 1, `s` seconds, empty: whatever is measured."
    )
    target: Target = Field(description="What it looks at: each pipeline, each client as a whole, or all together.")
    params: dict[str, Any] = Field(description="JSON Schema of the rule's `params`.", examples=[{"type": "object"}])


class ValidatedRule(Answer):
    """An alert rule that would be taken."""

    spec: AlertRuleSpec = Field(description="As it would be stored, with all its defaults.")
    target_count: int = Field(description="How many targets it would watch now.", examples=[12])


class DryRunRequest(BaseModel):
    """Whether the rule is only to try."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"is_dry_run": True}]})

    is_dry_run: bool = Field(description="True: alerts are written down, and nobody is told.")


class AlertRulePage(Page[AlertRule]):
    """Part of the list."""


class AlertRuleVersionPage(Page[AlertRuleVersion]):
    """Part of the list."""


class AlertRuleTargetPage(Page[AlertRuleTarget]):
    """Part of the list."""


class AlertRuleKindPage(Page[AlertRuleKind]):
    """The list."""


BODIES: tuple[type[BaseModel], ...] = (AlertRuleSpec, DryRunRequest)
