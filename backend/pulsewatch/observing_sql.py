"""The statements that look at targets of rules: at what a tick has to look at, or at any targets and times.

The statement of a kind is the same in both; they differ in where the rows of `asked` come from. A tick looks at all
kinds at once: their targets are looked up once.
"""

from collections.abc import Sequence
from functools import cache

from pulsewatch.rules.base import Kind
from pulsewatch.rules.known_runs import COMING, COMING_NOW, PARAMS, UNTOLD, held_until

# Planning takes as long as looking at a thousand targets: each connection does it once. Whatever the arrays hold, each
# target is looked up by its key. What is looked at by the thousand stays in memory.
_PLANNING = """
    set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true),
    set_config('enable_seqscan', 'off', true), set_config('work_mem', '32MB', true)
"""
PLANNING = f"select {_PLANNING}"
# The same for a look that may take so long (ms).
BOUNDS = f"select {_PLANNING}, set_config('statement_timeout', %(timeout_ms)s::text, true)"
# off: a good part of all targets is found in half the time by reading them all.
BY_KEYS = "select set_config('enable_nestloop', %(by_key)s, true), set_config('enable_mergejoin', %(by_key)s, true)"

_RULES = f"""
rule as materialized (
    select
        rule.*, {PARAMS},
        case
            when rule.is_above then least(rule.warning, rule.critical)
            else greatest(rule.warning, rule.critical)
        end as bad_from
    from json_to_recordset(%(rules)s::json) as rule (
        rule_id bigint, kind text, params jsonb, thresholds double precision[], warning double precision,
        critical double precision, is_above boolean, is_lack_told boolean, delay_s double precision,
        grace_s double precision
    )
)
"""

# Has the planner look up row by row by key, whatever it makes of the arrays.
BY_KEY = "offset 0"


def _is_bad(value: str) -> str:
    """Whether a value reaches a level of `rule`."""
    return f"case when rule.is_above then {value} >= rule.bad_from else {value} <= rule.bad_from end"


# The marks that are left: a tick has taken those of before.
_SETTLED = """
marked as materialized (
    select client_id, pipeline_id from pulsewatch.unsettled(%(known_at)s)
),

unsettled as materialized (
    select client_id, pipeline_id from marked
    union
    select client_id, 0 from marked
)
"""


def _due_sql(columns: str = "", carried: str = "", state: str = "", by_key: str = BY_KEY, unless: str = "") -> str:
    """The targets of rules that marks touch (those of a client as a whole too), and those that are due.

    Beside them what `state` tells of each pipeline, once for all its rules where it is looked up by key: `columns`,
    `carried` as columns of a row. `unless`, joins and a condition, leaves out targets that are touched and not due.
    """
    return f"""
touched as not materialized (
    select target.client_id, target.pipeline_id {columns}
    from unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[]) as target (client_id, pipeline_id)
    {state.format(by_key=by_key)}
    {by_key}
),

due as materialized (
    select
        target.client_id, target.pipeline_id, target.rule_id, target.target_since, target.state <> 'ok' as is_waiting
        {carried.format(row="target")}
    from (
        select target.* {carried.format(row="touched")}
        from touched
        cross join lateral (
            select
                target.client_id, target.pipeline_id, target.rule_id, target.target_since, target.state,
                target.deadline_at
            from pulsewatch.alert_target as target
            where target.client_id = touched.client_id and target.pipeline_id = touched.pipeline_id
            {by_key}
        ) as target
        where target.rule_id = any(%(rule_ids)s) and (target.deadline_at is null or target.deadline_at > %(as_of)s)
        {by_key}
    ) as target
    {unless}
    union all
    select target.client_id, target.pipeline_id, target.rule_id, target.target_since, true {columns}
    from pulsewatch.alert_target as target
    {state.format(by_key=BY_KEY)}
    where target.deadline_at <= %(as_of)s and target.rule_id = any(%(rule_ids)s)
)
"""


# Of pipeline_state, as Kind tells.
_OF_STATE = (
    "last_outcome",
    "last_outcome_run_id",
    "last_finished_at",
    "last_duration_s",
    "last_success_at",
    "last_failure_hour_at",
    "consecutive_failures",
)


def _of_state(table: str) -> str:
    return ", ".join(f"{table}.{column}" for column in _OF_STATE)


def _passing_sql(kinds: Sequence[Kind]) -> str:
    """The rules, and of each whether the state of a pipeline tells all that it asks."""
    cases = "\n".join(f"when '{kind.name}' then {kind.told.of}" for kind in kinds if kind.told is not None)
    is_told = f"case asked.kind {cases} end" if cases else "false"
    return f"""
passing as materialized (
    select asked.*, asked.delay_s <= 0 and {is_told} as is_told from rule as asked
)
"""


