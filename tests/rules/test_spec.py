"""What an alert rule may say."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pulsewatch.rules.base import Described
from pulsewatch.rules.selectors import Selector, fits
from pulsewatch.rules.spec import RuleSpec, fill_in

MINIMAL: dict[str, Any] = {"kind": "consecutive_failures", "levels": {"warning": 3}}
TARGET = Described(1, 2, "acme", "load.orders", ("nightly", "etl"), "data", "prod")
CLIENT = Described(1, 0, "acme", None)


def test_a_kind_and_a_level_are_enough() -> None:
    spec = RuleSpec.model_validate(MINIMAL)
    assert (spec.for_s, spec.on_no_data, spec.repeat_s, spec.is_enabled, spec.channels) == (0, "keep", 14_400, True, ())
    assert spec.parsed.model_dump() == {"statuses": ("failed", "timed_out")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "nonsense"}, "there is no kind 'nonsense'; known are client_no_data, consecutive_failures"),
        ({"levels": {}}, "give warning, critical or both"),
        ({"levels": {"warning": 3, "critical": 2}}, "critical must be above warning"),
        ({"levels": {"warning": 2.5}}, "a number of runs from 1 to 50"),
        ({"levels": {"warning": float("nan")}}, "finite number"),
        ({"kind": "failure_rate", "levels": {"warning": 0.5}}, "window_s"),
        ({"params": {"statuses": ["lost"]}}, "statuses"),
        ({"params": {"other": 1}}, "other"),
        ({"for_s": -1}, "greater than or equal to 0"),
        ({"for_s": float("inf")}, "finite number"),
        ({"repeat_s": 1}, "greater than or equal to 60"),
        ({"recover_consecutive": 0}, "greater than or equal to 1"),
        ({"runbook_url": "javascript:alert(1)"}, "String should match pattern"),
        ({"channels": ["no slug!"]}, "String should match pattern"),
        ({"annotations": {"summary": "{{ password }}"}}, "there is no placeholder 'password'; known are client"),
        ({"annotations": {"summary": "{{ Value }}"}}, "there is no placeholder 'Value'"),
        ({"annotations": {"summary": "{{value2}}"}}, "there is no placeholder 'value2'"),
        ({"annotations": {"summary": "{{ labels.team }}"}}, "there is no placeholder 'labels.team'"),
        ({"annotations": {"summary": "{{}}"}}, "there is no placeholder ''"),
        ({"labels": {"1st": "x"}}, "String should match pattern"),
        ({"surprise": True}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        RuleSpec.model_validate(MINIMAL | change)
    assert words in str(refused.value)


def test_where_less_is_worse_critical_is_the_lower_one() -> None:
    below = {"kind": "metric_threshold", "params": {"metric": "rows", "direction": "below"}}
    assert RuleSpec.model_validate(below | {"levels": {"warning": 10, "critical": 0}}).levels.critical == 0
    with pytest.raises(ValidationError, match="critical must be below warning"):
        RuleSpec.model_validate(below | {"levels": {"warning": 0, "critical": 10}})


def test_a_rule_survives_being_stored() -> None:
    spec = RuleSpec.model_validate(
        MINIMAL | {"selector": {"tags": ["etl"]}, "annotations": {"summary": "{{ client }}"}}
    )
    assert RuleSpec.model_validate_json(spec.model_dump_json()) == spec


def test_placeholders_are_filled_in_and_nothing_else_has_a_meaning() -> None:
    text = "{{client}}/{{ pipeline }} {{  level  }} {% if x %} {{ owner.name }} {{ owner }}"
    values = {"client": "acme", "pipeline": "{{ client }}", "level": "warning", "owner": None}
    assert fill_in(text, values) == "acme/{{ client }} warning {% if x %} {{ owner.name }} "


# -- selectors ---------------------------------------------------------------------------------------------------


def matches(target: Described = TARGET, **patterns: list[str]) -> bool:
    return Selector.model_validate(patterns).matches(target)


def test_nothing_given_picks_everything() -> None:
    assert matches()
    assert matches(CLIENT)


def test_all_lists_must_match_and_of_each_any_pattern() -> None:
    assert matches(clients=["globex", "acme"], tags=["etl"])
    assert not matches(clients=["acme"], tags=["hourly"])


def test_a_star_stands_for_any_characters_and_nothing_else_does() -> None:
    assert matches(pipelines=["load.*"])
    assert matches(pipelines=["*orders"])
    assert matches(pipelines=["*"])
    assert matches(pipelines=["l**d*o*s"])
    assert not matches(pipelines=["load?orders"])
    assert not matches(pipelines=["load"])
    assert not matches(Described(1, 2, "acme", "loadXorders"), pipelines=["load.orders"])
    assert not matches(pipelines=["LOAD.*"])


def test_what_a_target_does_not_have_matches_no_pattern() -> None:
    assert not matches(CLIENT, pipelines=["*"])
    assert not matches(CLIENT, owners=["*"])
    assert not matches(CLIENT, tags=["*"])
    assert matches(owners=["da*"], environments=["prod"])


def test_an_odd_pattern_takes_no_time() -> None:
    assert not fits("a" * 99 + "b", "*a" * 40)
    assert fits("a" * 99 + "b", "*a" * 40 + "*")


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", max_size=10))
def test_patterns_match_as_a_shell_would(pattern: str, word: str) -> None:
    assert fits(word, pattern) == fnmatchcase(word, pattern)


def test_patterns_are_neither_empty_nor_too_many() -> None:
    for wrong in ({"clients": [""]}, {"clients": ["a"] * 101}, {"tag": ["a"]}):
        with pytest.raises(ValidationError):
            Selector.model_validate(wrong)
