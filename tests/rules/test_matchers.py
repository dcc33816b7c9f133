"""Which alerts a silence is about."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.matchers import Matchers, Silence, silenced_by

TARGET = Described(1, 7, "acme", "orders_load", ("nightly", "gold"), "dana", "prod")
WHOLE_CLIENT = Described(1, 0, "acme", None)
FLEET = Described(0, 0, None, None)


def matches(target: Described = TARGET, rule: str = "failing", level: Level = Level.WARNING, **said: Any) -> bool:
    return Matchers.model_validate(said).match(rule, target, level)


def test_whoever_means_every_alert_says_so() -> None:
    for target in (TARGET, WHOLE_CLIENT, FLEET):
        assert matches(target, rules=["*"])
    with pytest.raises(ValidationError, match="is every alert"):
        Matchers.model_validate({})


@pytest.mark.parametrize(
    "said",
    [
        {"rules": ["fail*"]},
        {"rules": ["late", "failing"]},
        {"levels": ["warning"]},
        {"clients": ["ac*"], "pipelines": ["orders_*"], "tags": ["gold"], "owners": ["dana"], "environments": ["prod"]},
    ],
)
def test_what_is_meant_is_matched(said: dict[str, Any]) -> None:
    assert matches(**said)


@pytest.mark.parametrize(
    "said",
    [
        {"rules": ["fail"]},
        {"levels": ["critical"]},
        {"rules": ["failing"], "levels": ["critical"]},
        {"rules": ["failing"], "clients": ["globex"]},
        {"tags": ["silver"]},
    ],
)
def test_all_that_is_given_must_match(said: dict[str, Any]) -> None:
    assert not matches(**said)


def test_a_pattern_of_pipelines_does_not_match_a_whole_client() -> None:
    assert not matches(WHOLE_CLIENT, pipelines=["*"])
    assert not matches(FLEET, clients=["*"])


def test_a_level_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValidationError, match="levels"):
        Matchers.model_validate({"levels": ["bad"]})


def test_the_first_silence_that_matches_is_named_and_one_of_another_client_is_not() -> None:
    every = Matchers(rules=("*",))
    silences = [
        Silence(UUID(int=1), 2, every),
        Silence(UUID(int=2), None, Matchers(levels=("critical",))),
        Silence(UUID(int=3), 1, every),
        Silence(UUID(int=4), None, every),
    ]
    assert silenced_by(silences, "failing", TARGET, Level.WARNING) == UUID(int=3)
    assert silenced_by(silences, "failing", TARGET, Level.CRITICAL) == UUID(int=2)
    assert silenced_by(silences, "failing", FLEET, Level.WARNING) == UUID(int=4)
    assert silenced_by(silences[:1], "failing", TARGET, Level.WARNING) is None
