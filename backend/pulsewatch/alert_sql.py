"""The statements that write down standings, alerts and their events; rows travel as one JSON parameter each."""

SET_STANDINGS = """
update pulsewatch.alert_target as target
set
    deadline_at = new.deadline_at,
    state = new.state,
    level = new.level,
    alert_id = new.alert_id,
    state_since = coalesce(new.state_since, target.state_since),
    pending_since = new.pending_since,
    lower_since = new.lower_since,
    ok_samples = new.ok_samples,
    sample_at = new.sample_at,
    seq = new.seq
from json_to_recordset(%(rows)s::json) as new (
    client_id bigint, pipeline_id bigint, rule_id bigint, deadline_at timestamptz, state text, level smallint,
    alert_id uuid, state_since timestamptz, pending_since timestamptz, lower_since timestamptz, ok_samples integer,
    sample_at timestamptz, seq integer
)
where target.client_id = new.client_id and target.pipeline_id = new.pipeline_id and target.rule_id = new.rule_id
"""

STANDINGS = """
select
    target.client_id, target.pipeline_id, target.rule_id, target.state, target.level, target.state_since,
    target.pending_since, target.lower_since, target.ok_samples, target.sample_at as counted_at,
    target.alert_id, target.seq
from unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[], %(rule_ids)s::bigint[])
    as wanted (client_id, pipeline_id, rule_id)
join pulsewatch.alert_target as target
    on target.client_id = wanted.client_id
    and target.pipeline_id = wanted.pipeline_id
    and target.rule_id = wanted.rule_id
where target.state <> 'ok'
order by target.client_id, target.pipeline_id, target.rule_id
"""

INSERT_ALERTS = """
insert into pulsewatch.alert (
    client_id, id, rule_id, rule_version, pipeline_id, level, max_level, pending_at, fired_at, value, threshold,
    summary, labels, annotations, is_backfill, is_dry_run
)
select
    new.client_id, new.id, new.rule_id, new.rule_version, new.pipeline_id, new.level, new.level, new.pending_at,
    new.fired_at, new.value, new.threshold, new.summary, new.labels, new.annotations, new.is_backfill, new.is_dry_run
from json_to_recordset(%(rows)s::json) as new (
    client_id bigint, id uuid, rule_id bigint, rule_version integer, pipeline_id bigint, level smallint,
    pending_at timestamptz, fired_at timestamptz, value double precision, threshold double precision, summary text,
    labels jsonb, annotations jsonb, is_backfill boolean, is_dry_run boolean
)
order by new.client_id, new.id
on conflict (client_id, id) do nothing
"""

# Who took an alert on, or put it off, did so as bad as it was then.
UPDATE_ALERTS = """
update pulsewatch.alert as alert
set
    level = case when new.level > 0 then new.level else alert.level end,
    max_level = greatest(alert.max_level, new.level),
    value = coalesce(new.value, alert.value),
    threshold = coalesce(new.threshold, alert.threshold),
    summary = case when new.level > 0 and new.value is not null then new.summary else alert.summary end,
    annotations = coalesce(new.annotations, alert.annotations),
    acknowledged_at = case when new.level > alert.level then null else alert.acknowledged_at end,
    acknowledged_by = case when new.level > alert.level then null else alert.acknowledged_by end,
    snoozed_until = case when new.level > alert.level then null else alert.snoozed_until end,
    -- Whoever ends it otherwise than by a tick goes by the time of the moment, ticks by the time that they know of.
    resolved_at = case when new.resolved_at is not null then greatest(new.resolved_at, alert.fired_at) end,
    resolve_reason = new.resolve_reason
from json_to_recordset(%(rows)s::json) as new (
    client_id bigint, id uuid, level smallint, value double precision, threshold double precision, summary text,
    annotations jsonb, resolved_at timestamptz, resolve_reason text
)
where alert.client_id = new.client_id and alert.id = new.id and alert.resolved_at is null
"""

INSERT_EVENTS = """
insert into pulsewatch.alert_event (
    client_id, as_of, alert_id, seq, rule_id, rule_version, pipeline_id, kind, from_state, state, prev_level, level,
    value, threshold, reason, evidence, known_at, is_backfill
)
select
    new.client_id, new.as_of, new.alert_id, new.seq, new.rule_id, new.rule_version, new.pipeline_id, new.kind,
    new.from_state, new.state, new.prev_level, new.level, new.value, new.threshold, new.reason, new.evidence,
    new.known_at, new.is_backfill
from json_to_recordset(%(rows)s::json) as new (
    client_id bigint, as_of timestamptz, alert_id uuid, seq integer, rule_id bigint, rule_version integer,
    pipeline_id bigint, kind text, from_state text, state text, prev_level smallint, level smallint,
    value double precision, threshold double precision, reason text, evidence jsonb, known_at timestamptz,
    is_backfill boolean
)
order by new.client_id, new.as_of, new.alert_id, new.seq
on conflict (client_id, as_of, alert_id, seq) do nothing
"""

FIRED_AT = """
select alert.client_id, alert.id, alert.fired_at
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[]) as wanted (client_id, id)
join pulsewatch.alert on alert.client_id = wanted.client_id and alert.id = wanted.id
"""

ALERTS = """
select
    alert.client_id, alert.id, alert.level, alert.max_level, alert.summary, alert.fired_at, alert.resolved_at,
    alert.acknowledged_at, alert.snoozed_until, alert.labels, alert.annotations, alert.is_dry_run
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[]) as wanted (client_id, id)
join pulsewatch.alert on alert.client_id = wanted.client_id and alert.id = wanted.id
"""
