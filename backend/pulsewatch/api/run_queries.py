"""The statements behind lists of runs.

A page is chosen from `run` alone, along one of its two list indexes, newest first. Only the rows of the page are
then looked up in analytics.runs, where status, start, duration and flags are defined.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, TextClause, text

# With more pipelines than this behind a filter, at least every hundredth run of a client passes it, and walking
# along the client's runs is cheaper than asking every pipeline for its own.
PROBED_PIPELINES = 100


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs. `pipelines`, as (client_id, pipeline_id), is None for all pipelines of the clients."""

    client_ids: Sequence[int]
    pipelines: Sequence[tuple[int, int]] | None = None
    statuses: Sequence[str] | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None
    # Where the page before ended: first_at and id of its last run.
    after: tuple[datetime, UUID] | None = None


SHOWN = """
    view.run_id as id,
    view.client,
    view.pipeline,
    view.external_id,
    view.status,
    view.scheduled_at,
    view.started_at,
    view.finished_at,
    view.duration_s,
    view.attempt,
    view.error_class,
    view.message,
    (coalesce(run.opening_metrics, '{}') || coalesce(run.winner_metrics, '{}'))::text as metrics,
    (coalesce(run.opening_attributes, '{}') || coalesce(run.winner_attributes, '{}'))::text as attributes,
    view.url,
    view.parent_namespace,
    view.parent_pipeline,
    view.parent_external_id,
    view.is_finish_before_start,
    view.is_external_id_reused,
    view.is_assumed_utc,
    view.is_scheduled_at_ignored,
    view.first_at
"""

_SHOW_PAGE = f"""
    select {SHOWN}
    from page
    inner join pulsewatch.run on page.client_id = run.client_id and page.id = run.id
    inner join analytics.runs as view on page.client_id = view.client_id and page.id = view.run_id
    order by page.first_at desc, page.id
"""  # noqa: S608 - made of constants


