"""What all kinds have in common, and what is said of them."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pulsewatch.rules import KINDS, base
from pulsewatch.rules.base import Lack, Level, Levels, judge
from pulsewatch.rules.spans import spoken
from pulsewatch.rules.spec import RuleSpec

DOCUMENT = (Path(__file__).parents[2] / "docs" / "alert-kinds.md").read_text()
EXAMPLES = [json.loads(example) for example in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)]
ROWS = dict(re.findall(r"^\| `([a-z_]+)` \|(.*)$", DOCUMENT, re.MULTILINE))


def test_every_kind_has_one_file_one_line_and_one_test() -> None:
    here = Path(base.__file__).parent
    files = {path.stem for path in here.glob("*.py") if re.search(r"^KIND = ", path.read_text(), re.MULTILINE)}
    assert files == set(KINDS)
    tested = " ".join(
        path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_kinds.py"
    )
    assert all(f'KINDS["{name}"]' in tested for name in KINDS)


def test_every_kind_is_documented_with_an_example_that_is_a_rule() -> None:
    assert set(ROWS) == set(KINDS)
    assert {example["kind"] for example in EXAMPLES} == set(KINDS)
    for example in EXAMPLES:
        spec = RuleSpec.model_validate(example)
        for level in (spec.levels.warning, spec.levels.critical):
            if level is not None:
                assert spec.definition.describe(level, level, spec.parsed, {})


def test_the_table_names_each_parameter() -> None:
    for name, kind in KINDS.items():
        for param in kind.params.model_fields:
            assert f"`{param}`" in ROWS[name]
            assert kind.params.model_fields[param].description, f"{name}.{param} is not described"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_statement_asks_a_clock_or_writes(name: str) -> None:
    for statement in (KINDS[name].observe, KINDS[name].instants):
        words = set(re.findall(r"[a-z_]+", statement.lower()))
        assert not words & {
            "now",
            "current_timestamp",
            "clock_timestamp",
            "localtimestamp",
            "insert",
            "update",
            "delete",
        }


def test_those_that_grow_worse_in_silence_say_so() -> None:
    timed = {name for name, kind in KINDS.items() if kind.is_timed}
    assert timed == {"missed_run", "overrun", "freshness", "no_data", "client_no_data"}


def test_a_value_that_reaches_a_level_has_it_the_higher_one_first() -> None:
    levels = Levels(warning=3, critical=5)
    assert [judge(value, levels, "above").level for value in (2.9, 3, 4.9, 5, 9)] == [0, 1, 1, 2, 2]
    assert [judge(value, levels, "above").threshold for value in (0, 3, 5)] == [3, 3, 5]
    below = Levels(warning=5, critical=3)
    assert [judge(value, below, "below").level for value in (5.1, 5, 3.1, 3, -1)] == [0, 1, 1, 2, 2]


def test_one_level_alone_will_do_and_without_a_value_there_is_no_level() -> None:
    assert judge(9, Levels(critical=5), "above").level is Level.CRITICAL
    assert judge(4, Levels(critical=5), "above").threshold == 5
    nothing = judge(None, Levels(warning=5), "above")
    assert (nothing.level, nothing.lack, nothing.value) == (Level.NONE, Lack.NO_DATA, None)
    with pytest.raises(ValueError, match="give warning, critical or both"):
        Levels()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.25 s"), (59.9, "59.9 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3661, "1 h 1 min"),
     (86_400, "1 d"), (90_061, "1 d 1 h"), (86_460, "1 d")],
)  # fmt: skip
def test_times_are_told_in_their_two_greatest_units(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


@pytest.mark.parametrize(
    "name", ["freshness", "overrun", "no_data", "client_no_data", "ingestion", "duration_threshold"]
)
@pytest.mark.parametrize("level", [0, -1, 0.1234567, 316_224_001, 1e13, 1e300])
def test_no_time_is_longer_than_can_be_added_to_any_other(name: str, level: float) -> None:
    """One rule of one client must not make the statement of all rules of its kind fail."""
    with pytest.raises(ValidationError, match="seconds"):
        RuleSpec.model_validate({"kind": name, "levels": {"critical": level}})
    most = RuleSpec.model_validate({"kind": name, "levels": {"critical": 316_224_000}})
    assert most.levels.critical == 316_224_000
