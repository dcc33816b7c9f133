"""Which targets a rule or a silence is about. Pure."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pulsewatch.rules.base import Described

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=100)]


class Selector(BaseModel):
    """Patterns in which * stands for any characters. All that are given must match, of each list any one.

    Nothing given: every target. Upper and lower case differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clients: Patterns = Field((), description="Slugs of clients.")
    pipelines: Patterns = Field((), description="Slugs of pipelines.")
    tags: Patterns = Field((), description="Tags; a pipeline matches with any of its tags.")
    owners: Patterns = Field((), description="Owners.")
    environments: Patterns = Field((), description="Environments.")

    def matches(self, target: Described) -> bool:
        """Whether it picks this target. What a target does not have matches no pattern."""
        return (
            _any(self.clients, [target.client])
            and _any(self.pipelines, [target.pipeline])
            and _any(self.tags, target.tags)
            and _any(self.owners, [target.owner])
            and _any(self.environments, [target.environment])
        )


def _any(patterns: Sequence[str], words: Sequence[str | None]) -> bool:
    return not patterns or any(word is not None and fits(word, pattern) for pattern in patterns for word in words)


def fits(word: str, pattern: str) -> bool:
    """Whether a word fits a pattern in which * stands for any characters, and nothing else has a meaning.

    Each part between two stars is taken where it is found first, for good: however many stars there are, a word is
    read about once for each. Not by regular expressions: people may give thousands of patterns, and to compile them
    takes so much longer than to match them that a few silences could hold up all alerts.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return word == pattern
    *between, last = rest
    if not word.startswith(first):
        return False
    place = len(first)
    for part in between:
        found = word.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return place + len(last) <= len(word) and word.endswith(last)
