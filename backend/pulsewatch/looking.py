"""Looks at what rules watch, for ticks: at all of them at once, or kind by kind and without those that fail.

What a rule asks for, or a run reports, may be more than the database can work out, or takes too long. Nearly always
all goes well, and the way back from a statement that failed costs as much as looking at a hundred targets: so a tick
goes without one, until it needs it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from time import monotonic
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError

from pulsewatch.db import fetch, fetch_named
from pulsewatch.observing import rules_json
from pulsewatch.observing_sql import BOUNDS, BY_KEYS, DUE_SQL, live_sql
from pulsewatch.rules import KINDS
from pulsewatch.rules.rule import Rule

log = logging.getLogger(__name__)

# A kind that takes longer is an error of its rules, not of all; of the rule that takes so long, where that is found.
KIND_TIMEOUT_S = 10.0
LEAST_TIMEOUT_S = 2.0
# No longer than that: ticks must go on.
SEARCH_TIMEOUT_S = 30.0
QUERY_CANCELED = "57014"

# A row of what is seen, and whether it could not be looked at.
Seen = tuple[Any, bool]


class LookFailedError(Exception):
    """The database could not work it out, for whatever reason; nothing is done. Says why in the database's words."""


def bounds(timeout_s: float | None = None) -> tuple[str, dict[str, Any]]:
    """The statement that sets how a look in this transaction is planned, and how long it may take (None: as usual)."""
    return BOUNDS, {"timeout_ms": int((KIND_TIMEOUT_S if timeout_s is None else timeout_s) * 1000)}


def unbounded() -> tuple[str, dict[str, Any]]:
    """The same for what must be done, however long it takes."""
    return BOUNDS, {"timeout_ms": 0}


def look_or_fail(connection: Connection, rules: Sequence[Rule], due: Mapping[str, Any], *, is_many: bool) -> list[Seen]:
    """What there is to see of rules, in the caller's transaction. `due`: the times, and which pipelines are touched.

    The usual `bounds` must be set. Raises LookFailedError, after which the transaction must be rolled back.
    """
    try:
        return _look_at_once(connection, rules, due, is_many)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise LookFailedError(_why(error)) from error


def look(connection: Connection, rules: Sequence[Rule], due: Mapping[str, Any], *, is_many: bool) -> list[Seen]:
    """The same kind by kind, and without the rules that cannot be looked at."""
    return [
        row
        for some in _by_kind(rules).values()
        for row in _look(connection, some, due, is_many, KIND_TIMEOUT_S, monotonic() + SEARCH_TIMEOUT_S)
    ]


def _look(
    connection: Connection,
    rules: Sequence[Rule],
    due: Mapping[str, Any],
    is_many: bool,
    timeout_s: float,
    until: float,
) -> list[Seen]:
    """The rules of one kind; where that fails halves by halves, until that time of the monotonic clock."""
    try:
        with connection.begin_nested():
            fetch(connection, *bounds(timeout_s))
            return _look_at_once(connection, rules, due, is_many)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        is_slow = getattr(error.orig, "sqlstate", None) == QUERY_CANCELED
        if (is_slow or isinstance(error, DataError)) and len(rules) > 1 and monotonic() < until:
            half, less_s = len(rules) // 2, max(timeout_s / 2, LEAST_TIMEOUT_S) if is_slow else timeout_s
            return [
                *_look(connection, rules[:half], due, is_many, less_s, until),
                *_look(connection, rules[half:], due, is_many, less_s, until),
            ]
        log.error("alert rules of kind %s cannot be evaluated: %s", rules[0].spec.kind, _why(error))
        return [(row, True) for row in fetch_named(connection, DUE_SQL, _asking(rules, due))]


def _why(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n")[0]


def _look_at_once(connection: Connection, rules: Sequence[Rule], due: Mapping[str, Any], is_many: bool) -> list[Seen]:
    statement = live_sql(tuple(KINDS[name] for name in _by_kind(rules)), is_many=is_many)
    if is_many:
        fetch(connection, BY_KEYS, {"by_key": "off"})
    seen = [(row, False) for row in fetch_named(connection, statement, _asking(rules, due))]
    if is_many:
        # What is written is little, whatever was touched.
        fetch(connection, BY_KEYS, {"by_key": "on"})
    return seen


def _asking(rules: Sequence[Rule], due: Mapping[str, Any]) -> dict[str, Any]:
    """What the statements that look at rules are given."""
    # A second more, for what is rounded otherwise here and there.
    longest_delay_s = max(rule.spec.evaluation_delay_s for rule in rules) + 1
    return {
        **due,
        "rules": rules_json(rules),
        "rule_ids": [rule.id for rule in rules],
        "earliest": due["as_of"] - timedelta(seconds=longest_delay_s),
    }


def _by_kind(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    ordered = sorted(rules, key=lambda rule: (rule.spec.kind, rule.id))
    return {name: list(group) for name, group in groupby(ordered, key=lambda rule: rule.spec.kind)}
