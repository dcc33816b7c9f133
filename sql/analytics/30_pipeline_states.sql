-- One row per pipeline and change of its health in a window, and one at its start: what it was when the window began.
-- Times are UTC. Read by state timelines, for the few pipelines that they show, and by state_series. Health as in
-- analytics.pipelines_now, but for running, which would hide the rest: failing comes from failing_span, late and missed
-- from slot. A missed start counts from its deadline, one that came from when it came, and neither once the schedule is
-- gone; a pipeline is unknown until a first run has ended.

create or replace function analytics.pipeline_states(
    from_at timestamptz, to_at timestamptz, of_client text default null,
    variadic of_pipelines text[] default null
)
returns table (
    at timestamptz,
    client text,
    pipeline text,
    state_code smallint,
    state text,
    client_id bigint,
    pipeline_id bigint
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    the_client bigint;
    the_pipelines bigint [];
begin
    if of_pipelines is not null and of_client is null then
        raise exception 'a pipeline is named together with its client' using errcode = '22023';
    end if;
    if (from_at < to_at) is not true then
        return;
    end if;
    if of_client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = of_client;
        if the_client is null then
            return;
        end if;
    end if;
    if of_pipelines is not null then
        select array_agg(pipeline.id) into the_pipelines from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = any(of_pipelines);
        if the_pipelines is null then
            return;
        end if;
    end if;
    -- Planned anew for these values: a plan for any client and any window would read all slots.
    return query execute
        $query$
        -- From here on by pipeline_id alone, which is unique over all clients: sorting by two numbers takes longer.
        with chosen as (
            select
                pipeline.client_id, pipeline.id as pipeline_id, client.slug as client, pipeline.slug as pipeline,
                state.last_slot_at is not null as has_slots,
                -- A schedule that was taken away: from then on no start is expected.
                case
                    when pipeline.schedule is null then to_timestamp((pipeline.said_at ->> 'schedule')::bigint / 1e6)
                end as unscheduled_at
            from pulsewatch.pipeline
            join pulsewatch.client on client.id = pipeline.client_id
            left join pulsewatch.pipeline_state as state
                on state.client_id = pipeline.client_id and state.pipeline_id = pipeline.id
            where ($3 is null or pipeline.client_id = $3)
                and (
                    pipeline.id = any($4)
                    or $4 is null and pipeline.archived_at is null and client.archived_at is null
                )
        ),

        -- The expected start that had been judged last when the window began, then all later ones; each turns the
        -- state when its run came, which may be a minute early, or when its deadline went by. Both look-ups are kept
        -- to one pipeline at a time by `offset 0`: joined in any other way they read all slots there are.
        judged as (
            select chosen.client_id, chosen.pipeline_id, chosen.unscheduled_at, latest.slot_at
            from chosen
            left join lateral (
                select slot.slot_at
                from pulsewatch.slot
                where slot.client_id = chosen.client_id and slot.pipeline_id = chosen.pipeline_id
                    and slot.slot_at <= $1 + interval '1 minute' and slot.status <> 'open'
                    and coalesce(slot.started_at, slot.deadline_at) <= $1
                order by slot.slot_at desc
                limit 1
            ) as latest on true
            where chosen.has_slots and (chosen.unscheduled_at is null or chosen.unscheduled_at > $1)
        ),

        slot_turn as (
            select judged.pipeline_id, judged.unscheduled_at, later.slot_at, later.status, later.at
            from judged
            cross join lateral (
                select slot.slot_at, slot.status, coalesce(slot.started_at, slot.deadline_at) as at
                from pulsewatch.slot
                where slot.client_id = judged.client_id and slot.pipeline_id = judged.pipeline_id
                    and slot.slot_at >= coalesce(judged.slot_at, '-infinity')
                    and slot.slot_at < $2 + interval '1 minute' and slot.status <> 'open'
                offset 0
            ) as later
        ),

        slot_order as (
            select
                pipeline_id, unscheduled_at, slot_at, status, at,
                max(slot_at) over (
                    partition by pipeline_id
                    order by at, slot_at desc
                    rows between unbounded preceding and 1 preceding
                ) as latest_slot_at
            from slot_turn
        ),

        -- One that is judged after a later one tells nothing about now. Most of the others say what the one before them
        -- said: these go before anything else is done, or the timeline of a busy client would be all about them.
        -- Changes are numbered, so that the last one is the greatest; the two bits below the number tell what it says.
        slot_change as (
            select
                pipeline_id, at,
                change_number << 2 | case status when 'missed' then 2 when 'late' then 1 else 0 end as slot_change
            from (
                select
                    pipeline_id, at, status,
                    lag(status) over in_order as earlier_status,
                    row_number() over in_order as change_number
                from slot_order
                where (latest_slot_at is null or slot_at > latest_slot_at)
                    and (unscheduled_at is null or at < unscheduled_at)
                window in_order as (partition by pipeline_id order by at, slot_at desc)
            ) as valid
            where earlier_status is distinct from status
        ),

        -- Spans that were open when the window began, then those that begin in it. Spans overlap only where runs do:
        -- the last few of a pipeline hold all that can be open, and no long history is read for it.
        open_span as (
            select chosen.pipeline_id, earlier.began_at, earlier.ended_at
            from chosen
            cross join lateral (
                select span.began_at, span.ended_at
                from pulsewatch.failing_span as span
                where span.client_id = chosen.client_id and span.pipeline_id = chosen.pipeline_id
                    and span.first_at < $1
                order by span.first_at desc
                limit 16
            ) as earlier
            where earlier.began_at < $1
        ),

        -- Materialized, so that the spans of a client are read once and not again for each of its pipelines.
        new_span as materialized (
            select later.pipeline_id, later.began_at, later.ended_at
            from (select distinct chosen.client_id from chosen) as owner
            cross join lateral (
                select span.pipeline_id, span.began_at, span.ended_at
                from pulsewatch.failing_span as span
                where span.client_id = owner.client_id and span.began_at >= $1 and span.began_at < $2
                    and ($4 is null or span.pipeline_id = any($4))
                offset 0
            ) as later
        ),

        -- A span that had ended before it began (the next success was the quicker run) was open at no time.
        span as (
            select pipeline_id, began_at, ended_at
            from (
                select pipeline_id, began_at, ended_at from open_span
                union all
                select new_span.pipeline_id, new_span.began_at, new_span.ended_at
                from new_span
                join chosen on chosen.pipeline_id = new_span.pipeline_id
            ) as either
            where ended_at is null or ended_at > greatest(began_at, $1)
        ),

        first_outcome as (
            select chosen.pipeline_id, ended.at
            from chosen
            cross join lateral (
                select run.finished_at as at
                from pulsewatch.run
                where run.client_id = chosen.client_id and run.pipeline_id = chosen.pipeline_id
                    and run.status in ('succeeded', 'failed', 'timed_out')
                order by run.first_at
                limit 1
            ) as ended
        ),

        change (pipeline_id, at, slot_change, failing, outcomes) as (
            select pipeline_id, $1, null::bigint, 0, 0 from chosen
            union all
            select pipeline_id, greatest(at, $1), slot_change, 0, 0 from slot_change
            union all
            -- After all others.
            select pipeline_id, unscheduled_at, 1::bigint << 62, 0, 0
            from judged
            where unscheduled_at is not null
            union all
            select pipeline_id, greatest(began_at, $1), null, 1, 0 from span
            union all
            select pipeline_id, ended_at, null, -1, 0 from span where ended_at is not null
            union all
            select pipeline_id, greatest(at, $1), null, 0, 1 from first_outcome
        ),

        -- Changes of the same instant are peers: each of them sees the sum of all, and all but one change nothing.
        summed as (
            select
                pipeline_id, at,
                sum(failing) over so_far as failing,
                sum(outcomes) over so_far as outcomes,
                max(slot_change) over so_far as slot_change
            from change
            where at < $2
            window so_far as (partition by pipeline_id order by at)
        ),

        told as (
            select
                pipeline_id, at,
                analytics.health(
                    failing::integer, case slot_change & 3 when 2 then 'missed' when 1 then 'late' end, 0,
                    case when outcomes > 0 then 'succeeded' end
                ) as state
            from summed
        ),

        turn as (
            select
                pipeline_id, at, state,
                lag(state) over (partition by pipeline_id order by at) as previous_state
            from told
        )

        select
            turn.at, chosen.client, chosen.pipeline, analytics.health_code(turn.state), turn.state,
            chosen.client_id, chosen.pipeline_id
        from turn
        join chosen on chosen.pipeline_id = turn.pipeline_id
        where turn.state is distinct from turn.previous_state
        order by turn.at, chosen.client, chosen.pipeline
        $query$
        using from_at, to_at, the_client, the_pipelines;
end
$$;

comment on function analytics.pipeline_states(timestamptz, timestamptz, text, text[]) is
'One row per pipeline and change of its health from from_at up to to_at, in order of time, and one at from_at itself:
the health it had by then. Of pipelines of a client, named one by one or as a variadic array, of all of a client (null)
or of all there are (no client); archived pipelines only where named; no row if there is no such client or pipeline, or
the array is empty. Columns: at; client and pipeline, their slugs; state (ok, unknown, late, missed or failing); state_code, as
health_code in analytics.pipelines_now; client_id; pipeline_id.';
