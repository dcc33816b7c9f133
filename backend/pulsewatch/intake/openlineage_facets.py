"""What the facets of an OpenLineage event say, in PulseWatch's words. Pure.

A facet is optional, and anybody's to extend: one that is unknown, or holds something else than its specification
says, is passed over and never makes an event fail.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pulsewatch import catalog
from pulsewatch.events import Parent

MAX_NAME = 512
MAX_SHORT = 255
MAX_MESSAGE = 10_000
MAX_LISTED = 20
MAX_OWNER = 200
MAX_TAG = 100

# What PostgreSQL cannot hold: NUL, and half a surrogate pair, which is no character.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with every character that PostgreSQL cannot hold replaced by U+FFFD."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def dig(value: object, *path: str) -> Any:
    """The member that lies at the path through nested objects; None where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value: object, max_length: int = MAX_SHORT) -> str | None:
    """A text fit to be stored, cut to its length; None where the value is no text, or blank."""
    if not isinstance(value, str) or not value.strip():
        return None
    value = storable(value)
    return value if len(value) <= max_length else f"{value[: max_length - 1]}…"


def parent(run_facets: object) -> Parent | None:
    """The run that started this one. Old producers call the facet parentRun."""
    for facet in (dig(run_facets, "parent"), dig(run_facets, "parentRun")):
        namespace, name = dig(facet, "job", "namespace"), dig(facet, "job", "name")
        run = dig(facet, "run", "runId")
        if (
            isinstance(namespace, str)
            and isinstance(name, str)
            and isinstance(run, str)
            and len(namespace) <= MAX_NAME
            and 0 < len(name) <= MAX_NAME
            and 0 < len(run) <= MAX_SHORT
        ):
            return Parent(storable(name), storable(run), storable(namespace))
    return None


_PYTHON_FRAME = re.compile(r'\s+File "')
_PYTHON_CLASS = re.compile(r"([A-Za-z_][\w.]*)(?::|$)", re.ASCII)
_JAVA_CLASS = re.compile(r'(?:Exception in thread "[^"]*" )?([A-Za-z_$][\w$]*(?:\.[\w$]+)*)(?::|$)', re.ASCII)
_JAVA_FRAME = re.compile(r"^\s+at ", re.MULTILINE)
# In a message only a name that ends so is taken for a class: "Database Error in model x" holds none.
_MESSAGE_CLASS = re.compile(r"([A-Za-z_$][\w.$]*[\w$](?:Error|Exception))(?=[:(]|$)", re.ASCII)


def error_class(message: object, stack_trace: object) -> str | None:
    """The class of the exception, where the stack trace or the message plainly names one."""
    name = _class_of_trace(stack_trace) if isinstance(stack_trace, str) else None
    if name is None and isinstance(message, str):
        found = _MESSAGE_CLASS.match(message.lstrip()[:MAX_SHORT])
        name = found[1] if found else None
    return name if name is not None and len(name) <= MAX_SHORT else None


def _class_of_trace(trace: str) -> str | None:
    """Python names the exception below the last frame, Java above the first."""
    lines = trace.strip().splitlines()
    frames = [position for position, line in enumerate(lines) if _PYTHON_FRAME.match(line)]
    if frames:
        below = (line for line in lines[frames[-1] + 1 :] if line and not line[0].isspace())
        found = _PYTHON_CLASS.match(next(below, "")[: MAX_SHORT + 1])
    elif _JAVA_FRAME.search(trace):
        found = _JAVA_CLASS.match(lines[0][: 2 * MAX_SHORT])
    else:
        return None
    return found[1] if found else None


def metrics(event: dict[str, Any]) -> dict[str, float] | None:
    """Rows and bytes written and read, summed over the datasets; assertions and tests passed and failed."""
    inputs, outputs = _datasets(event, "inputs"), _datasets(event, "outputs")
    written = [dig(dataset, "outputFacets", "outputStatistics") for dataset in outputs]
    read = [dig(dataset, "inputFacets", "inputStatistics") for dataset in inputs]
    verdicts = list(_verdicts(event))
    has_verdicts = bool(verdicts)
    passed = sum(is_good for _, is_good in verdicts)
    found = {
        "rows": _sum(written, "rowCount"),
        "bytes": _sum(written, "size"),
        "input_rows": _sum(read, "rowCount"),
        "input_bytes": _sum(read, "size"),
        "assertions_passed": float(passed) if has_verdicts else None,
        "assertions_failed": float(len(verdicts) - passed) if has_verdicts else None,
    }
    return {name: value for name, value in found.items() if value is not None} or None


