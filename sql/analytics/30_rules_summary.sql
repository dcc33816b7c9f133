-- One row per alert rule that fired in a window, the noisiest first: how often, and what came of it. Durations are
-- seconds. Read by lists of noisy rules; analytics.rule_quality has the rules that did not fire, too.
-- Alerts of dry runs do not count: nobody is told of them.

create or replace function analytics.rules_summary(
    from_at timestamptz, to_at timestamptz, client text default null
)
returns table (
    rule_id bigint,
    rule text,
    rule_title text,
    kind text,
    fired_count bigint,
    critical_count bigint,
    open_count bigint,
    acknowledged_count bigint,
    brief_count bigint,
    pipeline_count bigint,
    acknowledged_rate double precision,
    brief_rate double precision,
    acknowledge_avg_s double precision,
    resolve_avg_s double precision,
    last_fired_at timestamptz
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    the_client bigint;
begin
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = rules_summary.client;
        if the_client is null then
            return;
        end if;
    end if;
    -- Planned anew for these values: a plan for any client would read the alerts of all.
    return query execute
        $query$
        with fired as (
            select
                alert.rule_id,
                count(*) as fired_count,
                count(*) filter (where alert.max_level_code = 2) as critical_count,
                count(*) filter (where alert.is_open) as open_count,
                count(*) filter (where alert.is_ever_acknowledged) as acknowledged_count,
                count(*) filter (where alert.is_brief) as brief_count,
                count(distinct (alert.client_id, alert.pipeline_id)) as pipeline_count,
                avg(alert.acknowledge_s) as acknowledge_avg_s,
                avg(alert.resolve_s) as resolve_avg_s,
                max(alert.fired_at) as last_fired_at
            from analytics.alerts as alert
            where alert.fired_at >= $1
                and alert.fired_at < $2
                and not alert.is_dry_run
                and ($3 is null or alert.client_id = $3)
            group by alert.rule_id
        )

        select
            fired.rule_id,
            alert_rule.key,
            coalesce(wording.spec ->> 'title', alert_rule.key),
            alert_rule.kind,
            fired.fired_count,
            fired.critical_count,
            fired.open_count,
            fired.acknowledged_count,
            fired.brief_count,
            fired.pipeline_count,
            analytics.share(fired.acknowledged_count, fired.fired_count),
            analytics.share(fired.brief_count, fired.fired_count),
            fired.acknowledge_avg_s,
            fired.resolve_avg_s,
            fired.last_fired_at
        from fired
        left join pulsewatch.alert_rule on fired.rule_id = alert_rule.id
        left join pulsewatch.alert_rule_version as wording
            on alert_rule.id = wording.rule_id and alert_rule.version = wording.version
        order by fired.fired_count desc, alert_rule.key, fired.rule_id
        $query$
        using from_at, to_at, the_client;
end
$$;

comment on function analytics.rules_summary(timestamptz, timestamptz, text) is
'One row per alert rule that fired in the window, the noisiest first, deleted ones too: rule (its key), rule_title and
kind as they are now, alerts that fired, became critical, are still open, were acknowledged, and recovered by themselves
within five minutes (brief_count), on how many pipelines, two of these as shares of those that fired, mean seconds from
firing until somebody took them on and until they were resolved, and when it last fired in the window. Of this client, or
of all (null); no row if there is no such client. Dry runs do not count.';