def _unless_well(kinds: Sequence[Kind]) -> str:
    """Leaves out targets of which the state tells that nothing is to be written: no run is looked at, no row made."""
    cases = "\n".join(
        f"""when '{kind.name}' then
            ({kind.told.where})
            and coalesce(not {_is_bad(f"({kind.told.value})")}, not rule.is_lack_told)
            and coalesce({kind.told.next_at} >= coalesce(target.deadline_at, 'infinity'), true)
        """
        for kind in kinds
        if kind.told is not None
    )
    is_well = f"(case rule.kind {cases} end)" if cases else "false"
    return f"""
    join passing as rule on rule.rule_id = target.rule_id
    cross join lateral (
        select
            %(as_of)s::timestamptz as as_of, rule.params, rule.width, rule.statuses, rule.thresholds,
            {_of_state("target")}
    ) as asked
    where target.state <> 'ok' or target.is_told is not true or rule.is_told is not true or {is_well} is not true
    """


def _due_live_sql(kinds: Sequence[Kind], *, is_many: bool) -> str:
    """The same as ticks see it. Whatever was received since is marked, here or there."""
    return _due_sql(
        f""",
    settled.is_settled, state.last_run_first_at,
    settled.is_settled
    and state.last_finished_at <= %(as_of)s
    and state.last_run_first_at <= %(as_of)s
    and %(as_of)s::timestamptz >= %(known_at)s::timestamptz
    and (target.client_id, target.pipeline_id) not in (select client_id, pipeline_id from coming_now) as is_told,
    {_of_state("state")}
        """,
        f", {{row}}.is_settled, {{row}}.last_run_first_at, {{row}}.is_told, {_of_state('{row}')}",
        f"""
    left join lateral (
        select state.last_run_first_at, {_of_state("state")}
        from pulsewatch.pipeline_state as state
        where state.client_id = target.client_id and state.pipeline_id = target.pipeline_id
        {{by_key}}
    ) as state on true
    cross join lateral (
        select
            (target.client_id, target.pipeline_id) not in (select client_id, pipeline_id from unsettled) as is_settled
    ) as settled
        """,
        "" if is_many else BY_KEY,
        _unless_well(kinds),
    )


_STANDING = """
    target.target_since, target.state, target.level, target.state_since, target.pending_since, target.lower_since,
    target.ok_samples, target.sample_at as counted_at, target.alert_id, target.seq, target.deadline_at
"""

_LOOKING = """
looking as materialized (
    select
        rule.rule_id, rule.kind, rule.params, rule.width, rule.statuses, rule.thresholds,
        %(as_of)s - make_interval(secs => rule.delay_s) as as_of, %(known_at)s::timestamptz as known_at
    from rule
)
"""

_ASKED_LIVE = """
asked_of_all as not materialized (
    select
        due.rule_id, due.client_id, due.pipeline_id, looking.as_of, looking.known_at, looking.kind, looking.params,
        looking.width, looking.statuses, looking.thresholds, due.target_since, due.is_settled,
        -- The state may tell of what came later: then runs have to be looked at.
        case
            when due.is_settled and due.last_finished_at <= looking.as_of and due.last_run_first_at <= looking.as_of
                then due.last_outcome
        end as last_outcome,
        due.last_outcome_run_id, due.last_finished_at, due.last_duration_s, due.last_success_at,
        due.last_failure_hour_at, due.consecutive_failures
    from due
    join looking on looking.rule_id = due.rule_id
)
"""

# What is to come of a client is the same for all its pipelines and rules, as far as these look at the present.
_COMING_NOW = f"""
coming_now as materialized (
    with asked as (
        select owner.client_id, 0 as pipeline_id, now.as_of, now.known_at
        from (
            select unnest(%(client_ids)s::bigint[]) as client_id
            union
            select target.client_id
            from pulsewatch.alert_target as target
            where target.deadline_at <= %(as_of)s and target.rule_id = any(%(rule_ids)s)
        ) as owner
        cross join (select distinct as_of, known_at from looking) as now
        where now.as_of >= now.known_at
    )

    {COMING_NOW}
)
"""

_COMING = f"""
with asked as (
    select due.client_id, due.pipeline_id, looking.as_of, looking.known_at
    from due
    join looking on looking.rule_id = due.rule_id
    where looking.as_of < looking.known_at
),

coming as materialized (
    select client_id, pipeline_id, as_of, next_at from coming_now
    union all
    {COMING}
)

select coming.client_id, coming.pipeline_id, coming.as_of, coming.next_at
from coming
union all
select coming.client_id, 0, coming.as_of, min(coming.next_at)
from coming
group by coming.client_id, coming.as_of
"""

_TARGET = """
    target.client_id = {0}.client_id and target.pipeline_id = {0}.pipeline_id and target.rule_id = {0}.rule_id
"""