def select_runs(connection: Connection, wanted: RunFilter, limit: int) -> list[RowMapping]:
    """Up to `limit` runs, newest first by first_at, then by id."""
    client_ids, pipelines = wanted.client_ids, wanted.pipelines
    if not client_ids or (pipelines is not None and not pipelines):
        return []
    conditions, parameters = _conditions(wanted)
    parameters["limit"] = limit
    if pipelines is not None and len(pipelines) <= PROBED_PIPELINES:
        statement = _FROM_PIPELINES
        parameters["client_ids"] = [client_id for client_id, _ in pipelines]
        parameters["pipeline_ids"] = [pipeline_id for _, pipeline_id in pipelines]
    else:
        if pipelines is not None:
            client_ids = sorted({client_id for client_id, _ in pipelines})
            # Pipelines are numbered across all clients, so the number alone tells them apart.
            conditions += " and run.pipeline_id = any(cast(:pipeline_ids as bigint[]))"
            parameters["pipeline_ids"] = [pipeline_id for _, pipeline_id in pipelines]
        if len(client_ids) == 1:
            statement = _FROM_CLIENT
            parameters["client_id"] = client_ids[0]
        else:
            statement = _FROM_CLIENTS
            parameters |= {"client_ids": list(client_ids), "probe": -(-2 * limit // len(client_ids))}
    query = text(statement.format(conditions=conditions) + _SHOW_PAGE)
    return list(connection.execute(query, parameters).mappings())


def _conditions(wanted: RunFilter) -> tuple[str, dict[str, Any]]:
    """What a row of `run` must satisfy, besides its client and pipeline."""
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    if wanted.statuses:
        conditions.append("run.status = any(cast(:statuses as text[]))")
        parameters["statuses"] = list(wanted.statuses)
    if wanted.from_at is not None:
        conditions.append("run.first_at >= :from_at")
        parameters["from_at"] = wanted.from_at
    if wanted.to_at is not None:
        conditions.append("run.first_at < :to_at")
        parameters["to_at"] = wanted.to_at
    if wanted.after is not None:
        # The first condition is the one that the index can start from.
        conditions.append("run.first_at <= :after_at and (run.first_at < :after_at or run.id > :after_id)")
        parameters["after_at"], parameters["after_id"] = wanted.after
    return " and ".join(conditions), parameters


# One client's runs, along its index.
_FROM_CLIENT = """
    with page as (
        select run.client_id, run.id, run.first_at
        from pulsewatch.run
        where run.client_id = :client_id and {conditions}
        order by run.first_at desc, run.id
        limit :limit
    )
"""

# One pipeline or some: each is asked once for its newest.
_FROM_PIPELINES = """
    with page as (
        select newest.client_id, newest.id, newest.first_at
        from unnest(cast(:client_ids as bigint[]), cast(:pipeline_ids as bigint[])) as source (client_id, pipeline_id)
        cross join lateral (
            select run.client_id, run.id, run.first_at
            from pulsewatch.run
            where run.client_id = source.client_id and run.pipeline_id = source.pipeline_id and {conditions}
            order by run.first_at desc, run.id
            limit :limit
        ) as newest
        order by newest.first_at desc, newest.id
        limit :limit
    )
"""

# Many clients. Each is asked for a few of its newest; the limit-th newest of those is a time that the page cannot
# reach behind, so each is then asked only for what is not older. Asking each for a whole page would read a hundred
# rows for every row shown.
_FROM_CLIENTS = """
    with probe as (
        select newest.first_at
        from unnest(cast(:client_ids as bigint[])) as source (client_id)
        cross join lateral (
            select run.first_at
            from pulsewatch.run
            where run.client_id = source.client_id and {conditions}
            order by run.first_at desc
            limit :probe
        ) as newest
    ),
    bound as (
        select first_at from probe
        order by first_at desc
        limit 1 offset :limit - 1
    ),
    page as (
        select newest.client_id, newest.id, newest.first_at
        from unnest(cast(:client_ids as bigint[])) as source (client_id)
        cross join lateral (
            select run.client_id, run.id, run.first_at
            from pulsewatch.run
            where
                run.client_id = source.client_id
                and run.first_at >= coalesce((select bound.first_at from bound), '-infinity')
                and {conditions}
            order by run.first_at desc, run.id
            limit :limit
        ) as newest
        order by newest.first_at desc, newest.id
        limit :limit
    )
"""


_ONE_RUN = f"""
    with page as (
        select run.client_id, run.id, run.first_at
        from unnest(cast(:client_ids as bigint[])) as source (client_id)
        cross join lateral (
            select run.client_id, run.id, run.first_at
            from pulsewatch.run
            where run.client_id = source.client_id and run.id = :id
        ) as run
        limit 1
    )
    select
        {SHOWN},
        run.client_id as internal_client_id,
        run.opened_at,
        run.last_at
    from page
    inner join pulsewatch.run on page.client_id = run.client_id and page.id = run.id
    inner join analytics.runs as view on page.client_id = view.client_id and page.id = view.run_id
"""  # noqa: S608 - made of constants


def select_run(connection: Connection, client_ids: Sequence[int], run_id: UUID) -> RowMapping | None:
    """One run, in whichever of these clients it is: its primary key is tried once for each of them."""
    parameters = {"client_ids": list(client_ids), "id": run_id}
    return connection.execute(text(_ONE_RUN), parameters).mappings().first()


MAX_EVENTS = 1000
# Events of the client that are looked through for those of one run, from either end of the run's time.
MAX_EVENTS_EXAMINED = 50_000

_OF_THE_TIME = """
    from pulsewatch.run_event as event
    where event.client_id = :client_id and event.occurred_at between :opened_at and :last_at
"""  # The run's first and last event lie on the bounds.

_COUNT_EVENTS = text(f"select count(*) from (select {_OF_THE_TIME} limit :count_to) as counted")  # noqa: S608 - as above


def _run_events(direction: str) -> TextClause:
    return text(
        f"""
        with examined as (
            select event.* {_OF_THE_TIME}
            order by event.occurred_at {direction}, event.dedupe_key {direction}
            limit :examined
        )
        select
            event.status, event.occurred_at, event.received_at, event.event_id, event.attempt,
            event.scheduled_at, event.started_at, event.duration_s, event.message, event.error_class,
            coalesce(event.metrics, '{{}}')::text as metrics, coalesce(event.attributes, '{{}}')::text as attributes,
            event.url, event.parent, event.flags, event.dedupe_key
        from examined as event
        where event.run_id = :id
        order by event.occurred_at {direction}, event.dedupe_key {direction}
        limit :limit
        """  # noqa: S608 - made of constants
    )


_OLDEST_EVENTS, _NEWEST_EVENTS = _run_events("asc"), _run_events("desc")


def select_events(connection: Connection, run: RowMapping) -> tuple[list[RowMapping], bool]:
    """The events of a run that `select_run` gave, oldest first, at most MAX_EVENTS; and whether these are all.

    There is no index by run: the client's events are read along the primary key, from the run's first event on and,
    where there are too many, from its last one back. So how a run began and ended is shown in any case.
    """
    parameters = {
        "client_id": run["internal_client_id"],
        "id": run["id"],
        "opened_at": run["opened_at"],
        "last_at": run["last_at"],
        "examined": MAX_EVENTS_EXAMINED,
        "count_to": 2 * MAX_EVENTS_EXAMINED + 1,
        "limit": MAX_EVENTS + 1,
    }
    oldest = list(connection.execute(_OLDEST_EVENTS, parameters).mappings())
    to_examine: int = connection.execute(_COUNT_EVENTS, parameters).scalar_one()
    if to_examine <= MAX_EVENTS_EXAMINED and len(oldest) <= MAX_EVENTS:
        return oldest, True
    newest = reversed(connection.execute(_NEWEST_EVENTS, parameters).mappings().all())
    # The two may overlap, and then meet without a gap.
    found = list({(event["occurred_at"], event["dedupe_key"]): event for event in (*oldest, *newest)}.values())
    if len(found) > MAX_EVENTS:
        half = MAX_EVENTS // 2
        return found[:half] + found[-half:], False
    return found, to_examine <= 2 * MAX_EVENTS_EXAMINED
