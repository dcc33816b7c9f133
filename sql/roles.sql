-- What is missing for the readers' roles in this database: one statement a row, in the order to run them.
-- No row: nothing is missing. Run as the owner of the tables by `pulsewatch migrate`; it changes nothing by itself.
-- Parameters: prefix of the roles' names; app, the role of api and worker where it does not own the tables;
-- client_ids, the clients that are to get a reader of their own (those that have one are known by their policies).

with
-- What readers may read, and the column that tells whose a row is. Without one, rows are about all clients: a
-- client's reader sees none of them. A table that is not named here is read by nobody.
readable (table_name, client_column) as (
    values
    ('client', 'id'),
    ('pipeline', 'client_id'),
    ('run', 'client_id'),
    ('run_event', 'client_id'),
    ('slot', 'client_id'),
    ('pipeline_hour', 'client_id'),
    ('pipeline_day', 'client_id'),
    ('client_hour', 'client_id'),
    ('client_day', 'client_id'),
    ('pipeline_state', 'client_id'),
    ('failing_span', 'client_id'),
    ('annotation', 'client_id'),
    ('alert', 'client_id'),
    ('alert_event', 'client_id'),
    ('alert_rule', 'client_id'),
    ('alert_rule_version', 'client_id'),
    ('alert_target', 'client_id'),
    ('silence', 'client_id'),
    ('channel', 'client_id'),
    ('notification', 'client_id'),
    ('notification_attempt', 'client_id'),
    ('fleet_hour', null),
    ('fleet_day', null),
    ('ingest_stat', null)
),

-- Of these tables readers may read these columns and no others: a channel's address is nobody's business, its secrets
-- even less, and a message may hold both. Errors tell of addresses: those of channels of all clients are not for the
-- reader of one. A new column is withheld until it is named here.
partly_readable (table_name, is_fleets, column_names) as (
    values
    ('channel', false, cast('{id,client_id,key,kind,title}' as text[])),
    (
        'notification',
        false,
        cast(
            '{client_id,id,channel_id,alert_id,event_as_of,event_seq,reason,status,held_by,silence_id,attempt_count,'
            'next_attempt_at,lease_until,expires_at,created_at,sent_at}' as text[]
        )
    ),
    ('notification', true, cast('{last_error}' as text[])),
    (
        'notification_attempt',
        false,
        cast('{client_id,started_at,notification_id,n,latency_s,outcome,http_status,retry_after_s}' as text[])
    ),
    ('notification_attempt', true, cast('{error}' as text[]))
),

-- What a session of a reader starts with. A value that somebody has changed stays.
session_setting (setting, given) as (
    values
    ('statement_timeout', '60s'),
    ('idle_in_transaction_session_timeout', '60s'),
    ('default_transaction_read_only', 'on'),
    ('timezone', 'UTC'),
    ('search_path', 'analytics')
    union all
    -- How much of the disk a sort may fill. A session cannot change it, and who may not set it goes without.
    select
        'temp_file_limit' as setting,
        '2GB' as given
    where has_parameter_privilege('temp_file_limit', 'SET')
),

-- Functions of the server that everybody may call: they leave things behind that no SELECT right covers. Large
-- objects and messages in the log of changes fill the disk, and an advisory lock that a session holds stops ingestion.
harmful as (
    select
        callee.oid,
        callee.proacl,
        format('pg_catalog.%I(%s)', callee.proname, pg_get_function_identity_arguments(callee.oid)) as signature,
        callee.proname like '%advisory%' as is_needed
    from pg_catalog.pg_proc as callee
    where
        callee.pronamespace = cast('pg_catalog' as regnamespace)
        and callee.proname ~ '^(lo_.*|loread|lowrite|pg_logical_emit_message|pg_(try_)?advisory_.*)$'
),

our_table as (
    select
        listed.oid,
        listed.relname as table_name,
        listed.relrowsecurity
    from pg_catalog.pg_class as listed
    where
        listed.relnamespace = cast('pulsewatch' as regnamespace)
        and listed.relkind in ('r', 'p')
        and not listed.relispartition
        and listed.relname <> 'alembic_version'
),

our_view as (
    select
        listed.oid,
        listed.relname as view_name
    from pulsewatch.analytics_object as made
    inner join pg_catalog.pg_class as listed on made.name = listed.relname
    where
        made.kind = 'view'
        and listed.relnamespace = cast('analytics' as regnamespace)
),

our_function as (
    select
        callee.oid,
        callee.proacl,
        callee.provolatile = 'i' and not callee.prosecdef as is_calculation,
        format('pulsewatch.%I(%s)', callee.proname, pg_get_function_identity_arguments(callee.oid)) as signature
    from pg_catalog.pg_proc as callee
    where callee.pronamespace = cast('pulsewatch' as regnamespace)
),

