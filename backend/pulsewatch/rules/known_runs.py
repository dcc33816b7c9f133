"""Runs as they were at a time, by what was known then: the one way in which rules read runs."""

from typing import Literal

# As far as a pipeline's state looks.
NEWEST = 64

# What had been received of a run of which more came later is worked out again from its events, by the function
# pulsewatch.run_as_known: as a part of the statement it would make each plan many times as large.

# How the rows of a target are found.
Of = Literal["pipeline", "client"]
KEY: dict[Of, str] = {
    "pipeline": "{0}.client_id = {1}.client_id and {0}.pipeline_id = {1}.pipeline_id",
    "client": "{0}.client_id = {1}.client_id",
}

_KNOWN = """
    select
        known.id, known.order_at, known.first_at, known.last_at, known.started_at, known.scheduled_at,
        known.received_at,
        case when known.has_ended then known.finished_at end as finished_at,
        case
            when known.has_ended then known.status
            when known.status <> 'queued' and known.started_at <= asked.as_of then 'running'
            else 'queued'
        end as status,
        case
            when known.has_ended then coalesce(
                known.said_duration_s,
                case
                    when known.finished_at >= known.start_at
                        then extract(epoch from known.finished_at - known.start_at)::double precision
                end
            )
        end as duration_s,
        case when known.has_ended then known.error_class end as error_class,
        case
            when known.has_ended
                then coalesce(known.opening_metrics, '{{}}') || coalesce(known.winner_metrics, '{{}}')
        end as metrics
    from (
        select
            recent.id, {order_at} as order_at, version.*,
            coalesce(version.start_at, version.implied_start_at) as started_at,
            coalesce(version.winner_scheduled_at, version.opening_scheduled_at) as scheduled_at,
            coalesce(version.finished_at <= asked.as_of, false) as has_ended
        from (
            select
                run.client_id, run.id, run.first_at, run.last_at, run.status, run.finished_at, run.said_duration_s,
                run.implied_start_at, run.error_class, run.winner_scheduled_at, run.winner_metrics,
                run.opening_scheduled_at, run.opening_metrics, run.start_at, run.received_at, run.opened_at
            from pulsewatch.run
            where {key}
                and run.first_at <= asked.as_of
                and run.first_at >= {since}
                and run.first_at <= {until}
                and run.first_received_at < asked.known_at
                and ({only})
            order by run.first_at desc
            {limit}
        ) as recent
        cross join lateral (
            select
                recent.first_at, recent.last_at, recent.status, recent.finished_at, recent.said_duration_s,
                recent.implied_start_at, recent.error_class, recent.winner_scheduled_at, recent.winner_metrics,
                recent.opening_scheduled_at, recent.opening_metrics, recent.start_at, recent.received_at
            where recent.received_at < asked.known_at
            union all
            select
                told.first_at, told.last_at, told.status, told.finished_at, told.said_duration_s,
                told.implied_start_at, told.error_class, told.winner_scheduled_at, told.winner_metrics,
                told.opening_scheduled_at, told.opening_metrics, told.start_at, told.received_at
            from (select where recent.received_at >= asked.known_at) as late
            cross join lateral pulsewatch.run_as_known(
                recent.client_id, recent.id, recent.opened_at, recent.last_at, asked.known_at
            ) as told
            where told.first_at <= asked.as_of
        ) as version
        -- Said again, or the planner forgets it and sorts.
        order by recent.first_at desc
        offset 0
    ) as known
"""


def _select(order_at: str, since: str, until: str, newest: int | None, only: str, of: Of) -> str:
    return _KNOWN.format(
        order_at=order_at,
        key=KEY[of].format("run", "asked"),
        since=since,
        until=until,
        only=only,
        limit="" if newest is None else f"limit {newest}",
    )


def known_runs(
    *,
    since: str = "'-infinity'",
    until: str = "asked.as_of",
    newest: int | None = NEWEST,
    only: str = "true",
    of: Of = "pipeline",
) -> str:
    """A table expression for `cross join lateral`: runs of the target of `asked`, in no order.

    As they were at asked.as_of, by the events received before asked.known_at ('infinity': all there are). A run that
    had not begun by then, or was not known, is left out; one that had not ended has status running or queued, and no
    finished_at. Columns: id, first_at, last_at, started_at, scheduled_at, finished_at, status, received_at (of the
    latest known event that changed it), and of those that have ended duration_s, error_class, metrics (jsonb).

    `since` and `until` are expressions over `asked`: the earliest and the latest first_at of rows that are looked at,
    as they are now; none that is later than asked.as_of is. `newest`: so many of those that were known are looked at;
    None: all since then. `only` is a condition on the row `run`, to read less: it must hold for every row that is
    wanted, and wherever run.received_at >= asked.known_at.
    """
    return f"({_select('version.first_at', since, until, newest, only, of)})"


def newest_run(columns: str, where: str, *, if_: str = "true") -> str:
    """A select of the newest run of the target of `asked` for which a condition on `run` holds; none if there is none.

    By the first_at that was known then; of equals that of the greater id. Where asked.is_settled tells that nothing
    was received since, that is the first_at of its row, and rows are read one by one until it is found. Each row costs
    a microsecond or two, and there are tens of thousands of targets. Without `if_`, a condition on what was found
    before, nothing is read.
    """
    orders = {"asked.is_settled": "recent.first_at", "not asked.is_settled": "version.first_at"}
    return "\nunion all\n".join(
        f"""(
    select first.*
    from (
        select newest.*
        from (
            select run.id, run.order_at, {columns}
            from ({_select(order_at, "'-infinity'", "asked.as_of", NEWEST, "true", "pipeline")}) as run
            where {where}
            order by run.order_at desc
            fetch first 1 row with ties
        ) as newest
        order by newest.id desc
        limit 1
    ) as first
    where {condition} and {if_}
)"""
        for condition, order_at in orders.items()
    )


