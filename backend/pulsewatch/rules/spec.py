"""What an alert rule says. Pure."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pulsewatch.rules import KINDS
from pulsewatch.rules.base import Kind, Levels, Params
from pulsewatch.rules.selectors import Selector

MAX_S = 31 * 86_400.0
Seconds = Annotated[float, Field(ge=0, le=MAX_S, allow_inf_nan=False)]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,99}$")]
Words = Annotated[str, Field(max_length=2000)]
PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
# What annotations may name.
PLACEHOLDERS = (
    "client", "pipeline", "owner", "environment", "rule", "level", "value", "threshold", "unit", "fired_at"
)  # fmt: skip


def _placeholders_known(text: str) -> str:
    for name in PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            raise ValueError(f"there is no placeholder {name[:100]!r}; known are {', '.join(PLACEHOLDERS)}")
    return text


class RuleSpec(BaseModel):
    """An alert rule, whole: each change is a new version of all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str | None = Field(None, max_length=200, description="Name for people; else the key is shown.")
    kind: str = Field(description="What is looked at; /v1/alert-rule-kinds lists them.")
    params: dict[str, Any] = Field(default_factory=dict, description="What the kind can be told.")
    selector: Selector = Field(default_factory=Selector, description="Which pipelines.")
    levels: Levels = Field(description="From which value on it is a warning, or critical.")
    for_s: Seconds = Field(0, description="For how long the condition must hold before it fires.")
    keep_firing_s: Seconds = Field(0, description="For how long it must be good before it is resolved.")
    recover_consecutive: int = Field(1, ge=1, le=100, description="So many good samples in a row resolve it.")
    on_no_data: Literal["keep", "ok", "no_data", "alert"] = Field(
        "keep", description="Where there is nothing to measure: leave it, take it as good, say so, or alert."
    )
    on_error: Literal["keep", "alert"] = Field("keep", description="Where the rule cannot be evaluated.")
    evaluation_delay_s: float = Field(
        0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Look at the time before so many seconds: late events count.",
    )
    new_target_grace_s: Seconds = Field(0, description="A new target does not fire before.")
    repeat_s: float | None = Field(
        14_400, ge=60, le=MAX_S, description="Tell it again after so many seconds while it lasts; null: never."
    )
    channels: tuple[Slug, ...] = Field((), max_length=20, description="Keys of channels.")
    runbook_url: str | None = Field(None, max_length=2000, pattern=r"^https?://\S+$", description="What to do then.")
    labels: dict[LabelName, Words] = Field(default_factory=dict, max_length=50, description="For receivers.")
    annotations: dict[LabelName, Annotated[Words, AfterValidator(_placeholders_known)]] = Field(
        default_factory=dict, max_length=20, description="Texts with placeholders such as {{ pipeline }}."
    )
    is_enabled: bool = Field(True, description="False: not evaluated.")
    is_dry_run: bool = Field(False, description="True: evaluated and written down, but nobody is told.")

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind[:100]!r}; known are {', '.join(sorted(KINDS))}")
        return kind

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        # Parameters that the kind does not know are a fault of the rule, whatever else it says.
        direction = self.definition.direction(self.parsed)
        kind, warning, critical = self.definition, self.levels.warning, self.levels.critical
        for level in (warning, critical):
            if level is not None:
                kind.check_level(level)
        if warning is not None and critical is not None:
            is_above = direction == "above"
            if critical < warning if is_above else critical > warning:
                raise ValueError(f"critical must be {'above' if is_above else 'below'} warning")
        return self

    @cached_property
    def definition(self) -> Kind:
        """Its kind."""
        return KINDS[self.kind]

    @cached_property
    def parsed(self) -> Params:
        """Its parameters, as the kind understands them. Raises ValidationError."""
        return self.definition.params.model_validate(self.params)


def fill_in(text: str, values: Mapping[str, str | None]) -> str:
    """Replace placeholders by their values; what is not there leaves nothing. Nothing else has a meaning."""
    return PLACEHOLDER.sub(lambda found: (values[found[1]] or "") if found[1] in values else found[0], text)