reader_group (role_name, is_fleet) as (
    values
    (:prefix || '_reader', true),
    (:prefix || '_client', false)
),

client_reader as (
    select cast(substring(written.polname from '[0-9]+$') as bigint) as client_id
    from pg_catalog.pg_policy as written
    where
        written.polrelid = cast('pulsewatch.client' as regclass)
        and written.polname ~ ('^' || :prefix || '_client_[0-9]+$')
    union
    select given.client_id
    from unnest(cast(:client_ids as bigint[])) as given (client_id)
),

reader (role_name, group_name, connections, client_id) as (
    values
    (:prefix || '_grafana', :prefix || '_reader', 20, cast(null as bigint)),
    (:prefix || '_metabase', :prefix || '_reader', 20, cast(null as bigint))
    union all
    select
        :prefix || '_client_' || client_reader.client_id,
        :prefix || '_client',
        5,
        client_reader.client_id
    from client_reader
),

-- Who sees which rows of which table. Constants and nothing else: they become conditions of the index, and they are
-- right on distributed tables too.
wanted_policy as (
    select
        our_table.oid,
        our_table.table_name,
        reader_group.role_name,
        format('for select to %I using (true)', reader_group.role_name) as wording
    from our_table
    inner join readable on our_table.table_name = readable.table_name
    cross join reader_group
    where reader_group.is_fleet
    union all
    select
        our_table.oid,
        our_table.table_name,
        reader.role_name,
        format(
            'for select to %I using (%I = %L::bigint)', reader.role_name, readable.client_column, reader.client_id
        ) as wording
    from our_table
    inner join readable on our_table.table_name = readable.table_name
    cross join reader
    where
        readable.client_column is not null
        and reader.client_id is not null
    union all
    select
        our_table.oid,
        our_table.table_name,
        cast(:app as text) as role_name,
        format('for all to %I using (true) with check (true)', cast(:app as text)) as wording
    from our_table
    where cast(:app as text) is not null
),

missing_policy as (
    select
        format(
            'create policy %I on pulsewatch.%I %s',
            wanted_policy.role_name, wanted_policy.table_name, wanted_policy.wording
        ) as command
    from wanted_policy
    where not exists (
        select
        from pg_catalog.pg_policy as written
        where written.polrelid = wanted_policy.oid and written.polname = wanted_policy.role_name
    )
),

unprotected as (
    select format('alter table pulsewatch.%I enable row level security', our_table.table_name) as command
    from our_table
    where not our_table.relrowsecurity
),

our_role as (
    select
        reader_group.role_name,
        format('create role %I nologin', reader_group.role_name) as command
    from reader_group
    union all
    select
        reader.role_name,
        format('create role %I login connection limit %s', reader.role_name, reader.connections) as command
    from reader
),

missing_role as (
    select our_role.command
    from our_role
    left join pg_catalog.pg_roles as known on our_role.role_name = known.rolname
    where known.oid is null
),

-- A role of that name may have been there before.
too_mighty as (
    select
        format(
            'alter role %I nosuperuser nobypassrls nocreaterole nocreatedb noreplication', known.rolname
        ) as command
    from pg_catalog.pg_roles as known
    where
        known.rolname in (select our_role.role_name from our_role)
        and (
            known.rolsuper or known.rolbypassrls or known.rolcreaterole or known.rolcreatedb or known.rolreplication
        )
),

missing_setting as (
    select
        format('alter role %I set %s = %L', reader.role_name, session_setting.setting, session_setting.given)
            as command
    from reader
    cross join session_setting
    where not exists (
        select
        from pg_catalog.pg_roles as known
        cross join unnest(known.rolconfig) as configured (assignment)
        where
            known.rolname = reader.role_name
            and split_part(lower(configured.assignment), '=', 1) = session_setting.setting
    )
),

missing_membership as (
    select format('grant %I to %I with inherit true, set false', reader.group_name, reader.role_name) as command
    from reader
    where not exists (
        select
        from pg_catalog.pg_auth_members as membership
        inner join pg_catalog.pg_roles as member on membership.member = member.oid
        inner join pg_catalog.pg_roles as whole on membership.roleid = whole.oid
        where
            member.rolname = reader.role_name
            and whole.rolname = reader.group_name
            and membership.inherit_option
    )
),

