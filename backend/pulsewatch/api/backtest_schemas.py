"""What goes in and out about backtests, for the OpenAPI document; bodies are read by it too."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pulsewatch.api.alert_rule_schemas import EXAMPLE, AlertRuleSpec
from pulsewatch.api.alert_schemas import Level
from pulsewatch.api.schemas import Answer

MAX_ALERTS = 1000
MAX_TARGETS = 500
MAX_VERSION = 2**31 - 1

Mode = Literal["as_known", "as_final"]
Spec = TypeVar("Spec")

_WINDOW = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-31T00:00:00Z"}


class _Compared(BaseModel, Generic[Spec]):
    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Spec | None = Field(None, description="A rule that is not stored.")
    key: str | None = Field(None, max_length=100, description="Key of a stored rule; with `version` alone: this rule.")
    version: int | None = Field(None, ge=1, le=MAX_VERSION, description="One of its versions; else the one that holds.")


class _Backtest(BaseModel, Generic[Spec]):
    model_config = ConfigDict(frozen=True, extra="forbid")

    from_: AwareDatetime = Field(alias="from", description="From then on; RFC 3339 with an offset.")
    to: AwareDatetime = Field(description="Until then, 400 days later at most; what is yet to come is left out.")
    mode: Mode = Field(
        "as_final",
        description="`as_final`: with all that is known now. `as_known`: at each time with what had been received by "
        "then, which costs much more.",
    )
    compare_with: _Compared[Spec] | None = Field(None, description="Another rule, or another version, beside it.")


class _BacktestOfRule(_Backtest[Spec], Generic[Spec]):
    version: int | None = Field(None, ge=1, le=MAX_VERSION, description="Which version; else the one that holds.")


class _BacktestOfSpec(_Backtest[Spec], Generic[Spec]):
    spec: Spec = Field(description="The rule to try.")


class ComparedRule(_Compared[AlertRuleSpec]):
    """What to compare with: a `spec`, or a stored rule or version."""


class BacktestRequest(_BacktestOfRule[AlertRuleSpec]):
    """Over which time to try a stored rule, and what to compare it with."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WINDOW | {"compare_with": {"version": 2}}]})

    compare_with: ComparedRule | None = Field(None, description="Another rule, or another version, beside it.")


class BacktestSpecRequest(_BacktestOfSpec[AlertRuleSpec]):
    """A rule that is not stored, over which time to try it, and what to compare it with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [_WINDOW | {"spec": EXAMPLE, "compare_with": {"key": "loads-fail"}}]}
    )

    compare_with: ComparedRule | None = Field(None, description="Another rule, or another version, beside it.")


# Specs are read apart: their errors say what each kind allows.
ReadBacktest = _BacktestOfRule[dict[str, Any]]
ReadSpecBacktest = _BacktestOfSpec[dict[str, Any]]
ReadCompared = _Compared[dict[str, Any]]


class WouldBeAlert(Answer):
    """An alert that there would have been."""

    client: str | None = Field(description="Slug of the client; null: all clients together.", examples=["acme"])
    pipeline: str | None = Field(description="Slug of the pipeline; null: the client as a whole.", examples=["nightly"])
    fired_at: datetime = Field(description="When it would have fired.")
    resolved_at: datetime | None = Field(description="When it would have ended; null: not before `to`.")
    level: Level = Field(description="How bad it would have been at its worst.", examples=["critical"])
    value: float | None = Field(description="What was measured when it fired.", examples=[4])


class BacktestedTarget(Answer):
    """A target on which there would have been alerts."""

    client: str | None = Field(description="Slug of the client; null: all clients together.", examples=["acme"])
    pipeline: str | None = Field(description="Slug of the pipeline; null: the client as a whole.", examples=["nightly"])
    alert_count: int = Field(description="How many.", examples=[3])
    firing_s: float = Field(description="For how many seconds together, up to `to`.", examples=[5400])


class WouldBeAlerts(Answer):
    """Alerts that there would have been."""

    alert_count: int = Field(description="How many.", examples=[3])
    alerts: list[WouldBeAlert] = Field(description=f"The first {MAX_ALERTS}, by `fired_at`.")


class Backtested(WouldBeAlerts):
    """What a rule would have done."""

    key: str | None = Field(description="Key of the rule; null: it is not stored.", examples=["loads-fail"])
    version: int | None = Field(description="Which version; null: it is not stored.", examples=[3])
    target_count: int = Field(description="How many targets it would have watched.", examples=[12])
    firing_target_count: int = Field(description="On how many there would have been alerts.", examples=[2])
    targets: list[BacktestedTarget] = Field(
        description=f"Those on which there would have been alerts: most alerts first, at most {MAX_TARGETS}."
    )
    notification_count: int = Field(
        description="How many messages each of its channels would have had: fired, level changed, repeated, resolved.",
        examples=[7],
    )


class Backtest(Backtested):
    """What a rule would have done, and what another one would have."""

    from_: datetime = Field(alias="from", description="From then on.")
    to: datetime = Field(description="Until then.")
    mode: Mode = Field(description="What was known at each time.", examples=["as_final"])
    compared_with: Backtested | None = Field(description="The other rule; null: there was none.")
    only_this: WouldBeAlerts | None = Field(
        description="Alerts of this rule at whose time the other would have had none on the same target."
    )
    only_other: WouldBeAlerts | None = Field(
        description="Alerts of the other rule at whose time this one would have had none on the same target."
    )


BODIES: tuple[type[BaseModel], ...] = (BacktestRequest, BacktestSpecRequest)