# Of `rule`, what `asked` has of its params: worked out once for a rule, not once for each of its targets.
PARAMS = """
    make_interval(secs => (rule.params ->> 'window_s')::double precision) as width,
    array(select jsonb_array_elements_text(rule.params -> 'statuses')) as statuses
"""

# Of asked.last_outcome and what goes with it, where the pipeline's state is not asked.
UNTOLD = """
    null::text as last_outcome, null::uuid as last_outcome_run_id, null::timestamptz as last_finished_at,
    null::double precision as last_duration_s, null::timestamptz as last_success_at,
    null::timestamptz as last_failure_hour_at, null::smallint as consecutive_failures
"""


def held_until(target: str, known_at: str, condition: str) -> str:
    """A table expression for `left join lateral`: until when nothing new fires on a pipeline, null: it is not held.

    A history that is loaded shows the pipeline as bad as it was at some time of its past. The newest run that is known
    was last told of over an hour late: then more may be on its way for two minutes after each arrival.
    """
    return f"""(
    select arriving.held_until
    from (
        select
            max(run.received_at) + interval '2 minutes' as held_until,
            (array_agg(run.received_at - run.last_at order by run.order_at desc, run.id desc))[1] as late_by
        from (
            select {target}.client_id, {target}.pipeline_id, {target}.as_of, {known_at} as known_at
        ) as asked
        cross join lateral {known_runs(newest=8)} as run
    ) as arriving
    where {condition}
        and {known_at} < 'infinity'
        and {target}.pipeline_id > 0
        and arriving.late_by >= interval '1 hour'
    offset 0
)"""


# The last hour that may count a run which was over by then. Hours tell of runs as they came out: one that was tried
# again since is counted where that ended.
LAST_HOUR = "case when asked.is_settled then asked.as_of else asked.as_of + interval '7 days' end"

# When something was received of a pipeline of `span`, or of any of a client's; the second half of what `instants` are
# for backtests by what was known then. What is older than a week is found by its run: few of these change so late.
ARRIVALS = """
select span.rule_id, span.client_id, span.pipeline_id, event.received_at as as_of
from span
cross join lateral (
    select distinct event.received_at
    from pulsewatch.run_event as event
    where event.client_id = span.client_id
        and span.pipeline_id in (event.pipeline_id, 0)
        and event.received_at >= span.from_at
        and event.received_at < span.to_at
        and event.occurred_at >= span.from_at - interval '7 days'
    offset 0
) as event
union all
select span.rule_id, span.client_id, span.pipeline_id, event.received_at
from span
cross join lateral (
    select distinct event.received_at
    from pulsewatch.run
    join pulsewatch.run_event as event
        on event.client_id = run.client_id
        and event.occurred_at between run.opened_at and run.last_at
        and event.occurred_at < span.from_at - interval '7 days'
        and event.run_id = run.id
    where run.client_id = span.client_id
        and span.pipeline_id in (run.pipeline_id, 0)
        and run.first_at < span.from_at - interval '7 days'
        and run.received_at >= span.from_at
        and event.received_at >= span.from_at
        and event.received_at < span.to_at
    offset 0
) as event
"""

# What is known already of a time to come, where the clocks of producers are ahead or a rule looks back: pipelines of
# `asked` have to be looked at again then, whatever their rules. Kinds leave it out of their next_at.
# The events ahead of the present (COMING_NOW) are few, and found by client. What came after a time that a rule looks
# back to (COMING_SINCE) may be any number: there the runs tell, of these pipelines alone, and hours tell which of them
# were going on. %(earliest)s, none of the times that are asked for is earlier, spares the months before.
COMING_NOW = """
select event.client_id, event.pipeline_id, asked.as_of, min(event.occurred_at) as next_at
from (
    select distinct client_id, as_of
    from asked
    where as_of >= known_at or pipeline_id = 0
) as asked
cross join lateral (
    select event.client_id, event.pipeline_id, event.occurred_at
    from pulsewatch.run_event as event
    where event.client_id = asked.client_id
        and event.occurred_at > asked.as_of
        and event.occurred_at > %(earliest)s
    offset 0
) as event
group by event.client_id, event.pipeline_id, asked.as_of
"""
COMING_SINCE = """
select asked.client_id, asked.pipeline_id, asked.as_of, min(happened.at) as next_at
from (
    select distinct client_id, pipeline_id, as_of
    from asked
    where as_of < known_at and pipeline_id > 0
) as asked
cross join lateral (
    select least(min(hour.first_at_min), asked.as_of) as since
    from pulsewatch.pipeline_hour as hour
    where hour.client_id = asked.client_id
        and hour.pipeline_id = asked.pipeline_id
        and hour.hour_at > asked.as_of - interval '1 hour'
        and hour.hour_at > %(earliest)s - interval '1 hour'
    offset 0
) as searched
cross join lateral (
    select run.first_at, run.last_at, run.finished_at, coalesce(run.start_at, run.implied_start_at) as started_at
    from pulsewatch.run
    where run.client_id = asked.client_id
        and run.pipeline_id = asked.pipeline_id
        and run.first_at >= searched.since
        and greatest(run.last_at, run.start_at) > asked.as_of
    offset 0
) as run
cross join lateral (
    values (run.first_at), (run.started_at), (run.finished_at), (run.last_at)
) as happened (at)
where happened.at > asked.as_of
group by asked.client_id, asked.pipeline_id, asked.as_of
"""
COMING = f"{COMING_NOW} union all {COMING_SINCE}"
