"""What a kind of alert rule is, and how what it observes is judged.

A kind is one file: its parameters, a statement that observes targets, and a sentence. Live evaluation, backtests and
explanations all run the same statement, for other times.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator

Direction = Literal["above", "below"]
Target = Literal["pipeline", "client", "fleet"]
MAX_RUNS_SHOWN = 10


class Level(IntEnum):
    """How bad it is. In answers and views: warning or critical."""

    NONE = 0
    WARNING = 1
    CRITICAL = 2

    @property
    def word(self) -> str | None:
        """How people call it; None for none."""
        return None if self is Level.NONE else self.name.lower()


class Params(BaseModel):
    """What a kind can be told beside its levels."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Levels(BaseModel):
    """The values from which on it is a warning, or critical; at least one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warning: FiniteFloat | None = None
    critical: FiniteFloat | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.warning is None and self.critical is None:
            raise ValueError("give warning, critical or both")
        return self


# What a value was worked out from, beside runs: counts, times. JSON.
Evidence = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a rule sees of a target at a time.

    `value` is None where there is nothing to measure. `sample_at` is the time of the newest sample that it rests on.
    `next_at` is when the value may be judged otherwise although nothing arrives; it may be too early, never too late.
    `held_until` is set while the past of the target arrives: nothing fires before, unless it has been bad for long.
    """

    rule_id: int
    client_id: int
    pipeline_id: int
    as_of: datetime
    value: float | None
    sample_at: datetime | None
    next_at: datetime | None
    run_ids: tuple[UUID, ...]
    evidence: Evidence | None = None
    held_until: datetime | None = None


class Lack(StrEnum):
    """Why there is no level."""

    NO_DATA = "no_data"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The level that a value reaches, and the threshold it was held against: that of its level, else the lowest."""

    level: Level
    threshold: float | None
    value: float | None = None
    lack: Lack | None = None
    held_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the pipeline's state tells by itself of nearly all targets, in SQL over `asked`, as `observe` would.

    Where `of` and `where` are true, the value is `value`, and the time to look again `next_at`; it is asked only where
    nothing was received since known_at, and nothing is known of a time to come. Ticks pass by what is well by it. What
    decides of all targets of a rule alike (`of`: over params, statuses and width alone) they ask once of each rule.
    """

    where: str
    value: str
    next_at: str = "null::timestamptz"
    of: str = "true"

    @property
    def condition(self) -> str:
        """Both conditions together."""
        return f"({self.of}) and ({self.where})"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of condition.

    `observe` is a select over the rows of `asked` (rule_id, client_id, pipeline_id, as_of, known_at, params jsonb, of
    these statuses text[] and width interval (window_s; null without), which are quicker to read; target_since,
    thresholds double precision[] of the levels, is_settled: nothing was received since known_at, and all
    that was before is worked out; last_outcome: how the last run ended that succeeded, failed or timed out by as_of, as
    far as the pipeline's state tells, null if that has to be looked for; with it last_outcome_run_id,
    last_finished_at, last_duration_s, last_success_at, last_failure_hour_at and consecutive_failures of that state, of
    which the last three may tell of what came later); it gives one row for each: rule_id, client_id, pipeline_id,
    as_of, value double precision, sample_at timestamptz, next_at timestamptz, run_ids uuid[] (the newest ones, first),
    evidence jsonb (a few numbers or times for people; null: none). It asks no clock and reads runs through
    `known_runs` only.

    `instants` is a select over `span` (rule_id, client_id, pipeline_id, params jsonb, target_since, thresholds,
    from_at, to_at, known_at); it gives (rule_id, client_id, pipeline_id, as_of): times in [from_at, to_at) among which
    are all those at which a verdict may change, where all is known from the beginning (known_at 'infinity'). Where
    things get known bit by bit, the times of their arrival count too (known_runs.ARRIVALS). Backtests observe at these.

    A timed kind grows worse while nothing arrives: it is left as it is while ingestion itself is in doubt.
    """

    name: str
    title: str
    unit: Literal["runs", "starts", "share", "s", ""]
    params: type[Params]
    observe: str
    instants: str
    # A sentence of value, threshold, parameters and evidence.
    describe: Callable[[float, float, Params, Evidence], str]
    told: Told | None = None
    target: Target = "pipeline"
    is_timed: bool = False
    direction: Callable[[Params], Direction] = lambda _params: "above"
    # Which levels make sense, in words for an error; raises ValueError.
    check_level: Callable[[float], None] = lambda _level: None


def judge(value: float | None, levels: Levels, direction: Direction) -> Verdict:
    """The highest level that the value reaches; a value that equals a threshold reaches it."""
    known = [
        (level, threshold)
        for level, threshold in ((Level.CRITICAL, levels.critical), (Level.WARNING, levels.warning))
        if threshold is not None
    ]
    lowest = known[-1][1]
    if value is None:
        return Verdict(Level.NONE, lowest, None, Lack.NO_DATA)
    for level, threshold in known:
        if value >= threshold if direction == "above" else value <= threshold:
            return Verdict(level, threshold, value)
    return Verdict(Level.NONE, lowest, value)


@dataclass(frozen=True, slots=True)
class Described:
    """What selectors and silences know of a target. A whole client has no pipeline, the fleet not even a client."""

    client_id: int
    pipeline_id: int
    client: str | None
    pipeline: str | None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    environment: str | None = None

    @property
    def name(self) -> str:
        """How a message calls it."""
        if self.client is None:
            return "all clients"
        return self.client if self.pipeline is None else f"{self.client}/{self.pipeline}"