-- What both groups are granted; which rows they see of it is the policies' matter.
grantable as (
    select
        1 as place,
        format('connect on database %I', base.datname) as privilege,
        base.datacl as acl,
        'CONNECT' as privilege_type
    from pg_catalog.pg_database as base
    where
        base.datname = current_database()
        and not has_database_privilege('public', base.oid, 'CONNECT')
    union all
    select
        2 as place,
        format('usage on schema %I', space.nspname) as privilege,
        space.nspacl as acl,
        'USAGE' as privilege_type
    from pg_catalog.pg_namespace as space
    where space.nspname in ('pulsewatch', 'analytics')
    union all
    select
        3 as place,
        format('select on table pulsewatch.%I', listed.relname) as privilege,
        listed.relacl as acl,
        'SELECT' as privilege_type
    from pg_catalog.pg_class as listed
    inner join our_table on listed.oid = our_table.oid
    inner join readable on our_table.table_name = readable.table_name
    where our_table.table_name not in (select partly_readable.table_name from partly_readable)
    union all
    select
        4 as place,
        format('select on table analytics.%I', listed.relname) as privilege,
        listed.relacl as acl,
        'SELECT' as privilege_type
    from pg_catalog.pg_class as listed
    inner join our_view on listed.oid = our_view.oid
    union all
    select
        5 as place,
        format('execute on function %s', our_function.signature) as privilege,
        our_function.proacl as acl,
        'EXECUTE' as privilege_type
    from our_function
    where our_function.is_calculation
),

missing_grant as (
    select
        grantable.place,
        format('grant %s to %I', grantable.privilege, reader_group.role_name) as command
    from grantable
    cross join reader_group
    where not exists (
        select
        from aclexplode(grantable.acl) as held
        inner join pg_catalog.pg_roles as known on held.grantee = known.oid
        where
            known.rolname = reader_group.role_name
            and held.privilege_type = grantable.privilege_type
    )
),

missing_column_grant as (
    select
        format(
            'grant select (%s) on table pulsewatch.%I to %I',
            string_agg(quote_ident(described.attname), ', ' order by described.attnum),
            our_table.table_name,
            reader_group.role_name
        ) as command
    from our_table
    inner join partly_readable on our_table.table_name = partly_readable.table_name
    inner join pg_catalog.pg_attribute as described
        on our_table.oid = described.attrelid and described.attname = any(partly_readable.column_names)
    inner join reader_group on (reader_group.is_fleet or not partly_readable.is_fleets)
    where
        not exists (
            select
            from aclexplode(described.attacl) as held
            inner join pg_catalog.pg_roles as known on held.grantee = known.oid
            where
                known.rolname = reader_group.role_name
                and held.privilege_type = 'SELECT'
        )
    group by our_table.table_name, reader_group.role_name
),

-- Functions of ours that do something: partitions are made and dropped by them, with the rights of their owner.
public_function as (
    select format('revoke execute on function %s from public', our_function.signature) as command
    from our_function
    where has_function_privilege('public', our_function.oid, 'EXECUTE')
),

-- Those of PulseWatch's own roles that need advisory locks, and have the right to them from being somebody.
locker as (
    select known.rolname as role_name
    from pg_catalog.pg_roles as known
    where
        known.rolname in (current_user, cast(:app as text))
        and not known.rolsuper
),

missing_lock_grant as (
    select
        format(
            'grant execute on function %s to %I',
            string_agg(harmful.signature, ', ' order by harmful.signature), locker.role_name
        ) as command
    from harmful
    cross join locker
    where
        harmful.is_needed
        and not exists (
            select
            from aclexplode(harmful.proacl) as held
            inner join pg_catalog.pg_roles as known on held.grantee = known.oid
            where known.rolname = locker.role_name
        )
    group by locker.role_name
),

-- Temporary tables fill the disk too.
public_temporary as (
    select format('revoke temporary on database %I from public', base.datname) as command
    from pg_catalog.pg_database as base
    where
        base.datname = current_database()
        and has_database_privilege('public', base.oid, 'TEMPORARY')
),

public_harmful as (
    select
        format(
            'revoke execute on function %s from public',
            string_agg(harmful.signature, ', ' order by harmful.signature)
        ) as command
    from harmful
    where has_function_privilege('public', harmful.oid, 'EXECUTE')
    having count(*) > 0
),

-- Roles come first; a table is closed before anybody is let near it, and PulseWatch's own role is let in before that.
step as (
    select
        1 as place,
        missing_role.command
    from missing_role
    union all
    select
        2 as place,
        too_mighty.command
    from too_mighty
    union all
    select
        3 as place,
        missing_setting.command
    from missing_setting
    union all
    select
        4 as place,
        missing_policy.command
    from missing_policy
    union all
    select
        5 as place,
        unprotected.command
    from unprotected
    union all
    select
        6 as place,
        public_function.command
    from public_function
    union all
    select
        6 + missing_grant.place as place,
        missing_grant.command
    from missing_grant
    union all
    select
        12 as place,
        missing_column_grant.command
    from missing_column_grant
    union all
    select
        13 as place,
        missing_membership.command
    from missing_membership
    union all
    select
        14 as place,
        missing_lock_grant.command
    from missing_lock_grant
    union all
    select
        15 as place,
        public_temporary.command
    from public_temporary
    union all
    select
        16 as place,
        public_harmful.command
    from public_harmful
)

select step.command
from step
order by step.place, step.command
