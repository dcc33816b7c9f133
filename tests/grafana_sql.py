"""What Grafana makes of a query before PostgreSQL sees it: variables in the browser, macros in the data source.

After the sources of Grafana 9.4 and 13 (pkg/tsdb/grafana-postgresql-datasource, public/app/features/templating), as
far as the two agree; what they treat differently is refused here and never written in a dashboard.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

ALL = "$__all"
VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}")
MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
LENGTHS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}


class QueryError(Exception):
    """Grafana would refuse the query, or send something else than is meant, or that depends on its version."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is chosen of a variable: its values, or all with the text that stands for all."""

    values: tuple[str, ...]
    all_value: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The time range of a dashboard."""

    since: datetime
    until: datetime


def expand(sql: str, shown: Range, choices: Mapping[str, Choice], *, interval_ms: int = 3_600_000) -> str:
    """The statement that reaches PostgreSQL; `interval_ms` is $__interval, as the browser has worked it out.

    Raises QueryError.
    """
    if "--" in sql or "/*" in sql:
        raise QueryError("9.4 expands macros in comments, 13 strips them")
    if "[[" in sql:
        raise QueryError("[[name]] is an old form of variables that newer versions leave out")
    templated = VARIABLE.sub(lambda match: _variable(match, choices), sql)
    templated = templated.replace("$__interval_ms", str(interval_ms)).replace("$__interval", _interval(interval_ms))
    return _macros(templated, shown)


def _variable(match: re.Match[str], choices: Mapping[str, Choice]) -> str:
    name, form = match.groups()
    if name not in choices:
        raise QueryError(f"no variable {name}")
    if form != "sqlstring":
        raise QueryError(f"{match[0]}: only :sqlstring means the same in every version")
    choice = choices[name]
    # The text for all is put in as it stands; no format is applied to it.
    if choice.values == (ALL,):
        if choice.all_value is None:
            raise QueryError(f"{name}: all would expand to every value")
        return choice.all_value
    if not choice.values:
        raise QueryError(f"{name}: nothing chosen")
    for value in choice.values:
        if '"' in value:
            raise QueryError(f'{name}: newer versions turn " into \\"')
        if "$" in value:
            raise QueryError(f"{name}: what looks like a macro in a value would be expanded")
    return ",".join("'" + value.replace("'", "''") + "'" for value in choice.values)


def _macros(sql: str, shown: Range) -> str:
    def put(match: re.Match[str]) -> str:
        name, text = match.groups()
        if "(" in text:
            raise QueryError(f"{match[0]}: a call inside a macro is cut at its first parenthesis")
        arguments = [argument.strip() for argument in text.split(",")]
        if name == "__timeGroup" and sql[match.end() :].startswith(","):
            raise QueryError("$__timeGroup(...) before a comma silently becomes $__timeGroupAlias")
        return _macro(name, [argument for argument in arguments if argument], shown)

    made = MACRO.sub(put, sql)
    if left := re.search(r"\$\w+|\$\{", made):
        raise QueryError(f"{left[0]}: nothing that Grafana expands, or a variable without a form")
    return made


def _macro(name: str, arguments: list[str], shown: Range) -> str:
    """Raises QueryError for a macro that Grafana does not know, or too few or too many arguments."""
    since_s, until_s = int(shown.since.timestamp()), int(shown.until.timestamp())
    match name, arguments:
        case "__time", [column]:
            return f'{column} AS "time"'
        case "__timeEpoch", [column]:
            return f'extract(epoch from {column}) as "time"'
        case "__timeFilter", [column]:
            return f"{column} BETWEEN '{rfc3339(shown.since)}' AND '{rfc3339(shown.until)}'"
        case "__timeFrom", []:
            return f"'{rfc3339(shown.since)}'"
        case "__timeTo", []:
            return f"'{rfc3339(shown.until)}'"
        case (("__timeGroup" | "__timeGroupAlias"), [column, width]):
            return _group(f"extract(epoch from {column})", width) + _alias(name)
        case (("__unixEpochGroup" | "__unixEpochGroupAlias"), [column, width]):
            return _group(f"({column})", width) + _alias(name)
        case "__unixEpochFilter", [column]:
            return f"{column} >= {since_s} AND {column} <= {until_s}"
        case "__unixEpochFrom", []:
            return str(since_s)
        case "__unixEpochTo", []:
            return str(until_s)
        case "__unixEpochNanoFilter", [column]:
            return f"{column} >= {since_s}000000000 AND {column} <= {until_s}000000000"
    raise QueryError(f"{name}({', '.join(arguments)}): no macro, or one whose meaning depends on the version")


def _group(seconds: str, width: str) -> str:
    found = re.fullmatch(r"(\d+)([smhdwMy])", width.strip("'"))
    if found is None:
        raise QueryError(f"{width} is no interval")
    length = int(found[1]) * LENGTHS_S[found[2]]
    return f"floor({seconds}/{length})*{length}"


def _alias(name: str) -> str:
    return ' AS "time"' if name.endswith("Alias") else ""


def _interval(interval_ms: int) -> str:
    """As Grafana writes an interval: in its largest whole unit."""
    for unit in ("y", "d", "h", "m", "s"):
        if interval_ms >= LENGTHS_S[unit] * 1000:
            return f"{interval_ms // (LENGTHS_S[unit] * 1000)}{unit}"
    return f"{interval_ms}ms"


def rfc3339(at: datetime) -> str:
    """As Go's RFC3339Nano, in UTC: no zeros at the end of the fraction."""
    moment = at.astimezone(UTC)
    fraction = f"{moment.microsecond:06d}".rstrip("0")
    return f"{moment:%Y-%m-%dT%H:%M:%S}" + (f".{fraction}" if fraction else "") + "Z"