@cache
def live_sql(kinds: tuple[Kind, ...], *, is_many: bool = False) -> str:
    """What a tick sees of rules of these kinds: only where something may have to be written.

    That is where the value reaches a level, where a rule does not stand well, where there is nothing to measure and
    the rule wants to be told so, and where the time to look again has come, or comes earlier than was known. All else,
    which is nearly everything, goes by without its row being looked at again.

    `is_many`: to be planned for a good part of all targets (BY_KEYS). Plans are kept by their texts.
    """
    seen = "\nunion all\n".join(
        f"""(
with asked as (select * from asked_of_all where kind = '{kind.name}')

select seen.* from ({kind.observe}) as seen
)"""
        for kind in kinds
    )
    return f"""
{"-- of many targets" if is_many else ""}
with {_RULES}, {_SETTLED}, {_LOOKING}, {_COMING_NOW}, {_passing_sql(kinds)},
{_due_live_sql(kinds, is_many=is_many)}, {_ASKED_LIVE},

seen as ({seen}),

coming as ({_COMING}),

-- Hardly ever is anything known of a time to come: only then is it looked up when.
observed as materialized (
    select weighed.*
    from (
        select
            seen.*, rule.delay_s, {_is_bad("seen.value")} as is_bad,
            {_is_bad("seen.value")}
            or seen.value is null and rule.is_lack_told
            or (seen.client_id, seen.pipeline_id, seen.rule_id) in (
                select due.client_id, due.pipeline_id, due.rule_id
                from due
                where due.is_waiting
            )
            or seen.next_at is not null and exists (
                select
                from pulsewatch.alert_target as target
                where {_TARGET.format("seen")}
                    and seen.next_at + make_interval(secs => rule.delay_s) < coalesce(target.deadline_at, 'infinity')
            ) as is_wanted
        from seen
        join rule on rule.rule_id = seen.rule_id
        offset 0
    ) as weighed
    where weighed.is_wanted
        or (weighed.client_id, weighed.pipeline_id, weighed.as_of) in (select client_id, pipeline_id, as_of from coming)
)

select
    observed.rule_id, observed.client_id, observed.pipeline_id, observed.as_of, observed.value, observed.sample_at,
    least(observed.next_at, coming.next_at) as next_at, observed.run_ids, observed.evidence, held.held_until,
    {_STANDING}
from observed
left join (
    select coming.client_id, coming.pipeline_id, coming.as_of, min(coming.next_at) as next_at
    from coming
    group by coming.client_id, coming.pipeline_id, coming.as_of
) as coming
    on coming.client_id = observed.client_id
    and coming.pipeline_id = observed.pipeline_id
    and coming.as_of = observed.as_of
cross join lateral (
    select target.*
    from pulsewatch.alert_target as target
    where {_TARGET.format("observed")}
    offset 0
) as target
left join lateral {
        held_until(
            "observed",
            "%(known_at)s::timestamptz",
            "observed.is_bad and target.state not in ('firing', 'recovering')",
        )
    } as held on true
where observed.is_wanted
    or coming.next_at + make_interval(secs => observed.delay_s) < coalesce(target.deadline_at, 'infinity')
order by observed.client_id, observed.pipeline_id, observed.rule_id
"""


DUE_SQL = f"""
with {_due_sql()}

select
    due.rule_id, due.client_id, due.pipeline_id, %(as_of)s::timestamptz as as_of, null::double precision as value,
    null::timestamptz as sample_at, null::timestamptz as next_at, '{{}}'::uuid[] as run_ids,
    null::jsonb as evidence, null::timestamptz as held_until, {_STANDING}
from due
join pulsewatch.alert_target as target
    on target.client_id = due.client_id
    and target.pipeline_id = due.pipeline_id
    and target.rule_id = due.rule_id
order by due.client_id, due.pipeline_id, due.rule_id
"""


def asked_sql(kind: Kind) -> str:
    """What a kind observes of any targets at any times, one row for each."""
    return f"""
with {_RULES},

asked as materialized (
    select
        rule.rule_id, wanted.client_id, wanted.pipeline_id, wanted.as_of,
        coalesce(wanted.known_at, 'infinity') as known_at, rule.params, rule.width, rule.statuses, rule.thresholds,
        wanted.target_since,
        wanted.known_at is null as is_settled, {UNTOLD}
    from unnest(
        %(client_ids)s::bigint[], %(pipeline_ids)s::bigint[], %(as_ofs)s::timestamptz[], %(known_ats)s::timestamptz[],
        %(target_sinces)s::timestamptz[]
    ) as wanted (client_id, pipeline_id, as_of, known_at, target_since)
    cross join rule
),

observed as ({kind.observe})

select
    observed.rule_id, observed.client_id, observed.pipeline_id, observed.as_of, observed.value, observed.sample_at,
    observed.next_at, observed.run_ids, observed.evidence, held.held_until
from observed
join asked
    on asked.client_id = observed.client_id
    and asked.pipeline_id = observed.pipeline_id
    and asked.as_of = observed.as_of
cross join rule
left join lateral {held_until("observed", "asked.known_at", _is_bad("observed.value"))} as held on true
order by observed.client_id, observed.pipeline_id, observed.as_of
"""
