-- One row per rule, pipeline and change of the level of its alert in a window, and one at its start: what it was when
-- the window began. Of those with an alert in the window, as many as asked for: open ones first, then those that were
-- critical, then those that fired most often. Times are UTC. Read by state timelines.
-- Alerts of dry runs are left out: nobody is told of them.

create or replace function analytics.level_series(
    from_at timestamptz,
    to_at timestamptz,
    of_client text default null,
    of_pipeline text default null,
    most integer default 20
)
returns table (
    at timestamptz,
    label text,
    level_code smallint,
    level text,
    client text,
    pipeline text,
    rule text,
    client_id bigint,
    pipeline_id bigint,
    rule_id bigint
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    the_client bigint;
    the_pipeline bigint;
begin
    if of_pipeline is not null and of_client is null then
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
    if of_pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = of_pipeline;
        if the_pipeline is null then
            return;
        end if;
    end if;
    -- Planned anew for these values: a plan for any window would read all alerts.
    return query execute
        $query$
        with touching as (
            select alert.client_id, alert.pipeline_id, alert.rule_id, alert.id, alert.max_level, alert.resolved_at
            from pulsewatch.alert
            where alert.fired_at < $2
                and (alert.resolved_at is null or alert.resolved_at >= $1)
                and not alert.is_dry_run
                and ($3 is null or alert.client_id = $3)
                and ($4 is null or alert.pipeline_id = $4)
        ),

        shown as (
            select client_id, pipeline_id, rule_id
            from touching
            group by client_id, pipeline_id, rule_id
            order by
                bool_or(resolved_at is null) desc, max(max_level) desc, count(*) desc, client_id, pipeline_id, rule_id
            limit $5
        ),

        named as (
            select
                shown.client_id, shown.pipeline_id, shown.rule_id, client.slug as client, pipeline.slug as pipeline,
                alert_rule.key as rule,
                concat_ws(
                    ': ',
                    coalesce(nullif(concat_ws('/', client.slug, pipeline.slug), ''), 'all clients'),
                    -- A client may have a rule of the same key as one for all clients.
                    coalesce(
                        case
                            when alert_rule.client_id is null then alert_rule.key
                            else client.slug || '/' || alert_rule.key
                        end,
                        'rule ' || shown.rule_id
                    )
                ) as label
            from shown
            left join pulsewatch.client on client.id = shown.client_id
            left join pulsewatch.pipeline
                on pipeline.client_id = shown.client_id and pipeline.id = shown.pipeline_id
            left join pulsewatch.alert_rule on alert_rule.id = shown.rule_id
        ),

        -- What was before the window counts from its start; what came last of it holds.
        change as (
            select shown.client_id, shown.pipeline_id, shown.rule_id, timestamptz '-infinity' as as_of, 0 as seq,
                0::smallint as level_code
            from shown
            union all
            select
                touching.client_id, touching.pipeline_id, touching.rule_id, alert_event.as_of, alert_event.seq,
                case when alert_event.kind = 'resolved' then 0 else alert_event.level end::smallint
            from touching
            join shown
                on shown.client_id = touching.client_id
                and shown.pipeline_id = touching.pipeline_id
                and shown.rule_id = touching.rule_id
            join pulsewatch.alert_event
                on alert_event.client_id = touching.client_id and alert_event.alert_id = touching.id
            where alert_event.kind in ('fired', 'level_changed', 'resolved') and alert_event.as_of < $2
        ),

        turn as (
            select distinct on (client_id, pipeline_id, rule_id, greatest(as_of, $1))
                client_id, pipeline_id, rule_id, greatest(as_of, $1) as at, level_code
            from change
            order by client_id, pipeline_id, rule_id, greatest(as_of, $1), as_of desc, seq desc
        )

        select
            turn.at, named.label, turn.level_code, analytics.alert_level(turn.level_code), named.client,
            named.pipeline, named.rule, named.client_id, named.pipeline_id, named.rule_id
        from turn
        join named
            on named.client_id = turn.client_id
            and named.pipeline_id = turn.pipeline_id
            and named.rule_id = turn.rule_id
        order by turn.at, named.label
        $query$
        using from_at, to_at, the_client, the_pipeline, most;
end
$$;

comment on function analytics.level_series(timestamptz, timestamptz, text, text, integer) is
'One row per rule, pipeline and change of the level of its alert (level_code 0 none, 1 warning, 2 critical) from from_at
up to to_at, in the order of time, and one at from_at; label names both. Of at most so many (most) that have an alert in
the window: open ones first, then critical ones. Of this pipeline of this client, of this client (pipeline null) or of
all (both null); no row if there is no such client or pipeline. Dry runs are left out.';