def _datasets(event: dict[str, Any], side: str) -> list[Any]:
    datasets = event.get(side)
    return datasets if isinstance(datasets, list) else []


def _sum(facets: Iterable[object], field: str) -> float | None:
    """The sum of what the facets say; None where none says a number. Spark writes -1 where it does not know."""
    numbers = [
        number
        for number in (dig(facet, field) for facet in facets)
        if isinstance(number, int | float) and not isinstance(number, bool) and number >= 0
    ]
    if not numbers:
        return None
    try:
        total = float(sum(numbers))
    except OverflowError:
        return None
    return total if math.isfinite(total) else None


def _verdicts(event: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Every data quality assertion and test that was judged: its name, and whether it passed."""
    for side, own in (("inputs", "inputFacets"), ("outputs", "outputFacets")):
        for dataset in _datasets(event, side):
            of_dataset = dig(dataset, own, "dataQualityAssertions") or dig(dataset, "facets", "dataQualityAssertions")
            for assertion in _members(of_dataset, "assertions"):
                is_good = assertion.get("success")
                if isinstance(is_good, bool):
                    yield _name_of(assertion, "assertion"), is_good
    for test in _members(dig(event, "run", "facets", "test"), "tests"):
        if test.get("status") in ("pass", "fail"):
            yield _name_of(test, "type"), test["status"] == "pass"


def _members(facet: object, field: str) -> list[dict[str, Any]]:
    members = dig(facet, field)
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _name_of(verdict: dict[str, Any], kind: str) -> str:
    name = text(verdict.get("name")) or text(verdict.get(kind)) or "unnamed"
    column = text(verdict.get("column"))
    return f"{name}({column})" if column else name


def attributes(event: dict[str, Any]) -> dict[str, Any] | None:
    """What is worth keeping beside the columns: kind of job, engine, tags of the run, names of failed assertions."""
    run_facets, job_facets = dig(event, "run", "facets"), dig(event, "job", "facets")
    found: dict[str, Any] = {
        name: text(dig(facets, facet, field))
        for name, facets, facet, field in (
            ("processing_type", job_facets, "jobType", "processingType"),
            ("integration", job_facets, "jobType", "integration"),
            ("job_type", job_facets, "jobType", "jobType"),
            ("engine", run_facets, "processing_engine", "name"),
            ("engine_version", run_facets, "processing_engine", "version"),
            ("adapter_version", run_facets, "processing_engine", "openlineageAdapterVersion"),
        )
    }
    found["tags"] = _tags(run_facets)
    failed = dict.fromkeys(name for name, is_good in _verdicts(event) if not is_good)
    found["failed_assertions"] = list(failed)[:MAX_LISTED]
    return {name: value for name, value in found.items() if value} or None


def pipeline_changes(job_facets: object) -> dict[str, Any]:
    """What the facets of the job say of the pipeline: its owner and tags. Empty where they say nothing.

    A facet that is marked as deleted clears its field.
    """
    raw: dict[str, object] = {}
    ownership, tags = dig(job_facets, "ownership"), dig(job_facets, "tags")
    if dig(ownership, "_deleted") is True:
        raw["owner"] = None
    elif owner := _owner(ownership):
        raw["owner"] = owner
    if dig(tags, "_deleted") is True:
        raw["tags"] = None
    elif said := _tags(job_facets):
        raw["tags"] = said
    changes, _ = catalog.validate_pipeline_changes(raw)
    return changes


def _owner(facet: object) -> str | None:
    """All owners in one text, as many as fit."""
    owners: dict[str, None] = {}
    for member in _members(facet, "owners"):
        name = text(member.get("name"), MAX_OWNER)
        if name and len(", ".join([*owners, name])) <= MAX_OWNER:
            owners[name] = None
    return ", ".join(owners) or None


def _tags(facets: object) -> list[str]:
    """Tags as `key`, or `key:value` where the value says more: Airflow repeats the key, dbt writes "true"."""
    tags = set()
    for member in _members(dig(facets, "tags"), "tags"):
        key, value = text(member.get("key"), MAX_TAG), text(member.get("value"), MAX_TAG)
        if key:
            tags.add(key if value in (None, key) or value.lower() == "true" else f"{key}:{value}")
    return sorted(tag for tag in tags if len(tag) <= MAX_TAG)[: catalog.MAX_TAGS]
