"""Which alerts a silence is about. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.selectors import Patterns, Selector, fits


class Matchers(BaseModel):
    """Patterns in which * stands for any characters. All that are given must match, of each list any one.

    At least one is given: whoever means every alert says so, with the rules `*`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: Patterns = Field((), description="Keys of rules.")
    clients: Patterns = Field((), description="Slugs of clients.")
    pipelines: Patterns = Field((), description="Slugs of pipelines.")
    tags: Patterns = Field((), description="Tags; a pipeline matches with any of its tags.")
    owners: Patterns = Field((), description="Owners.")
    environments: Patterns = Field((), description="Environments.")
    levels: Annotated[tuple[Literal["warning", "critical"], ...], Field(max_length=2)] = Field(
        (), description="Only alerts that are this bad now."
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f'give {", ".join(type(self).model_fields)} or several; {{"rules": ["*"]}} is every alert')
        return self

    def match(self, rule_key: str, target: Described, level: Level) -> bool:
        """Whether they are about an alert of this rule on this target, as bad as this."""
        return (
            (not self.rules or any(fits(rule_key, pattern) for pattern in self.rules))
            and (not self.levels or level.word in self.levels)
            and self._selector().matches(target)
        )

    def _selector(self) -> Selector:
        return Selector.model_construct(**{name: getattr(self, name) for name in Selector.model_fields})


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence that holds. `client_id` is None for one of all clients."""

    id: UUID
    client_id: int | None
    matchers: Matchers

    def covers(self, rule_key: str, target: Described, level: Level) -> bool:
        """Whether it is about an alert of this rule on this target, as bad as this."""
        is_its_own = self.client_id is None or self.client_id == target.client_id
        return is_its_own and self.matchers.match(rule_key, target, level)


def silenced_by(silences: Iterable[Silence], rule_key: str, target: Described, level: Level) -> UUID | None:
    """The first silence that covers such an alert; None if there is none."""
    return next((silence.id for silence in silences if silence.covers(rule_key, target, level)), None)
