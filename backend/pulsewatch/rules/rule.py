"""An alert rule as it is evaluated. Pure."""

from dataclasses import dataclass

from pulsewatch.rules.spec import RuleSpec


@dataclass(frozen=True, slots=True)
class Rule:
    """One version of an alert rule. `client_id` is None for a rule of all clients."""

    id: int
    client_id: int | None
    key: str
    version: int
    spec: RuleSpec
