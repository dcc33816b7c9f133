"""What the last run tells: what kinds share that look at its numbers."""

from typing import Literal

from pydantic import Field

from pulsewatch.rules.base import Direction, Params, Told
from pulsewatch.rules.known_runs import newest_run
from pulsewatch.rules.spans import runs_of_span

Ended = Literal["succeeded", "failed", "timed_out", "cancelled", "skipped"]


class LastRun(Params):
    """Of which runs, and whether more is worse or less is."""

    direction: Literal["above", "below"] = Field("above", description="above: more is worse; below: less is.")
    statuses: tuple[Ended, ...] = Field(("succeeded",), min_length=1, description="Runs that ended so are looked at.")


def told(number: str) -> Told:
    """What is told where the last outcome is a success, by this expression over what `asked` has of it."""
    return Told(
        of="asked.statuses = '{succeeded}'",
        where=f"asked.last_outcome = 'succeeded' and {number} is not null",
        value=number,
    )


def observe(number: str, known: Told | None = None) -> str:
    """The statement of a kind whose value is this expression over `run`, of the newest run that has it.

    `known` is what is told of it without a look at runs.
    """
    where = f"run.finished_at is not null and run.status = any(asked.statuses) and {number} is not null"
    looked = f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of, newest.value, newest.finished_at as sample_at,
    null::timestamptz as next_at, case when newest.id is null then '{{}}' else array[newest.id] end as run_ids,
    null::jsonb as evidence
from asked
left join lateral ({newest_run(f"run.finished_at, {number} as value", where)}) as newest on true
"""
    if known is None:
        return looked
    return f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of, {known.value} as value,
    asked.last_finished_at as sample_at, {known.next_at} as next_at, array[asked.last_outcome_run_id] as run_ids,
    null::jsonb as evidence
from asked
where {known.condition}
union all
{looked}
where ({known.condition}) is not true
"""


# A run counts from its end on.
INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, run.finished_at as as_of
from span
cross join lateral {runs_of_span()} as run
where run.finished_at >= span.from_at and run.finished_at < span.to_at
"""


def direction(params: Params) -> Direction:
    """As its parameters say."""
    assert isinstance(params, LastRun)  # noqa: S101 - narrows the type
    return params.direction
